"""
Random motorways: two carriageways of one direction each, joined by turning loops at both ends, with ramps beside them.

A ramp leaves the carriageway at an exit, runs beside it round a bend, and joins it again at an entry. Exits and entries
are OpenDRIVE junctions, as in CARLA's Town04.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from sb3_carla.errors import MapError
from sb3_carla.simulator.roads.carriageways import END_STRAIGHT, Course, DoesNotFitError, loop_line
from sb3_carla.simulator.roads.junctions import direction_to, move
from sb3_carla.simulator.roads.opendrive import Junction, Lane, LaneLink, Link, Marking, Road, opendrive_text
from sb3_carla.simulator.roads.reference_line import Point, ReferenceLine, deflections

__all__ = ["MotorwayStyle", "motorway_opendrive"]

_ATTEMPTS = 2000
_NONE = Marking("none")
_FIRST_JUNCTION = 1000
"""Ids of junctions start here, those of roads at 1."""
_RAMP_SHOULDERS = (0.8, 1.5)
"""Width of a ramp's inner and outer shoulder [m]."""
_ROADS = 100
"""Ids of the second carriageway's roads are greater by this than those of the first."""
_BEFORE, _BETWEEN, _AFTER, _RAMP, _LOOP, _EXIT, _ENTRY = 1, 2, 3, 4, 5, 10, 20
"""Ids of a carriageway's roads: before its exit, up to its entry, behind it; its ramp; the loop at its end; the roads
from the outermost lane to the ramp and back. The lanes that stay on the carriageway there count from the last two."""


@dataclass(frozen=True, slots=True)
class MotorwayStyle:
    """
    Range of what a random motorway looks like.

    :param lanes: driving lanes of a carriageway
    :param lane_width: [m]
    :param shoulders: width of the inner and the outer shoulder [m]
    :param median: distance between the inner shoulders [m]
    :param paved_median: whether the median is paved
    :param left_line: line at the left edge of the driving lanes
    :param separator: line between lanes
    :param edge: line at the right edge of the driving lanes
    :param legs: length of the stretches between bends: the least and the greatest [m]
    :param bends: change of direction at each of the two bends: the least and the greatest [rad]
    :param radii: least and greatest radius of these bends [m]
    :param ramp_angle: direction in which ramps leave and join: the least and the greatest [rad]
    :param ramp_distance: distance of the ramps from the carriageway: the least and the greatest [m]
    :param drops: whether the outermost lane leads into the ramp only, so that the carriageway loses a lane there
    :param loop_radius: radius of the inner edge of the turning loops [m]
    :param speed_kmh: speed limit [km/h]
    """

    lanes: int = 2
    lane_width: float = 3.5
    shoulders: tuple[float, float] = (1.0, 2.5)
    median: float = 4.0
    paved_median: bool = False
    left_line: Marking = Marking("solid", "yellow")  # noqa: RUF009 - Marking is frozen
    separator: Marking = Marking("broken")  # noqa: RUF009
    edge: Marking = Marking("solid")  # noqa: RUF009
    legs: tuple[float, float] = (150.0, 190.0)
    bends: tuple[float, float] = (math.radians(20.0), math.radians(45.0))
    radii: tuple[float, float] = (90.0, 200.0)
    ramp_angle: tuple[float, float] = (math.radians(20.0), math.radians(35.0))
    ramp_distance: tuple[float, float] = (20.0, 30.0)
    drops: bool = False
    loop_radius: float = 16.0
    speed_kmh: int = 60

    @property
    def aside(self) -> float:
        """Distance of the driving lanes from the motorway's middle [m]."""
        return 0.5 * self.median + self.shoulders[0]


def motorway_opendrive(name: str, seed: int, style: MotorwayStyle) -> str:
    """
    OpenDRIVE of a random motorway.

    :param name: of the town
    :param seed: of the random numbers
    :param style: of the motorway
    :return: XML; equal arguments give equal text
    :raises MapError: if no motorway of this style was found
    """
    rng = np.random.default_rng(seed)
    for _ in range(_ATTEMPTS):
        network = _random_motorway(rng, style)
        if network is not None:
            return opendrive_text(name, *network)
    raise MapError(f"no motorway of this style after {_ATTEMPTS} attempts with seed {seed}: {style}")


