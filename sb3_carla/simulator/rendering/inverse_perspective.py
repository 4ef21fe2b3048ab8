"""
Inverse perspective mapping: where on the ground each pixel of a camera looks.

Source: Mallot et al., Inverse perspective mapping simplifies optical flow computation and obstacle detection,
Biol. Cybern. 64, 1991. The road plane has its own axes, ahead of and right of the point below the camera. In these
axes the mapping depends on the camera's height, pitch and roll only, so a camera on a car can keep it.

A row far ahead covers metres of road lengthwise and decimetres across. It reads the level of the raster whose cells
are as wide as its pixels, in several sub-rows that are averaged (anisotropic filtering, as graphics cards do it), so
that far dashes fade to grey instead of flickering.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose, rotation_matrix
from sb3_carla.simulator.physics.dynamics import Ground

__all__ = ["GroundView", "Intrinsics", "PlanePose", "build_ground_view", "pose_over_plane"]

FAR = 200.0
"""Ground farther away than this is drawn as sky [m]."""
SUBROWS = 4
"""Rows of samples for one row of the picture where the ground is seen at a flat angle."""
STRETCH = 3.0
"""The angle is flat where a row covers more than so many times its pixels' width of road lengthwise [-]."""
HEIGHT_QUANTUM = 1e-3
ANGLE_QUANTUM = 1e-3 / 4.0
"""Height [m], pitch and roll [rad] are rounded to these steps for the cache; a quarter of a milliradian is 1/100 pixel
at 84 pixels and 90 degrees."""
VERTICAL = 1e-3
"""A camera looks straight down or up if the cosine of its pitch is smaller [-]."""
MIN_HEIGHT = 0.05
"""A camera lower than this is treated as if it were at this height [m]."""


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """
    Size and focal length of a pinhole camera.

    :param width: [px]
    :param height: [px]
    :param focal: focal length [px]
    """

    width: int
    height: int
    focal: float

    @property
    def centre(self) -> tuple[float, float]:
        """Column and row of the optical axis [px]; the centres of pixels have whole coordinates."""
        return 0.5 * (self.width - 1), 0.5 * (self.height - 1)

    def rays(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """
        Lines of sight in camera axes, scaled so that the forward component is 1.

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
class GroundView:
    """
    What each pixel of a camera above a plane sees. Points are in the plane's axes.

    :param samples: shape (sub-rows, width, 2), float32: where samples of the ground lie: ahead and right [m]
    :param rows: shape (height, 3), int64: first sub-row, number of sub-rows (0 in the sky) and level of the raster
    :param points: shape (height, width, 2), float32, where the pixels' centres meet the ground: ahead and right [m]
    :param depth: shape (height, width), float32, along the camera's axis [m]; infinite in the sky
    :param distance: shape (height, width), float32, from the camera [m]; infinite in the sky
    :param elevation: shape (height, width), float32, of the line of sight over the plane [rad]
    :param azimuth: shape (height, width), float32, of the line of sight, right of straight ahead [rad]
    """

    samples: NDArray[np.float32]
    rows: NDArray[np.int64]
    points: NDArray[np.float32]
    depth: NDArray[np.float32]
    distance: NDArray[np.float32]
    elevation: NDArray[np.float32]
    azimuth: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PlanePose:
    """
    Pose of a camera relative to the road plane.

    :param height_pitch_roll: height over the plane [m], pitch and roll against it [rad], all rounded. It is the same
        in every frame of a camera that is fixed to a car, and the ``GroundView`` depends on nothing else.
    :param ahead: world x and y of the plane's axis along the line of sight
    :param right: world x and y of the plane's axis to the right
    :param foot: world x and y of the plane's point nearest to the camera [m], the origin of its axes
    """

    height_pitch_roll: tuple[float, float, float]
    ahead: tuple[float, float]
    right: tuple[float, float]
    foot: tuple[float, float]


def pose_over_plane(pose: Pose, ground: Ground) -> PlanePose:
    """
    Pose of a camera relative to the road plane.

    :param pose: of the camera in the world
    :param ground: road plane, its height taken at the camera's x and y
    """
    height = pose.z - ground.z
    if ground.slope_x == 0.0 and ground.slope_y == 0.0 and math.cos(pose.pitch) > VERTICAL:
        ahead = math.cos(pose.yaw), math.sin(pose.yaw)
        return PlanePose(_rounded(height, pose.pitch, pose.roll), ahead, (-ahead[1], ahead[0]), (pose.x, pose.y))
    forward, right, up = rotation_matrix(pose).T
    # The plane z = slope_x * x + slope_y * y has the normal (-slope_x, -slope_y, 1).
    normal = np.array((-ground.slope_x, -ground.slope_y, 1.0))
    normal /= math.sqrt(float(normal @ normal))
    sine_pitch = float(forward @ normal)
    if abs(sine_pitch) < math.sqrt(1.0 - VERTICAL * VERTICAL):
        # "Ahead" is the line of sight without its part along the normal (Gram-Schmidt).
        ahead_axis = forward - sine_pitch * normal
        ahead_axis /= math.sqrt(float(ahead_axis @ ahead_axis))
        right_axis = np.cross(normal, ahead_axis)
        roll = math.atan2(-float(right @ normal), float(up @ normal))
    else:  # It looks straight down or up: "right" is the direction of the picture's rows.
        right_axis = right - float(right @ normal) * normal
        right_axis /= math.sqrt(float(right_axis @ right_axis))
        ahead_axis = np.cross(right_axis, normal)
        roll = 0.0
    # From the vertical distance to the distance along the normal.
    height *= float(normal[2])
    x, y = pose.x - height * float(normal[0]), pose.y - height * float(normal[1])
    return PlanePose(
        _rounded(height, math.asin(max(-1.0, min(1.0, sine_pitch))), roll),
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


def build_ground_view(
    intrinsics: Intrinsics, height_pitch_roll: tuple[float, float, float], *, cell: float, levels: int
) -> GroundView:
    """
    Map every pixel of a camera to the ground.

    :param intrinsics: of the camera
    :param height_pitch_roll: of its ``PlanePose``
    :param cell: size of the raster's finest cells [m]
    :param levels: how many levels the raster has
    """
    height, pitch, roll = height_pitch_roll
    # (3, 3), camera axes to plane axes: the rows are the camera's forward, right and up axis in the plane's.
    to_plane = rotation_matrix(Pose(pitch=pitch, roll=roll)).T
    rows = np.arange(intrinsics.height, dtype=np.float64)
    directions = intrinsics.rays(rows) @ to_plane  # (height, width, 3): ahead, right, up
    points, depth = _meet_ground(directions, height)
    # A direction has the forward component 1, so that its length is distance / depth.
    distance = np.where(np.isinf(depth), np.inf, depth * np.linalg.norm(directions, axis=2))
    elevation = np.arctan2(directions[..., 2], np.hypot(directions[..., 0], directions[..., 1]))
    sky = np.isinf(depth)
    level, subrows = _levels_and_subrows(intrinsics, to_plane, height, sky, cell)
    level = np.clip(level, 0, levels - 1)
    # Sub-row k of row r lies at r - 1/2 + (k + 1/2) / subrows: the sub-rows divide the row evenly.
    starts = np.cumsum(subrows) - subrows
    row_of = np.repeat(np.arange(intrinsics.height), subrows)  # (sub-rows,)
    within = np.arange(len(row_of)) - starts[row_of]
    fine = row_of - 0.5 + (within + 0.5) / subrows[row_of]
    samples, _ = _meet_ground(intrinsics.rays(fine) @ to_plane, height)
    return GroundView(
        samples.astype(np.float32),
        np.ascontiguousarray(np.stack([starts, subrows, level], axis=1), np.int64),
        points.astype(np.float32),
        depth.astype(np.float32),
        distance.astype(np.float32),
        elevation.astype(np.float32),
        np.arctan2(directions[..., 1], directions[..., 0]).astype(np.float32),
    )


def _levels_and_subrows(
    intrinsics: Intrinsics, to_plane: NDArray[np.float64], height: float, sky: NDArray[np.bool_], cell: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Level of the raster and number of sub-rows (0 in the sky) for each row: two of shape (height,)."""
    across, along = (_row_medians(footprint, sky) for footprint in _footprints(intrinsics, to_plane, height))
    # Cells of level k are cell * 2^k wide: the level whose cells are nearest to the pixel's width.
    level = np.floor(np.log2(across / cell) + 0.5).astype(np.int64)
    stretched = along > STRETCH * np.maximum(across, cell)
    return level, np.where(sky.all(axis=1), 0, np.where(stretched, SUBROWS, 1))


def _meet_ground(directions: NDArray[np.float64], height: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Where lines of sight meet the plane.

    :param directions: shape (rows, width, 3), float64, ahead, right, up; camera's forward component 1
    :param height: of the camera over the plane [m]
    :return: points, shape (rows, width, 2), ahead and right [m]; depth, shape (rows, width) [m], infinite in the sky
    """
    # The ray depth * direction comes down by the camera's height at depth = height / -up.
    down = np.maximum(-directions[..., 2], 1e-9)
    depth = height / down
    points = directions[..., :2] * depth[..., None]
    beyond = depth > FAR
    # Points beyond the horizon are moved to it: a pixel may average some of them with ground.
    points[beyond] *= (FAR / depth[beyond])[:, None]
    return points, np.where(beyond, np.inf, depth)


def _footprints(
    intrinsics: Intrinsics, to_plane: NDArray[np.float64], height: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ground covered by one step to the right and one step down in the picture: two of shape (height, width) [m]."""
    rows = np.arange(intrinsics.height, dtype=np.float64)
    # One pixel to the right or down changes a direction by the camera's right or down axis over the focal length.
    right_step, down_step = to_plane[1] / intrinsics.focal, -to_plane[2] / intrinsics.focal
    directions = intrinsics.rays(rows) @ to_plane
    down = np.maximum(-directions[..., 2], height / (4.0 * FAR))
    footprints = []
    for step in (right_step, down_step):
        # point = height * direction / down, hence by the quotient rule (d down = -step_z)
        # d(point) = height * (step / down + direction * step_z / down^2), for the two coordinates on the plane.
        change = step[:2] / down[..., None] + directions[..., :2] * (step[2] / down**2)[..., None]
        footprints.append(height * np.hypot(change[..., 0], change[..., 1]))
    return footprints[0], footprints[1]


def _row_medians(footprint: NDArray[np.float64], sky: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Median over each row's pixels on the ground; shape (height,) [m], 1 in the sky."""
    medians = np.ones(len(footprint))
    for row in range(len(footprint)):
        on_ground = footprint[row, ~sky[row]]
        if on_ground.size:
            medians[row] = max(float(np.median(on_ground)), 1e-6)
    return medians
