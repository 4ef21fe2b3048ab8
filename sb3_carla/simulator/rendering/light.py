"""
A weather in numbers: how bright the sun and the sky are, how far one sees, how wet the road is.

The strengths are not measured. They are chosen by eye: each parameter of CARLA's presets is visible, and in the worst
preset road markings can still be seen some 15 m ahead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.scene import LIGHTING, TAGS
from sb3_carla.simulator.rendering.weather import Weather

__all__ = ["SHADOW_DEPTH", "Light", "mixed", "read_weather", "share"]

NIGHT = 0.13
"""Brightness with the sun far below the horizon, without lamps [-]."""
THICKEST_FOG = 0.06
"""Extinction at 100 % fog density [1/m]: contrast falls to 1/e in 17 m."""
CLEAR_DENSITY = 5.0
"""Fog density up to which the air is clear [%]; CARLA's clear presets have 2, its cloudy ones 3."""
RAIN_EXTINCTION, DUST_EXTINCTION = 0.008, 0.03
"""Extinction at 100 % precipitation and at 100 % dust storm [1/m]."""
SHADOW_DEPTH = 0.62
"""Part of the ground's light that the sun itself gives at clear noon [-]; the rest comes from the sky."""
LONGEST_SHADOW = 8.0
"""Longest shadow of something one metre high [m]."""

Color = tuple[float, float, float]
"""Blue, green, red, 0 to 255."""


@dataclass(frozen=True)
class Light:
    """
    A weather in numbers.

    :param ambient: brightness of the ground in the open, without lamps [-]
    :param direct: part of it that the sun itself gives, 0 to ``SHADOW_DEPTH`` [-]
    :param headlights: brightness of headlights, street lights and windows, 0 by day to 1 by night [-]
    :param contrast: of the ground, 1 in the sun, less under clouds [-]
    :param color_gain: of blue, green, red [-]
    :param wet: wetness of the road, 0 to 1 [-]
    :param overcast: cover of clouds, 0 to 1 [-]
    :param extinction: of the air [1/m]
    :param fog_start: distance from which on the air is not clear [m]
    :param zenith: colour of the sky overhead
    :param horizon: colour of the sky at the horizon, also that of fog
    :param to_sun: shape (3,), float64: unit vector in world axes
    """

    ambient: float
    direct: float
    headlights: float
    contrast: float
    color_gain: Color
    wet: float
    overcast: float
    extinction: float
    fog_start: float
    zenith: Color
    horizon: Color
    to_sun: NDArray[np.float64]

    def lighting(self, tints: Sequence[tuple[int, Color]] = ()) -> NDArray[np.void]:
        """
        Light on what stands.

        :param tints: gains of blue, green and red by ``carla.CityObjectLabel``
        :return: shape (1,), a record of type ``LIGHTING``
        """
        record = np.zeros(1, LIGHTING)
        lighting = record[0]
        gain = self.ambient * np.array(self.color_gain)
        lighting["ambient"], lighting["sun"] = gain * (1.0 - 0.75 * self.direct), gain * 1.3 * self.direct
        x, y, z = self.to_sun
        slant = min(LONGEST_SHADOW, math.hypot(x, y) / max(z, 1e-6)) / max(math.hypot(x, y), 1e-6)
        lighting["to_sun"], lighting["shadow"] = self.to_sun, (-x * slant, -y * slant)
        lighting["darkness"] = round(255.0 * self.direct) if self.direct > 0.04 else 0
        lighting["headlights"] = 0.8 * self.headlights
        lighting["windows"] = self.headlights * np.array((110.0, 190.0, 235.0))
        lighting["haze"], lighting["extinction"], lighting["fog_start"] = self.horizon, self.extinction, self.fog_start
        lighting["tints"] = np.ones((TAGS, 3))
        for tag, tint in tints:
            lighting["tints"][tag] = tint
        return record


def share(percent: float) -> float:
    """From percent to 0 to 1."""
    return min(max(percent / 100.0, 0.0), 1.0)


def mixed(first: Color, second: Color, part: float) -> Color:
    """Mixture of two colours; ``part`` of the second one is 0 to 1."""
    blue, green, red = ((1.0 - part) * a + part * b for a, b in zip(first, second, strict=True))
    return blue, green, red


def read_weather(weather: Weather) -> Light:
    """
    :param weather: parameters of CARLA
    :return: what they mean for the picture
    """
    altitude, azimuth = math.radians(weather.sun_altitude_angle), math.radians(weather.sun_azimuth_angle)
    # 1 above 30 degrees, 0 below -6. The root stands for the camera's exposure, which follows the light.
    sun = math.sqrt(min(max((math.sin(altitude) + 0.1) / 0.6, 0.0), 1.0))
    overcast = share((weather.cloudiness - 10.0) / 0.9)
    dusk = min(max(1.0 - abs(weather.sun_altitude_angle - 3.0) / 17.0, 0.0), 1.0)
    dust = share(weather.dust_storm)
    fog = min(max(weather.fog_density - CLEAR_DENSITY, 0.0) / (100.0 - CLEAR_DENSITY), 1.0)
    zenith = mixed((225.0, 165.0, 100.0), (172.0, 166.0, 160.0), overcast)
    horizon = mixed((232.0, 216.0, 196.0), (190.0, 186.0, 182.0), overcast)
    horizon = mixed(mixed(horizon, (90.0, 150.0, 230.0), 0.6 * dusk), (110.0, 160.0, 190.0), dust)
    glow = 0.06 + 0.94 * sun
    # The sun is full from 8 degrees on; clouds, fog and dust take it away.
    clear = (1.0 - overcast) ** 1.5 * (1.0 - fog) ** 2 * (1.0 - dust)
    direct = SHADOW_DEPTH * min(max(math.sin(altitude) / 0.14, 0.0), 1.0) * clear
    level = math.cos(altitude)
    return Light(
        ambient=(NIGHT + (1.0 - NIGHT) * sun) * (1.0 - 0.2 * overcast),
        direct=direct,
        headlights=1.0 - min(sun / 0.5, 1.0),
        contrast=1.0 - 0.2 * overcast,
        color_gain=(1.0 - 0.3 * dusk + 0.15 * (1.0 - sun) * (1.0 - dusk), 1.0 - 0.12 * dusk, 1.0),
        wet=max(share(weather.wetness), 0.8 * share(weather.precipitation_deposits)),
        overcast=overcast,
        extinction=THICKEST_FOG * fog**1.5 + RAIN_EXTINCTION * share(weather.precipitation) + DUST_EXTINCTION * dust,
        fog_start=max(weather.fog_distance, 0.0),
        zenith=mixed((0.0, 0.0, 0.0), mixed(zenith, (110.0, 160.0, 190.0), dust), glow),
        horizon=mixed((0.0, 0.0, 0.0), horizon, glow),
        to_sun=np.array((level * math.cos(azimuth), level * math.sin(azimuth), math.sin(altitude))),
    )
