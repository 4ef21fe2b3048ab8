"""Weather in CARLA's 14 numbers, and what it does to light and sight."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import carla
import numpy as np
from numpy.typing import NDArray

__all__ = ["Weather"]


@dataclass(frozen=True, slots=True)
class Weather:
    """
    ``carla.WeatherParameters`` in wire order and CARLA's units (percent, degrees, metres).

    The defaults are the ``ClearNoon`` preset, in which a picture costs nothing extra.
    """

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
        One of CARLA's presets.

        :param name: such as ``"HardRainNoon"``
        :raises ValueError: if CARLA has no preset of that name
        """
        parameters = getattr(carla.WeatherParameters, name, None)
        if not isinstance(parameters, carla.WeatherParameters):
            raise ValueError(f"unknown weather preset {name!r}")
        # The client keeps single precision: 0.1 comes back as 0.10000000149.
        return cls(*(round(getattr(parameters, field.name), 6) for field in fields(cls)))

    @property
    def daylight(self) -> float:
        """Brightness of the scene, 1 with the sun above 30 degrees, 0.25 at night [-]."""
        height = math.sin(math.radians(self.sun_altitude_angle))
        sun = min(max((height + 0.1) / 0.6, 0.0), 1.0)
        overcast = 1.0 - 0.25 * max(self.cloudiness - 20.0, 0.0) / 80.0
        return (0.25 + 0.75 * sun) * overcast

    @property
    def visibility(self) -> float:
        """Distance at which contrast has fallen to 1/e [m]; infinite in clear air."""
        murk = max(self.fog_density - 10.0, 0.0) + 0.3 * max(self.precipitation - 10.0, 0.0) + self.dust_storm
        return math.inf if murk <= 0.0 else 900.0 / murk

    def sky_colors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """
        Colours of the zenith and of the horizon.

        :return: two arrays of shape (3,), float64, BGR in 0..255
        """
        overcast = min(self.cloudiness / 100.0, 1.0)
        zenith = (1.0 - overcast) * np.array([220.0, 160.0, 95.0]) + overcast * np.array([165.0, 160.0, 155.0])
        horizon = (1.0 - overcast) * np.array([225.0, 205.0, 185.0]) + overcast * np.array([185.0, 180.0, 178.0])
        dusk = min(max(1.0 - abs(self.sun_altitude_angle) / 15.0, 0.0), 1.0)
        horizon = (1.0 - 0.5 * dusk) * horizon + 0.5 * dusk * np.array([70.0, 130.0, 220.0])
        return zenith * self.daylight, horizon * self.daylight

    def color_table(self) -> NDArray[np.uint8] | None:
        """
        Tone curve of everything on the ground.

        :return: shape (256, 1, 4), uint8, for ``cv2.LUT``; None where nothing changes
        """
        wet = 1.0 - 0.25 * min(self.wetness / 100.0, 1.0)
        gain = self.daylight * wet
        if gain > 0.999:
            return None
        dusk = min(max(1.0 - abs(self.sun_altitude_angle) / 15.0, 0.0), 1.0)
        cast = np.array([1.0 - 0.25 * dusk, 1.0 - 0.1 * dusk, 1.0, 1.0])
        table = np.arange(256.0)[:, None, None] * (gain * cast)
        table[:, :, 3] = 255.0
        return np.clip(np.rint(table), 0, 255).astype(np.uint8)
