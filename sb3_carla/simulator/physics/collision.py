"""Overlap of oriented boxes."""

from __future__ import annotations

import math

from sb3_carla.simulator.geometry import Pose

__all__ = ["boxes_overlap"]

Extents = tuple[float, float, float]


def boxes_overlap(pose_a: Pose, half_extents_a: Extents, pose_b: Pose, half_extents_b: Extents) -> bool:
    """
    Whether two boxes that stand on the ground overlap: separating axes in the plane, intervals in height.

    Source: Gottschalk, Lin, Manocha, OBBTree, SIGGRAPH 1996, reduced to yaw; pitch and roll are ignored.

    :param pose_a: centre of the first box's bottom face
    :param half_extents_a: half length, half width, half height [m]
    :param pose_b: likewise for the second box
    :param half_extents_b: half length, half width, half height [m]
    :return: True where they overlap or touch
    """
    dx, dy = pose_b.x - pose_a.x, pose_b.y - pose_a.y
    length_a, width_a, height_a = half_extents_a
    length_b, width_b, height_b = half_extents_b
    reach = length_a + width_a + length_b + width_b
    # Most pairs are far apart: no angles are needed.
    if abs(dx) > reach or abs(dy) > reach:
        return False
    if pose_b.z > pose_a.z + 2.0 * height_a or pose_a.z > pose_b.z + 2.0 * height_b:
        return False
    cos_between = abs(math.cos(pose_b.yaw - pose_a.yaw))
    sin_between = abs(math.sin(pose_b.yaw - pose_a.yaw))
    cos_a, sin_a = math.cos(pose_a.yaw), math.sin(pose_a.yaw)
    cos_b, sin_b = math.cos(pose_b.yaw), math.sin(pose_b.yaw)
    # On each of the four axes the centres' distance must not exceed the sum of the half widths of both shadows.
    return (
        abs(dx * cos_a + dy * sin_a) <= length_a + length_b * cos_between + width_b * sin_between
        and abs(dy * cos_a - dx * sin_a) <= width_a + length_b * sin_between + width_b * cos_between
        and abs(dx * cos_b + dy * sin_b) <= length_b + length_a * cos_between + width_a * sin_between
        and abs(dy * cos_b - dx * sin_b) <= width_b + length_a * sin_between + width_a * cos_between
    )
