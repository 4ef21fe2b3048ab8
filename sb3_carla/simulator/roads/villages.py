"""Random villages: road networks with junctions, made of a crooked grid of streets with some left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from sb3_carla.errors import MapError
from sb3_carla.simulator.geometry import wrap_angle
from sb3_carla.simulator.roads.opendrive import (
    CrossSection,
    Junction,
    Lane,
    LaneLink,
    Link,
    Marking,
    Road,
    opendrive_text,
)
from sb3_carla.simulator.roads.reference_line import (
    Corner,
    Point,
    ReferenceLine,
    deflections,
    min_radius,
    random_corner,
    rounded_polyline,
    tangent_length,
)

__all__ = ["VillageStyle", "village_opendrive"]

_ATTEMPTS = 1000
_TURN_SPIRAL_SHARE = 0.3
"""``Corner.spiral_share`` of the turns at junctions [-]."""
_STRAIGHT_ON = math.radians(50.0)
"""A way through a junction that turns by less than this leads straight on and keeps all lanes [rad]."""
_MIN_STRAIGHT = 6.0
"""Least length of the straights between a street's bends [m]."""
_FIRST_JUNCTION = 1000
_NOTHING = Marking("none")
_ASPHALT = "special1"
"""OpenDRIVE lane type without traffic that the raster paints as roadway."""


@dataclass(frozen=True, slots=True)
class VillageStyle:
    """
    Range of what a random village looks like.

    Places are the points of the grid, numbered row by row from 0. Streets join neighbouring places.

    :param section: lanes and markings of the streets
    :param columns: places along x
    :param rows: places along y
    :param spacing: distance between two places [m]
    :param jitter: greatest shift of a place from the grid along x and y [m]
    :param bow: greatest distance between a street's middle and the straight line; the least is half of it [m]
    :param missing: pairs of neighbouring places without a street
    :param radii: least and greatest radius of a street's bends [m]
    :param corner_radius: least radius of the middle of the outermost lane where it turns right at a junction [m]
    :param speed_kmh: speed limit [km/h]
    """

    section: CrossSection
    columns: int = 3
    rows: int = 3
    spacing: float = 100.0
    jitter: float = 8.0
    bow: float = 10.0
    missing: tuple[tuple[int, int], ...] = ()
    radii: tuple[float, float] = (14.0, 50.0)
    corner_radius: float = 8.5
    speed_kmh: int = 30


@dataclass(slots=True)
class _Arm:
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
class _JunctionDraft:
    """
    A junction while it is being built.

    :param id: OpenDRIVE id
    :param place: centre, x, y [m]
    :param arms: ends of streets, sorted by angle
    :param reach: distance from the centre to the end of each street [m]
    """

    id: int
    place: Point
    arms: list[_Arm] = field(default_factory=list)
    reach: float = 0.0


def village_opendrive(name: str, seed: int, style: VillageStyle) -> str:
    """
    OpenDRIVE of a random village.

    Every lane can be followed without end: straight on at a junction, or to a side if no street leads straight on.

    :param name: of the town
    :param seed: of the random numbers
    :param style: of the village
    :return: XML; equal arguments give equal text
    :raises MapError: if a place has only one street, or no village of this style was found
    """
    rng = np.random.default_rng(seed)
    chains = _chains(_neighbours(style))
    for _ in range(_ATTEMPTS):
        network = _random_network(rng, chains, style)
        if network is not None:
            return opendrive_text(name, *network)
    raise MapError(f"no village of this style after {_ATTEMPTS} attempts with seed {seed}: {style}")


def _random_network(
    rng: np.random.Generator, chains: list[list[int]], style: VillageStyle
) -> tuple[list[Road], list[Junction]] | None:
    """Roads and junctions; None if the bends do not fit into the streets."""
    places = _places(rng, style)
    paths = [_path(rng, [places[place] for place in chain], style.bow) for chain in chains]
    ends = sorted({chain[0] for chain in chains} | {chain[-1] for chain in chains})
    junctions = {place: _JunctionDraft(_FIRST_JUNCTION + i, places[place]) for i, place in enumerate(ends)}
    for number, (chain, path) in enumerate(zip(chains, paths, strict=True), start=1):
        junctions[chain[0]].arms.append(_Arm(number, "start", _direction(path[0], path[1])))
        junctions[chain[-1]].arms.append(_Arm(number, "end", _direction(path[-1], path[-2])))
    for junction in junctions.values():
        junction.arms.sort(key=lambda arm: arm.angle)
        junction.reach = _reach(junction, style)
    roads: list[Road] = []
    for number, (chain, path) in enumerate(zip(chains, paths, strict=True), start=1):
        street = _street(rng, number, (junctions[chain[0]], junctions[chain[-1]]), path, style)
        if street is None:
            return None
        roads.append(street)
    return roads, [_connect(junction, style, roads) for junction in junctions.values()]


