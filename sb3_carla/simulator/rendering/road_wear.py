"""
What use and repair leave on roads (tyre tracks, patches, tar, manholes, worn paint), and what is painted at junctions
(stop lines, crosswalks), which OpenDRIVE's lane markings do not tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.ground_polygons import MARKING_ORDER, ROADWAY_ORDER, GroundPolygon, Surface
from sb3_carla.simulator.rendering.lane_strips import PAVEMENTS, LaneStrip

__all__ = ["road_wear"]

ROADWAY = ("driving", "bidirectional", "parking", "entry", "exit", "onRamp", "offRamp")
TRACK_OFFSET, TRACK_WIDTH = 0.8, 0.5
"""Distance of tyre tracks from the lane's middle, and their width [m]."""
GUTTER = 0.25
"""Width of the dark strip along a kerb [m]."""
STOP_LINE = 1.0, 1.4
CROSSWALK = 2.2, 4.8
"""Distances of their edges from the junction [m]."""
BAR, BAR_PERIOD = 0.5, 1.1
"""Width of a crosswalk's bar, and of bar and gap [m]."""

Outline = NDArray[np.float64]


def road_wear(strips: Sequence[LaneStrip], seed: int) -> list[GroundPolygon]:
    """
    :param strips: lanes of a map
    :param seed: of the town
    :return: polygons to paint together with :func:`ground_polygons`, after those of the same order
    """
    rng = np.random.default_rng((seed, 4))
    stop_lines, crosswalks, age = rng.random() < 0.7, rng.uniform(0.0, 0.8), rng.uniform(0.0, 1.0)
    polygons: list[GroundPolygon] = []
    painted: set[tuple[int, int]] = set()
    for strip in strips:
        if strip.kind in PAVEMENTS:
            polygons += _gutter(strip)
        elif strip.kind in ROADWAY:
            polygons += _worn_lane(strip, rng, age * rng.uniform(0.3, 1.0))
            if strip.junction and strip.kind == "driving":
                polygons += _junction_paint(strip, painted, seed, stop_lines=stop_lines, crosswalks=crosswalks)
    return polygons


class _Lane:
    """Points of a lane by station [m] and share across it: 0 at the inner edge, 1 at the outer one."""

    def __init__(self, strip: LaneStrip) -> None:
        self.strip = strip
        self.start, self.end = float(strip.stations[0]), float(strip.stations[-1])
        self.width = float(np.linalg.norm(strip.outer - strip.inner, axis=1).mean())

    def points(self, stations: NDArray[np.float64], share: float) -> Outline:
        """Shape (n, 2)."""
        line = (1.0 - share) * self.strip.inner + share * self.strip.outer
        return np.stack([np.interp(stations, self.strip.stations, line[:, k]) for k in (0, 1)], axis=1)

    def patch(self, begin: float, end: float, low: float, high: float) -> Outline:
        """Outline of a piece of the lane: stations [m], shares across."""
        begin, end = max(begin, self.start), min(end, self.end)
        stations = np.linspace(begin, end, 2 + int((end - begin) / 2.0))
        return np.concatenate([self.points(stations, low), self.points(stations, high)[::-1]])

    def polygon(self, outline: Outline, surface: Surface, order: int) -> GroundPolygon:
        return GroundPolygon(outline, surface, order, float(self.strip.heights.mean()))


