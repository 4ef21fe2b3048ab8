"""CARLA's weather parameters and presets."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import carla

__all__ = ["Weather"]


@dataclass(frozen=True, slots=True)
class Weather:
    """
    The 14 parameters of ``carla.WeatherParameters`` in CARLA 0.9.16's wire order and units; ClearNoon by default.

    :param cloudiness: 0 to 100 [%]
    :param precipitation: rain, 0 to 100 [%]
    :param precipitation_deposits: puddles, 0 to 100 [%]
    :param wind_intensity: 0 to 100 [%]; slants the rain
    :param sun_azimuth_angle: direction to the sun, from x towards y [deg]: shadows, lit sides, glare and the sun itself
    :param sun_altitude_angle: -90 (midnight) to 90 (noon) [deg]
    :param fog_density: 0 to 100 [%]
    :param fog_distance: where the fog begins [m]
    :param fog_falloff: stored, no effect on the picture (fog has the same density at all heights)
    :param wetness: of the road, 0 to 100 [%]
    :param scattering_intensity: stored, no effect on the picture
    :param mie_scattering_scale: stored, no effect on the picture
    :param rayleigh_scattering_scale: stored, no effect on the picture
    :param dust_storm: 0 to 100 [%]
    """

    presets: ClassVar[dict[str, Weather]]
    """All presets of ``carla.WeatherParameters`` by name."""

    cloudiness: float = 5.0
    precipitation: float = 0.0
    precipitation_deposits: float = 0.0
    wind_intensity: float = 10.0
    sun_azimuth_angle: float = -1.0
    sun_altitude_angle: float = 45.0
    fog_density: float = 2.0
    fog_distance: float = 0.75
    fog_falloff: float = 0.1
    wetness: float = 0.0
    scattering_intensity: float = 1.0
    mie_scattering_scale: float = 0.03
    rayleigh_scattering_scale: float = 0.0331
    dust_storm: float = 0.0

    @classmethod
    def preset(cls, name: str) -> Weather:
        """
        A preset of CARLA.

        :param name: such as ``"HardRainNoon"``
        :raises ValueError: if CARLA has no preset of that name
        """
        if name not in cls.presets:
            raise ValueError(f"unknown weather preset {name!r}, expected one of {', '.join(cls.presets)}")
        return cls.presets[name]


def _presets() -> dict[str, Weather]:
    names = [field.name for field in fields(Weather)]
    parameters = {name: getattr(carla.WeatherParameters, name) for name in sorted(vars(carla.WeatherParameters))}
    # The client stores float32: 0.1 comes back as 0.10000000149.
    return {
        preset: Weather(*(round(float(getattr(values, name)), 6) for name in names))
        for preset, values in parameters.items()
        if isinstance(values, carla.WeatherParameters)
    }


Weather.presets = _presets()