def _places(rng: np.random.Generator, style: VillageStyle) -> list[Point]:
    """Points of the crooked grid, around the origin."""
    return [
        (
            style.spacing * (column - 0.5 * (style.columns - 1)) + style.jitter * rng.uniform(-1.0, 1.0),
            style.spacing * (row - 0.5 * (style.rows - 1)) + style.jitter * rng.uniform(-1.0, 1.0),
        )
        for row in range(style.rows)
        for column in range(style.columns)
    ]


def _neighbours(style: VillageStyle) -> list[list[int]]:
    """For each place the places that a street leads to."""
    count = style.columns * style.rows
    result: list[list[int]] = [[] for _ in range(count)]
    for a in range(count):
        right = [a + 1] if (a + 1) % style.columns else []
        for b in [*right, a + style.columns]:
            if b < count and (a, b) not in style.missing:
                result[a].append(b)
                result[b].append(a)
    for place, others in enumerate(result):
        if len(others) == 1:
            raise MapError(f"place {place} is a dead end: expected no street or at least 2, got 1 (to {others[0]})")
    return result


def _chains(neighbours: list[list[int]]) -> list[list[int]]:
    """Streets as lists of places, from junction to junction; places with two neighbours are bends of a street."""
    chains = []
    for start, others in enumerate(neighbours):
        for other in others if len(others) > 2 else []:
            chain = [start, other]
            while len(neighbours[chain[-1]]) == 2:
                chain.append(next(place for place in neighbours[chain[-1]] if place != chain[-2]))
            if chain[::-1] not in chains:
                chains.append(chain)
    if not chains:
        raise MapError("a village needs a place where at least 3 streets meet, got none")
    return chains


def _path(rng: np.random.Generator, points: list[Point], bow: float) -> list[Point]:
    """The places of a street, and between each two a point half of ``bow`` to ``bow`` off the straight line."""
    path = [points[0]]
    for (ax, ay), (bx, by) in pairwise(points):
        draw = rng.uniform(-1.0, 1.0)
        # The offset from the middle is perpendicular to the side: (-dy, dx) times this share.
        share = bow * (draw + math.copysign(1.0, draw)) / 2.0 / math.hypot(bx - ax, by - ay)
        path += [(0.5 * (ax + bx) - share * (by - ay), 0.5 * (ay + by) + share * (bx - ax)), (bx, by)]
    return path


def _direction(a: Point, b: Point) -> float:
    """Heading from one point to another [rad]."""
    return math.atan2(b[1] - a[1], b[0] - a[0])


def _move(point: Point, angle: float, along: float, right: float = 0.0) -> Point:
    """Point shifted along a direction and to its right [m]; OpenDRIVE's y points left of x."""
    cos_angle, sin_angle = math.cos(angle), math.sin(angle)
    return point[0] + along * cos_angle + right * sin_angle, point[1] + along * sin_angle - right * cos_angle


def _turns(junction: _JunctionDraft) -> list[tuple[_Arm, _Arm, float, bool]]:
    """Ways through a junction: from, to, change of direction [rad], whether it is the rightmost way of its arm."""
    result = []
    for i, source in enumerate(junction.arms):
        # Arms are in counterclockwise order. For a driver who comes in on one, the next one is the rightmost.
        others = junction.arms[i + 1 :] + junction.arms[:i]
        for rank, target in enumerate(others):
            result.append((source, target, wrap_angle(target.angle - source.angle - math.pi), rank == 0))
    return result


def _reach(junction: _JunctionDraft, style: VillageStyle) -> float:
    """How far the junction reaches into its streets, so that no right turn is too sharp [m]."""
    radius = style.corner_radius + (style.section.lanes - 0.5) * style.section.lane_width
    # Radius of the streets' middle: the outermost lane's plus its offset. Clothoids need more room than an arc.
    corner = Corner(radius, _TURN_SPIRAL_SHARE)
    return max(tangent_length(turn, corner) for _, _, turn, _ in _turns(junction) if abs(turn) > _STRAIGHT_ON)


