"""Recorded pictures, shrunk to the resolution that they are looked at with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.errors import RecordingError

__all__ = ["Lens", "PictureStore", "focal_length"]

PICTURES_KEPT = 12_000
"""Pictures kept in memory; 350 MB of grey ones for a camera of 84 pixels and 90 degrees."""


def focal_length(mount: CameraMount) -> float:
    """
    :param mount: of a camera
    :return: focal length [px]
    """
    return 0.5 * mount.width / math.tan(math.radians(0.5 * mount.fov))


@dataclass(frozen=True, slots=True)
class Lens:
    """
    A pinhole camera in pixels; the centres of pixels have whole coordinates.

    :param width: [px]
    :param height: [px]
    :param focal_x: focal length along the rows [px]
    :param focal_y: along the columns [px]
    """

    width: int
    height: int
    focal_x: float
    focal_y: float

    @property
    def centre(self) -> tuple[float, float]:
        """Column and row of the optical axis [px]."""
        return 0.5 * (self.width - 1), 0.5 * (self.height - 1)


class PictureStore:
    """
    Reads pictures and averages them down. All stores of a process share the pictures that they keep.

    :param focal: focal length that pictures are shrunk to, if theirs is longer [px]
    :param grey: shape (height, width) instead of (height, width, 3) BGR
    """

    def __init__(self, focal: float, *, grey: bool) -> None:
        self._focal, self._grey = focal, grey

    def lens(self, mount: CameraMount) -> Lens:
        """
        :param mount: of the recorded camera
        :return: size and focal lengths of its shrunk pictures
        """
        return _lens(mount, self._focal)

    def picture(self, path: Path, mount: CameraMount) -> NDArray[np.uint8]:
        """
        :param path: of a picture
        :param mount: of its camera
        :return: shape (height, width) or (height, width, 3), uint8, read-only, of the size of :meth:`lens`
        :raises RecordingError: if it is no picture, or of another size
        """
        return _read(path, mount, self._focal, self._grey)


@lru_cache(maxsize=1000)
def _lens(mount: CameraMount, limit: float) -> Lens:
    focal = focal_length(mount)
    share = min(1.0, limit / focal)
    width, height = max(round(share * mount.width), 2), max(round(share * mount.height), 2)
    return Lens(width, height, focal * width / mount.width, focal * height / mount.height)


@lru_cache(maxsize=PICTURES_KEPT)
def _read(path: Path, mount: CameraMount, limit: float, grey: bool) -> NDArray[np.uint8]:
    picture: Any = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise RecordingError(f"{path}: expected a picture, OpenCV cannot read it")
    if picture.shape[:2] != (mount.height, mount.width):
        height, width = picture.shape[:2]
        raise RecordingError(f"{path}: expected {mount.width} x {mount.height} pixels, got {width} x {height}")
    if grey:
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    lens = _lens(mount, limit)
    if picture.shape[:2] != (lens.height, lens.width):
        picture = cv2.resize(picture, (lens.width, lens.height), interpolation=cv2.INTER_AREA)
    picture.flags.writeable = False
    return picture  # type: ignore[no-any-return]