def _worn_lane(strip: LaneStrip, rng: np.random.Generator, wear: float) -> Iterator[GroundPolygon]:
    lane = _Lane(strip)
    length, width = lane.end - lane.start, lane.width
    if length < 1.0 or width < 1.0:
        return
    if rng.random() < wear:
        for side in (-TRACK_OFFSET, TRACK_OFFSET):
            middle, half = 0.5 + side / width, 0.5 * TRACK_WIDTH / width
            for begin in np.arange(lane.start, lane.end, 10.0):
                yield lane.polygon(
                    lane.patch(begin, begin + 10.0, middle - half, middle + half), Surface.TRACK, ROADWAY_ORDER
                )
    for _ in range(rng.poisson(wear * length / 25.0)):
        begin, low = rng.uniform(lane.start, lane.end), rng.uniform(-0.1, 0.7)
        outline = lane.patch(begin, begin + rng.uniform(1.0, 9.0), max(low, 0.0), min(low + rng.uniform(0.2, 1.0), 1.0))
        yield lane.polygon(outline, Surface(int(rng.choice((Surface.PATCH, Surface.TRACK)))), ROADWAY_ORDER)
    for _ in range(rng.poisson(wear * length / 25.0)):  # seams and cracks, filled with tar
        begin, low = rng.uniform(lane.start, lane.end), rng.uniform(0.0, 0.9)
        across = rng.random() < 0.5
        high = 1.0 if across else low + 0.12 / width
        reach = 0.12 if across else rng.uniform(3.0, 20.0)
        yield lane.polygon(lane.patch(begin, begin + reach, low, high), Surface.TAR, ROADWAY_ORDER)
    for _ in range(rng.poisson(length / 90.0)):
        centre = lane.points(np.array([rng.uniform(lane.start, lane.end)]), rng.uniform(0.25, 0.75))
        angles = np.arange(8) * (np.pi / 4.0)
        yield lane.polygon(
            centre + 0.35 * np.stack([np.cos(angles), np.sin(angles)], axis=1), Surface.IRON, ROADWAY_ORDER
        )
    for _ in range(rng.poisson(max(wear - 0.2, 0.0) * length / 2.5)):  # paint that is gone
        begin, edge = rng.uniform(lane.start, lane.end), rng.choice((0.0, 1.0))
        half = 0.15 / width
        outline = lane.patch(begin, begin + rng.uniform(0.2, 1.2), edge - half, edge + half)
        yield lane.polygon(outline, Surface.ASPHALT, MARKING_ORDER)


def _gutter(strip: LaneStrip) -> Iterator[GroundPolygon]:
    lane = _Lane(strip)
    if lane.width > 0.3:
        for begin in np.arange(lane.start, lane.end, 10.0):
            yield lane.polygon(
                lane.patch(begin, begin + 10.0, -GUTTER / lane.width, 0.0), Surface.GUTTER, ROADWAY_ORDER
            )


def _junction_paint(
    strip: LaneStrip, painted: set[tuple[int, int]], seed: int, *, stop_lines: bool, crosswalks: float
) -> Iterator[GroundPolygon]:
    """Stop line and crosswalk before the entry of a connecting lane, and a crosswalk behind its exit."""
    lane = _Lane(strip)
    for end, inwards in ((0, 1), (-1, -1)):
        inner, outer = strip.inner[end], strip.outer[end]
        ahead = strip.inner[end + inwards] + strip.outer[end + inwards] - inner - outer
        ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-6)  # into the junction
        across = outer - inner
        width = float(np.linalg.norm(across))
        corner = 0.5 * (inner + outer)
        key = round(float(corner[0])), round(float(corner[1]))
        if width < 1.5 or key in painted:  # several connecting lanes begin in one place
            continue
        painted.add(key)
        side = across / width

        frame = np.array([inner, ahead, side])
        # Traffic keeps right: who drives into the junction has the outer edge on the right.
        enters = side @ (-ahead[1], ahead[0]) > 0.0
        if stop_lines and enters:
            yield lane.polygon(_piece(frame, STOP_LINE, 0.15, width - 0.15), Surface.WHITE, MARKING_ORDER)
        # One answer for all lanes of an arm.
        arm = np.random.default_rng((seed, abs(key[0] // 24), abs(key[1] // 24))).random()
        if arm < crosswalks:
            for low in np.arange(0.1, width - 0.3, BAR_PERIOD):
                outline = _piece(frame, CROSSWALK, low, min(low + BAR, width))
                yield lane.polygon(outline, Surface.WHITE, MARKING_ORDER)


def _piece(frame: Outline, edges: tuple[float, float], low: float, high: float) -> Outline:
    """
    A rectangle before a junction.

    :param frame: shape (3, 2): a corner of the lane's end, unit vectors into the junction and across the lane
    :param edges: distances of its near and its far edge from the junction [m]
    :param low: distance of its sides from the corner [m]
    :param high: likewise
    """
    (near, far), (corner, ahead, side) = edges, frame
    around = ((near, low), (near, high), (far, high), (far, low))
    return np.array([corner - back * ahead + across * side for back, across in around])
