"""Junctions of random villages: how far they reach, and their connecting roads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from sb3_carla.simulator.geometry import wrap_angle
from sb3_carla.simulator.roads.opendrive import CrossSection, Junction, Lane, LaneLink, Link, Marking, Road
from sb3_carla.simulator.roads.reference_line import (
    Corner,
    Point,
    ReferenceLine,
    deflections,
    rounded_polyline,
    tangent_length,
)

__all__ = ["Arm", "JunctionDraft", "connect", "direction_to", "junction_reach", "move", "turn_line"]

_TURN_SPIRAL_SHARE = 0.3
"""``Corner.spiral_share`` of the turns at junctions [-]."""
_STRAIGHT_ON = math.radians(50.0)
"""A way through a junction that turns by less than this leads straight on and keeps all lanes [rad]."""
_NOTHING = Marking("none")
_ASPHALT = "special1"
"""OpenDRIVE lane type without traffic that the raster paints as roadway."""


@dataclass(slots=True)
class Arm:
    """
    End of a street at a junction.

    :param street: id of its road
    :param contact: "start" or "end": the end of that road at the junction
    :param angle: direction away from the junction [rad]
    :param section: cross-section of that street
    """

    street: int
    contact: str
    angle: float
    section: CrossSection

    def lane(self, number: int, inbound: bool) -> int:
        """OpenDRIVE lane id of the ``number``-th driving lane from the middle, towards or away from the junction."""
        # Right-hand traffic: lanes with negative ids run along the road, towards the junction at its end.
        forward = (self.contact == "end") == inbound
        magnitude = number + self.section.first_lane - 1
        return -magnitude if forward else magnitude


@dataclass(slots=True)
class JunctionDraft:
    """
    A junction while it is being built.

    :param id: OpenDRIVE id
    :param place: centre, x, y [m]
    :param arms: ends of streets, sorted by angle
    :param reach: distance from the centre to the end of each street [m]
    """

    id: int
    place: Point
    arms: list[Arm] = field(default_factory=list)
    reach: float = 0.0


def direction_to(a: Point, b: Point) -> float:
    """Heading from one point to another [rad]."""
    return math.atan2(b[1] - a[1], b[0] - a[0])


def move(point: Point, angle: float, along: float, right: float = 0.0) -> Point:
    """Point shifted along a direction and to its right [m]; OpenDRIVE's y points left of x."""
    cos_angle, sin_angle = math.cos(angle), math.sin(angle)
    return point[0] + along * cos_angle + right * sin_angle, point[1] + along * sin_angle - right * cos_angle


def _turns(junction: JunctionDraft) -> list[tuple[Arm, Arm, float, bool]]:
    """Ways through a junction: from, to, change of direction [rad], whether it is the rightmost way of its arm."""
    result = []
    for i, source in enumerate(junction.arms):
        # Arms are in counterclockwise order. For a driver who comes in on one, the next one is the rightmost.
        others = junction.arms[i + 1 :] + junction.arms[:i]
        for rank, target in enumerate(others):
            result.append((source, target, wrap_angle(target.angle - source.angle - math.pi), rank == 0))
    return result


def junction_reach(junction: JunctionDraft, corner_radius: float) -> float:
    """
    How far a junction reaches into its streets, so that no right turn is too sharp.

    :param junction: with all its arms
    :param corner_radius: least radius of the middle of the outermost lane where it turns right [m]
    :return: distance from the centre [m]
    """
    # Radius of the streets' middle: the outermost lane's plus its offset. Clothoids need more room than an arc.
    return max(
        tangent_length(turn, Corner(corner_radius + max(_outermost(source), _outermost(target)), _TURN_SPIRAL_SHARE))
        for source, target, turn, _ in _turns(junction)
        if abs(turn) > _STRAIGHT_ON
    )


def _outermost(arm: Arm) -> float:
    """Distance of the middle of the outermost driving lane from the street's middle [m]."""
    section = arm.section
    return 0.5 * section.median + (section.lanes - 0.5) * section.lane_width


def connect(junction: JunctionDraft, speed_kmh: int, roads: list[Road]) -> Junction:
    """
    Add the connecting roads of a junction: one road with one driving lane for each lane of each way through it.

    :param junction: with all its arms
    :param speed_kmh: speed limit [km/h]
    :param roads: of the whole town so far; the connecting roads are appended
    :return: the junction with the connections of all its lanes
    """
    links = []
    turns = _turns(junction)
    through = {source.angle for source, _, turn, _ in turns if abs(turn) <= _STRAIGHT_ON}
    for source, target, turn, rightmost in turns:
        for numbers in _lane_pairs(source, target, turn, source.angle in through, rightmost):
            road = _connection(junction, (source, target), numbers, speed_kmh, len(roads) + 1)
            road = _with_paving(road, (source.section, target.section), numbers, turn)
            if rightmost and numbers[0] == source.section.lanes:
                road = _with_edge(road, (source, target), numbers[1])
            roads.append(road)
            links.append(LaneLink(source.street, source.lane(numbers[0], inbound=True), road.id))
    return Junction(junction.id, tuple(links))


def _lane_pairs(source: Arm, target: Arm, turn: float, has_through: bool, rightmost: bool) -> list[tuple[int, int]]:
    """Lanes of one way through a junction, counted from the middle: from which to which."""
    lanes, others = source.section.lanes, target.section.lanes
    if abs(turn) <= _STRAIGHT_ON:
        # Lanes that the target lacks turn right; where nothing leads to the right they merge.
        last = lanes if rightmost else min(lanes, others)
        return [(number, min(number, others)) for number in range(1, last + 1)]
    if turn > 0.0:  # left: from the lane next to the middle
        return [(1, 1)]
    # Right: from the outermost lane; if nothing leads straight on, from the lanes between too.
    first = lanes if has_through else min(2, lanes)
    return [(number, max(1, others - (lanes - number))) for number in range(first, lanes + 1)]