def _street(
    rng: np.random.Generator,
    number: int,
    ends: tuple[_JunctionDraft, _JunctionDraft],
    path: list[Point],
    style: VillageStyle,
) -> Road | None:
    """Road between two junctions; None if its bends do not fit."""
    start = _move(path[0], _direction(path[0], path[1]), ends[0].reach)
    end = _move(path[-1], _direction(path[-1], path[-2]), ends[1].reach)
    points = [start, *path[1:-1], end]
    corners = []
    for turn, room in zip(deflections(points), _rooms(points, style.radii), strict=True):
        corner = random_corner(rng, turn, room, style.radii)
        if corner is None:
            return None
        corners.append(corner)
    return Road(
        id=number,
        line=rounded_polyline(points, corners),
        lanes=style.section.build(linked_at_start=False, linked_at_end=False),
        centre=style.section.centre,
        predecessor=Link(ends[0].id),
        successor=Link(ends[1].id),
        speed_kmh=style.speed_kmh,
    )


def _rooms(points: list[Point], radii: tuple[float, float]) -> list[float]:
    """Greatest tangent length of each bend [m]: two bends share the side between them in proportion to their needs."""
    # What an arc of the least radius needs: R tan(turn / 2).
    needs = [0.0, *(min_radius(turn, radii) * math.tan(0.5 * abs(turn)) for turn in deflections(points)), 0.0]
    rooms = []
    for i in range(1, len(points) - 1):
        before, after = (math.dist(points[i], points[k]) - _MIN_STRAIGHT for k in (i - 1, i + 1))
        rooms.append(min(before * needs[i] / (needs[i] + needs[i - 1]), after * needs[i] / (needs[i] + needs[i + 1])))
    return rooms


def _connect(junction: _JunctionDraft, style: VillageStyle, roads: list[Road]) -> Junction:
    """Add the connecting roads of a junction: one road with one driving lane for each lane of each way through it."""
    links = []
    lanes = style.section.lanes
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
            road = _connection(junction, (source, target), number, style, len(roads) + 1)
            others = lanes - number if turn > 0.0 else number - 1
            if abs(turn) > _STRAIGHT_ON and others:
                road = _with_paving(road, turn, others * style.section.lane_width)
            if rightmost and number == lanes:
                road = _with_edge(road, (source, target), style.section)
            roads.append(road)
            links.append(LaneLink(source.street, source.lane(number, inbound=True), road.id))
    return Junction(junction.id, tuple(links))


def _connection(
    junction: _JunctionDraft, arms: tuple[_Arm, _Arm], number: int, style: VillageStyle, road_id: int
) -> Road:
    """Connecting road of the ``number``-th lane from the middle; its reference line is the lane's left edge."""
    source, target = arms
    offset = (number - 1) * style.section.lane_width
    start = _move(_move(junction.place, source.angle, junction.reach), source.angle + math.pi, 0.0, offset)
    end = _move(junction.place, target.angle, junction.reach, offset)
    lane = Lane(
        -1,
        "driving",
        style.section.lane_width,
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
        speed_kmh=style.speed_kmh,
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
    return rounded_polyline([start, _move(start, heading, before), end], [Corner(radius, _TURN_SPIRAL_SHARE)])


def _with_paving(road: Road, turn: float, width: float) -> Road:
    """The road with asphalt where its other lanes would turn too: a junction has no grass in its middle."""
    side = -1 if turn > 0.0 else 1  # left turns leave the lanes on their right free, right turns those on their left
    lanes = (Lane(side * (1 + (side < 0)), _ASPHALT, width, _NOTHING),)
    return replace(road, lanes=road.lanes + lanes)


def _with_edge(road: Road, arms: tuple[_Arm, _Arm], section: CrossSection) -> Road:
    """The road with the edge line and roadside of the streets that it joins: no other way crosses it there."""
    lanes = [replace(road.lanes[0], marking=section.edge), *road.lanes[1:]]
    for i, (kind, width) in enumerate(section.roadside, start=1):
        outside = section.lanes + i
        links = (arms[0].lane(outside, inbound=True), arms[1].lane(outside, inbound=False))
        lanes.append(Lane(-1 - i, kind, width, _NOTHING, None, *links))
    return replace(road, lanes=tuple(lanes))
