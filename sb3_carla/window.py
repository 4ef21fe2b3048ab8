"""``render_mode="human"``: a picture on the screen, where there is one."""

from __future__ import annotations

import logging
import os

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["close_windows", "show"]

logger = logging.getLogger(__name__)


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
