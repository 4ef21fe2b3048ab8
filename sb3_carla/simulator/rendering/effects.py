"""
What the weather does to a picture.

Everything is worked out once for a camera's view and a weather. Clear noon costs nothing; any other light costs a
table look-up per pixel, and fog, wet roads and headlights one multiply-add with weights that stay the same from frame
to frame.

No measurement stands behind the strengths: they are chosen by eye, so that each parameter of CARLA's presets shows and
that road markings can still be seen some 15 m ahead in the worst of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.rendering.view import View
from sb3_carla.simulator.rendering.weather import Weather

__all__ = ["Look", "build_look"]

NIGHT = 0.28
"""Brightness with the sun far below the horizon, without headlights [-]."""
HEADLIGHT_REACH, HEADLIGHT_ANGLE = 30.0, 0.7
"""Where a car's headlights have faded: distance [m] and angle to the side [rad]."""
THICKEST_FOG = 0.06
"""Extinction at 100 % fog density [1/m]: contrast falls to 1/e at 17 m."""
CLEAR_DENSITY = 5.0
"""Fog density up to which the air is clear [%]; CARLA's clear presets have 2, its cloudy ones 3."""
RAIN_EXTINCTION, DUST_EXTINCTION = 0.008, 0.03
"""At 100 % precipitation or dust [1/m]."""
FOG_CEILING = 40.0
"""Height of the layer of fog, as far as the sky's colour is concerned [m]."""
RAIN_PATTERNS = 8

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """
    A weather as a camera sees it.

    :param sky: shape (height, width, 4), uint8, sky in every pixel
    :param horizon: first row with ground
    :param tone: shape (256, 1, 4), uint8, table for the ground's colours; None if they stay
    :param overlay: shape (height - horizon, width, 4), uint8, what covers the ground; None if nothing does
    :param kept: shape (height - horizon, width), float32, share of the ground's colour
    :param covered: the rest to 1, share of the overlay's colour
    :param streaks: shape (patterns, height, width, 4), uint8, to add; None without rain
    :param light: what ``tinted`` needs
    """

    sky: Image
    horizon: int
    tone: Image | None
    overlay: Image | None
    kept: NDArray[np.float32]
    covered: NDArray[np.float32]
    streaks: Image | None
    light: _Light

    def apply(self, image: Image) -> None:
        """
        Change a picture of the ground.

        :param image: shape (height, width, 4), uint8 BGRA, changed in place
        """
        below = image[self.horizon :]
        if self.tone is not None:
            cv2.LUT(below, self.tone, dst=below)
        if self.overlay is not None:
            cv2.blendLinear(below, self.overlay, self.kept, self.covered, dst=below)

    def rain(self, image: Image, pose: Pose) -> None:
        """
        Add falling rain. Its pattern depends on the place alone: one place always looks the same.

        :param image: shape (height, width, 4), uint8 BGRA, changed in place
        :param pose: of the camera
        """
        if self.streaks is not None:
            number = math.floor(pose.x * 97.0 + pose.y * 89.0 + pose.yaw * 301.0) % len(self.streaks)
            cv2.add(image, self.streaks[number], dst=image)

    def tinted(self, color: tuple[float, float, float], distance: float) -> tuple[float, float, float]:
        """
        Colour of a solid body in this weather.

        :param color: blue, green, red, 0 to 255, in clear daylight
        :param distance: from the camera [m]
        """
        light = self.light
        if self.tone is None and self.overlay is None:
            return color
        clear = math.exp(-light.extinction * max(distance - light.fog_start, 0.0))
        gain = light.ambient + (1.0 - light.ambient) * light.headlights * _headlight(distance, 0.0)
        blue, green, red = (
            clear * gain * value * cast + (1.0 - clear) * murk
            for value, cast, murk in zip(color, light.cast, light.horizon, strict=True)
        )
        return blue, green, red


