"""Waypoints along each lane of a map."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

__all__ = ["lane_waypoints"]

Waypoint = Any
"""``carla.Waypoint``; the carla package has no type hints."""

END_TOLERANCE = 0.01
"""Tolerance in finding the ends of a lane [m]."""


def lane_waypoints(carla_map: Any, step: float) -> Iterator[list[Waypoint]]:
    """
    Waypoints of each driving lane of each road section, from start to end in the direction of travel.

    ``Map.get_topology`` leaves out lanes without a successor, and on these ``Waypoint.next_until_lane_end`` and
    ``previous_until_lane_start`` abort the process (carla 0.9.16). So lanes are assembled from single waypoints.

    :param carla_map: ``carla.Map``
    :param step: distance between waypoints [m]; less at the ends of a lane
    :return: at least two waypoints for each lane
    """
    lanes: dict[tuple[int, int, int], list[Waypoint]] = {}
    for waypoint in carla_map.generate_waypoints(step):
        lanes.setdefault(_key(waypoint), []).append(waypoint)
    for lane in lanes.values():
        lane.sort(key=lambda waypoint: waypoint.s)
        if _against_s(lane[0]):
            lane.reverse()
        begin, end = _furthest(lane[0], "previous", step), _furthest(lane[-1], "next", step)
        whole = [*([begin] if begin else []), *lane, *([end] if end else [])]
        if len(whole) >= 2:
            yield whole


def _key(waypoint: Waypoint) -> tuple[int, int, int]:
    return waypoint.road_id, waypoint.section_id, waypoint.lane_id


def _against_s(waypoint: Waypoint) -> bool:
    """Whether traffic runs towards smaller s: on left lanes (positive ids), in left-hand traffic on right ones."""
    return bool((waypoint.lane_id > 0) == waypoint.is_rht)


def _furthest(waypoint: Waypoint, direction: str, step: float) -> Waypoint | None:
    """Last waypoint of the same lane less than a step away, found by bisection; None if there is none."""
    inside, outside, found = 0.0, step, None
    while outside - inside > END_TOLERANCE:
        distance = 0.5 * (inside + outside)
        reached = [other for other in getattr(waypoint, direction)(distance) if _key(other) == _key(waypoint)]
        if reached and math.isfinite(reached[0].transform.location.x):
            inside, found = distance, reached[0]
        else:
            outside = distance
    return found
