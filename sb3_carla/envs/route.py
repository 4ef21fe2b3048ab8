"""Where to drive: a lane's centre line as a polyline, and the car's place relative to it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_carla.errors import MapError

__all__ = ["LanePose", "LaneRoute", "Scenarios", "follow_lane", "straightest"]

Waypoint = Any
"""``carla.Waypoint``; the client library carries no types."""

SPACING = 1.0
"""Distance between two points of a route [m]."""
MOST_STEPS = 4
"""Most waypoints in a distance of ``SPACING``: they are closer together on the inside of a bend."""
STRAIGHT_ON = math.radians(45.0)
"""A branch that changes the heading by less than this goes straight on."""
SAME_TURN = math.radians(12.0)
"""Branches straight on whose heading changes differ by less than this count as equally straight."""
SAME_CORNER = math.radians(60.0)
"""Likewise for branches that turn."""
SHORT_ROUTE = 120.0
"""Length of a route that the start curriculum begins [m]."""
OUTLOOK = 40.0
"""Length of lane that is known beyond the end of a route [m]: nothing looks further ahead."""
START_SPACING = 10.0
"""Distance between two numbered starts on a lane [m]."""


@dataclass(frozen=True, slots=True)
class LanePose:
    """
    A car relative to its route.

    :param station: distance driven along the route [m]
    :param lateral_offset: distance to the right of the lane's centre [m]
    :param heading_error: car's heading minus the lane's, right positive [rad]
    :param half_width: half of the lane's width here [m]
    """

    station: float
    lateral_offset: float
    heading_error: float
    half_width: float


def wrap_angle(angle: float) -> float:
    """The same direction in [-pi, pi) [rad]."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


def straightest(current: Waypoint, candidates: list[Waypoint]) -> Waypoint:
    """
    The branch that changes the heading least, judged at its far end; the rightmost of those that are about equal.

    At the end of a T junction both branches turn by about the same angle, and a camera cannot see which turns less. So
    unless the difference is large, the right one is taken: all T junctions look alike and are driven alike.

    :param current: where the branches begin
    :param candidates: first waypoint of each branch, at least one
    :return: one of the candidates
    """
    if len(candidates) == 1:
        return candidates[0]
    heading = math.radians(current.transform.rotation.yaw)
    ends = (math.radians(_road_end(candidate).transform.rotation.yaw) for candidate in candidates)
    turns = [wrap_angle(end - heading) for end in ends]
    least = min(abs(turn) for turn in turns)
    tolerance = SAME_TURN if least < STRAIGHT_ON else SAME_CORNER
    near = [i for i, turn in enumerate(turns) if abs(turn) < least + tolerance]
    best = max(near, key=lambda i: (round(turns[i], 3), candidates[i].road_id, candidates[i].lane_id))
    return candidates[best]


def _road_end(waypoint: Waypoint) -> Waypoint:
    """
    Last waypoint of the same road, at most 100 m ahead.

    ``Waypoint.next_until_lane_end`` would abort the process on a lane that leads nowhere (carla 0.9.16).
    """
    for _ in range(50):
        following = waypoint.next(2.0)
        if not following or following[0].road_id != waypoint.road_id:
            break
        waypoint = following[0]
    return waypoint


def follow_lane(start: Waypoint, length: float) -> list[Waypoint]:
    """
    Waypoints along the lane and, at junctions, along the straightest branch.

    :param start: first waypoint
    :param length: how far to follow [m]
    :return: the waypoints, start first, ``SPACING`` apart; they end before ``length`` where the lane does
    """
    waypoints, left = [start], length
    for _ in range(MOST_STEPS * math.ceil(length / SPACING)):
        candidates = waypoints[-1].next(SPACING) if left > 0.0 else []
        if not candidates:
            break
        waypoints.append(straightest(waypoints[-1], candidates))
        left -= math.dist(_location(waypoints[-2])[:2], _location(waypoints[-1])[:2])
    return waypoints