def _random_motorway(rng: np.random.Generator, style: MotorwayStyle) -> tuple[list[Road], list[Junction]] | None:
    """Roads and junctions; None if they need more room than was drawn."""
    turns = [math.copysign(rng.uniform(*style.bends), rng.uniform(-1.0, 1.0)) for _ in range(2)]
    radii = [rng.uniform(*style.radii) for _ in turns]
    middle, heading = [(0.0, 0.0)], -0.5 * sum(turns)
    for turn in (*turns, 0.0):
        middle.append(move(middle[-1], heading, rng.uniform(*style.legs)))
        heading += turn
    courses = [_course(rng, *way, style) for way in ((middle, radii), (middle[::-1], radii[::-1]))]
    try:
        roads = [road for number, course in enumerate(courses) for road in _roads(course, _ROADS * number, style)]
    except DoesNotFitError:
        return None
    return roads, [junction for number in range(2) for junction in _junctions(_ROADS * number, style)]


def _course(rng: np.random.Generator, middle: list[Point], radii: list[float], style: MotorwayStyle) -> Course:
    """The carriageway to the right of the motorway's middle, with a ramp at random."""
    aside = style.aside
    headings = [direction_to(*leg) for leg in pairwise(middle)]
    points, bends = [move(middle[0], headings[0], 0.0, aside)], []
    for i, turn in enumerate(deflections(middle), start=1):
        points.append(move(middle[i], headings[i - 1], aside * math.tan(0.5 * turn), aside))
        bends.append(radii[i - 1] + math.copysign(aside, turn))
    points.append(move(middle[-1], headings[-1], 0.0, aside))
    needs = [END_STRAIGHT, *(r * math.tan(0.5 * abs(t)) for r, t in zip(bends, deflections(points), strict=True))]
    needs.append(END_STRAIGHT)
    bend = int(rng.integers(1, len(points) - 1))
    angle = rng.uniform(*style.ramp_angle)
    return Course(
        points,
        bends,
        bend,
        angle,
        distance=rng.uniform(*style.ramp_distance),
        tangent=max(18.0, (style.lane_width + 3.0) / math.sin(angle)),
        exit=needs[bend - 1] + rng.uniform(3.0, 15.0),
        entry=math.dist(points[bend], points[bend + 1]) - needs[bend + 1] - rng.uniform(3.0, 15.0),
    )


def _roads(course: Course, first: int, style: MotorwayStyle) -> list[Road]:
    """All roads of a carriageway, with the loop at its end; ids count from ``first``."""
    kept = style.lanes - style.drops
    before, leaving, between, joining, after = course.parts()
    to_ramp, ramp, from_ramp = course.ramp((style.lanes - 1) * style.lane_width)
    loop = loop_line(course.points[-2:], style.aside, style.lanes * style.lane_width, style.loop_radius)
    leave, join = Link(_FIRST_JUNCTION + first), Link(_FIRST_JUNCTION + first + 1)
    other = _ROADS - first
    plain = [
        (_BEFORE, before, _lanes(style, style.lanes, (True, False)), (Link(other + _LOOP, "end"), leave)),
        (_BETWEEN, between, _lanes(style, kept, (False, False)), (leave, join)),
        (_AFTER, after, _lanes(style, style.lanes, (False, True)), (join, Link(first + _LOOP, "start"))),
        (_RAMP, ramp, _ramp_lanes(style), (leave, join)),
        (_LOOP, loop, _lanes(style, style.lanes, (True, True)), (_end(first + _AFTER), _start(other + _BEFORE))),
    ]
    roads = [_road(first + number, line, lanes, ends, style) for number, line, lanes, ends in plain]
    outer, inner = (style.lanes, style.shoulders[1]), (1, _RAMP_SHOULDERS[1])
    lanes = _gore_lanes(style, outer, inner, (0.0, _RAMP_SHOULDERS[0]))
    ends = _end(first + _BEFORE), _start(first + _RAMP)
    roads.append(_road(first + _EXIT, to_ramp, lanes, ends, style, style.edge, leave.element))
    lanes = _gore_lanes(style, inner, outer, (_RAMP_SHOULDERS[0], 0.0))
    ends = _end(first + _RAMP), _start(first + _AFTER)
    roads.append(_road(first + _ENTRY, from_ramp, lanes, ends, style, style.edge, join.element))
    ends = _end(first + _BEFORE), _start(first + _BETWEEN)
    roads += _through_roads(first + _EXIT, leaving, ends, style, leave.element)
    ends = _end(first + _BETWEEN), _start(first + _AFTER)
    roads += _through_roads(first + _ENTRY, joining, ends, style, join.element)
    return roads


def _start(road: int) -> Link:
    return Link(road, "start")


