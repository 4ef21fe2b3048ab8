"""What ``render()`` shows: the car from behind, as an array or in a window, where there is a screen."""

from __future__ import annotations

import logging
import os

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.client.session import CarlaSession
from sb3_carla.errors import ServerError

__all__ = ["Spectator", "close_windows", "show"]

logger = logging.getLogger(__name__)


class Spectator:
    """
    The camera behind and above the car, through which the packaged server looks only once somebody asks for it.

    SB3 makes every environment such that it could be rendered, and few ever are.
    """

    MOUNT = CameraMount(width=640, height=384, x=-6.0, z=3.2, pitch=-14.0, on_demand=True)

    def __init__(self) -> None:
        self._picture: NDArray[np.uint8] = np.empty(0, np.uint8)

    def keep_up(self, session: CarlaSession) -> None:
        """
        Take the present picture, if they come.

        :param session: with this camera or without
        :raises ServerError: if it does not come
        """
        if session.is_listening(self.MOUNT):
            self._picture = session.image(self.MOUNT)

    def picture(self, session: CarlaSession) -> NDArray[np.uint8]:
        """
        :param session: with this camera
        :return: the present picture: shape (384, 640, 4), uint8 BGRA; black if the server is lost
        """
        if not session.is_listening(self.MOUNT):
            try:
                self._picture = session.image(self.MOUNT)
            except ServerError as error:  # the next step will find out, and cure it
                logger.warning("No picture to render: %s", error)
                self._picture = np.zeros((self.MOUNT.height, self.MOUNT.width, 4), np.uint8)
        return self._picture


def show(picture: NDArray[np.uint8]) -> None:
    """
    Show a picture, or say that there is no display.

    :param picture: shape (height, width, 3 or 4), uint8, blue first
    """
    if not _has_display():
        # OpenCV's window system would abort the process.
        logger.warning('render_mode "human" needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set')
        return
    cv2.imshow("CarlaLane-v0", picture)
    cv2.waitKey(1)


def close_windows() -> None:
    """Close what :func:`show` has opened."""
    if _has_display():
        cv2.destroyAllWindows()


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
