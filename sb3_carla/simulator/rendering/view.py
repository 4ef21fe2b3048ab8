"""
Where on the ground each pixel of a camera looks.

Source: Mallot et al., Inverse perspective mapping simplifies optical flow computation and obstacle detection,
Biol. Cybern. 64, 1991. A row far ahead covers metres of road lengthwise and decimetres across: it is looked up at the
level of the raster that fits the pixel's width, in several sub-rows that are averaged (the anisotropic filter of
graphics cards), so that far dashes fade to grey instead of flickering.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose, rotation_matrix
from sb3_carla.simulator.physics.dynamics import Ground

__all__ = ["FAR", "Band", "Group", "Optics", "Stance", "View", "build_view", "stance"]

FAR = 200.0
"""Ground beyond is horizon [m]."""
SUBROWS = 4
"""Rows of samples in one row of the picture where the ground is seen at a flat angle."""
STRETCH = 3.0
"""Rows that cover so many times more of the road lengthwise than across are seen at a flat angle [-]."""
HEIGHT_QUANTUM = 1e-3
ANGLE_QUANTUM = 1e-3 / 4.0
"""To what height [m] and tilt [rad] are rounded for the cache; a quarter of a milliradian is 1/100 pixel at 84 pixels
and 90 degrees."""
VERTICAL = 1e-3
"""Cosine of the pitch below which a camera looks straight down or up."""
MIN_HEIGHT = 0.05
"""A camera below is treated as if it were here [m]."""


@dataclass(frozen=True, slots=True)
class Optics:
    """
    A pinhole camera.

    :param width: [px]
    :param height: [px]
    :param focal: focal length [px]
    """

    width: int
    height: int
    focal: float

    @property
    def centre(self) -> tuple[float, float]:
        """Column and row of the optical axis [px]; pixels have their middle at whole numbers."""
        return 0.5 * (self.width - 1), 0.5 * (self.height - 1)

    def rays(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """
        Lines of sight in camera axes, one forward.

        :param rows: shape (n,), float64 [px]
        :return: shape (n, width, 3), float64, forward, right, up
        """
        column, row = self.centre
        rays = np.empty((len(rows), self.width, 3))
        rays[..., 0] = 1.0
        rays[..., 1] = (np.arange(self.width) - column) / self.focal
        rays[..., 2] = (row - rows[:, None]) / self.focal
        return rays


@dataclass(frozen=True, slots=True)
class Band:
    """
    Neighbouring rows of samples that are looked up at one level of the raster.

    :param first: row of samples, counted from its group's first one
    :param last: row after the last one
    :param level: of the raster
    :param points: shape (last - first, width, 2), float32, on the ground, ahead of and right of the foot [m]
    """

    first: int
    last: int
    level: int
    points: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Group:
    """
    Neighbouring rows of the picture with the same number of samples.

    :param first: row of the picture
    :param last: row after the last one
    :param subrows: rows of samples that are averaged into one row of the picture
    :param bands: their samples
    """

    first: int
    last: int
    subrows: int
    bands: tuple[Band, ...]


@dataclass(frozen=True, slots=True)
class View:
    """
    Geometry of a camera above a plane.

    :param groups: rows with ground in them
    :param points: shape (height, width, 2), float32, where the pixels' middles meet the ground [m]
    :param depth: shape (height, width), float32, along the camera's axis [m]; infinite in the sky
    :param distance: shape (height, width), float32, from the camera [m]; infinite in the sky
    :param elevation: shape (height, width), float32, of the line of sight over the plane [rad]
    :param horizon: first row with ground in it
    :param sky: shape (height, width, 1), bool, sky in the rows below ``horizon``; None where these show ground only
    """

    groups: tuple[Group, ...]
    points: NDArray[np.float32]
    depth: NDArray[np.float32]
    distance: NDArray[np.float32]
    elevation: NDArray[np.float32]
    horizon: int
    sky: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class Stance:
    """
    How a camera stands over the road plane.

    :param tilt: height over the plane [m], pitch and roll against it [rad], rounded: the same in every frame of a
        camera that is fixed to a car, and all that its view of the ground depends on
    :param ahead: world x and y of the plane's axis along the line of sight
    :param right: world x and y of the plane's axis to the right
    :param foot: world x and y of the point of the plane that is nearest to the camera [m]
    """

    tilt: tuple[float, float, float]
    ahead: tuple[float, float]
    right: tuple[float, float]
    foot: tuple[float, float]


def stance(pose: Pose, ground: Ground) -> Stance:
    """
    :param pose: of the camera
    :param ground: road plane, its height taken at the camera's x and y
    """
    height = pose.z - ground.z
    if ground.slope_x == 0.0 and ground.slope_y == 0.0 and math.cos(pose.pitch) > VERTICAL:
        ahead = math.cos(pose.yaw), math.sin(pose.yaw)
        return Stance(_rounded(height, pose.pitch, pose.roll), ahead, (-ahead[1], ahead[0]), (pose.x, pose.y))
    forward, right, up = rotation_matrix(pose).T
    normal = np.array((-ground.slope_x, -ground.slope_y, 1.0))
    normal /= math.sqrt(float(normal @ normal))
    sink = float(forward @ normal)
    if abs(sink) < math.sqrt(1.0 - VERTICAL * VERTICAL):
        ahead_axis = forward - sink * normal
        ahead_axis /= math.sqrt(float(ahead_axis @ ahead_axis))
        right_axis = np.cross(normal, ahead_axis)
        roll = math.atan2(-float(right @ normal), float(up @ normal))
    else:  # straight down or up: the picture's rows keep the direction
        right_axis = right - float(right @ normal) * normal
        right_axis /= math.sqrt(float(right_axis @ right_axis))
        ahead_axis = np.cross(right_axis, normal)
        roll = 0.0
    height *= float(normal[2])
    x, y = pose.x - height * float(normal[0]), pose.y - height * float(normal[1])
    return Stance(
        _rounded(height, math.asin(max(-1.0, min(1.0, sink))), roll),
        (float(ahead_axis[0]), float(ahead_axis[1])),
        (float(right_axis[0]), float(right_axis[1])),
        (x, y),
    )


def _rounded(height: float, pitch: float, roll: float) -> tuple[float, float, float]:
    return (
        round(max(height, MIN_HEIGHT) / HEIGHT_QUANTUM) * HEIGHT_QUANTUM,
        round(pitch / ANGLE_QUANTUM) * ANGLE_QUANTUM,
        round(roll / ANGLE_QUANTUM) * ANGLE_QUANTUM,
    )


def build_view(optics: Optics, tilt: tuple[float, float, float], cell: float, levels: int) -> View:
    """
    :param optics: of the camera
    :param tilt: of its ``Stance``
    :param cell: size of the raster's finest cells [m]
    :param levels: how many levels the raster has
    """
    height, pitch, roll = tilt
    turn = rotation_matrix(Pose(pitch=pitch, roll=roll)).T
    rows = np.arange(optics.height, dtype=np.float64)
    directions = optics.rays(rows) @ turn
    points, depth = _meet_ground(directions, height)
    distance = np.where(np.isinf(depth), np.inf, depth * np.linalg.norm(directions, axis=2))
    elevation = np.arctan2(directions[..., 2], np.hypot(directions[..., 0], directions[..., 1]))
    sky = np.isinf(depth)
    level, subrows = _plan(optics, turn, height, sky, cell)
    groups = []
    for first, last in _runs(subrows):
        count = int(subrows[first])
        if count == 0:
            continue
        bands = []
        for low, high in _runs(np.clip(level[first:last], 0, levels - 1)):
            fine = np.arange((first + low) * count, (first + high) * count)
            samples, _ = _meet_ground(optics.rays((fine + 0.5) / count - 0.5) @ turn, height)
            number = int(np.clip(level[first + low], 0, levels - 1))
            bands.append(Band(low * count, high * count, number, samples.astype(np.float32)))
        groups.append(Group(first, last, count, tuple(bands)))
    horizon = groups[0].first if groups else optics.height
    return View(
        tuple(groups),
        points.astype(np.float32),
        depth.astype(np.float32),
        distance.astype(np.float32),
        elevation.astype(np.float32),
        horizon,
        sky[..., None] if sky[horizon:].any() else None,
    )


def _plan(
    optics: Optics, turn: NDArray[np.float64], height: float, sky: NDArray[np.bool_], cell: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row the raster's level and how many rows of samples it needs, 0 in the sky: two of shape (height,)."""
    across, along = (_typical(footprint, sky) for footprint in _footprints(optics, turn, height))
    level = np.floor(np.log2(across / cell) + 0.5).astype(np.int64)
    stretched = along > STRETCH * np.maximum(across, cell)
    return level, np.where(sky.all(axis=1), 0, np.where(stretched, SUBROWS, 1))