@dataclass(frozen=True, slots=True)
class _Light:
    """
    A weather in numbers.

    :param ambient: brightness of the ground [-]
    :param headlights: 1 where a car would have them on, 0 by day
    :param contrast: under the sky, 1 in the sun
    :param cast: gain of blue, green, red
    :param wet: 0 to 1
    :param extinction: of the air [1/m]
    :param fog_start: where the air is no longer clear [m]
    :param zenith: colour, blue, green, red, 0 to 255
    :param horizon: colour
    """

    ambient: float
    headlights: float
    contrast: float
    cast: tuple[float, float, float]
    wet: float
    extinction: float
    fog_start: float
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]


def build_look(view: View, weather: Weather) -> Look:
    """
    :param view: geometry of the camera
    :param weather: the weather
    """
    light = _light(weather)
    horizon = view.horizon
    overlay, kept = _cover(view, light)
    return Look(
        sky=_sky(view, light),
        horizon=horizon,
        tone=_tone(light),
        overlay=overlay,
        kept=kept,
        covered=1.0 - kept,
        streaks=_streaks(view.depth.shape, weather, light),
        light=light,
    )


def _share(percent: float) -> float:
    return min(max(percent / 100.0, 0.0), 1.0)


def _light(weather: Weather) -> _Light:
    altitude = weather.sun_altitude_angle
    # 1 from 30 degrees, 0 below -6; the root stands for the camera's exposure, which follows the light.
    sun = math.sqrt(min(max((math.sin(math.radians(altitude)) + 0.1) / 0.6, 0.0), 1.0))
    overcast = _share((weather.cloudiness - 10.0) / 0.9)
    dusk = min(max(1.0 - abs(altitude - 3.0) / 17.0, 0.0), 1.0)
    dust = _share(weather.dust_storm)
    ambient = (NIGHT + (1.0 - NIGHT) * sun) * (1.0 - 0.2 * overcast)
    fog = max(weather.fog_density - CLEAR_DENSITY, 0.0) / (100.0 - CLEAR_DENSITY)
    zenith = _mixed((225.0, 165.0, 100.0), (172.0, 166.0, 160.0), overcast)
    horizon = _mixed(_mixed((232.0, 216.0, 196.0), (190.0, 186.0, 182.0), overcast), (90.0, 150.0, 230.0), 0.6 * dusk)
    horizon = _mixed(horizon, (110.0, 160.0, 190.0), dust)
    glow = 0.1 + 0.9 * sun
    return _Light(
        ambient=ambient,
        headlights=1.0 - min(sun / 0.5, 1.0),
        contrast=1.0 - 0.2 * overcast,
        cast=(1.0 - 0.3 * dusk + 0.15 * (1.0 - sun) * (1.0 - dusk), 1.0 - 0.12 * dusk, 1.0),
        wet=max(_share(weather.wetness), 0.8 * _share(weather.precipitation_deposits)),
        extinction=(
            THICKEST_FOG * min(fog, 1.0) ** 1.5
            + RAIN_EXTINCTION * _share(weather.precipitation)
            + DUST_EXTINCTION * dust
        ),
        fog_start=max(weather.fog_distance, 0.0),
        zenith=_mixed((0.0, 0.0, 0.0), _mixed(zenith, (110.0, 160.0, 190.0), dust), glow),
        horizon=_mixed((0.0, 0.0, 0.0), horizon, glow),
    )


