"""Solid boxes in front of a camera: visible faces and contact shadows, clipped, in the order to paint them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose, rotation_matrix
from sb3_carla.simulator.rendering.inverse_perspective import Intrinsics

__all__ = ["Box", "Face", "clip_near", "project", "visible_faces"]

CAR_TAG = int(carla.CityObjectLabel.Car)
NEAR = 0.05
"""Depth of the near plane [m]."""
FAR = 300.0
"""Boxes farther away are left out [m]: at 84 pixels a car is half a pixel wide there."""
SHADOW = 0.15
"""How far the contact shadow reaches beyond a box [m]."""
SHADOW_COLOR = (38.0, 36.0, 35.0)
"""Blue, green, red, 0 to 255."""
SUN = np.array([0.35, 0.45, 0.82])
"""Direction to the light that shades the faces, in world axes; fixed: the shading does not depend on the weather."""
# Faces of a box: four corners in order around the face, axis (0 to 2) and sign of its outward normal. The signs of a
# corner's x, y and z are bits 0, 1 and 2 of its index.
_FACES = (
    ((1, 3, 7, 5), 0, 1.0),
    ((0, 4, 6, 2), 0, -1.0),
    ((2, 6, 7, 3), 1, 1.0),
    ((0, 1, 5, 4), 1, -1.0),
    ((4, 5, 7, 6), 2, 1.0),
    ((0, 2, 3, 1), 2, -1.0),
)
_SIGNS = np.array([[1.0 if i >> k & 1 else -1.0 for k in range(3)] for i in range(8)])


@dataclass(frozen=True, slots=True)
class Box:
    """
    Solid body in the world.

    :param pose: of the box's centre
    :param half_extents: half length, half width, half height [m]
    :param color: blue, green, red, 0 to 255
    :param tag: ``carla.CityObjectLabel``
    :param actor_id: of the body, 0 for none; decides the order of boxes at equal distances
    """

    pose: Pose
    half_extents: tuple[float, float, float]
    color: tuple[int, int, int] = (60, 60, 200)
    tag: int = CAR_TAG
    actor_id: int = 0


@dataclass(frozen=True, slots=True)
class Face:
    """
    One polygon to paint.

    :param points: shape (n, 2), float64, column and row [px]; the centres of pixels have whole coordinates
    :param color: blue, green, red, 0 to 255, shaded
    :param distance: of the box's centre [m]
    :param inverse_depth: (a, b, c): 1 / depth [1/m] is ``a + b * column + c * row`` on this face
    :param box: the box it belongs to; None for a contact shadow
    """

    points: NDArray[np.float64]
    color: tuple[float, float, float]
    distance: float
    inverse_depth: tuple[float, float, float]
    box: Box | None


@dataclass(frozen=True, slots=True)
class _Solid:
    """
    A box in camera coordinates.

    :param box: the box in the world
    :param centre: shape (3,), float64, forward, right, up [m]
    :param axes: shape (3, 3), float64; rows are the box's axes in the camera's
    :param corners: shape (8, 3), float64, forward, right, up [m]
    :param light: shape (3,), float64, ``SUN`` in the box's axes
    :param distance: of the centre [m]
    :param left: least tangent right / forward of its corners; -inf if it reaches behind the near plane
    :param right: greatest tangent; inf likewise
    """

    box: Box
    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    corners: NDArray[np.float64]
    light: NDArray[np.float64]
    distance: float
    left: float
    right: float


def visible_faces(pose: Pose, boxes: Sequence[Box], intrinsics: Intrinsics) -> list[Face]:
    """
    Faces that a camera sees, farthest first: painted in this order, each hides those behind it.

    :param pose: of the camera
    :param boxes: bodies in the world
    :param intrinsics: of the camera
    :return: faces in the order to paint them
    """
    if not boxes:
        return []
    rotation = rotation_matrix(pose)
    offsets = np.array([(box.pose.x - pose.x, box.pose.y - pose.y, box.pose.z - pose.z) for box in boxes])
    centres = offsets @ rotation  # (n, 3): forward, right, up
    radii = np.linalg.norm([box.half_extents for box in boxes], axis=1)
    # Culling: a box is kept if its bounding sphere touches the cone around the picture's corners. ``spread`` is the
    # tangent of the cone's half angle.
    column, row = intrinsics.centre
    spread = math.hypot(column + 0.5, row + 0.5) / intrinsics.focal
    sideways = np.hypot(centres[:, 1], centres[:, 2])
    reach = centres[:, 0] + radii
    seen = (reach > NEAR) & (centres[:, 0] < FAR) & (sideways < spread * reach + radii * math.hypot(1.0, spread))
    solids = [_solid(boxes[i], centres[i], rotation) for i in np.flatnonzero(seen).tolist()]
    solids.sort(key=lambda solid: (-solid.distance, solid.box.actor_id))
    faces = []
    for solid in _painting_order(solids):
        faces += [*_shadow(solid, intrinsics), *_faces(solid, intrinsics)]
    return faces


def _solid(box: Box, centre: NDArray[np.float64], camera: NDArray[np.float64]) -> _Solid:
    body = rotation_matrix(box.pose)  # (3, 3): columns are the box's axes in the world
    axes = body.T @ camera  # (3, 3): rows are the box's axes in the camera's
    corners = centre + (_SIGNS * box.half_extents) @ axes
    left, right = -math.inf, math.inf
    if float(corners[:, 0].min()) > NEAR:
        tangents = corners[:, 1] / corners[:, 0]
        left, right = float(tangents.min()), float(tangents.max())
    return _Solid(box, centre, axes, corners, SUN @ body, float(np.linalg.norm(centre)), left, right)


def _painting_order(solids: list[_Solid]) -> list[_Solid]:
    """
    Painter's algorithm: far to near by centres, corrected by ``_hides``.

    A long lorry's centre may be nearer than that of a car in front of it, so distances alone are not enough. Source:
    Newell, Newell, Sancha, A solution to the hidden surface problem, ACM 1972, reduced to boxes that do not intersect.
    """
    if len(solids) < 2:
        return solids
    ordered = []
    waiting = list(solids)
    while waiting:
        first = next((a for a in waiting if not any(_hides(a, b) for b in waiting if b is not a)), waiting[0])
        ordered.append(first)
        waiting.remove(first)
    return ordered


def _hides(a: _Solid, b: _Solid) -> bool:
    """Whether ``a`` lies in front of ``b``: a plane of a face separates them, with ``a`` on the camera's side."""
    if a.right <= b.left or b.right <= a.left:
        return False
    gap = b.distance - a.distance
    if abs(gap) > sum(a.box.half_extents) + sum(b.box.half_extents):
        return gap > 0.0
    return _separated(a, b) and not _separated(b, a)


