"""Poses in CARLA's left-handed frame: x forward, y right, z up; angles in radians."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pose", "compose", "follow", "pose_of", "relative_pose", "rotation_matrix", "wrap_angle"]

TAU = 2.0 * math.pi


@dataclass(slots=True)
class Pose:
    """
    Position [m] and orientation [rad] of a body in the world, or relative to a parent.

    Signs are those of ``carla.Transform``: yaw > 0 turns right (clockwise from above), pitch > 0 lifts the nose,
    roll > 0 lowers the right side.
    """

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    roll: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0


def wrap_angle(angle: float) -> float:
    """
    The same direction, in [-pi, pi).

    :param angle: angle [rad]
    :return: angle [rad]
    """
    return (angle + math.pi) % TAU - math.pi


def rotation_matrix(pose: Pose) -> NDArray[np.float64]:
    """
    Columns are the body's forward, right and up axes in the world, as in ``carla.Transform.get_matrix``.

    Source: LibCarla ``geom/Transform.h`` (yaw about z, then pitch, then roll, left-handed).

    :param pose: pose whose angles are used
    :return: shape (3, 3), float64
    """
    cy, sy = math.cos(pose.yaw), math.sin(pose.yaw)
    cp, sp = math.cos(pose.pitch), math.sin(pose.pitch)
    cr, sr = math.cos(pose.roll), math.sin(pose.roll)
    # Rows are world x, y, z; columns are forward, right, up.
    return np.array(
        [
            [cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr],
            [cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr],
            [sp, -cp * sr, cp * cr],
        ]
    )


def compose(parent: Pose, relative: Pose) -> Pose:
    """
    World pose of a body that is attached to another one.

    :param parent: world pose of the parent
    :param relative: pose of the child in the parent's axes
    :return: world pose of the child
    """
    outer = rotation_matrix(parent)
    place = outer @ (relative.x, relative.y, relative.z) + (parent.x, parent.y, parent.z)
    return pose_of(place, outer @ rotation_matrix(relative))


def pose_of(place: NDArray[np.float64], axes: NDArray[np.float64]) -> Pose:
    """
    The pose with given axes; inverse of :func:`rotation_matrix`.

    :param place: shape (3,), float64, world x, y, z [m]
    :param axes: shape (3, 3), float64; columns are the forward, right and up axes
    :return: pose
    """
    x, y, z = place
    # The last row of the matrix is (sin pitch, -cos pitch sin roll, cos pitch cos roll).
    forward, right, up = axes.T
    return Pose(
        float(x),
        float(y),
        float(z),
        roll=math.atan2(-right[2], up[2]),
        pitch=math.asin(max(-1.0, min(1.0, float(forward[2])))),
        yaw=math.atan2(forward[1], forward[0]),
    )


def follow(parent: Pose, relative: Pose) -> Pose:
    """
    World pose of an attached body: :func:`compose`, faster if the parent is level.

    :param parent: world pose of the parent
    :param relative: pose in the parent's axes
    :return: world pose
    """
    if parent.roll != 0.0 or parent.pitch != 0.0:
        return compose(parent, relative)
    cos_yaw, sin_yaw = math.cos(parent.yaw), math.sin(parent.yaw)
    return Pose(
        parent.x + cos_yaw * relative.x - sin_yaw * relative.y,
        parent.y + sin_yaw * relative.x + cos_yaw * relative.y,
        parent.z + relative.z,
        relative.roll,
        relative.pitch,
        wrap_angle(parent.yaw + relative.yaw),
    )


def relative_pose(parent: Pose, world: Pose) -> Pose:
    """
    Pose in the parent's axes; inverse of :func:`follow`.

    :param parent: world pose of the parent
    :param world: world pose of the child
    :return: pose of the child in the parent's axes
    """
    inverse = rotation_matrix(parent).T
    place = inverse @ (world.x - parent.x, world.y - parent.y, world.z - parent.z)
    return pose_of(place, inverse @ rotation_matrix(world))
