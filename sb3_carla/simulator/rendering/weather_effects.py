"""
Effects of the weather on a picture: light, fog, wet roads, headlights, rain.

Tables and weights are computed once for each view and weather. Then clear noon costs nothing, other light one table
look-up per pixel, and fog, wet roads and headlights one weighted sum per pixel.

The strengths are not measured. They are chosen by eye: each parameter of CARLA's presets is visible, and in the worst
preset road markings can still be seen some 15 m ahead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.rendering.inverse_perspective import GroundView
from sb3_carla.simulator.rendering.weather import Weather

__all__ = ["WeatherEffects", "build_weather_effects"]

NIGHT = 0.28
"""Brightness with the sun far below the horizon, without headlights [-]."""
HEADLIGHT_REACH, HEADLIGHT_ANGLE = 30.0, 0.7
"""Distance [m] and angle to the side [rad] at which a car's headlights have fallen to 1/e."""
THICKEST_FOG = 0.06
"""Extinction at 100 % fog density [1/m]: contrast falls to 1/e in 17 m."""
CLEAR_DENSITY = 5.0
"""Fog density up to which the air is clear [%]; CARLA's clear presets have 2, its cloudy ones 3."""
RAIN_EXTINCTION, DUST_EXTINCTION = 0.008, 0.03
"""Extinction at 100 % precipitation and at 100 % dust storm [1/m]."""
FOG_CEILING = 40.0
"""Height of the layer of fog for the colour of the sky [m]."""
RAIN_PATTERNS = 8
"""Different pictures of falling rain."""
CONTRAST_PIVOT = 110.0
"""Grey level that stays the same when contrast is taken away."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class WeatherEffects:
    """
    Effects of one weather on the pictures of one ``GroundView``.

    :param sky: shape (height, width, 4), uint8 BGRA, sky in every pixel
    :param horizon: first row with ground
    :param tone_table: shape (256, 1, 4), uint8, new value of each value of each channel; None: colours stay
    :param overlay: shape (height - horizon, width, 4), uint8 BGRA, fog and reflections over the ground; None: none
    :param ground_weight: shape (height - horizon, width), float32, share of the ground's colour
    :param overlay_weight: shape (height - horizon, width), float32, 1 - ``ground_weight``
    :param rain_patterns: shape (RAIN_PATTERNS, height, width, 4), uint8, to be added; None without rain
    :param light: the weather in numbers, for ``body_color``
    """

    sky: Image
    horizon: int
    tone_table: Image | None
    overlay: Image | None
    ground_weight: NDArray[np.float32]
    overlay_weight: NDArray[np.float32]
    rain_patterns: Image | None
    light: _Light

    def apply_to_ground(self, image: Image) -> None:
        """
        Change the rows of a picture that show ground.

        :param image: shape (height, width, 4), uint8 BGRA, changed in place
        """
        below = image[self.horizon :]
        if self.tone_table is not None:
            cv2.LUT(below, self.tone_table, dst=below)
        if self.overlay is not None:
            cv2.blendLinear(below, self.overlay, self.ground_weight, self.overlay_weight, dst=below)

    def add_rain(self, image: Image, pose: Pose) -> None:
        """
        Add falling rain. The pattern depends on the camera's pose only: equal poses give equal pictures.

        :param image: shape (height, width, 4), uint8 BGRA, changed in place
        :param pose: of the camera
        """
        if self.rain_patterns is not None:
            # A hash of the pose: a centimetre or a fifth of a degree selects another pattern.
            number = math.floor(pose.x * 97.0 + pose.y * 89.0 + pose.yaw * 301.0) % len(self.rain_patterns)
            cv2.add(image, self.rain_patterns[number], dst=image)

    def body_color(self, color: tuple[float, float, float], distance: float) -> tuple[float, float, float]:
        """
        Colour of a solid body in this weather.

        :param color: blue, green, red, 0 to 255, in clear daylight
        :param distance: from the camera [m]
        """
        light = self.light
        if self.tone_table is None and self.overlay is None:
            return color
        # Koschmieder: c = transmission * c0 + (1 - transmission) * horizon, with Beer and Lambert's transmission.
        transmission = math.exp(-light.extinction * max(distance - light.fog_start, 0.0))
        gain = light.ambient + (1.0 - light.ambient) * light.headlights * _headlight(distance, 0.0)
        blue, green, red = (
            transmission * gain * value * channel_gain + (1.0 - transmission) * haze
            for value, channel_gain, haze in zip(color, light.color_gain, light.horizon, strict=True)
        )
        return blue, green, red


@dataclass(frozen=True, slots=True)
class _Light:
    """
    A weather in numbers.

    :param ambient: brightness of the ground [-]
    :param headlights: brightness of the headlights, 0 by day to 1 by night [-]
    :param contrast: of the ground, 1 in the sun, less under clouds [-]
    :param color_gain: of blue, green, red [-]
    :param wet: wetness of the road, 0 to 1 [-]
    :param extinction: of the air [1/m]
    :param fog_start: distance from which on the air is not clear [m]
    :param zenith: colour of the sky overhead: blue, green, red, 0 to 255
    :param horizon: colour of the sky at the horizon, also that of fog
    """

    ambient: float
    headlights: float
    contrast: float
    color_gain: tuple[float, float, float]
    wet: float
    extinction: float
    fog_start: float
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]


def build_weather_effects(view: GroundView, weather: Weather) -> WeatherEffects:
    """
    Compute tables and weights for a view and a weather.

    :param view: geometry of the camera
    :param weather: the weather
    """
    light = _light(weather)
    overlay, ground_weight = _overlay(view, light)
    return WeatherEffects(
        sky=_sky(view, light),
        horizon=view.horizon,
        tone_table=_tone_table(light),
        overlay=overlay,
        ground_weight=ground_weight,
        overlay_weight=1.0 - ground_weight,
        rain_patterns=_rain_patterns(view.depth.shape, weather, light),
        light=light,
    )


def _share(percent: float) -> float:
    """From percent to 0 to 1."""
    return min(max(percent / 100.0, 0.0), 1.0)


def _light(weather: Weather) -> _Light:
    altitude = weather.sun_altitude_angle
    # 1 above 30 degrees, 0 below -6. The root stands for the camera's exposure, which follows the light.
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
        color_gain=(1.0 - 0.3 * dusk + 0.15 * (1.0 - sun) * (1.0 - dusk), 1.0 - 0.12 * dusk, 1.0),
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
    """Mixture of two colours; ``share`` of the second one is 0 to 1."""
    blue, green, red = ((1.0 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return blue, green, red


def _sky(view: GroundView, light: _Light) -> Image:
    """Sky in every pixel: shape (height, width, 4), uint8 BGRA."""
    # (height, width, 1): 0 at the horizon, 1 from 0.6 rad (34 degrees) upwards.
    upwards = np.clip(view.elevation / 0.6, 0.0, 1.0)[..., None]
    # A line of sight at elevation e leaves a layer of fog after FOG_CEILING / sin(e) metres.
    thickness = light.extinction * FOG_CEILING / np.sin(np.maximum(view.elevation, 0.02))
    fog = 1.0 - np.exp(-thickness)[..., None]
    clear = (1.0 - upwards) * light.horizon + upwards * light.zenith  # (height, width, 3)
    sky = np.full((*view.depth.shape, 4), 255, np.uint8)
    sky[..., :3] = np.clip(np.rint((1.0 - fog) * clear + fog * light.horizon), 0, 255)
    return sky


def _tone_table(light: _Light) -> Image | None:
    """
    New value of each value of the ground's colours: shape (256, 1, 4), uint8; None where all stay the same.

    With headlights the brightness differs from pixel to pixel, so ``_overlay`` applies it.
    """
    ambient = 1.0 if light.headlights > 0.0 else light.ambient
    gain = ambient * (1.0 - 0.3 * light.wet)
    if gain > 0.999 and light.contrast > 0.999 and min(light.color_gain) > 0.999:
        return None
    grey = np.arange(256.0)
    flat = CONTRAST_PIVOT + light.contrast * (grey - CONTRAST_PIVOT)
    table = np.clip(np.rint(flat[:, None] * gain * np.array((*light.color_gain, 1.0))), 0, 255)  # (256, 4)
    table[:, 3] = grey  # alpha stays
    return np.ascontiguousarray(table.reshape(256, 1, 4).astype(np.uint8))


def _headlight(distance: float, angle: float) -> float:
    """Share of the headlights' light, 1 straight in front of the car [-]."""
    return math.exp(-((distance / HEADLIGHT_REACH) ** 2) - (angle / HEADLIGHT_ANGLE) ** 2)


