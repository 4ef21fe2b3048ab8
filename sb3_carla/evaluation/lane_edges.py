"""The edges of a town's lanes, for maps that show driven paths."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Polylines", "lane_edges"]

Polylines = list[NDArray[np.float64]]
"""Polylines: each of shape (n, 2), float64 [m]."""

SPACING = 2.0
"""Distance between two points of a lane [m]."""


def lane_edges(town: Any) -> Polylines:
    """
    Both edges of every driving lane.

    :param town: ``carla.Map``
    :return: two polylines for each lane of each road section
    """
    lanes: dict[tuple[int, int, int], list[Any]] = defaultdict(list)
    for waypoint in town.generate_waypoints(SPACING):
        lanes[waypoint.road_id, waypoint.section_id, waypoint.lane_id].append(waypoint)
    edges: Polylines = []
    for waypoints in lanes.values():
        if len(waypoints) < 2:
            continue
        waypoints.sort(key=lambda waypoint: waypoint.s)
        for side in (-0.5, 0.5):
            edges.append(np.array([_beside(waypoint, side * waypoint.lane_width) for waypoint in waypoints]))
    return edges


def _beside(waypoint: Any, distance: float) -> tuple[float, float]:
    """Point at a distance to the right of a waypoint."""
    place, yaw = waypoint.transform.location, math.radians(waypoint.transform.rotation.yaw)
    return place.x - distance * math.sin(yaw), place.y + distance * math.cos(yaw)
