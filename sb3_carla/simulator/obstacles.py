"""The solid part of the scenery: what vehicles run into, what rays meet, what is in the way of a new actor."""

from __future__ import annotations

import math

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.actors import Actor
from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.collision import boxes_overlap
from sb3_carla.simulator.physics.rays import Vector, ray_to_box

__all__ = ["Obstacle", "Obstacles"]

CELL, REACH = 4.0, 4.5
"""Side of a cell of the search grid [m]; a cell knows the solids that a body with its middle there and at most that
radius [m] may touch: all vehicles are smaller."""
_NAMES = {int(label): str(name).lower().removesuffix("s") for name, label in carla.CityObjectLabel.names.items()}


class Obstacle(Actor):
    """
    One solid box of the scenery, as a collision sensor reports it: no actor of the world, so its id is 0.

    Source of its type, such as "static.building": CARLA's ``FActorRegistry`` for actors that are not registered.

    :param pose: of the middle of its base
    :param half_extents: half length, half width, half height [m]
    :param tag: ``carla.CityObjectLabel``
    """

    def __init__(self, pose: Pose, half_extents: Vector, tag: int) -> None:
        super().__init__(0, f"static.{_NAMES[tag]}", {}, pose)
        self.half_extents, self.tag = half_extents, tag


class Obstacles:
    """
    All solids of a town, found by place.

    :param solids: shape (k, 7), float64, as in :class:`sb3_carla.simulator.scenery.scenery.Scenery`
    :param tags: shape (k,): ``carla.CityObjectLabel``
    """

    def __init__(self, solids: NDArray[np.float64], tags: NDArray[np.int64]) -> None:
        self._solids, self._tags = solids, tags
        self._made: dict[int, Obstacle] = {}
        x, y, _, yaw, length, width, _ = self._solids.T
        cos, sin = np.abs(np.cos(yaw)), np.abs(np.sin(yaw))
        self._radii = np.hypot(length, width)
        reach_x, reach_y = length * cos + width * sin + REACH, length * sin + width * cos + REACH
        low = np.floor(np.stack([x - reach_x, y - reach_y], axis=1) / CELL).astype(int).tolist()
        high = np.floor(np.stack([x + reach_x, y + reach_y], axis=1) / CELL).astype(int).tolist()
        self._cells: dict[tuple[int, int], list[tuple[float, float, float, int]]] = {}
        places = zip(x.tolist(), y.tolist(), self._radii.tolist(), range(len(x)), strict=True)
        for solid, (left, upper), (right, lower) in zip(places, low, high, strict=True):
            for column in range(left, right + 1):
                for row in range(upper, lower + 1):
                    self._cells.setdefault((column, row), []).append(solid)

    def __len__(self) -> int:
        return len(self._solids)

    def __getitem__(self, index: int) -> Obstacle:
        obstacle = self._made.get(index)
        if obstacle is None:
            x, y, z, yaw, length, width, height = self._solids[index].tolist()
            obstacle = Obstacle(Pose(x, y, z, yaw=yaw), (length, width, height), int(self._tags[index]))
            self._made[index] = obstacle
        return obstacle

    def touching(self, pose: Pose, half_extents: Vector) -> list[Obstacle]:
        """
        Solids that a box overlaps.

        :param pose: of the middle of the box's base
        :param half_extents: half length, half width, half height [m]
        :return: in the order of the scenery's solids
        """
        reach, x, y = math.hypot(half_extents[0], half_extents[1]), pose.x, pose.y
        if reach <= REACH:
            candidates = self._cells.get((int(x // CELL), int(y // CELL)))
            if candidates is None:
                return []
            near = [i for at_x, at_y, r, i in candidates if (at_x - x) ** 2 + (at_y - y) ** 2 <= (r + reach) ** 2]
        else:
            near = np.flatnonzero(
                np.hypot(self._solids[:, 0] - x, self._solids[:, 1] - y) <= self._radii + reach
            ).tolist()
        if not near:
            return []
        found = [self[index] for index in near]
        return [o for o in found if boxes_overlap(pose, half_extents, o.pose, o.half_extents)]

    def along(
        self, origin: Vector, direction: Vector, reach: float, radius: float = 0.0
    ) -> list[tuple[float, Obstacle]]:
        """
        Solids that a ray meets.

        :param origin: world position [m]
        :param direction: unit vector
        :param reach: length of the ray [m]
        :param radius: of the ray [m]
        :return: distance [m] and solid, nearest first
        """
        offset = self._solids[:, :2] - origin[:2]
        level = np.array(direction[:2])
        # The nearest place of the ray, seen from above, to every solid's middle: (k, 2).
        at = np.clip(offset @ level / max(float(level @ level), 1e-12), 0.0, reach)
        near = np.linalg.norm(offset - at[:, None] * level, axis=1) <= self._radii + radius
        hits: list[tuple[float, Obstacle]] = []
        for index in np.flatnonzero(near).tolist():
            distance = ray_to_box(origin, direction, self[index].pose, self[index].half_extents, radius)
            if distance is not None and distance <= reach:
                hits.append((distance, self[index]))
        return sorted(hits, key=lambda hit: hit[0])