def _overlay(view: GroundView, light: _Light) -> tuple[Image | None, NDArray[np.float32]]:
    """
    Fog and reflections over the ground, and the share of the ground's colour that stays visible.

    A pixel becomes weight * ground + (1 - weight) * overlay. All arrays have the rows from the horizon on.
    """
    distance = np.minimum(view.distance[view.horizon :], 1e4).astype(np.float64)
    if light.extinction == 0.0 and light.wet == 0.0 and light.headlights == 0.0:
        return None, np.ones(distance.shape, np.float32)
    transmission = np.exp(-light.extinction * np.maximum(distance - light.fog_start, 0.0))  # Beer and Lambert
    # Wet asphalt mirrors the sky at flat angles, as water does (Fresnel); 1/9 rad is 6 degrees.
    grazing = np.maximum(-view.elevation[view.horizon :], 0.0)
    mirrored = 0.5 * light.wet * np.exp(-9.0 * grazing)
    points = view.points[view.horizon :].astype(np.float64)  # (rows, width, 2): ahead, right
    lit = np.exp(
        -((distance / HEADLIGHT_REACH) ** 2) - (np.arctan2(points[..., 1], points[..., 0]) / HEADLIGHT_ANGLE) ** 2
    )
    ambient = light.ambient if light.headlights > 0.0 else 1.0
    gain = ambient + (1.0 - ambient) * light.headlights * lit
    weight = np.minimum(gain * (1.0 - mirrored) * transmission, 0.9999)
    sky = np.array(light.horizon)
    # What is to be added, divided by the weight that ``cv2.blendLinear`` multiplies it with.
    added = (mirrored * transmission + 1.0 - transmission)[..., None] * sky
    overlay = np.full((*distance.shape, 4), 255, np.uint8)
    overlay[..., :3] = np.clip(np.rint(added / (1.0 - weight)[..., None]), 0, 255)
    return overlay, weight.astype(np.float32)


