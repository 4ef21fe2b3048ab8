"""
The raster: a town seen from above (surfaces, markings and verge) as an image pyramid.

Polygons are filled at twice the resolution and averaged, so that a marking of 0.12 m keeps its brightness in cells of
0.1 m. At an overpass, where two roads lie above each other, the pyramid shows one of them. ``select_roads`` exchanges
the rectangle around an overpass when a camera drives on the other road, so only overpasses are kept twice.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.errors import MapError
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering.ground_polygons import MATERIALS, GroundPolygon, Surface, ground_polygons
from sb3_carla.simulator.rendering.lane_strips import LaneStrip, lane_strips
from sb3_carla.simulator.rendering.overpasses import LOWER, UPPER, Overpass, camera_road, find_overpasses
from sb3_carla.simulator.rendering.road_wear import road_wear
from sb3_carla.simulator.rendering.shared_rasters import Buffer, paint_privately
from sb3_carla.simulator.roads.opendrive_check import MAX_COORDINATE

__all__ = ["LEVELS", "Raster"]

CELL = 0.1
"""Cell size of the finest level [m]; larger in towns with more than ``MAX_CELLS`` or ``MAX_SIDE``."""
MAX_CELLS = 64_000_000
"""Cells of the finest level."""
MAX_SIDE = 32_000
"""Cells along one side: ``cv2.remap`` takes pictures of fewer than 32,767 pixels a side."""
MARGIN = 25.0
"""Verge around the outermost lanes [m]; everything beyond has the verge's mean colour."""
EXTENT_BYTES = 5 * 8
"""Size of the shared buffer with the town's extent: four coordinates and a flag, float64 [bytes]."""
LEVELS = 6
"""Levels of the pyramid; the cells of each are twice as large as those of the one before."""
BLOCK = 1 << (LEVELS - 1)
"""Cells of level 0 along one side of a cell of the coarsest level."""
TILE = 16 * BLOCK
"""Side of the squares that are painted one at a time [cells]."""
SUPERSAMPLING = 2
"""Polygons are filled in cells of this part of a cell's side ("fine cells")."""
WIDENING = 0.95
"""How much wider than its polygon ``cv2.fillPoly`` fills a stripe [fine cells]; measured at all angles."""
SUBPIXEL = 4
"""Fractional bits of the coordinates given to ``cv2.fillPoly``."""

Image = NDArray[np.uint8]
Window = tuple[slice, slice]
"""Rows and columns of a part of level 0."""


@dataclass
class _Patch:
    """
    Both pictures of an overpass.

    :param overpass: where it is
    :param window: its part of level 0; edges are multiples of ``BLOCK``
    :param shown: ``LOWER`` or ``UPPER``: the picture that the pyramid shows now
    :param pictures: for ``LOWER`` and ``UPPER`` one picture for each level of the pyramid
    :param labels: for ``LOWER`` and ``UPPER`` the semantic labels; empty until they are asked for
    """

    overpass: Overpass
    window: Window
    shown: int = LOWER
    pictures: dict[int, list[Image]] = field(default_factory=dict)
    labels: dict[int, Image] = field(default_factory=dict)


