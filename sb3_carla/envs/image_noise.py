"""What light and a cheap camera do to the grey frame: the groups ``light`` and ``noise`` of ``randomize``."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.envs.randomization import Light, Noise

__all__ = ["ImageNoise"]

SPARE = 64
"""The noise is drawn once, this much larger than a frame [px], and shifted for each frame."""
SHIFTS = 199
"""Number of different shifts, used in turn."""
LEAST_BLUR = 0.25
"""A weaker blur changes nothing at the size of a pixel [px]."""
LEVELS = np.arange(256, dtype=np.float64) / 255.0

Frame = NDArray[np.uint8]


class ImageNoise:
    """
    Changes the frames of one episode: lens (blur, vignette), exposure, white noise, compression, in this order.

    Equal episodes give equal frames: all random numbers come from the seed that was drawn.

    :param light: exposure; None: as it comes
    :param noise: lens, noise and compression; None: none
    :param shape: height and width of a frame [px]
    :param frame_seconds: time between two frames [s]
    """

    def __init__(
        self, light: Light | None, noise: Noise | None, shape: tuple[int, int], *, frame_seconds: float
    ) -> None:
        self._light, self._noise = light, noise
        self._frame_seconds, self._frames = frame_seconds, 0
        self._curve = None if light is None else 255.0 * (light.gain * LEVELS) ** light.gamma
        if noise is not None:
            rng, (height, width) = np.random.default_rng(noise.seed), shape
            tile = np.rint(rng.normal(0.0, noise.sigma, (height + SPARE, width + SPARE))).astype(np.int16)
            self._tiles = [tile[y : y + height, x : x + width] for y, x in rng.integers(SPARE, size=(SHIFTS, 2))]
            self._kernel = 3 if noise.blur < 0.6 else 5
            self._vignette = _vignette(shape, noise.vignette)

    def __call__(self, frame: Frame) -> Frame:
        """
        :param frame: shape (height, width), uint8, the next one of the episode
        :return: shape (height, width), uint8
        """
        light, noise = self._light, self._noise
        if noise is not None:
            if noise.blur >= LEAST_BLUR:
                frame = cv2.GaussianBlur(frame, (self._kernel, self._kernel), noise.blur)  # type: ignore[assignment]
            frame = cv2.multiply(frame, self._vignette, scale=1.0 / 255.0)  # type: ignore[assignment]
        if light is not None and self._curve is not None:
            angle = light.drift_phase + 2.0 * math.pi * self._frames * self._frame_seconds / light.drift_period
            drift = math.exp(light.gamma * light.drift * math.sin(angle))
            table = np.minimum(self._curve * drift + 0.5, 255.0).astype(np.uint8)
            frame = cv2.LUT(frame, table)  # type: ignore[assignment]
        if noise is not None:
            frame = cv2.add(frame, self._tiles[self._frames % SHIFTS], dtype=cv2.CV_8U)  # type: ignore[assignment]
            if noise.jpeg_quality:
                _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, noise.jpeg_quality])
                frame = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)  # type: ignore[assignment]
        self._frames += 1
        return frame


def _vignette(shape: tuple[int, int], strength: float) -> Frame:
    """Share of the light that arrives, 255: all. It falls with the square of the distance from the middle."""
    height, width = shape
    y, x = (np.linspace(-1.0, 1.0, count) for count in (height, width))
    missing = strength * 0.5 * (y[:, None] ** 2 + x[None, :] ** 2)
    return np.rint(255.0 * (1.0 - missing)).astype(np.uint8)