def _rain_patterns(shape: tuple[int, ...], weather: Weather, light: _Light) -> Image | None:
    """Pictures of falling rain: shape (RAIN_PATTERNS, height, width, 4), uint8; None without rain."""
    amount = _share(weather.precipitation)
    if amount <= 0.0:
        return None
    height, width = shape
    rng = np.random.default_rng(round(weather.precipitation * 100.0))
    length = max(3, height // 14) | 1  # of a streak [px], odd so that the filter has a centre
    slant = 0.6 * (_share(weather.wind_intensity) - 0.1)
    streak = np.zeros((length, length), np.float32)  # a slanted line: the filter that draws drops out
    for step in range(length):
        column = length // 2 + round(slant * (step - length // 2))
        streak[step, min(max(column, 0), length - 1)] = 1.0
    brightness = 0.35 * (0.3 + 0.7 * light.ambient) * np.array((*light.horizon, 0.0))
    patterns = np.empty((RAIN_PATTERNS, height, width, 4), np.uint8)
    for pattern in patterns:
        # (height, width): a few single pixels of random brightness, which the filter turns into streaks.
        drops = (rng.random((height, width)) < 0.03 * amount / length).astype(np.float32)
        drops *= rng.uniform(0.4, 1.0, (height, width)).astype(np.float32)
        fallen = np.clip(cv2.filter2D(drops, -1, streak), 0.0, 1.0)
        pattern[:] = np.clip(fallen[..., None] * np.maximum(brightness, 30.0 * np.array((1, 1, 1, 0))), 0, 255)
    return patterns