def _runs(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Stretches of equal values: first index, index after the last one."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return list(pairwise(edges))


def _meet_ground(directions: NDArray[np.float64], height: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where lines of sight meet the plane (forward, right) [m], and their depth [m], infinite in the sky."""
    down = np.maximum(-directions[..., 2], 1e-9)
    depth = height / down
    points = directions[..., :2] * depth[..., None]
    beyond = depth > FAR
    # Samples beyond the horizon stay in range: a pixel may hold some of them.
    points[beyond] *= (FAR / depth[beyond])[:, None]
    return points, np.where(beyond, np.inf, depth)


def _footprints(
    optics: Optics, turn: NDArray[np.float64], height: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ground covered by one step to the right and one step down in the picture: two of shape (height, width) [m]."""
    rows = np.arange(optics.height, dtype=np.float64)
    left_axis, down_axis = turn[1] / optics.focal, -turn[2] / optics.focal
    directions = optics.rays(rows) @ turn
    down = np.maximum(-directions[..., 2], height / (4.0 * FAR))
    steps = []
    for axis in (left_axis, down_axis):
        # d(point) = height * (axis / down + direction * axis_z / down^2), for the two coordinates on the plane
        change = axis[:2] / down[..., None] + directions[..., :2] * (axis[2] / down**2)[..., None]
        steps.append(height * np.hypot(change[..., 0], change[..., 1]))
    return steps[0], steps[1]


def _typical(footprint: NDArray[np.float64], sky: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One footprint for each row: the median of its pixels on the ground; shape (height,) [m]."""
    typical = np.ones(len(footprint))
    for row in range(len(footprint)):
        seen = footprint[row, ~sky[row]]
        if seen.size:
            typical[row] = max(float(np.median(seen)), 1e-6)
    return typical
