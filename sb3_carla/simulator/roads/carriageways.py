"""Courses of the carriageways, ramps and turning loops of random motorways."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from sb3_carla.simulator.geometry import wrap_angle
from sb3_carla.simulator.roads.junctions import direction_to, move, turn_line
from sb3_carla.simulator.roads.reference_line import (
    Corner,
    Point,
    ReferenceLine,
    deflections,
    rounded_polyline,
    tangent_length,
)

__all__ = ["END_STRAIGHT", "Course", "DoesNotFitError", "loop_line"]

_LOOP_ANGLE = math.radians(30.0)
"""A turning loop first leads this far to the right [rad], so that its radius is not that of the median."""
_SPIRAL_SHARE = 0.4
"""``Corner.spiral_share`` of the bends of ramps [-]."""
_LEAST_RAMP_RADIUS, _GREATEST_RAMP_RADIUS = 25.0, 150.0
"""Of a ramp's bends [m]."""
END_STRAIGHT = 12.0
"""Length of the straight before a turning loop [m]."""


class DoesNotFitError(Exception):
    """Bends, exits or ramps need more room than was drawn."""


@dataclass(frozen=True, slots=True)
class Course:
    """
    Where a carriageway leads, and where its ramp leaves and joins.

    :param points: of its left edge: start, bends, end [m]
    :param radii: of the bends [m]
    :param bend: index in ``points`` of the bend that the ramp goes round
    :param angle: at which the ramp leaves and joins [rad]
    :param distance: of the ramp from the outermost lane [m]
    :param tangent: length of an exit before and behind its own bend [m]
    :param exit: distance of the exit's start from the point before the bend [m]
    :param entry: distance of the entry's end from the bend [m]
    """

    points: list[Point]
    radii: list[float]
    bend: int
    angle: float
    distance: float
    tangent: float
    exit: float
    entry: float

    @property
    def reach(self) -> float:
        """Length of an exit or entry along the carriageway [m]."""
        return self.tangent * (1.0 + math.cos(self.angle))

    def heading(self, leg: int) -> float:
        """Direction of the leg to the bend (0) or from it (1) [rad]."""
        return direction_to(self.points[self.bend - 1 + leg], self.points[self.bend + leg])

    def at(self, leg: int, along: float, right: float = 0.0) -> Point:
        """A point of that leg, from its start, moved to the right [m]."""
        return move(self.points[self.bend - 1 + leg], self.heading(leg), along, right)

    def parts(self) -> list[ReferenceLine]:
        """Left edge before the exit, in it, between exit and entry, in the entry, and behind it."""
        points, radii, bend = self.points, self.radii, self.bend
        a, b = self.at(0, self.exit), self.at(0, self.exit + self.reach)
        c, d = self.at(1, self.entry - self.reach), self.at(1, self.entry)
        return [
            _bent_line([*points[:bend], a], radii[: bend - 1]),
            _bent_line([a, b], []),
            _bent_line([b, points[bend], c], radii[bend - 1 : bend]),
            _bent_line([c, d], []),
            _bent_line([d, *points[bend + 1 :]], radii[bend:]),
        ]

    def ramp(self, offset: float) -> list[ReferenceLine]:
        """
        Left edge of the ramp's lane in the exit, between exit and entry, and in the entry.

        :param offset: distance of the outermost lane's left edge from the carriageway's [m]
        """
        aside, angle = self.tangent * math.sin(self.angle), self.angle
        rest = (self.distance - aside) / math.tan(angle)
        away, out = self.exit + self.reach, self.entry - self.reach
        begin, end = self.at(0, away, offset + aside), self.at(1, out, offset + aside)
        far = offset + self.distance
        turn = wrap_angle(self.heading(1) - self.heading(0))
        # The legs' parallels at this distance meet here.
        corner = move(self.points[self.bend], self.heading(0), far * math.tan(0.5 * turn), far)
        path = [begin, self.at(0, away + rest, far), corner, self.at(1, out - rest, far), end]
        return [
            turn_line(self.at(0, self.exit, offset), self.heading(0), begin, self.heading(0) - angle),
            _smooth_line(path),
            turn_line(end, self.heading(1) + angle, self.at(1, self.entry, offset), self.heading(1)),
        ]


def loop_line(leg: list[Point], aside: float, width: float, radius: float) -> ReferenceLine:
    """
    Left edge of a turning loop, from the end of one carriageway to the start of the other.

    :param leg: last two points of the first carriageway's left edge
    :param aside: distance of both left edges from the motorway's middle [m]
    :param width: of the driving lanes [m]
    :param radius: of the loop [m]
    :raises DoesNotFitError: if the outermost lane's bends to the right would be too sharp
    """
    heading = direction_to(leg[0], leg[1])
    # In the axes of the leg, from the middle of the motorway's end: along, to the right.
    swing = END_STRAIGHT + (radius - aside) / math.tan(_LOOP_ANGLE)
    far = swing + radius * (1.0 + math.tan(0.5 * _LOOP_ANGLE)) + 1.0
    right = [(0.0, aside), (END_STRAIGHT, aside), (swing, radius), (far, radius)]
    places = [*right, *((along, -side) for along, side in reversed(right))]
    path = [move(leg[1], heading, along, side - aside) for along, side in places]
    # To the right the outermost lane has the least radius; the tangents of both bends share the side between them.
    room = (radius - aside) / math.sin(_LOOP_ANGLE) - radius * math.tan(0.5 * _LOOP_ANGLE)
    first = min(END_STRAIGHT, room) * 0.99 / math.tan(0.5 * _LOOP_ANGLE)
    if first < width + 8.0:
        raise DoesNotFitError
    radii = [first, radius, 0.999 * radius]
    return _bent_line(path, [*radii, *reversed(radii)])


def _bent_line(points: list[Point], radii: list[float]) -> ReferenceLine:
    """Polyline rounded by arcs, so that lines beside it are parallel to it."""
    try:
        return rounded_polyline(points, [Corner(radius, 0.0) for radius in radii])
    except ValueError as error:
        raise DoesNotFitError from error


def _smooth_line(points: list[Point]) -> ReferenceLine:
    """Polyline rounded by clothoids and arcs with the greatest radii that fit."""
    sides = [math.dist(a, b) for a, b in pairwise(points)]
    # The first and the last side belong to one bend, the others to two.
    rooms = [sides[0], *(0.5 * side for side in sides[1:-1]), sides[-1]]
    corners = []
    for turn, before, after in zip(deflections(points), rooms, rooms[1:], strict=False):
        radius = 0.99 * min(before, after) / tangent_length(turn, Corner(1.0, _SPIRAL_SHARE))
        if radius < _LEAST_RAMP_RADIUS:
            raise DoesNotFitError
        corners.append(Corner(min(radius, _GREATEST_RAMP_RADIUS), _SPIRAL_SHARE))
    return rounded_polyline(points, corners)