class LaneRoute:
    """
    A lane's centre line, and a cursor that follows the car along it.

    :param waypoints: at least two ``carla.Waypoint``, about ``SPACING`` apart
    :param length: length to drive [m]; the rest is only looked at
    """

    def __init__(self, waypoints: list[Waypoint], length: float = math.inf) -> None:
        if len(waypoints) < 2:
            raise ValueError(f"a route needs at least 2 waypoints, got {len(waypoints)}")
        places = [_location(waypoint) for waypoint in waypoints]
        moved = [0] + [i for i in range(1, len(places)) if math.dist(places[i][:2], places[i - 1][:2]) > 1e-3]
        self.waypoints = [waypoints[i] for i in moved]
        """The waypoints, without those at the place of the one before."""
        self.points: NDArray[np.float64] = np.array([places[i] for i in moved])
        """Their places: shape (n, 3), float64 [m]."""
        steps = np.diff(self.points, axis=0)
        lengths = np.hypot(steps[:, 0], steps[:, 1])
        self.stations: NDArray[np.float64] = np.concatenate(([0.0], np.cumsum(lengths)))
        """Distance from the start at each point: shape (n,), float64 [m]."""
        self.length = min(length, float(self.stations[-1]))
        """Length to drive [m]."""
        self.headings: NDArray[np.float64] = np.arctan2(steps[:, 1], steps[:, 0])
        """Direction of each segment: shape (n - 1,), float64 [rad]."""
        self._half_widths = [0.5 * waypoint.lane_width for waypoint in self.waypoints]
        self._pitches: list[float] = np.arctan2(steps[:, 2], lengths).tolist()
        self.curvatures: NDArray[np.float64] = _curvatures(self.headings, lengths)
        """Curvature at each segment, right positive: shape (n - 1,), float64 [1/m]."""
        # Lists of floats: the cursor reads a few numbers each tick, and indexing numpy arrays is slower than that.
        self._xs: list[float] = self.points[:, 0].tolist()
        self._ys: list[float] = self.points[:, 1].tolist()
        self._zs: list[float] = self.points[:, 2].tolist()
        self._lengths: list[float] = lengths.tolist()
        self._headings: list[float] = self.headings.tolist()
        self._stations: list[float] = self.stations.tolist()
        self._segment = 0

    def restart(self) -> None:
        """Put the cursor back to the start."""
        self._segment = 0

    def locate(self, x: float, y: float, heading: float) -> LanePose:
        """
        Project the car to the route and move the cursor there.

        The search starts at the segment of the previous call, so the cursor does not jump where a road crosses itself.

        :param x: car's position [m]
        :param y: car's position [m]
        :param heading: car's heading [rad]
        :return: the car relative to the route
        """
        segment = self._segment
        along, across = self._project(segment, x, y)
        while along > self._lengths[segment] and segment + 1 < len(self._lengths):
            segment += 1
            along, across = self._project(segment, x, y)
        while along < 0.0 and segment > 0:
            segment -= 1
            along, across = self._project(segment, x, y)
            along = min(along, self._lengths[segment])
            if along >= 0.0:
                break
        self._segment = segment
        error = wrap_angle(heading - self._direction(segment, along))
        return LanePose(self._stations[segment] + along, across, error, self._half_widths[segment])

    def _project(self, segment: int, x: float, y: float) -> tuple[float, float]:
        """Distance along a segment from its start, and to the right of it [m]."""
        heading = self._headings[segment]
        dx, dy = x - self._xs[segment], y - self._ys[segment]
        cos_heading, sin_heading = math.cos(heading), math.sin(heading)
        return dx * cos_heading + dy * sin_heading, dy * cos_heading - dx * sin_heading

    def _direction(self, segment: int, along: float) -> float:
        """Heading of the lane, interpolated between the middles of the segments [rad]."""
        share = min(max(along / self._lengths[segment], 0.0), 1.0) - 0.5
        other = segment + (1 if share > 0.0 else -1)
        if not 0 <= other < len(self._headings):
            return self._headings[segment]
        return self._headings[segment] + abs(share) * wrap_angle(self._headings[other] - self._headings[segment])

    def pose(self, station: float) -> tuple[float, float, float, float, float]:
        """
        Point of the centre line, and the lane's direction there.

        :param station: distance from the start [m], clipped to the route
        :return: x, y, z [m], heading, pitch [rad]
        """
        station = min(station, self._stations[-1])
        segment = self._segment_at(station)
        heading = self._direction(segment, station - self._stations[segment])
        return *self._place(segment, station), heading, self._pitches[segment]

    def position(self, station: float) -> tuple[float, float, float]:
        """
        Point of the centre line; beyond its end the last segment is continued.

        :param station: distance from the start [m], at least 0
        :return: x, y, z [m]
        """
        return self._place(self._segment_at(station), station)

    def _segment_at(self, station: float) -> int:
        return min(max(bisect_left(self._stations, station) - 1, 0), len(self._headings) - 1)

    def _place(self, segment: int, station: float) -> tuple[float, float, float]:
        share = max((station - self._stations[segment]) / self._lengths[segment], 0.0)
        x, y, z = (
            axis[segment] + share * (axis[segment + 1] - axis[segment]) for axis in (self._xs, self._ys, self._zs)
        )
        return x, y, z

    def curvature_ahead(self, station: float, distance: float) -> float:
        """
        Sharpest bend of a stretch of the route.

        :param station: start of the stretch [m]
        :param distance: its length [m]
        :return: largest absolute curvature [1/m]
        """
        first = self._segment_at(station)
        last = max(first + 1, bisect_left(self._stations, station + distance))
        return float(np.abs(self.curvatures[first:last]).max())


