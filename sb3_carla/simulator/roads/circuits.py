"""Random closed circuits: a polygon whose corners are rounded by clothoid, arc, clothoid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sb3_carla.errors import MapError
from sb3_carla.simulator.roads.opendrive import CrossSection, Elevation, Lane, Link, Marking, Road, opendrive_text
from sb3_carla.simulator.roads.reference_line import (
    Point,
    ReferenceLine,
    Segment,
    deflections,
    random_corner,
    rounded_polyline,
    sample_points,
)

__all__ = ["CircuitStyle", "circuit_opendrive"]

_ATTEMPTS = 20000
_MAX_DEFLECTION = math.radians(125.0)
_MIN_DEFLECTION = math.radians(14.0)
_GRASS = 18.0
"""Least distance between the paved surfaces of two parts of the road that are not neighbours [m]."""
_KNOT_SPACING = 20.0
"""Greatest length of one cubic of the height profile [m]."""


@dataclass(frozen=True, slots=True)
class CircuitStyle:
    """
    Range of what a random circuit looks like.

    :param section: lanes and markings
    :param corners: number of corners
    :param size: greatest extent of the polygon along x and y [m]
    :param dent: greatest shift of a corner towards the centre, as a share of its distance, in [0, 1)
    :param radii: least and greatest radius of an arc [m]
    :param length: least and greatest length of the circuit [m]
    :param turning: least sum of the magnitudes of all changes of direction [rad]; a convex circuit has 2 pi
    :param min_straight: least length of a straight between two corners [m]
    :param slope: steepest slope [-], 0: flat
    :param bend_centre: line between the two directions in bends of less than 30 m radius; None: that of ``section``
    :param speed_kmh: speed limit [km/h]
    :param sidewalk: width of the sidewalks [m], and share of the roads that have them [-]
    """

    section: CrossSection
    corners: int = 10
    size: tuple[float, float] = (300.0, 240.0)
    dent: float = 0.5
    radii: tuple[float, float] = (12.0, 60.0)
    length: tuple[float, float] = (500.0, 1200.0)
    turning: float = 3.0 * math.pi
    min_straight: float = 8.0
    slope: float = 0.0
    bend_centre: Marking | None = None
    speed_kmh: int = 40
    sidewalk: tuple[float, float] = (0.0, 0.0)


def circuit_opendrive(name: str, seed: int, style: CircuitStyle) -> str:
    """
    OpenDRIVE of a random closed circuit with lanes in both directions.

    :param name: of the town
    :param seed: of the random numbers
    :param style: of the circuit
    :return: XML; equal arguments give equal text
    :raises MapError: if no circuit of this style was found
    """
    rng = np.random.default_rng(seed)
    for _ in range(_ATTEMPTS):
        lines = _random_lines(rng, style)
        if lines is not None and _fits(lines, style):
            return opendrive_text(name, _roads(lines, _heights(rng, lines, style.slope), style, seed))
    raise MapError(f"no circuit of this style after {_ATTEMPTS} attempts with seed {seed}: {style}")


def _random_lines(rng: np.random.Generator, style: CircuitStyle) -> list[ReferenceLine] | None:
    """A reference line for each corner, from the middle of one side to that of the next; None if it does not fit."""
    points = _polygon(rng, style)
    turns = deflections([points[-1], *points, points[0]])
    sizes = [abs(turn) for turn in turns]
    if min(sizes) < _MIN_DEFLECTION or max(sizes) > _MAX_DEFLECTION or sum(sizes) < style.turning:
        return None
    middles = [_middle(*side) for side in zip(points, [*points[1:], points[0]], strict=True)]
    lines = []
    for i, turn in enumerate(turns):
        path = [middles[i - 1], points[i], middles[i]]
        room = min(math.dist(path[0], path[1]), math.dist(path[1], path[2])) - 0.5 * style.min_straight
        corner = random_corner(rng, turn, room, style.radii)
        if corner is None:
            return None
        lines.append(rounded_polyline(path, [corner]))
    return lines


def _polygon(rng: np.random.Generator, style: CircuitStyle) -> list[Point]:
    """Corners around a centre in order of their angle, so that no side crosses another, moved inwards at random."""
    first = rng.uniform(0.0, 2.0 * math.pi)
    points = []
    for i in range(style.corners):
        angle = first + 2.0 * math.pi * (i + rng.uniform(-0.3, 0.3)) / style.corners
        reach = 0.5 * (1.0 - style.dent * rng.uniform(0.0, 1.0))
        points.append((style.size[0] * reach * math.cos(angle), style.size[1] * reach * math.sin(angle)))
    return points


def _middle(a: Point, b: Point) -> Point:
    return 0.5 * (a[0] + b[0]), 0.5 * (a[1] + b[1])


def _fits(lines: list[ReferenceLine], style: CircuitStyle) -> bool:
    """Whether the length is in range, at least two bends lead to either side, and the road keeps away from itself."""
    length = sum(line.length for line in lines)
    if not style.length[0] <= length <= style.length[1]:
        return False
    lefts = sum(max(segment.end_curvature for segment in line.segments) > 0.0 for line in lines)
    if min(lefts, len(lines) - lefts) < 2:
        return False
    spacing = 4.0
    points = [point for line in lines for point in sample_points(line, spacing)]
    clearance = 2.0 * style.section.half_width + _GRASS
    # Points that are close along the road are also close in the plane; they do not count.
    skip = math.ceil(3.0 * clearance / spacing)
    count = len(points)
    return all(
        math.dist(points[i], points[j]) >= clearance
        for i in range(count)
        for j in range(i + skip, min(count, i + count - skip))
    )


def _heights(rng: np.random.Generator, lines: list[ReferenceLine], slope: float) -> list[tuple[Elevation, ...]]:
    """Height profile: three sine waves around the circuit, as cubics that agree in height and slope where they meet."""
    if slope == 0.0:
        return [()] * len(lines)
    total = sum(line.length for line in lines)
    waves = [(2.0 * math.pi * n / total, rng.uniform(0.5, 1.0) / n, rng.uniform(0.0, 2.0 * math.pi)) for n in (1, 2, 3)]

    def height(s: float) -> float:
        return sum(size * math.sin(rate * s + phase) for rate, size, phase in waves)

    def rise(s: float) -> float:
        return sum(rate * size * math.cos(rate * s + phase) for rate, size, phase in waves)

    # The steepest of 500 points gets the wanted slope.
    scale = slope / max(abs(rise(total * i / 500.0)) for i in range(500))
    result, start = [], 0.0
    for line in lines:
        count = math.ceil(line.length / _KNOT_SPACING)
        step = line.length / count
        cubics = []
        for i in range(count):
            s = start + i * step
            z, z_end = scale * height(s), scale * height(s + step)
            cubics.append(_hermite(i * step, step, (z, z_end), (scale * rise(s), scale * rise(s + step))))
        result.append(tuple(cubics))
        start += line.length
    return result


def _hermite(station: float, step: float, heights: tuple[float, float], slopes: tuple[float, float]) -> Elevation:
    """Cubic with given heights [m] and slopes [-] at its ends (Hermite interpolation)."""
    mean = (heights[1] - heights[0]) / step
    c = (3.0 * mean - 2.0 * slopes[0] - slopes[1]) / step
    d = (slopes[0] + slopes[1] - 2.0 * mean) / step**2
    return Elevation(station, heights[0], slopes[0], c, d)


def _roads(
    lines: list[ReferenceLine], heights: list[tuple[Elevation, ...]], style: CircuitStyle, seed: int
) -> list[Road]:
    roads: list[Road] = []
    width, share = style.sidewalk
    # A generator of their own: the roads' courses do not depend on what is beside them.
    has_sidewalk = (np.random.default_rng((seed, 1)).random(len(lines)) < share).tolist()
    for i, (line, elevations) in enumerate(zip(lines, heights, strict=True)):
        section = replace(style.section, sidewalk=width) if has_sidewalk[i] else style.section
        if style.bend_centre is not None and _sharpest(line.segments) > 1.0 / 30.0:
            section = replace(section, centre=style.bend_centre)
        before, after = (i - 1) % len(lines), (i + 1) % len(lines)
        roads.append(
            Road(
                id=i + 1,
                line=line,
                lanes=_linked(section.build(True, True), has_sidewalk[before], has_sidewalk[after]),
                centre=section.centre,
                predecessor=Link(before + 1, "end"),
                successor=Link(after + 1, "start"),
                elevations=elevations,
                speed_kmh=style.speed_kmh,
            )
        )
    return roads


def _linked(lanes: tuple[Lane, ...], before: bool, after: bool) -> tuple[Lane, ...]:
    """The lanes without links to sidewalks that the roads before and after do not have."""
    return tuple(
        lane
        if lane.kind != "sidewalk"
        else replace(lane, predecessor=lane.id if before else None, successor=lane.id if after else None)
        for lane in lanes
    )


def _sharpest(segments: tuple[Segment, ...]) -> float:
    return max(abs(segment.end_curvature) for segment in segments)
