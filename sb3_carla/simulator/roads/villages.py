"""Random villages: road networks with junctions, made of a crooked grid of streets with some left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from sb3_carla.errors import MapError
from sb3_carla.simulator.roads.junctions import Arm, JunctionDraft, connect, direction_to, junction_reach, move
from sb3_carla.simulator.roads.opendrive import (
    CrossSection,
    Elevation,
    Junction,
    Link,
    Marking,
    Road,
    opendrive_text,
)
from sb3_carla.simulator.roads.reference_line import (
    Point,
    ReferenceLine,
    deflections,
    min_radius,
    random_corner,
    rounded_polyline,
)

__all__ = ["VillageStyle", "village_opendrive"]

_ATTEMPTS = 1000
_MIN_STRAIGHT = 6.0
"""Least length of the straights between a street's bends [m]."""
_FIRST_JUNCTION = 1000
"""Ids of junctions start here, those of roads at 1."""


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
    :param sidewalk_share: share of the streets that have the sidewalks of their cross-section [-]
    :param worn_share: share of the streets whose edge lines are worn away, unless cars park there [-]; half of them, if
        they have one lane a direction, have no centre line either
    :param main_section: lanes and markings of the streets along ``main_rows`` and ``main_columns``; None: ``section``
    :param main_rows: rows of places, from 0
    :param main_columns: columns of places, from 0
    :param slope: steepest slope of the streets, which rise and fall between level junctions [-], 0: flat
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
    sidewalk_share: float = 1.0
    worn_share: float = 0.0
    main_section: CrossSection | None = None
    main_rows: tuple[int, ...] = ()
    main_columns: tuple[int, ...] = ()
    slope: float = 0.0


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
    # A generator of its own: the streets' courses do not depend on what they look like.
    looks = np.random.default_rng((seed, 1))
    sections = [_section(looks, chain, style) for chain in chains]
    for _ in range(_ATTEMPTS):
        network = _random_network(rng, chains, sections, style)
        if network is not None:
            return opendrive_text(name, *network)
    raise MapError(f"no village of this style after {_ATTEMPTS} attempts with seed {seed}: {style}")


def _section(rng: np.random.Generator, chain: list[int], style: VillageStyle) -> CrossSection:
    """Cross-section of a street: that of its kind, perhaps without sidewalks, perhaps with worn lines."""
    section = style.section
    if style.main_section is not None and any(_is_main(a, b, style) for a, b in pairwise(chain)):
        section = style.main_section
    has_sidewalk, worn, bare = (rng.random(3) < (style.sidewalk_share, style.worn_share, 0.5)).tolist()
    if not has_sidewalk:
        section = replace(section, sidewalk=0.0)
    if worn:
        # The line beside parked cars stays: without it nobody sees where the lane is.
        section = section if section.parking else replace(section, edge=Marking("none"))
        if bare and section.lanes == 1:
            section = replace(section, centre=Marking("none"))
    return section


def _is_main(a: int, b: int, style: VillageStyle) -> bool:
    """Whether the street between two neighbouring places lies along a main row or column."""
    if abs(a - b) == 1:
        return a // style.columns in style.main_rows
    return a % style.columns in style.main_columns


def _random_network(
    rng: np.random.Generator, chains: list[list[int]], sections: list[CrossSection], style: VillageStyle
) -> tuple[list[Road], list[Junction]] | None:
    """Roads and junctions; None if the bends do not fit into the streets."""
    places = _places(rng, style)
    paths = [_path(rng, [places[place] for place in chain], style.bow) for chain in chains]
    ends = sorted({chain[0] for chain in chains} | {chain[-1] for chain in chains})
    junctions = {place: JunctionDraft(_FIRST_JUNCTION + i, places[place]) for i, place in enumerate(ends)}
    for number, (chain, path, section) in enumerate(zip(chains, paths, sections, strict=True), start=1):
        junctions[chain[0]].arms.append(Arm(number, "start", direction_to(path[0], path[1]), section))
        junctions[chain[-1]].arms.append(Arm(number, "end", direction_to(path[-1], path[-2]), section))
    for junction in junctions.values():
        junction.arms.sort(key=lambda arm: arm.angle)
        junction.reach = junction_reach(junction, style.corner_radius)
    roads: list[Road] = []
    for number, (chain, path, section) in enumerate(zip(chains, paths, sections, strict=True), start=1):
        line = _line(rng, (junctions[chain[0]], junctions[chain[-1]]), path, style.radii)
        if line is None:
            return None
        links = (Link(junctions[chain[0]].id), Link(junctions[chain[-1]].id))
        roads.append(_street(number, line, section, links, style))
    return roads, [connect(junction, style.speed_kmh, roads) for junction in junctions.values()]


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


def _line(
    rng: np.random.Generator, ends: tuple[JunctionDraft, JunctionDraft], path: list[Point], radii: tuple[float, float]
) -> ReferenceLine | None:
    """Reference line between two junctions; None if its bends do not fit."""
    start = move(path[0], direction_to(path[0], path[1]), ends[0].reach)
    end = move(path[-1], direction_to(path[-1], path[-2]), ends[1].reach)
    points = [start, *path[1:-1], end]
    corners = []
    for turn, room in zip(deflections(points), _rooms(points, radii), strict=True):
        corner = random_corner(rng, turn, room, radii)
        if corner is None:
            return None
        corners.append(corner)
    return rounded_polyline(points, corners)


def _street(
    number: int, line: ReferenceLine, section: CrossSection, ends: tuple[Link, Link], style: VillageStyle
) -> Road:
    return Road(
        id=number,
        line=line,
        lanes=section.build(linked_at_start=False, linked_at_end=False),
        centre=section.reference_marking,
        predecessor=ends[0],
        successor=ends[1],
        elevations=_hump(line.length, style.slope * (-1 if number % 2 else 1)),
        speed_kmh=style.speed_kmh,
    )


def _hump(length: float, slope: float) -> tuple[Elevation, ...]:
    """A rise to the middle of a street and a fall behind it, level at both ends; nothing without a slope."""
    if slope == 0.0:
        return ()
    half = 0.5 * length
    # z = 3 h (s / half)^2 - 2 h (s / half)^3 is steepest in its middle: 1.5 h / half.
    height = slope * half / 1.5
    c, d = 3.0 * height / half**2, 2.0 * height / half**3
    return Elevation(0.0, 0.0, 0.0, c, -d), Elevation(half, height, 0.0, -c, d)


def _rooms(points: list[Point], radii: tuple[float, float]) -> list[float]:
    """Greatest tangent length of each bend [m]: two bends share the side between them in proportion to their needs."""
    # What an arc of the least radius needs: R tan(turn / 2).
    needs = [0.0, *(min_radius(turn, radii) * math.tan(0.5 * abs(turn)) for turn in deflections(points)), 0.0]
    rooms = []
    for i in range(1, len(points) - 1):
        before, after = (math.dist(points[i], points[k]) - _MIN_STRAIGHT for k in (i - 1, i + 1))
        rooms.append(min(before * needs[i] / (needs[i] + needs[i - 1]), after * needs[i] / (needs[i] + needs[i + 1])))
    return rooms
