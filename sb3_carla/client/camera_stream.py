"""A camera on the car, and its pictures matched to the ticks that they belong to."""

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

    With ``on_demand`` the packaged server draws its pictures from the first on that is asked for.
    """

    width: int
    height: int
    fov: float = 90.0
    x: float = 1.2
    z: float = 2.0
    pitch: float = -15.0
    on_demand: bool = False


class CameraStream:
    """
    A camera's frames, matched to ticks.

    :param sensor: ``carla.Sensor`` of type ``sensor.camera.rgb``
    :param mount: what was asked for
    """

    def __init__(self, sensor: Any, mount: CameraMount) -> None:
        self._size = mount.height, mount.width
        self._images: queue.SimpleQueue[Any] = queue.SimpleQueue()
        sensor.listen(self._images.put)

    def frame(self, number: int, timeout: float) -> NDArray[np.uint8]:
        """
        Picture of a tick; older ones, late or sent again, are dropped.

        :param number: frame number that the tick returned
        :param timeout: how long to wait, however many others come [s]
        :return: shape (height, width, 4), uint8 BGRA, read-only
        :raises ServerTimeoutError: if it does not come
        :raises FrameError: if a later one comes instead, or one of another size
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                image = self._images.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise ServerTimeoutError(f"The camera sent no image for frame {number} within {timeout:g} s") from None
            if image.frame > number:
                raise FrameError(f"The camera lost frame {number}: it sent frame {image.frame} instead")
            if image.frame == number:
                pixels = np.frombuffer(image.raw_data, dtype=np.uint8)
                if pixels.size != 4 * self._size[0] * self._size[1]:
                    expected = " x ".join(map(str, self._size))
                    raise FrameError(f"The camera sent {image.height} x {image.width} pixels, expected {expected}")
                return pixels.reshape(*self._size, 4)
