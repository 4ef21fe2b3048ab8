"""The bookkeeping of an episode: what has happened so far, and whether it is over."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sb3_carla.client.vehicle import VehicleState
from sb3_carla.envs.route import LanePose

__all__ = ["FAILURES", "Episode"]

FAILURES = ("collision", "off_lane", "wrong_way", "stuck")
"""End reasons that terminate the episode, as they are the driver's fault. All others truncate it."""
STUCK_DISTANCE, STUCK_TIME = 1.8, 6.0
"""A car that drives less than this distance [m] in this time [s] is stuck, also if exploration noise makes it creep."""
ROUTE_END_MARGIN = 1.5
"""The route counts as completed this far before its last point [m]."""


@dataclass
class Episode:
    """
    Bookkeeping of one episode, tick by tick.

    :param route_length: [m]
    :param time_limit: simulated time after which the episode is truncated [s]
    :param half_width: half of the car's width [m]
    :param delta_seconds: simulated time of a tick [s]
    """

    route_length: float
    time_limit: float
    half_width: float
    delta_seconds: float
    end_reason: str = ""
    """Empty while the episode goes on."""
    ticks: int = 0
    distance: float = 0.0
    """Distance driven [m]."""
    collisions: int = 0
    lane_invasions: int = 0
    _offset_sum: float = 0.0
    _last_progress: float = 0.0
    _time_without_progress: float = 0.0
    _over_marking: bool = False
    _largest_station: float = 0.0

    def update(self, state: VehicleState, pose: LanePose, collisions: int, *, blocked: bool = False) -> None:
        """
        Count one tick.

        :param state: car's state after the tick
        :param pose: car relative to its route
        :param collisions: contacts reported in the tick
        :param blocked: a car ahead leaves no room to move, so that waiting does not count as stuck
        """
        self.ticks += 1
        self.distance += state.speed * self.delta_seconds
        self.collisions += collisions > 0
        self._offset_sum += abs(pose.lateral_offset)
        self._largest_station = max(self._largest_station, pose.station)
        self._time_without_progress += self.delta_seconds
        if blocked or self.distance - self._last_progress >= STUCK_DISTANCE:
            self._last_progress, self._time_without_progress = self.distance, 0.0
        over_marking = abs(pose.lateral_offset) + self.half_width > pose.half_width
        self.lane_invasions += over_marking and not self._over_marking
        self._over_marking = over_marking
        self.end_reason = self._end(pose)

    def _end(self, pose: LanePose) -> str:
        if self.collisions:
            return "collision"
        if abs(pose.lateral_offset) > pose.half_width:
            return "off_lane"
        if abs(pose.heading_error) > math.pi / 2.0:
            return "wrong_way"
        if pose.station >= self.route_length - ROUTE_END_MARGIN:
            return "route_end"
        if self._time_without_progress > STUCK_TIME:
            return "stuck"
        if self.ticks * self.delta_seconds >= self.time_limit:
            return "time_limit"
        return ""

    @property
    def stuck(self) -> float:
        """Time without progress, as a share of that after which the car is stuck."""
        return self._time_without_progress / STUCK_TIME

    @property
    def failed(self) -> bool:
        """Whether the episode ended by the driver's fault."""
        return self.end_reason in FAILURES

    @property
    def route_completion(self) -> float:
        """Share of the route that was driven, 0 to 1."""
        if self.end_reason == "route_end":
            return 1.0
        return min(max(self._largest_station / self.route_length, 0.0), 1.0)

    def summary(self) -> dict[str, Any]:
        """What the ``info`` of an episode's last step has in addition."""
        return {
            "is_success": self.end_reason == "route_end",
            "end_reason": self.end_reason,
            "lateral_deviation_m": self._offset_sum / max(self.ticks, 1),
            "mean_speed_mps": self.distance / max(self.ticks * self.delta_seconds, self.delta_seconds),
            "collisions": self.collisions,
            "lane_invasions": self.lane_invasions,
            "departures": int(self.end_reason == "off_lane"),
        }
