"""
Polygons that the raster of a town is painted with: surfaces and markings, in painting order.

Painting order: pavements, other lanes without traffic, lanes with traffic, markings of a junction's connecting roads,
the inner parts of these roads once more (so that no road's edge line crosses another road), all other markings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.ground_shading import NEUTRAL
from sb3_carla.simulator.rendering.lane_strips import LaneStrip, Marking

__all__ = ["MARKING_ORDER", "MATERIALS", "ROADWAY_ORDER", "GroundPolygon", "Surface", "ground_polygons"]

CHUNK = 8
"""Cross-sections in one polygon: short polygons have small bounding boxes."""
DASH, PERIOD = 3.0, 7.5
"""Length of a dash and of dash and gap of a broken marking [m]. A dash is the 10 ft of the US manual (MUTCD 3A.06), the
gap half of its 30 ft, so that a small camera sees several dashes. ``carla.Map`` does not tell OpenDRIVE's own lengths.
"""
MIN_CELLS = 1.5
"""Least width of a marking [cells]: a thinner diagonal line would look like a string of beads."""
KEPT_EDGE = 0.15
"""Width of the strip inside a lane's edges in which its own edge markings are not painted over [m]."""


class Surface(IntEnum):
    """Kind of ground."""

    VERGE = 0
    ASPHALT = 1
    SHOULDER = 2
    PAVEMENT = 3
    MEDIAN = 4
    CYCLEWAY = 5
    BALLAST = 6
    KERB = 7
    WHITE = 8
    YELLOW = 9
    BLUE = 10
    GREEN = 11
    RED = 12
    PATCH = 13
    TAR = 14
    IRON = 15
    TRACK = 16
    GUTTER = 17


_LABEL = carla.CityObjectLabel
ROADS, SIDEWALKS, TERRAIN = (int(label) for label in (_LABEL.Roads, _LABEL.Sidewalks, _LABEL.Terrain))
ROAD_LINES, GROUND, RAIL_TRACK = (int(label) for label in (_LABEL.RoadLines, _LABEL.Ground, _LABEL.RailTrack))

MATERIALS: dict[Surface, tuple[tuple[int, int, int, int], int]] = {
    Surface.VERGE: ((0, 0, NEUTRAL, 0), TERRAIN),
    Surface.ASPHALT: ((255, 0, NEUTRAL, 0), ROADS),
    Surface.SHOULDER: ((205, 50, NEUTRAL, 0), ROADS),
    Surface.PAVEMENT: ((0, 255, NEUTRAL, 0), SIDEWALKS),
    Surface.MEDIAN: ((0, 140, NEUTRAL, 0), GROUND),
    Surface.CYCLEWAY: ((190, 40, NEUTRAL, 25), ROADS),
    Surface.BALLAST: ((60, 120, 40, 0), RAIL_TRACK),
    Surface.KERB: ((0, 225, 90, 0), SIDEWALKS),
    Surface.WHITE: ((0, 0, 255, 0), ROAD_LINES),
    Surface.YELLOW: ((0, 0, NEUTRAL, 255), ROAD_LINES),
    Surface.BLUE: ((130, 0, 160, 0), ROAD_LINES),
    Surface.GREEN: ((100, 0, 110, 95), ROAD_LINES),
    Surface.RED: ((120, 0, NEUTRAL, 135), ROAD_LINES),
    Surface.PATCH: ((195, 60, 56, 0), ROADS),
    Surface.TAR: ((255, 0, 34, 0), ROADS),
    Surface.IRON: ((215, 40, 26, 0), ROADS),
    Surface.TRACK: ((238, 17, 60, 0), ROADS),
    Surface.GUTTER: ((225, 30, 46, 0), ROADS),
}
"""
Shares of road, stone, white (see ``ground_shading.NEUTRAL``) and yellow, of 255; what is missing is verge. Then the
semantic label.
Blue, green and red paint are mixtures of the others: they keep their brightness, not their hue.
"""

# Lane type of OpenDRIVE 1.4: surface, position in the painting order. All other types are roadway.
_LANES = {
    "sidewalk": (Surface.PAVEMENT, 0),
    "walking": (Surface.PAVEMENT, 0),
    "median": (Surface.MEDIAN, 1),
    "restricted": (Surface.MEDIAN, 1),
    "curb": (Surface.KERB, 1),
    "border": (Surface.SHOULDER, 1),
    "tram": (Surface.BALLAST, 1),
    "rail": (Surface.BALLAST, 1),
    "shoulder": (Surface.SHOULDER, 2),
    "stop": (Surface.SHOULDER, 2),
    "biking": (Surface.CYCLEWAY, 3),
}
ROADWAY_ORDER, MARKING_ORDER = 4, 7
"""Places in the painting order of lanes with traffic and of markings."""
_ROADWAY = (Surface.ASPHALT, ROADWAY_ORDER)
_JUNCTION_MARKING, _JUNCTION_INSIDE = 5, 6
_COLORS = {"Yellow": Surface.YELLOW, "Blue": Surface.BLUE, "Green": Surface.GREEN, "Red": Surface.RED}
# Lines of each ``carla.LaneMarkingType``: (offset outwards in marking widths, whether it is broken).
_PATTERNS = {
    "Solid": ((0.0, False),),
    "Broken": ((0.0, True),),
    "BottsDots": ((0.0, True),),
    "Curb": ((0.0, False),),
    "SolidSolid": ((-1.0, False), (1.0, False)),
    "SolidBroken": ((-1.0, False), (1.0, True)),
    "BrokenSolid": ((-1.0, True), (1.0, False)),
    "BrokenBroken": ((-1.0, True), (1.0, True)),
}


