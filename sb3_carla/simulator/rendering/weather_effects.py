"""Effects of the weather on a picture: fog, reflections on wet roads, headlights, rain; computed once for a view."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.rendering.inverse_perspective import GroundView
from sb3_carla.simulator.rendering.light import Light, share
from sb3_carla.simulator.rendering.scene_drawing import HEADLIGHT_REACH
from sb3_carla.simulator.rendering.weather import Weather

__all__ = ["WeatherEffects", "build_weather_effects"]

HEADLIGHT_ANGLE = 0.7
"""Angle to the side at which a car's headlights have fallen to 1/e [rad]."""
RAIN_PATTERNS = 8
"""Different pictures of falling rain."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class WeatherEffects:
    """
    Effects of one weather on the pictures of one ``GroundView``.

    :param weight: shape (height, width), float32: share of the ground's colour that is seen, in its light
    :param added: shape (height, width, 3), float32: fog and reflections over the ground: blue, green, red
    :param rain_patterns: shape (RAIN_PATTERNS, height, width, 4), uint8, to be added; None without rain
    """

    weight: NDArray[np.float32]
    added: NDArray[np.float32]
    rain_patterns: Image | None

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


def build_weather_effects(view: GroundView, weather: Weather, light: Light) -> WeatherEffects:
    """
    Compute weights for a view and a weather.

    :param view: geometry of the camera
    :param weather: the weather
    :param light: the same in numbers
    """
    distance = np.minimum(view.distance, 1e4).astype(np.float64)
    transmission = np.exp(-light.extinction * np.maximum(distance - light.fog_start, 0.0))  # Beer and Lambert
    # Wet asphalt mirrors the sky at flat angles, as water does (Fresnel); 1/9 rad is 6 degrees.
    mirrored = 0.5 * light.wet * np.exp(-9.0 * np.maximum(-view.elevation, 0.0))
    lit = np.exp(-((distance / HEADLIGHT_REACH) ** 2) - (view.azimuth / HEADLIGHT_ANGLE) ** 2)
    gain = light.ambient + (1.0 - light.ambient) * light.headlights * lit
    weight = gain * (1.0 - 0.3 * light.wet) * (1.0 - mirrored) * transmission
    added = (mirrored * transmission + 1.0 - transmission)[..., None] * np.array(light.horizon)
    return WeatherEffects(
        weight.astype(np.float32), added.astype(np.float32), _rain_patterns(view.depth.shape, weather, light)
    )


def _rain_patterns(shape: tuple[int, ...], weather: Weather, light: Light) -> Image | None:
    """Pictures of falling rain: shape (RAIN_PATTERNS, height, width, 4), uint8; None without rain."""
    amount = share(weather.precipitation)
    if amount <= 0.0:
        return None
    height, width = shape
    rng = np.random.default_rng(round(weather.precipitation * 100.0))
    length = max(3, height // 14) | 1  # of a streak [px], odd so that the filter has a centre
    slant = 0.6 * (share(weather.wind_intensity) - 0.1)
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
