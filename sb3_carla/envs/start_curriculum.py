"""Episodes that begin a little before a place where the car failed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sb3_carla.envs.route import LaneRoute

__all__ = ["StartCurriculum", "StartPlace"]

MEMORY = 4
"""Places that are remembered: the last ones."""
BEFORE = (20.0, 60.0)
"""How far before the failure practice begins, at least and at most [m]."""


class StartPlace(NamedTuple):
    """A point of a lane, as OpenDRIVE names it; ``s`` is the distance along the road [m]."""

    town: str
    road_id: int
    lane_id: int
    s: float


class StartCurriculum:
    """
    The last places where a car failed, and how often to go back there.

    What a policy cannot do yet is a small part of its roads: a crossing, seen for a second in a minute. Begun before
    it, episodes show it as often as it takes. The simplest of curricula over start states; compare Florensa et al.,
    Reverse curriculum generation for reinforcement learning, CoRL 2017, and Jiang et al., Prioritized level replay,
    ICML 2021.

    :param share: of the episodes that go back, once there is a place to go to
    :raises ValueError: if ``share`` is not within 0 to 1
    """

    def __init__(self, share: float) -> None:
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"start_curriculum: expected a share of the episodes, 0 to 1, got {share!r}")
        self._share = share
        self._places: deque[StartPlace] = deque(maxlen=MEMORY)

    @property
    def places(self) -> list[StartPlace]:
        """The oldest first."""
        return list(self._places)

    @places.setter
    def places(self, places: Iterable[StartPlace]) -> None:
        self._places = deque(places, maxlen=MEMORY)

    def remember(self, town: str, route: LaneRoute, station: float, rng: np.random.Generator) -> None:
        """
        Take note of a failure.

        :param town: where it happened
        :param route: on which
        :param station: how far along it [m]
        :param rng: for how far before it practice is to begin
        """
        if self._share > 0.0:
            begin = station - float(rng.uniform(*BEFORE))
            index = int(np.searchsorted(route.stations, begin)) - 1
            waypoint = route.waypoints[max(index, 0)]  # the first where the route began later
            self._places.append(StartPlace(town, waypoint.road_id, waypoint.lane_id, waypoint.s))

    def draw(self, rng: np.random.Generator) -> StartPlace | None:
        """
        :param rng: not asked while there is no place to go to
        :return: where the next episode is to begin, None for anywhere
        """
        if not self._places or rng.random() >= self._share:
            return None
        return self._places[int(rng.integers(len(self._places)))]
