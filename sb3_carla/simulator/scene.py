"""Solid boxes in a picture: other vehicles and props."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose, rotation_matrix

__all__ = ["Box", "Face", "visible_faces"]

NEAR = 0.2
"""Distance of the near clipping plane [m]."""
SUN = np.array([0.35, -0.45, 0.82])
"""Direction to the light in which faces are shaded."""
SUBPIXEL = 4
"""Fractional bits of the coordinates given to OpenCV."""
FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
"""Corners of each side; bit 2 of a corner's number is x, bit 1 is y, bit 0 is z."""
NORMALS = np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]], dtype=np.float64)
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Box:
    """
    A solid body.

    :param pose: of the box's centre, in the world
    :param half_extents: half length, half width, half height [m]
    :param color: BGR, 0..255
    :param tag: semantic label, ``carla.CityObjectLabel``; 14 is a car
    :param actor_id: whose body it is
    """

    pose: Pose
    half_extents: tuple[float, float, float]
    color: tuple[int, int, int] = (60, 60, 160)
    tag: int = 14
    actor_id: int = 0


@dataclass(frozen=True, slots=True)
class Face:
    """
    A side of a box as a camera sees it.

    :param outline: shape (n, 2), int32, pixel coordinates with ``SUBPIXEL`` fractional bits
    :param normal: shape (3,), float64, in camera axes (forward, right, up)
    :param offset: distance of the face's plane from the camera along ``normal`` [m]
    :param distance: of the box's centre [m]
    :param shade: brightness [-]
    :param box: whose side it is
    """

    outline: NDArray[np.int32]
    normal: NDArray[np.float64]
    offset: float
    distance: float
    shade: float
    box: Box


def visible_faces(
    boxes: Sequence[Box], camera: Pose, focal: float, centre: tuple[float, float], reach: float
) -> Iterator[Face]:
    """
    The sides that face a camera, farthest box first (painter's algorithm).

    :param boxes: the bodies
    :param camera: the camera's pose in the world
    :param focal: focal length [px]
    :param centre: principal point: column, row [px]
    :param reach: boxes farther than this are left out [m]
    """
    if not boxes:
        return
    axes = rotation_matrix(camera)
    origin = np.array([camera.x, camera.y, camera.z])
    seen = []
    for box in boxes:
        middle = (np.array([box.pose.x, box.pose.y, box.pose.z]) - origin) @ axes
        if middle[0] > -sum(box.half_extents) and float(middle @ middle) < reach * reach:
            seen.append((float(np.linalg.norm(middle)), box, middle))
    for distance, box, middle in sorted(seen, key=lambda item: -item[0]):
        turn = rotation_matrix(box.pose)
        corners = middle + (CORNERS * box.half_extents) @ turn.T @ axes  # (8, 3) in camera axes
        normals = NORMALS @ turn.T @ axes  # (6, 3)
        shades = 0.55 + 0.45 * np.clip(NORMALS @ turn.T @ SUN, 0.0, 1.0)
        for side, normal, shade in zip(FACES, normals, shades, strict=True):
            offset = float(normal @ corners[side[0]])
            if offset >= 0.0:  # seen from behind
                continue
            polygon = _clipped(corners[list(side)])
            if len(polygon) < 3:
                continue
            columns = centre[0] + focal * polygon[:, 1] / polygon[:, 0]
            rows = centre[1] - focal * polygon[:, 2] / polygon[:, 0]
            points = np.clip(np.stack([columns, rows], axis=1), -1e4, 1e4)
            outline = np.rint(points * (1 << SUBPIXEL)).astype(np.int32)
            yield Face(outline, normal, offset, distance, float(shade), box)


def _clipped(polygon: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of a polygon in front of the near plane (Sutherland-Hodgman); shape (m, 3)."""
    depth = polygon[:, 0]
    if (depth >= NEAR).all():
        return polygon
    kept = []
    for here, after in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if here[0] >= NEAR:
            kept.append(here)
        if (here[0] >= NEAR) != (after[0] >= NEAR):
            kept.append(here + (NEAR - here[0]) / (after[0] - here[0]) * (after - here))
    return np.array(kept).reshape(-1, 3)


def fill(image: NDArray[np.uint8], face: Face, value: tuple[float, ...], *, smooth: bool = False) -> None:
    """
    Paint a face.

    :param image: shape (height, width) or (height, width, channels), uint8
    :param face: what to paint
    :param value: one number a channel
    :param smooth: anti-aliased edges
    """
    line = cv2.LINE_AA if smooth else cv2.LINE_8
    cv2.fillConvexPoly(image, face.outline, value, line, SUBPIXEL)
