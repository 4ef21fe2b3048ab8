"""Junctions of random villages: how far they reach, and their connecting roads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from sb3_carla.simulator.geometry import wrap_angle
from sb3_carla.simulator.roads.opendrive import CrossSection, Junction, Lane, LaneLink, Link, Marking, Road
from sb3_carla.simulator.roads.reference_line import Corner, Point, ReferenceLine, rounded_polyline, tangent_length

__all__ = ["Arm", "JunctionDraft", "connect", "direction_to", "junction_reach", "move"]

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
    """

    street: int
    contact: str
    angle: float

    def lane(self, number: int, inbound: bool) -> int:
        """OpenDRIVE lane id of the ``number``-th lane from the middle, of those towards or away from the junction."""
        # Right-hand traffic: lanes with negative ids run along the road, towards the junction at its end.
        forward = (self.contact == "end") == inbound
        return -number if forward else number


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


def junction_reach(junction: JunctionDraft, section: CrossSection, corner_radius: float) -> float:
    """
    How far a junction reaches into its streets, so that no right turn is too sharp.

    :param junction: with all its arms
    :param section: of the streets
    :param corner_radius: least radius of the middle of the outermost lane where it turns right [m]
    :return: distance from the centre [m]
    """
    radius = corner_radius + (section.lanes - 0.5) * section.lane_width
    # Radius of the streets' middle: the outermost lane's plus its offset. Clothoids need more room than an arc.
    corner = Corner(radius, _TURN_SPIRAL_SHARE)
    return max(tangent_length(turn, corner) for _, _, turn, _ in _turns(junction) if abs(turn) > _STRAIGHT_ON)


def connect(junction: JunctionDraft, section: CrossSection, speed_kmh: int, roads: list[Road]) -> Junction:
    """
    Add the connecting roads of a junction: one road with one driving lane for each lane of each way through it.

    :param junction: with all its arms
    :param section: of the streets
    :param speed_kmh: speed limit [km/h]
    :param roads: of the whole town so far; the connecting roads are appended
    :return: the junction with the connections of all its lanes
    """
    links = []
    lanes = section.lanes
    turns = _turns(junction)
    through = {source.angle for source, _, turn, _ in turns if abs(turn) <= _STRAIGHT_ON}
    for source, target, turn, rightmost in turns:
        if abs(turn) <= _STRAIGHT_ON:
            numbers = range(1, lanes + 1)
        elif turn > 0.0:  # left: from the lane next to the middle
            numbers = range(1, 2)
        else:  # right: from the outermost lane; if nothing leads straight on, from the lanes between too
            numbers = range(lanes if source.angle in through else min(2, lanes), lanes + 1)
        for number in numbers:
            road = _connection(junction, (source, target), number, section, speed_kmh, len(roads) + 1)
            others = lanes - number if turn > 0.0 else number - 1
            if abs(turn) > _STRAIGHT_ON and others:
                road = _with_paving(road, turn, others * section.lane_width)
            if rightmost and number == lanes:
                road = _with_edge(road, (source, target), section)
            roads.append(road)
            links.append(LaneLink(source.street, source.lane(number, inbound=True), road.id))
    return Junction(junction.id, tuple(links))


def _connection(
    junction: JunctionDraft, arms: tuple[Arm, Arm], number: int, section: CrossSection, speed_kmh: int, road_id: int
) -> Road:
    """Connecting road of the ``number``-th lane from the middle; its reference line is the lane's left edge."""
    source, target = arms
    offset = (number - 1) * section.lane_width
    start = move(move(junction.place, source.angle, junction.reach), source.angle + math.pi, 0.0, offset)
    end = move(junction.place, target.angle, junction.reach, offset)
    lane = Lane(
        -1,
        "driving",
        section.lane_width,
        _NOTHING,
        predecessor=source.lane(number, inbound=True),
        successor=target.lane(number, inbound=False),
    )
    return Road(
        id=road_id,
        line=_turn_line(start, source.angle + math.pi, end, target.angle),
        lanes=(lane,),
        centre=_NOTHING,
        predecessor=Link(source.street, source.contact),
        successor=Link(target.street, target.contact),
        junction=junction.id,
        speed_kmh=speed_kmh,
    )


def _turn_line(start: Point, heading: float, end: Point, end_heading: float) -> ReferenceLine:
    """Reference line from one direction into another, with the greatest radius that fits."""
    turn = wrap_angle(end_heading - heading)
    if abs(turn) < 1e-6:
        return rounded_polyline([start, end], [])
    dx, dy = end[0] - start[0], end[1] - start[1]
    # Law of sines in the triangle of the start, the end, and the point where the two directions meet.
    before = (dx * math.sin(end_heading) - dy * math.cos(end_heading)) / math.sin(turn)
    after = (dy * math.cos(heading) - dx * math.sin(heading)) / math.sin(turn)
    radius = min(before, after) / tangent_length(turn, Corner(1.0, _TURN_SPIRAL_SHARE))
    return rounded_polyline([start, move(start, heading, before), end], [Corner(radius, _TURN_SPIRAL_SHARE)])


def _with_paving(road: Road, turn: float, width: float) -> Road:
    """The road with asphalt where its other lanes would turn too: a junction has no grass in its middle."""
    side = -1 if turn > 0.0 else 1  # left turns leave the lanes on their right free, right turns those on their left
    lanes = (Lane(side * (1 + (side < 0)), _ASPHALT, width, _NOTHING),)
    return replace(road, lanes=road.lanes + lanes)


def _with_edge(road: Road, arms: tuple[Arm, Arm], section: CrossSection) -> Road:
    """The road with the edge line and roadside of the streets that it joins: no other way crosses it there."""
    lanes = [replace(road.lanes[0], marking=section.edge), *road.lanes[1:]]
    for i, (kind, width) in enumerate(section.roadside, start=1):
        outside = section.lanes + i
        links = (arms[0].lane(outside, inbound=True), arms[1].lane(outside, inbound=False))
        lanes.append(Lane(-1 - i, kind, width, _NOTHING, *links))
    return replace(road, lanes=tuple(lanes))