@dataclass(frozen=True, slots=True)
class GroundPolygon:
    """
    One polygon to fill.

    :param outline: shape (n, 2), float64, world x and y [m]
    :param surface: kind of ground
    :param order: polygons of a higher order are painted later
    :param height: mean world z [m]
    """

    outline: NDArray[np.float64]
    surface: Surface
    order: int
    height: float


def ground_polygons(strips: Sequence[LaneStrip], cell: float, shrink: float = 0.0) -> list[GroundPolygon]:
    """
    Surfaces and markings of all lanes.

    :param strips: lanes of a map
    :param cell: cell size of the raster [m]; markings are at least ``MIN_CELLS`` wide
    :param shrink: subtracted from the width of markings, because filling a polygon widens it [m]
    :return: in painting order
    """
    polygons: list[GroundPolygon] = []
    for strip in strips:
        polygons += _surface(strip)
        for edge, markings in ((strip.inner, strip.inner_markings), (strip.outer, strip.outer_markings)):
            for first, last, marking in _runs(markings):
                width = max(marking.width, MIN_CELLS * cell)
                polygons += _marking(strip, edge, slice(first, last + 1), marking, width - shrink)
    polygons.sort(key=lambda polygon: polygon.order)
    return polygons


def _surface(strip: LaneStrip) -> Iterator[GroundPolygon]:
    surface, order = _LANES.get(strip.kind, _ROADWAY)
    yield from _chunks(strip, strip.inner, strip.outer, surface, order)
    if strip.junction and surface is Surface.ASPHALT:
        # (n, 2): across the lane; at most a quarter of its width is kept at each edge.
        across = strip.outer - strip.inner
        share = KEPT_EDGE / np.maximum(np.linalg.norm(across, axis=1), 4.0 * KEPT_EDGE)[:, None]
        inner, outer = strip.inner + share * across, strip.outer - share * across
        yield from _chunks(strip, inner, outer, surface, _JUNCTION_INSIDE)


def _chunks(
    strip: LaneStrip, inner: NDArray[np.float64], outer: NDArray[np.float64], surface: Surface, order: int
) -> Iterator[GroundPolygon]:
    for first in range(0, len(inner) - 1, CHUNK):
        part = slice(first, first + CHUNK + 1)
        # Along the inner edge and back along the outer one; neighbours share a cross-section.
        outline = np.concatenate([inner[part], outer[part][::-1]])
        yield GroundPolygon(outline, surface, order, float(strip.heights[part].mean()))


def _runs(markings: Sequence[Marking | None]) -> Iterator[tuple[int, int, Marking]]:
    """Runs of equal markings: first cross-section, last one, the marking."""
    first = 0
    for i in range(1, len(markings) + 1):
        if i == len(markings) or markings[i] != markings[first]:
            marking = markings[first]
            last = min(i, len(markings) - 1)
            if marking is not None and last > first:
                yield first, last, marking
            first = i


def _marking(
    strip: LaneStrip, edge: NDArray[np.float64], part: slice, marking: Marking, width: float
) -> Iterator[GroundPolygon]:
    across = (strip.outer - strip.inner)[part]  # (n, 2), made unit vectors that point outwards
    across = across / np.maximum(np.linalg.norm(across, axis=1), 1e-6)[:, None]
    line, stations, heights = edge[part], strip.stations[part], strip.heights[part]
    order = _JUNCTION_MARKING if strip.junction else MARKING_ORDER
    surface = Surface.KERB if marking.kind == "Curb" else _COLORS.get(marking.color, Surface.WHITE)
    for offset, broken in _PATTERNS.get(marking.kind, ()):
        middle = line + (offset * marking.width) * across
        for begin, end in _pieces(float(stations[0]), float(stations[-1]), broken):
            # The cross-sections within the dash, and its two ends.
            cuts = stations[(stations > begin) & (stations < end)]
            cuts = np.concatenate([[begin], cuts, [end]])
            path = _interpolated(cuts, stations, middle)
            side = 0.5 * width * _interpolated(cuts, stations, across)
            height = float(np.interp(0.5 * (begin + end), stations, heights))
            yield GroundPolygon(np.concatenate([path - side, (path + side)[::-1]]), surface, order, height)


def _pieces(begin: float, end: float, broken: bool) -> Iterator[tuple[float, float]]:
    """
    Painted parts of a marking between two stations [m].

    Dash ``number`` begins at ``number * PERIOD``, wherever the marking begins. Solid lines are cut for small polygons.
    """
    length, period = (DASH, PERIOD) if broken else (2.0 * PERIOD, 2.0 * PERIOD)
    for number in range(math.floor(begin / period), math.floor(end / period) + 1):
        low, high = max(begin, number * period), min(end, number * period + length)
        if high - low > 1e-3:
            yield low, high


def _interpolated(
    at: NDArray[np.float64], stations: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Both columns of ``values``, shape (n, 2), interpolated at other stations: shape (len(at), 2), float64."""
    return np.stack([np.interp(at, stations, values[:, 0]), np.interp(at, stations, values[:, 1])], axis=1)