def _end(road: int) -> Link:
    return Link(road, "end")


def _through_roads(
    base: int, line: ReferenceLine, ends: tuple[Link, Link], style: MotorwayStyle, junction: int
) -> list[Road]:
    """Connecting roads of the lanes that stay on the carriageway at an exit or entry, which is straight."""
    roads = []
    count = style.lanes - style.drops
    for number in range(1, count + 1):
        x, y = move((line.x, line.y), line.heading, 0.0, (number - 1) * style.lane_width)
        lanes, centre = _through_lanes(style, number, count), style.left_line if number == 1 else _NONE
        roads.append(_road(base + number, replace(line, x=x, y=y), lanes, ends, style, centre, junction))
    return roads


def _junctions(first: int, style: MotorwayStyle) -> list[Junction]:
    kept = range(1, style.lanes - style.drops + 1)
    leaving = [LaneLink(first + _BEFORE, -number, first + _EXIT + number) for number in kept]
    leaving.append(LaneLink(first + _BEFORE, -style.lanes, first + _EXIT))
    joining = [LaneLink(first + _BETWEEN, -number, first + _ENTRY + number) for number in kept]
    joining.append(LaneLink(first + _RAMP, -1, first + _ENTRY))
    return [Junction(_FIRST_JUNCTION + first, tuple(leaving)), Junction(_FIRST_JUNCTION + first + 1, tuple(joining))]


def _road(
    number: int,
    line: ReferenceLine,
    lanes: tuple[Lane, ...],
    ends: tuple[Link, Link],
    style: MotorwayStyle,
    centre: Marking | None = None,
    junction: int | None = None,
) -> Road:
    centre = style.left_line if centre is None else centre
    return Road(number, line, lanes, centre, *ends, junction=junction, speed_kmh=style.speed_kmh)


def _lanes(style: MotorwayStyle, count: int, linked: tuple[bool, bool]) -> tuple[Lane, ...]:
    """Lanes of a carriageway: ``count`` for traffic, between two shoulders."""

    def lane(number: int, kind: str, width: float, marking: Marking) -> Lane:
        before, after = (number if end else None for end in linked)
        return Lane(number, kind, width, marking, before, after)

    lanes = [lane(1, "shoulder", style.shoulders[0], _NONE)]
    if style.paved_median and not all(linked):  # in a loop the middle is grass
        lanes.append(Lane(2, "median", 0.5 * style.median, _NONE))
    for number in range(1, count + 1):
        marking = style.edge if number == count else style.separator
        lanes.append(lane(-number, "driving", style.lane_width, marking))
    return (*lanes, lane(-count - 1, "shoulder", style.shoulders[1], _NONE))


def _through_lanes(style: MotorwayStyle, number: int, count: int) -> tuple[Lane, ...]:
    """One of the lanes that stay on the carriageway at an exit or entry, and the shoulder beside it."""
    marking = style.edge if number == count else style.separator
    lanes = [Lane(-1, "driving", style.lane_width, marking, -number, -number)]
    if number == 1:
        lanes.append(Lane(1, "shoulder", style.shoulders[0], _NONE, 1, 1))
        if style.paved_median:
            lanes.append(Lane(2, "median", 0.5 * style.median, _NONE))
    if number == count:
        lanes.append(Lane(-2, "shoulder", style.shoulders[1], _NONE))
    return tuple(lanes)


def _ramp_lanes(style: MotorwayStyle) -> tuple[Lane, ...]:
    return (
        Lane(1, "shoulder", _RAMP_SHOULDERS[0], _NONE),
        Lane(-1, "driving", style.lane_width, style.edge),
        Lane(-2, "shoulder", _RAMP_SHOULDERS[1], _NONE),
    )


def _gore_lanes(
    style: MotorwayStyle, before: tuple[int, float], after: tuple[int, float], inner: tuple[float, float]
) -> tuple[Lane, ...]:
    """
    Lanes of the road between the outermost lane and a ramp.

    :param before: number of the lane before it, and width of the shoulder beside that [m]
    :param after: of the lane after it
    :param inner: width of the shoulder on its left, at both ends [m]
    """
    (lane, width), (end_lane, end_width) = before, after
    return (
        Lane(1, "shoulder", inner[0], _NONE, end_width=inner[1]),
        Lane(-1, "driving", style.lane_width, style.edge, -lane, -end_lane),
        Lane(-2, "shoulder", width, _NONE, -lane - 1, -end_lane - 1, end_width),
    )
