"""Episodes that begin a little before a place where the car failed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sb3_carla.envs.route import LaneRoute

__all__ = ["StartCurriculum", "StartPlace"]

PLACES = 4
"""Number of the last failures that are remembered."""
DISTANCE_BEFORE = (20.0, 60.0)
"""Shortest and longest distance from the start of an episode to the failure [m]."""


class StartPlace(NamedTuple):
    """A point of a lane, as OpenDRIVE names it; ``s`` is the distance along the road [m]."""

    town: str
    road_id: int
    lane_id: int
    s: float


class StartCurriculum:
    """
    The last places where the car failed, and how often to start before them.

    Hard places are a small part of the roads: a crossing takes a second of a minute's drive. Episodes that start before
    one show it more often. This is a simple curriculum over start states; compare Florensa et al., Reverse curriculum
    generation for reinforcement learning, CoRL 2017, and Jiang et al., Prioritized level replay, ICML 2021.

    :param share: share of the episodes that start before a failure, once there was one
    :raises ValueError: if ``share`` is not within 0 to 1
    """

    def __init__(self, share: float) -> None:
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"start_curriculum: expected a share of the episodes, 0 to 1, got {share!r}")
        self._share = share
        self._places: deque[StartPlace] = deque(maxlen=PLACES)

    @property
    def places(self) -> list[StartPlace]:
        """The remembered places, oldest first."""
        return list(self._places)

    @places.setter
    def places(self, places: Iterable[StartPlace]) -> None:
        self._places = deque(places, maxlen=PLACES)

    def remember(self, town: str, route: LaneRoute, station: float, rng: np.random.Generator) -> None:
        """
        Remember a failure.

        :param town: where it happened
        :param route: of the episode that failed
        :param station: place of the failure on the route [m]
        :param rng: draws how far before the failure an episode will start
        """
        if self._share > 0.0:
            begin = station - float(rng.uniform(*DISTANCE_BEFORE))
            index = int(np.searchsorted(route.stations, begin)) - 1
            waypoint = route.waypoints[max(index, 0)]  # the first where the route began later
            self._places.append(StartPlace(town, waypoint.road_id, waypoint.lane_id, waypoint.s))

    def draw(self, rng: np.random.Generator) -> StartPlace | None:
        """
        :param rng: not used while no place is remembered
        :return: where the next episode starts; None: anywhere
        """
        if not self._places or rng.random() >= self._share:
            return None
        return self._places[int(rng.integers(len(self._places)))]
