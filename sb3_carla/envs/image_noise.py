"""What light and a cheap camera do to the grey frame: the groups ``light`` and ``noise`` of ``randomize``."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount
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
    :param mount: of the camera
    :param frame_seconds: time between two frames [s]
    """

    def __init__(self, light: Light | None, noise: Noise | None, mount: CameraMount, *, frame_seconds: float) -> None:
        shape = mount.height, mount.width
        self._light, self._noise = light, noise
        self._frame_seconds, self._frames = frame_seconds, 0
        self._curve = None if light is None else 255.0 * (light.gain * LEVELS) ** light.gamma
        if noise is not None:
            rng, (height, width) = np.random.default_rng(noise.seed), shape
            tile = np.rint(rng.normal(0.0, noise.sigma, (height + SPARE, width + SPARE))).astype(np.int16)
            self._tiles = [tile[y : y + height, x : x + width] for y, x in rng.integers(SPARE, size=(SHIFTS, 2))]
            self._kernel = 3 if noise.blur < 0.6 else 5
            self._vignette = _vignette(shape, noise.vignette)
            self._hidden = _LowerEdge(noise, mount) if noise.hidden > 0.0 else None

    def __call__(self, frame: Frame) -> Frame:
        """
        :param frame: shape (height, width), uint8, the next one of the episode
        :return: shape (height, width), uint8
        """
        light, noise = self._light, self._noise
        if noise is not None:
            if self._hidden is not None:
                frame = self._hidden(frame)
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


class _LowerEdge:
    """
    Covers the rows at the frame's lower edge.

    :param noise: how many rows, and what with
    :param mount: of the camera
    """

    def __init__(self, noise: Noise, mount: CameraMount) -> None:
        height, width = mount.height, mount.width
        self._first = height - max(1, round(noise.hidden * height))
        self._bonnet = noise.bonnet
        rows, columns = np.mgrid[self._first : height, 0:width].astype(np.float32)
        middle = 0.5 * (width - 1)
        # A bonnet is highest in the middle: its edge falls by a third of its height towards the sides.
        edge = self._first + (height - self._first) * 0.35 * ((columns - middle) / middle) ** 2
        self._covered = rows >= edge
        # Stretched: a row shows what the row above the edge shows at the same distance to the side, on a level road.
        focal = middle / math.tan(math.radians(0.5 * mount.fov))
        slopes = np.tan(np.arctan((rows - 0.5 * (height - 1)) / focal) - math.radians(mount.pitch))
        above = math.tan(math.atan((self._first - 1 - 0.5 * (height - 1)) / focal) - math.radians(mount.pitch))
        self._columns = middle + (columns - middle) * np.float32(max(above, 0.02)) / slopes.astype(np.float32)
        self._rows = np.zeros_like(self._columns)

    def __call__(self, frame: Frame) -> Frame:
        frame = frame.copy()
        lower = frame[self._first :]
        if self._bonnet >= 0:
            lower[self._covered] = self._bonnet
        else:
            row = frame[self._first - 1 : self._first]
            cv2.remap(row, self._columns, self._rows, cv2.INTER_LINEAR, dst=lower, borderMode=cv2.BORDER_REPLICATE)
        return frame


def _vignette(shape: tuple[int, int], strength: float) -> Frame:
    """Share of the light that arrives, 255: all. It falls with the square of the distance from the middle."""
    height, width = shape
    y, x = (np.linspace(-1.0, 1.0, count) for count in (height, width))
    missing = strength * 0.5 * (y[:, None] ** 2 + x[None, :] ** 2)
    return np.rint(255.0 * (1.0 - missing)).astype(np.uint8)
