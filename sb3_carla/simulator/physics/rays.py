"""Rays through the world: where they meet the road and boxes."""

from __future__ import annotations

import math
from collections.abc import Callable

from sb3_carla.simulator.geometry import Pose, relative_pose
from sb3_carla.simulator.physics.dynamics import Ground

__all__ = ["Vector", "ray_to_box", "ray_to_ground"]

Vector = tuple[float, float, float]
GROUND_ITERATIONS = 4
"""How often the road plane is looked up again at the point that was found with the last one."""


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
    :return: distance [m]; 0 if the ray starts inside, None if it misses the box
    """
    # The ray in the box's axes: origin, and the point one metre along it.
    foot = relative_pose(pose, Pose(*origin))
    tip = relative_pose(pose, Pose(*(o + d for o, d in zip(origin, direction, strict=True))))
    length, width, height = half_extents
    nearest, farthest = 0.0, math.inf
    for start, end, centre, half in (
        (foot.x, tip.x, 0.0, length),
        (foot.y, tip.y, 0.0, width),
        (foot.z, tip.z, height, height),
    ):
        # The ray is between the two faces of this axis for distances from ``first`` to ``second``.
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
    Distance at which a ray meets the road: the road plane is looked up again at each point found.

    :param origin: world position [m]
    :param direction: unit vector
    :param ground: road plane at a world position
    :return: distance [m], None if the ray does not come down to the road
    """
    distance = 0.0
    for _ in range(GROUND_ITERATIONS):
        x, y, z = (o + distance * d for o, d in zip(origin, direction, strict=True))
        plane = ground(x, y, z)
        # Change of the height above the plane per metre along the ray.
        climb = direction[2] - plane.slope_x * direction[0] - plane.slope_y * direction[1]
        if climb >= -1e-9:
            return None
        distance += (plane.z - z) / climb
        if distance < 0.0:
            return None
    return distance