class Raster:
    """
    Image pyramid of a town. Not thread-safe: ``select_roads`` changes it.

    :param carla_map: ``carla.Map`` with at least one driving lane
    :param root: OpenDRIVE document of the same map
    :param seed: of the road's wear
    :param allocate: ``allocate(size, fill)`` returns a buffer of ``size`` bytes that ``fill`` has filled, or that
        another process has filled already
    :raises MapError: if lanes reach beyond ``MAX_COORDINATE``
    """

    def __init__(
        self,
        carla_map: Any,
        root: ElementTree.Element,
        seed: int = 0,
        allocate: Callable[[int, Callable[[Buffer], None]], Buffer] = paint_privately,
    ) -> None:
        self._map, self._root, self._seed = carla_map, root, seed
        extent = allocate(EXTENT_BYTES, self._write_extent).view(np.float64)
        left, top, right, bottom, overpasses = extent.tolist()
        width, height = right - left, bottom - top
        self.origin = left, top
        """World x and y of the outer corner of the first cell [m]."""
        self.cell = max(CELL, math.sqrt(width * height / MAX_CELLS), max(width, height) / MAX_SIDE)
        """Size of a cell of level 0 [m]."""
        # Whole blocks, so that every level halves without a remainder.
        columns, rows = (math.ceil(length / self.cell / BLOCK) * BLOCK for length in (width, height))
        self.verge: tuple[int, int, int, int] = MATERIALS[Surface.VERGE][0]
        """Shares of materials outside the raster."""
        shapes = [(rows >> k, columns >> k, 4) for k in range(LEVELS)]
        whole = allocate(sum(map(math.prod, shapes)), lambda buffer: self._paint(_split(buffer, shapes)))
        self.pyramid = _split(whole, shapes)
        """Level k (0 is the finest): shape (rows >> k, columns >> k, 4), uint8: shares of ``MATERIALS``."""
        self.texels: NDArray[np.uint32] = whole.view(np.uint32)
        """All levels one after the other, four shares in a word, the first one in its lowest byte."""
        sizes = [(level.shape[0], level.shape[1]) for level in self.pyramid]
        starts = np.cumsum([0, *map(math.prod, sizes[:-1])])
        self.levels = np.column_stack([starts, sizes]).astype(np.int64)
        """Shape (LEVELS, 3), int64: where a level begins in ``texels``, its rows and columns."""
        found = find_overpasses(self._strips) if overpasses else []
        self._patches = [self._paint_overpass(overpass) for overpass in found]

    @functools.cached_property
    def _strips(self) -> list[LaneStrip]:
        """Lanes; lazy because only painting needs them, and they take as long as the rest of loading a town."""
        return lane_strips(self._map, self._root)

    @functools.cached_property
    def _polygons(self) -> _PolygonIndex:
        outlines = ground_polygons(self._strips, self.cell, WIDENING * self.cell / SUPERSAMPLING)
        outlines = sorted([*outlines, *road_wear(self._strips, self._seed)], key=lambda polygon: polygon.order)
        return _PolygonIndex(outlines, np.array(self.origin), self.cell)

    def _write_extent(self, buffer: Buffer) -> None:
        """Write five float64: least x and y, greatest x and y of the raster [m], number of overpasses."""
        corners = np.concatenate([edge for strip in self._strips for edge in (strip.inner, strip.outer)])
        low, high = corners.min(axis=0) - MARGIN, corners.max(axis=0) + MARGIN
        if not np.abs([low, high]).max() <= MAX_COORDINATE:  # written so that NaN fails too
            edges = f"x from {low[0]:g} to {high[0]:g} m, y from {low[1]:g} to {high[1]:g} m"
            raise MapError(f"the lanes reach over {edges}; expected no coordinate above {MAX_COORDINATE:g} m")
        buffer.view(np.float64)[:] = (*low, *high, len(find_overpasses(self._strips)))

    @functools.cached_property
    def labels(self) -> Image:
        """``carla.CityObjectLabel`` of every cell of level 0: shape (rows, columns), uint8; painted at first use."""
        labels: Image = np.empty(self.pyramid[0].shape[:2], np.uint8)
        for window in _tiles(*labels.shape):
            labels[window] = _LABELS[self._surfaces(window)[::SUPERSAMPLING, ::SUPERSAMPLING]]
        for patch in self._patches:
            for road in (LOWER, UPPER):
                surfaces = self._surfaces(patch.window, patch.overpass, road)
                patch.labels[road] = _LABELS[surfaces[::SUPERSAMPLING, ::SUPERSAMPLING]]
            labels[patch.window] = patch.labels[patch.shown]
        return labels

    @property
    def overpasses(self) -> list[Overpass]:
        """Places where one road lies above another."""
        return [patch.overpass for patch in self._patches]

    def select_roads(self, x: float, y: float, yaw: float, ground: Ground) -> None:
        """
        At every overpass, show the road that the camera is on.

        :param x: camera's position [m]
        :param y: camera's position [m]
        :param yaw: camera's heading [rad]
        :param ground: road plane under the camera
        """
        for patch in self._patches:
            road = camera_road(patch.overpass, self._map, x, y, yaw, ground)
            if road != patch.shown:
                self._exchange(patch, road)

    def _exchange(self, patch: _Patch, road: int) -> None:
        patch.shown = road
        for k, picture in enumerate(patch.pictures[road]):
            self.pyramid[k][_coarser(patch.window, k)] = picture
        if patch.labels:
            self.labels[patch.window] = patch.labels[road]

    def _paint(self, levels: list[Image]) -> None:
        verge = self._mixed(np.zeros((TILE * SUPERSAMPLING, TILE * SUPERSAMPLING), np.uint8))
        for window in _tiles(*levels[0].shape[:2]):
            target = levels[0][window]
            if self._polygons.within(window).size:
                target[:] = self._mixed(self._surfaces(window))
            else:
                target[:] = verge[: target.shape[0], : target.shape[1]]
        for finer, coarser in pairwise(levels):
            cv2.resize(finer, coarser.shape[1::-1], dst=coarser, interpolation=cv2.INTER_AREA)

    def _paint_overpass(self, overpass: Overpass) -> _Patch:
        """Paint an overpass as seen from either of its roads; show the lower one at first."""
        columns, rows = (
            slice(
                max(0, math.floor((low - origin) / self.cell / BLOCK) * BLOCK),
                min(size, math.ceil((high - origin) / self.cell / BLOCK) * BLOCK),
            )
            for low, high, origin, size in zip(
                overpass.low, overpass.high, self.origin, self.pyramid[0].shape[1::-1], strict=True
            )
        )
        patch = _Patch(overpass, (rows, columns))
        for road in (UPPER, LOWER):
            picture: Image = np.empty((rows.stop - rows.start, columns.stop - columns.start, 4), np.uint8)
            for top, left in _tiles(*picture.shape[:2]):
                part = (
                    slice(top.start + rows.start, top.stop + rows.start),
                    slice(left.start + columns.start, left.stop + columns.start),
                )
                picture[top, left] = self._mixed(self._surfaces(part, overpass, road))
            patch.pictures[road] = [picture]
            for _ in range(1, LEVELS):
                patch.pictures[road].append(_halved(patch.pictures[road][-1]))
        self._exchange(patch, LOWER)
        return patch

    def _surfaces(self, window: Window, overpass: Overpass | None = None, road: int = LOWER) -> Image:
        """``Surface`` of each fine cell: shape (SUPERSAMPLING * rows, SUPERSAMPLING * columns), uint8."""
        rows, columns = window
        shape = (rows.stop - rows.start) * SUPERSAMPLING, (columns.stop - columns.start) * SUPERSAMPLING
        surfaces: Image = np.full(shape, Surface.VERGE, np.uint8)
        numbers = self._polygons.within(window)
        if overpass is not None:
            above = self._polygons.heights[numbers] > overpass.height
            # The lower road does not see the bridge's surface. The bridge sees both, its own on top.
            numbers = numbers[~above] if road == LOWER else np.concatenate([numbers[~above], numbers[above]])
        # The polygons' coordinates are fixed-point fine cells; the window's corner becomes the origin.
        shift = np.array((columns.start, rows.start)) * (SUPERSAMPLING << SUBPIXEL)
        for number in numbers:
            cv2.fillPoly(
                surfaces,
                [self._polygons.outlines[number] - shift.astype(np.int32)],
                self._polygons.surfaces[number],
                cv2.LINE_8,
                SUBPIXEL,
            )
        return surfaces

    def _mixed(self, surfaces: Image) -> Image:
        """Shares of materials: shape (rows, columns, 4), uint8, from surfaces ``SUPERSAMPLING`` times as large."""
        rows, columns = (length // SUPERSAMPLING for length in surfaces.shape)
        # (SUPERSAMPLING * rows, SUPERSAMPLING * columns, 4), looked up as one uint32.
        shares = np.take(_SHARES, surfaces).view(np.uint8).reshape(*surfaces.shape, 4)
        return np.asarray(cv2.resize(shares, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


class _PolygonIndex:
    """
    Polygons in fine cells, found by their bounding boxes.

    :param polygons: in painting order
    :param origin: world x and y of the corner of the first cell [m]
    :param cell: size of a cell [m]
    """

    def __init__(self, polygons: list[GroundPolygon], origin: NDArray[np.float64], cell: float) -> None:
        scale = SUPERSAMPLING / cell
        # World [m] to fine cells; then to fixed point, with the centre of a cell at whole numbers as OpenCV has it.
        cells = [(polygon.outline - origin) * scale for polygon in polygons]
        self.outlines = [np.rint((points - 0.5) * (1 << SUBPIXEL)).astype(np.int32) for points in cells]
        self.surfaces = [int(polygon.surface) for polygon in polygons]
        self.heights = np.array([polygon.height for polygon in polygons])
        # (n, 2): bounding boxes in cells of level 0, a cell larger on each side for rounding and widening.
        self._low = np.array([points.min(axis=0) for points in cells]) / SUPERSAMPLING - 1.0
        self._high = np.array([points.max(axis=0) for points in cells]) / SUPERSAMPLING + 1.0

    def within(self, window: Window) -> NDArray[np.int64]:
        """Indices of the polygons whose bounding boxes touch a window, in painting order."""
        rows, columns = window
        touching = (self._low[:, 0] < columns.stop) & (self._high[:, 0] > columns.start)
        touching &= (self._low[:, 1] < rows.stop) & (self._high[:, 1] > rows.start)
        return np.flatnonzero(touching)


_SHARES = np.array([MATERIALS[surface][0] for surface in Surface], np.uint8).view(np.uint32)[:, 0]
_LABELS = np.array([MATERIALS[surface][1] for surface in Surface], np.uint8)


def _tiles(rows: int, columns: int) -> Iterator[Window]:
    """Squares of ``TILE`` by ``TILE`` cells that cover a picture, smaller at its far edges."""
    for top in range(0, rows, TILE):
        for left in range(0, columns, TILE):
            yield slice(top, min(top + TILE, rows)), slice(left, min(left + TILE, columns))


def _split(buffer: Buffer, shapes: Sequence[tuple[int, int, int]]) -> list[Image]:
    """Views of a buffer as pictures of these shapes, one after the other."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(buffer, ends[:-1]), shapes, strict=True)]


def _halved(image: Image) -> Image:
    half: Image = np.empty((image.shape[0] // 2, image.shape[1] // 2, 4), np.uint8)
    cv2.resize(image, half.shape[1::-1], dst=half, interpolation=cv2.INTER_AREA)
    return half


def _coarser(window: Window, level: int) -> Window:
    """The same window in another level of the pyramid."""
    rows, columns = window
    return slice(rows.start >> level, rows.stop >> level), slice(columns.start >> level, columns.stop >> level)