def _connection(
    junction: JunctionDraft, arms: tuple[Arm, Arm], numbers: tuple[int, int], speed_kmh: int, road_id: int
) -> Road:
    """Connecting road between two lanes, counted from the middle; its reference line is the lane's left edge."""
    source, target = arms
    offset, end_offset = (arm.section.edge_of(number - 1) for arm, number in zip(arms, numbers, strict=True))
    start = move(move(junction.place, source.angle, junction.reach), source.angle + math.pi, 0.0, offset)
    end = move(junction.place, target.angle, junction.reach, end_offset)
    lane = Lane(
        -1,
        "driving",
        source.section.lane_width,
        _NOTHING,
        predecessor=source.lane(numbers[0], inbound=True),
        successor=target.lane(numbers[1], inbound=False),
        end_width=target.section.lane_width,
    )
    return Road(
        id=road_id,
        line=turn_line(start, source.angle + math.pi, end, target.angle),
        lanes=(lane,),
        centre=_NOTHING,
        predecessor=Link(source.street, source.contact),
        successor=Link(target.street, target.contact),
        junction=junction.id,
        speed_kmh=speed_kmh,
    )


def turn_line(start: Point, heading: float, end: Point, end_heading: float) -> ReferenceLine:
    """
    Reference line from one direction into another, with the greatest radius that fits.

    :param start: its first point [m]
    :param heading: there [rad]
    :param end: its last point [m]
    :param end_heading: there [rad]
    :return: one bend, or two opposite ones where the end lies to a side of the way straight on
    """
    turn = wrap_angle(end_heading - heading)
    dx, dy = end[0] - start[0], end[1] - start[1]
    aside = dy * math.cos(heading) - dx * math.sin(heading)
    if abs(turn) < 1e-6 and abs(aside) < 1e-6:
        return rounded_polyline([start, end], [])
    if abs(turn) <= _STRAIGHT_ON and abs(aside - math.sin(0.5 * turn) * math.hypot(dx, dy)) > 0.05:
        return _sideways_line(start, heading, end, end_heading)
    # Law of sines in the triangle of the start, the end, and the point where the two directions meet.
    before = (dx * math.sin(end_heading) - dy * math.cos(end_heading)) / math.sin(turn)
    after = aside / math.sin(turn)
    radius = min(before, after) / tangent_length(turn, Corner(1.0, _TURN_SPIRAL_SHARE))
    return rounded_polyline([start, move(start, heading, before), end], [Corner(radius, _TURN_SPIRAL_SHARE)])


def _sideways_line(start: Point, heading: float, end: Point, end_heading: float) -> ReferenceLine:
    """Reference line with a bend after a quarter of the way and one before its last quarter."""
    quarter = 0.25 * math.dist(start, end)
    path = [start, move(start, heading, quarter), move(end, end_heading, -quarter), end]
    inner = math.dist(path[1], path[2])
    corners = [
        Corner(
            0.99 * min(quarter, 0.5 * inner) / tangent_length(turn, Corner(1.0, _TURN_SPIRAL_SHARE)), _TURN_SPIRAL_SHARE
        )
        for turn in deflections(path)
    ]
    return rounded_polyline(path, corners)


def _with_paving(
    road: Road, sections: tuple[CrossSection, CrossSection], numbers: tuple[int, int], turn: float
) -> Road:
    """The road with asphalt where its other lanes would turn too: a junction has no grass in its middle."""
    widths: dict[int, list[float]] = {}
    if abs(turn) > _STRAIGHT_ON and turn < 0.0:  # right turns leave the lanes on their left free
        widths[1] = [s.edge_of(number - 1) for s, number in zip(sections, numbers, strict=True)]
    elif numbers[0] == 1:  # between the two directions of a street with a median
        widths[1] = [0.5 * section.median for section in sections]
    if turn > _STRAIGHT_ON:  # left turns those on their right
        widths[-2] = [(s.lanes - number) * s.lane_width for s, number in zip(sections, numbers, strict=True)]
    paving = [Lane(i, _ASPHALT, a, _NOTHING, end_width=b) for i, (a, b) in widths.items() if max(a, b)]
    return replace(road, lanes=(*road.lanes, *paving))


def _with_edge(road: Road, arms: tuple[Arm, Arm], last: int) -> Road:
    """
    The road with the edge line and roadside of the streets that it joins: no other way crosses it there.

    Strips that only one of the streets has end in a point.
    """
    source, target = (arm.section for arm in arms)
    lanes = [replace(lane, marking=source.edge) if lane.id == -1 else lane for lane in road.lanes]
    missing = (target.lanes - last) * target.lane_width
    if missing:  # lanes that begin beyond the junction
        lanes.append(Lane(-2, _ASPHALT, 0.0, _NOTHING, end_width=missing))
    for kind in ("parking", "shoulder", "sidewalk"):
        widths = [dict(section.roadside).get(kind, 0.0) for section in (source, target)]
        if any(widths):
            links = (_roadside_lane(arms[0], kind, inbound=True), _roadside_lane(arms[1], kind, inbound=False))
            number = min(lane.id for lane in lanes) - 1
            lanes.append(Lane(number, kind, widths[0], _NOTHING, *links, end_width=widths[1]))
    return replace(road, lanes=tuple(lanes))


def _roadside_lane(arm: Arm, kind: str, inbound: bool) -> int | None:
    """OpenDRIVE id of a strip beside the driving lanes; None if the street has none of this kind."""
    kinds = [name for name, _ in arm.section.roadside]
    return arm.lane(arm.section.lanes + 1 + kinds.index(kind), inbound) if kind in kinds else None
