"""What ``render()`` shows: the car from behind, as an array or in a window."""

from __future__ import annotations

import logging
import os

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.client.session import CarlaSession
from sb3_carla.errors import ServerError

__all__ = ["RENDER_MODES", "Spectator"]

RENDER_MODES = ("rgb_array", "human")

logger = logging.getLogger(__name__)


class Spectator:
    """
    The camera behind and above the car. The packaged server draws its pictures only after the first one is asked for.

    SB3 makes every environment with a ``render_mode``, and few are ever rendered.

    :param render_mode: None, "rgb_array" or "human"
    :raises ValueError: if it is something else
    """

    MOUNT = CameraMount(width=640, height=384, x=-6.0, z=3.2, pitch=-14.0, on_demand=True)

    def __init__(self, render_mode: str | None) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise ValueError(f"render_mode: expected None or one of {RENDER_MODES}, got {render_mode!r}")
        self._render_mode = render_mode
        self._picture: NDArray[np.uint8] = np.empty(0, np.uint8)

    @property
    def mounts(self) -> list[CameraMount]:
        """The cameras that the car needs for this: one, or none without a ``render_mode``."""
        return [] if self._render_mode is None else [self.MOUNT]

    def update(self, session: CarlaSession) -> None:
        """
        Take the present picture, if they are drawn; in "human" mode show it.

        :param session: with ``mounts``
        :raises ServerError: if the picture does not come
        """
        if session.is_listening(self.MOUNT):
            self._picture = session.image(self.MOUNT)
        if self._render_mode == "human":
            self.render(session)

    def render(self, session: CarlaSession) -> NDArray[np.uint8] | None:
        """
        :param session: with ``mounts``
        :return: with "rgb_array" the present picture: shape (384, 640, 3), uint8 RGB, black if the server is lost; with
            "human" None, and the picture is shown in a window
        """
        if self._render_mode is None:
            return None
        if not session.is_listening(self.MOUNT):
            try:
                self._picture = session.image(self.MOUNT)
            except ServerError as error:  # the next step connects anew
                logger.warning("No picture to render: %s", error)
                self._picture = np.zeros((self.MOUNT.height, self.MOUNT.width, 4), np.uint8)
        if self._render_mode == "rgb_array":
            return np.ascontiguousarray(self._picture[:, :, 2::-1])  # BGRA to RGB
        _show(self._picture)
        return None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._render_mode == "human" and _has_display():
            cv2.destroyAllWindows()


def _show(picture: NDArray[np.uint8]) -> None:
    """Show a picture of shape (height, width, 4), uint8 BGRA, or log that there is no display."""
    if not _has_display():
        # OpenCV's window system would abort the process.
        logger.warning('render_mode "human" needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set')
        return
    cv2.imshow("CarlaLane-v0", picture)
    cv2.waitKey(1)


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
