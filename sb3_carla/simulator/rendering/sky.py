"""
The sky all around: gradient, clouds, sun, hills and a far skyline, as one picture of azimuth and elevation.

It is painted once for each weather. A frame looks its sky pixels up in it, shifted by the car's heading.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.inverse_perspective import GroundView
from sb3_carla.simulator.rendering.light import SHADOW_DEPTH, Light

__all__ = ["COLUMNS", "ROWS", "SkyView", "paint_sky", "sky_heading"]

COLUMNS = 720
"""Columns of the picture for 360 degrees."""
LOW, HIGH = math.radians(-4.0), math.radians(80.0)
"""Elevations of the picture's lower and upper edge [rad]."""
ROWS = 84
"""One for a degree."""
FOG_CEILING = 40.0
"""Height of the layer of fog for the colour of the sky [m]."""
GLARE = 0.35
"""Angle from the sun at which its glare has fallen to 1/e [rad]."""

Image = NDArray[np.uint8]


class SkyView:
    """
    Where in the sky's picture each pixel of a camera looks, for a car that heads along the x axis.

    :param view: geometry of the camera
    """

    def __init__(self, view: GroundView) -> None:
        self.columns = (view.azimuth * (COLUMNS / (2.0 * math.pi))).astype(np.float32)
        """Shape (height, width), float32."""
        self.rows = ((HIGH - view.elevation) * ((ROWS - 1) / (HIGH - LOW))).astype(np.float32)
        """Shape (height, width), float32."""


def sky_heading(yaw: float) -> float:
    """
    :param yaw: direction of a camera's line of sight in the world [rad]
    :return: the column of the sky's picture that it looks at
    """
    return (yaw / (2.0 * math.pi) + 0.25) % 1.0 * COLUMNS


def paint_sky(light: Light, seed: int) -> Image:
    """
    :param light: the weather
    :param seed: of clouds, hills and skyline
    :return: shape (ROWS, COLUMNS + 1, 4), uint8 BGRA; column c looks into the direction (c / COLUMNS - 1/4) * 360 deg
    """
    elevation = np.linspace(HIGH, LOW, ROWS, dtype=np.float32)[:, None]  # (ROWS, 1)
    azimuth = ((np.arange(COLUMNS, dtype=np.float32) / COLUMNS - 0.25) * 2.0 * math.pi).astype(np.float32)  # (COLUMNS,)
    # (ROWS, COLUMNS): each town sees the same clouds from another side.
    clouds, ridge = np.roll(_clouds(), seed % COLUMNS, axis=1), _ridge(seed)
    zenith, horizon = (np.array(color, np.float32) for color in (light.zenith, light.horizon))
    upwards = np.clip(elevation / 0.6, 0.0, 1.0)[..., None]  # 1 from 34 degrees upwards
    color = (1.0 - upwards) * horizon + upwards * zenith + np.zeros((ROWS, COLUMNS, 1), np.float32)
    # Clouds: where their noise exceeds a level that falls with the cover; grey and flat when all is covered.
    cover = np.clip((clouds - (1.1 - 1.9 * light.overcast)) / 0.7, 0.0, 1.0)[..., None]
    cover *= np.clip(elevation / 0.12, 0.0, 1.0)[..., None]
    white = horizon * np.float32(1.06 - 0.22 * light.overcast) * (1.0 + 0.06 * clouds[..., None])
    color = (1.0 - 0.85 * cover) * color + 0.85 * cover * white
    # Glare of the sun: the angle between a line of sight and the sun.
    x, y, z = light.to_sun.astype(np.float32)
    cosine = np.cos(elevation) * (np.cos(azimuth) * x + np.sin(azimuth) * y) + np.sin(elevation) * z
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    glare = 260.0 * (light.direct / SHADOW_DEPTH) * np.exp(-angle / GLARE) + 400.0 * (angle < 0.02) * (
        light.direct > 0.0
    )
    color += (glare * light.ambient)[..., None].astype(np.float32) * np.array((0.85, 0.95, 1.0), np.float32)
    # Hills and far houses stand before it, in the haze.
    haze = 0.35 + 0.4 * light.overcast
    hill = (np.array((70.0, 92.0, 80.0)) * light.ambient * (1.0 - haze) + horizon * haze).astype(np.float32)
    color = np.where((elevation < ridge)[..., None], hill * (0.9 + 0.1 * np.sin(7.0 * azimuth))[None, :, None], color)
    # A line of sight at elevation e leaves a layer of fog after FOG_CEILING / sin(e) metres.
    thickness = light.extinction * FOG_CEILING / np.sin(np.maximum(elevation, np.float32(0.02)))
    fog = 1.0 - np.exp(-thickness)[..., None]
    sky = np.full((ROWS, COLUMNS + 1, 4), 255, np.uint8)
    sky[:, :-1, :3] = np.clip(np.rint((1.0 - fog) * color + fog * horizon), 0, 255)
    sky[:, -1] = sky[:, 0]
    return sky


@functools.lru_cache(maxsize=1)
def _clouds() -> NDArray[np.float32]:
    """Noise of mean 0 and deviation 1 that repeats at 360 degrees; clouds are wider than high: (ROWS, COLUMNS)."""
    rng = np.random.default_rng(1)
    across, down = np.fft.rfftfreq(COLUMNS)[None] * COLUMNS, np.fft.fftfreq(2 * ROWS)[:, None] * 2 * ROWS
    frequency = np.hypot(across, 2.2 * down)
    amplitude = np.where(frequency > 3.0, np.maximum(frequency, 1.0) ** -1.6, 0.0)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((2 * ROWS, COLUMNS))) * amplitude)[:ROWS]
    clouds: NDArray[np.float32] = (noise / noise.std()).astype(np.float32)
    return clouds


def _ridge(seed: int) -> NDArray[np.float64]:
    """Elevation of hills and of a far skyline: shape (COLUMNS,) [rad]."""
    rng = np.random.default_rng((seed, 2))
    frequency = np.arange(COLUMNS // 2 + 1)
    amplitude = np.where((frequency > 0) & (frequency < 150), np.maximum(frequency, 1.0) ** -1.3, 0.0)
    hills = np.fft.irfft(np.fft.rfft(rng.standard_normal(COLUMNS)) * amplitude)
    ridge: NDArray[np.float64] = math.radians(rng.uniform(0.3, 2.5)) * np.maximum(0.6 + hills / hills.std(), 0.0)
    for _ in range(rng.integers(0, 60)):  # houses
        first, width = rng.integers(0, COLUMNS), rng.integers(2, 10)
        part = slice(first, first + width)
        ridge[part] = np.maximum(ridge[part], math.radians(rng.uniform(1.0, 6.0)))
    return ridge
