"""A camera on the car; its images are matched to the ticks that they belong to."""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_carla.errors import FrameError, ServerTimeoutError

__all__ = ["CameraMount", "CameraStream"]


@dataclass(frozen=True, slots=True)
class CameraMount:
    """
    Camera's size [px], horizontal field of view [deg], and pose on the car [m, deg], as in CARLA's blueprints.

    With ``on_demand`` the packaged server renders nothing until the first image is asked for.
    """

    width: int
    height: int
    fov: float = 90.0
    x: float = 1.2
    y: float = 0.0
    z: float = 2.0
    pitch: float = -15.0
    yaw: float = 0.0
    roll: float = 0.0
    on_demand: bool = False


class CameraStream:
    """
    A camera's images, matched to ticks.

    :param sensor: ``carla.Sensor`` of type ``sensor.camera.rgb``
    :param mount: gives the size of its images
    """

    def __init__(self, sensor: Any, mount: CameraMount) -> None:
        self._size = mount.height, mount.width
        self._images: queue.SimpleQueue[Any] = queue.SimpleQueue()
        sensor.listen(self._images.put)

    def image(self, frame: int, timeout: float) -> NDArray[np.uint8]:
        """
        Image of a tick; images of earlier frames are dropped.

        :param frame: frame number that the tick returned
        :param timeout: how long to wait in all, however many other images come [s]
        :return: shape (height, width, 4), uint8 BGRA, read-only
        :raises ServerTimeoutError: if the image does not come
        :raises FrameError: if the image of a later frame, or of another size, comes instead
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                image = self._images.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise ServerTimeoutError(f"The camera sent no image for frame {frame} within {timeout:g} s") from None
            if image.frame > frame:
                raise FrameError(f"The camera lost frame {frame}: it sent frame {image.frame} instead")
            if image.frame == frame:
                pixels = np.frombuffer(image.raw_data, dtype=np.uint8)
                if pixels.size != 4 * self._size[0] * self._size[1]:
                    expected = " x ".join(map(str, self._size))
                    raise FrameError(f"The camera sent {image.height} x {image.width} pixels, expected {expected}")
                return pixels.reshape(*self._size, 4)
