"""Straight lines through the world: against the road, and against boxes."""

from __future__ import annotations

import math
from collections.abc import Callable

from sb3_carla.simulator.geometry import Pose, relative_pose
from sb3_carla.simulator.physics.dynamics import Ground

__all__ = ["Vector", "ray_to_box", "ray_to_ground"]

Vector = tuple[float, float, float]
GROUND_ITERATIONS = 4


def ray_to_box(
    origin: Vector, direction: Vector, pose: Pose, half_extents: Vector, radius: float = 0.0
) -> float | None:
    """
    Distance at which a ray enters a box.

    Source: the slab method, Kay and Kajiya, SIGGRAPH 1986.

    :param origin: world position [m]
    :param direction: unit vector
    :param pose: centre of the box's bottom face
    :param half_extents: half length, half width, half height [m]
    :param radius: thickness of the ray: the box is grown by it [m]
    :return: distance [m], 0 from inside, None if missed
    """
    foot = relative_pose(pose, Pose(*origin))
    tip = relative_pose(pose, Pose(*(o + d for o, d in zip(origin, direction, strict=True))))
    length, width, height = half_extents
    nearest, farthest = 0.0, math.inf
    for start, end, centre, half in (
        (foot.x, tip.x, 0.0, length),
        (foot.y, tip.y, 0.0, width),
        (foot.z, tip.z, height, height),
    ):
        step, reach = end - start, half + radius
        if abs(step) < 1e-12:
            if abs(start - centre) > reach:
                return None
            continue
        first, second = sorted(((centre - reach - start) / step, (centre + reach - start) / step))
        nearest, farthest = max(nearest, first), min(farthest, second)
    return nearest if nearest <= farthest else None


def ray_to_ground(origin: Vector, direction: Vector, ground: Callable[[float, float, float], Ground]) -> float | None:
    """
    Distance at which a ray meets the road plane; the plane is refined at the point found.

    :param origin: world position [m]
    :param direction: unit vector
    :param ground: road plane at a world position
    :return: distance [m], None if the ray does not come down
    """
    distance = 0.0
    for _ in range(GROUND_ITERATIONS):
        x, y, z = (o + distance * d for o, d in zip(origin, direction, strict=True))
        plane = ground(x, y, z)
        # Height above the plane changes by `descent` a metre along the ray.
        descent = direction[2] - plane.slope_x * direction[0] - plane.slope_y * direction[1]
        if descent >= -1e-9:
            return None
        distance += (plane.z - z) / descent
        if distance < 0.0:
            return None
    return distance