def _separated(front: _Solid, back: _Solid) -> bool:
    """Whether a face's plane of either box has ``front`` on the camera's side and ``back`` on the other."""
    for solid, other, side in ((front, back, 1.0), (back, front, -1.0)):
        for k in range(3):
            axis, extent = solid.axes[k], solid.box.half_extents[k]
            middle = float(axis @ solid.centre)
            others = other.corners @ axis - middle
            camera = -middle
            for sign in (1.0, -1.0):
                # ``solid`` lies below the plane sign * x = extent. ``other`` must lie above it, the camera (the origin)
                # below it if ``solid`` is the front one, else above.
                if (sign * others).min() >= extent - 1e-6 and side * (sign * camera - extent) < 0.0:
                    return True
    return False


def _shadow(solid: _Solid, intrinsics: Intrinsics) -> list[Face]:
    """Dark rectangle on the ground around a box; none if the camera is below that ground."""
    length, width, height = solid.box.half_extents
    corners = np.array([(x, y, -height) for x, y in ((1, 1), (1, -1), (-1, -1), (-1, 1))], dtype=np.float64)
    corners[:, :2] *= length + SHADOW, width + SHADOW
    if float(solid.axes[2] @ (solid.centre - height * solid.axes[2])) >= 0.0:
        return []
    polygon = clip_near(solid.centre + corners @ solid.axes)
    if len(polygon) < 3:
        return []
    return [Face(project(polygon, intrinsics), SHADOW_COLOR, solid.distance, (0.0, 0.0, 0.0), None)]


def _faces(solid: _Solid, intrinsics: Intrinsics) -> list[Face]:
    faces = []
    blue, green, red = solid.box.color
    for corners, k, sign in _FACES:
        normal = sign * solid.axes[k]
        polygon = solid.corners[list(corners)]
        offset = float(normal @ polygon[0])
        if offset >= 0.0:  # the outward normal points away from the camera
            continue
        polygon = clip_near(polygon)
        if len(polygon) < 3:
            continue
        # Lambert's cosine law over ambient light.
        light = 0.55 + 0.45 * max(0.0, sign * float(solid.light[k]))
        # On the face normal . (depth * (1, u, v)) = offset, with u = (column - cx) / f and v = (cy - row) / f, hence
        # 1 / depth = normal . (1, u, v) / offset, which is linear in column and row.
        column, row = intrinsics.centre
        across, down = float(normal[1]) / (intrinsics.focal * offset), -float(normal[2]) / (intrinsics.focal * offset)
        constant = float(normal[0]) / offset - across * column - down * row
        color = light * blue, light * green, light * red
        faces.append(Face(project(polygon, intrinsics), color, solid.distance, (constant, across, down), solid.box))
    return faces


def clip_near(polygon: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Part of a polygon in front of the near plane.

    Source: Sutherland and Hodgman, Reentrant polygon clipping, CACM 17, 1974.

    :param polygon: shape (n, 3), float64, forward, right, up [m]
    :return: shape (m, 3), float64; m is 0 if nothing is left
    """
    inside = polygon[:, 0] >= NEAR
    if inside.all():
        return polygon
    kept = []
    for i in range(len(polygon)):
        j = (i + 1) % len(polygon)
        if inside[i]:
            kept.append(polygon[i])
        if inside[i] != inside[j]:  # the edge crosses the plane
            share = (NEAR - polygon[i, 0]) / (polygon[j, 0] - polygon[i, 0])
            kept.append(polygon[i] + share * (polygon[j] - polygon[i]))
    return np.array(kept).reshape(-1, 3)


def project(points: NDArray[np.float64], intrinsics: Intrinsics) -> NDArray[np.float64]:
    """
    Pinhole projection.

    :param points: shape (n, 3), float64, forward > 0, right, up [m]
    :param intrinsics: of the camera
    :return: shape (n, 2), float64, column and row [px]
    """
    scale = intrinsics.focal / points[:, 0]
    column, row = intrinsics.centre
    return np.stack((column + points[:, 1] * scale, row - points[:, 2] * scale), axis=1)