def _location(waypoint: Waypoint) -> tuple[float, float, float]:
    place = waypoint.transform.location
    return place.x, place.y, place.z


def _curvatures(headings: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Change of heading per metre over a window of five segments, which hides the map's rounding."""
    turns = (np.diff(headings) + np.pi) % (2.0 * np.pi) - np.pi
    bends = np.concatenate((turns, [0.0])) / lengths
    return np.convolve(np.pad(bends, 2, mode="edge"), np.full(5, 0.2), mode="valid")


class Scenarios:
    """
    The starts of a town: every ``START_SPACING`` metres of every driving lane outside junctions.

    Numbered scenarios are these starts in a fixed shuffled order. Starts are left out if their lane ends before the
    route does.

    :param carla_map: ``carla.Map``
    :param route_length: length of each route [m]
    :raises MapError: if no lane of the town is as long as the route
    """

    def __init__(self, carla_map: Any, route_length: float) -> None:
        self._name, self._map = carla_map.name, carla_map
        self._route_length = route_length
        starts = [w for w in carla_map.generate_waypoints(START_SPACING) if not w.is_junction and w.next(SPACING)]
        starts.sort(key=lambda w: (w.road_id, w.section_id, w.lane_id, w.s))
        order = np.random.default_rng(0).permutation(len(starts))
        self._starts = [starts[i] for i in order]
        self._tried = 0
        self._numbered: list[LaneRoute] = []
        if not self._extend(1):
            raise MapError(f"Town {self._name!r} has no lane that can be followed for {route_length:g} m")

    def __getitem__(self, number: int) -> LaneRoute:
        """
        Route of a numbered scenario, its cursor at the start.

        :param number: from 0; a town and a route length always give the same order
        :raises IndexError: if the town has fewer scenarios
        """
        if number < 0 or not self._extend(number + 1):
            raise IndexError(f"Town {self._name!r} has scenarios 0 to {len(self._numbered) - 1}, got {number}")
        route = self._numbered[number]
        route.restart()
        return route

    def draw(self, rng: np.random.Generator) -> LaneRoute:
        """
        Route from a random start. It depends on ``rng`` only, not on earlier calls.

        :param rng: source of randomness
        :return: a new route
        """
        first = int(rng.integers(len(self._starts)))
        for shift in range(len(self._starts)):
            start = self._starts[(first + shift) % len(self._starts)]
            route = _route(start, self._route_length, self._route_length)
            if route is not None:
                return route
        raise AssertionError("the constructor found a route")

    def from_place(self, road_id: int, lane_id: int, s: float) -> LaneRoute | None:
        """
        A short route from a point of a lane, which may be inside a junction.

        :param road_id: OpenDRIVE's number of the road
        :param lane_id: OpenDRIVE's number of the lane
        :param s: distance along the road [m]
        :return: a new route of at most ``SHORT_ROUTE``; None if there is no such lane, or it ends before half of that
        """
        start = self._map.get_waypoint_xodr(road_id, lane_id, s)
        length = min(SHORT_ROUTE, self._route_length)
        return None if start is None else _route(start, length, 0.5 * length)

    def shuffled_starts(self, rng: np.random.Generator) -> Iterator[Waypoint]:
        """
        All starts in random order.

        :param rng: source of randomness
        :return: ``carla.Waypoint``
        """
        return (self._starts[index] for index in rng.permutation(len(self._starts)))

    def _extend(self, count: int) -> bool:
        """Find numbered routes until there are ``count``; False if the town has fewer."""
        while len(self._numbered) < count and self._tried < len(self._starts):
            route = _route(self._starts[self._tried], self._route_length, self._route_length)
            self._tried += 1
            if route is not None:
                self._numbered.append(route)
        return len(self._numbered) >= count


def _route(start: Waypoint, length: float, least: float) -> LaneRoute | None:
    """Route from a start, or None if the lane ends before ``least`` [m]."""
    # OUTLOOK: a route's end truncates the episode, so the state there must be like any other and have a value.
    waypoints = follow_lane(start, length + OUTLOOK)
    route = LaneRoute(waypoints, length) if len(waypoints) > 1 else None
    return route if route is not None and route.length > least - SPACING else None