def _mixed(
    first: tuple[float, float, float], second: tuple[float, float, float], share: float
) -> tuple[float, float, float]:
    """Colour between two, the second one's share from 0 to 1."""
    blue, green, red = ((1.0 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return blue, green, red


def _sky(view: View, light: _Light) -> Image:
    height = np.clip(view.elevation / 0.6, 0.0, 1.0)[..., None]
    # Fog hides the blue: a line of sight near the horizon stays in it for long.
    thickness = light.extinction * FOG_CEILING / np.sin(np.maximum(view.elevation, 0.02))
    murk = 1.0 - np.exp(-thickness)[..., None]
    upper = (1.0 - height) * light.horizon + height * light.zenith
    sky = np.full((*view.depth.shape, 4), 255, np.uint8)
    sky[..., :3] = np.clip(np.rint((1.0 - murk) * upper + murk * light.horizon), 0, 255)
    return sky


def _tone(light: _Light) -> Image | None:
    """Table for the ground's colours; where there are headlights, their brightness is left to the overlay."""
    ambient = 1.0 if light.headlights > 0.0 else light.ambient
    gain = ambient * (1.0 - 0.3 * light.wet)
    if gain > 0.999 and light.contrast > 0.999 and min(light.cast) > 0.999:
        return None
    grey = np.arange(256.0)
    flat = 110.0 + light.contrast * (grey - 110.0)
    table = np.clip(np.rint(flat[:, None] * gain * np.array((*light.cast, 1.0))), 0, 255)
    table[:, 3] = grey
    return np.ascontiguousarray(table.reshape(256, 1, 4).astype(np.uint8))


def _headlight(distance: float, angle: float) -> float:
    return math.exp(-((distance / HEADLIGHT_REACH) ** 2) - (angle / HEADLIGHT_ANGLE) ** 2)


def _cover(view: View, light: _Light) -> tuple[Image | None, NDArray[np.float32]]:
    """What covers the ground, and the share of the ground's colour that stays."""
    distance = np.minimum(view.distance[view.horizon :], 1e4).astype(np.float64)
    if light.extinction == 0.0 and light.wet == 0.0 and light.headlights == 0.0:
        return None, np.ones(distance.shape, np.float32)
    clear = np.exp(-light.extinction * np.maximum(distance - light.fog_start, 0.0))
    grazing = np.maximum(-view.elevation[view.horizon :], 0.0)
    mirrored = 0.5 * light.wet * np.exp(-9.0 * grazing)
    points = view.points[view.horizon :].astype(np.float64)
    lit = np.exp(
        -((distance / HEADLIGHT_REACH) ** 2) - (np.arctan2(points[..., 1], points[..., 0]) / HEADLIGHT_ANGLE) ** 2
    )
    ambient = light.ambient if light.headlights > 0.0 else 1.0
    gain = ambient + (1.0 - ambient) * light.headlights * lit
    kept = np.minimum(gain * (1.0 - mirrored) * clear, 0.9999)
    sky = np.array(light.horizon)
    added = (mirrored * clear + 1.0 - clear)[..., None] * sky
    overlay = np.full((*distance.shape, 4), 255, np.uint8)
    overlay[..., :3] = np.clip(np.rint(added / (1.0 - kept)[..., None]), 0, 255)
    return overlay, kept.astype(np.float32)


def _streaks(shape: tuple[int, ...], weather: Weather, light: _Light) -> Image | None:
    amount = _share(weather.precipitation)
    if amount <= 0.0:
        return None
    height, width = shape
    rng = np.random.default_rng(round(weather.precipitation * 100.0))
    length = max(3, height // 14) | 1
    slant = 0.6 * (_share(weather.wind_intensity) - 0.1)
    streak = np.zeros((length, length), np.float32)
    for step in range(length):
        column = length // 2 + round(slant * (step - length // 2))
        streak[step, min(max(column, 0), length - 1)] = 1.0
    brightness = 0.35 * (0.3 + 0.7 * light.ambient) * np.array((*light.horizon, 0.0))
    patterns = np.empty((RAIN_PATTERNS, height, width, 4), np.uint8)
    for pattern in patterns:
        drops = (rng.random((height, width)) < 0.03 * amount / length).astype(np.float32)
        drops *= rng.uniform(0.4, 1.0, (height, width)).astype(np.float32)
        fallen = np.clip(cv2.filter2D(drops, -1, streak), 0.0, 1.0)
        pattern[:] = np.clip(fallen[..., None] * np.maximum(brightness, 30.0 * np.array((1, 1, 1, 0))), 0, 255)
    return patterns
