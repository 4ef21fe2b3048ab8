"""Recordings drawn by hand: a straight road with one bright line, so that every pixel can be worked out."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.recordings.table import Row, write_rows

__all__ = ["ROAD", "line_picture", "straight_recording"]

ROAD, LINE, SKY = 60, 220, 140


def line_picture(mount: CameraMount, right: float, yaw: float = 0.0, width: float = 0.3) -> NDArray[np.uint8]:
    """
    What a camera over a plane with a line along x sees.

    :param mount: of the camera
    :param right: distance of the line's centre from the car, to its right [m]
    :param yaw: car's heading against the line [rad]
    :param width: of the line [m]
    :return: shape (height, width, 3), uint8
    """
    focal = 0.5 * mount.width / math.tan(math.radians(0.5 * mount.fov))
    columns, rows = np.meshgrid(np.arange(mount.width), np.arange(mount.height))
    right_ray, up_ray = (columns - 0.5 * (mount.width - 1)) / focal, (0.5 * (mount.height - 1) - rows) / focal
    pitch = math.radians(mount.pitch)
    ahead, up = math.cos(pitch) - up_ray * math.sin(pitch), math.sin(pitch) + up_ray * math.cos(pitch)
    depth = mount.z / np.maximum(-up, 1e-9)
    # To the right of the line's direction: x sin(yaw) + y cos(yaw)
    across = (mount.x + depth * ahead) * math.sin(yaw) + depth * right_ray * math.cos(yaw)
    grey = np.where(up >= 0.0, SKY, np.where(np.abs(across - right) < 0.5 * width, LINE, ROAD)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def straight_recording(
    folder: Path, mount: CameraMount, *, moments: int = 40, spacing: float = 1.0, right: float = 1.5, name: str = "a"
) -> Path:
    """
    A drive in the middle of a straight lane with a line to the right of its centre.

    :param folder: to write
    :param mount: of the camera
    :param moments: number of pictures
    :param spacing: between them [m]
    :param right: distance of the line from the lane's centre [m]
    :param name: of the sequence
    :return: the folder
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "picture.png"
    cv2.imwrite(str(path), line_picture(mount, right))  # along the line all places look alike
    write_rows(folder, [
        Row(path, name, i, 0.05 * i, "Drawn", "ClearNoon", "front", mount, 0.0, 0.0, spacing * i, 0.0, 1.75)
        for i in range(moments)
    ])  # fmt: skip
    return folder
