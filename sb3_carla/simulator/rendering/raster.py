"""
A town seen from above: surfaces, markings and verge as an image pyramid.

Outlines are filled at twice the resolution and averaged, so that a marking of 0.12 m keeps its brightness in cells of
0.1 m. Where roads lie above each other the pyramid shows one of them; ``show`` exchanges the rectangle around such a
crossing when a camera on the other road looks, so that memory holds two pictures of crossings only.
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
from sb3_carla.simulator.rendering.crossings import LOWER, UPPER, Crossing, find_crossings, level_at
from sb3_carla.simulator.rendering.shared_rasters import Buffer, paint_privately
from sb3_carla.simulator.rendering.strips import LaneStrip, lane_strips
from sb3_carla.simulator.rendering.strokes import PALETTE, Stroke, Surface, strokes
from sb3_carla.simulator.roads.opendrive_check import MAX_COORDINATE

__all__ = ["LEVELS", "Raster"]

CELL = 0.1
"""Resolution of the finest level [m]; larger towns get a coarser one."""
MAX_CELLS = 64_000_000
MAX_SIDE = 32_000
"""``cv2.remap`` takes pictures below 32,767 pixels a side."""
MARGIN = 25.0
"""Verge around the outermost lanes [m]; beyond it everything has the verge's mean colour."""
OUTLINE = 5 * 8
"""Size of what is known of a town before it is painted [bytes]."""
LEVELS = 6
"""Levels of the pyramid, each half as fine as the one before."""
BLOCK = 1 << (LEVELS - 1)
TILE = 16 * BLOCK
"""Cells of the squares that are painted one at a time, and of the texture's period."""
FINE = 2
"""Outlines are filled in cells of this part of a cell's side."""
WIDENING = 0.95
"""How much wider ``cv2.fillPoly`` fills a stripe than its outline is [fine cells]; measured at all angles."""
SUBPIXEL = 4
"""Fractional bits of the coordinates given to OpenCV."""

Image = NDArray[np.uint8]
Window = tuple[slice, slice]


@dataclass
class _Patch:
    """Both pictures of a crossing: for each level of the pyramid, then the semantic labels if there are any."""

    crossing: Crossing
    window: Window
    shown: int = LOWER
    pictures: dict[int, list[Image]] = field(default_factory=dict)
    labels: dict[int, Image] = field(default_factory=dict)


class Raster:
    """
    Painted pyramid of a town. Not for several threads at once: ``show`` changes it.

    :param carla_map: ``carla.Map`` with at least one driving lane
    :param root: the same map's OpenDRIVE document
    :param share: makes a buffer of so many bytes and has it filled, or finds one that another process has filled
    :raises MapError: if lanes lead to nowhere
    """

    def __init__(
        self,
        carla_map: Any,
        root: ElementTree.Element,
        share: Callable[[int, Callable[[Buffer], None]], Buffer] = paint_privately,
    ) -> None:
        self._map, self._root = carla_map, root
        outline = share(OUTLINE, self._outline).view(np.float64)
        left, top, right, bottom, crossings = outline.tolist()
        width, height = right - left, bottom - top
        self.origin = left, top
        """World position of the first cell's outer corner [m]."""
        self.cell = max(CELL, math.sqrt(width * height / MAX_CELLS), max(width, height) / MAX_SIDE)
        """Size of a cell of level 0 [m]."""
        columns, rows = (math.ceil(length / self.cell / BLOCK) * BLOCK for length in (width, height))
        self.verge: tuple[int, int, int, int] = (*PALETTE[Surface.VERGE][0], 255)
        """Colour of everything outside, BGRA."""
        shapes = [(rows >> k, columns >> k, 4) for k in range(LEVELS)]
        whole = share(sum(map(math.prod, shapes)), lambda buffer: self._paint(_cut(buffer, shapes)))
        self.pyramid = _cut(whole, shapes)
        """Levels, finest first: shape (rows >> k, columns >> k, 4), uint8 BGRA."""
        self._patches = [self._patch(crossing) for crossing in (find_crossings(self._strips) if crossings else ())]

    @functools.cached_property
    def _strips(self) -> list[LaneStrip]:
        """Worked out by those who paint: it takes as long as the rest of loading a town."""
        return lane_strips(self._map, self._root)

    @functools.cached_property
    def _strokes(self) -> _Strokes:
        outlines = strokes(self._strips, self.cell, WIDENING * self.cell / FINE)
        return _Strokes(outlines, np.array(self.origin), self.cell)

    def _outline(self, buffer: Buffer) -> None:
        """Least and greatest x and y of the picture [m], and whether roads lie above each other, as five float64."""
        corners = np.concatenate([edge for strip in self._strips for edge in (strip.inner, strip.outer)])
        low, high = corners.min(axis=0) - MARGIN, corners.max(axis=0) + MARGIN
        if not np.abs([low, high]).max() <= MAX_COORDINATE:  # NaN is neither above nor below
            edges = f"x from {low[0]:g} to {high[0]:g} m, y from {low[1]:g} to {high[1]:g} m"
            raise MapError(f"the lanes reach over {edges}; expected no coordinate above {MAX_COORDINATE:g} m")
        buffer.view(np.float64)[:] = (*low, *high, len(find_crossings(self._strips)))

    @functools.cached_property
    def labels(self) -> Image:
        """``carla.CityObjectLabel`` of every cell of level 0: shape (rows, columns), uint8; painted at first use."""
        labels: Image = np.empty(self.pyramid[0].shape[:2], np.uint8)
        for window in _tiles(*labels.shape):
            labels[window] = _LABELS[self._surfaces(window)[::FINE, ::FINE]]
        for patch in self._patches:
            for level in (LOWER, UPPER):
                surfaces = self._surfaces(patch.window, patch.crossing, level)
                patch.labels[level] = _LABELS[surfaces[::FINE, ::FINE]]
            labels[patch.window] = patch.labels[patch.shown]
        return labels

    @property
    def crossings(self) -> list[Crossing]:
        """Where roads lie above each other."""
        return [patch.crossing for patch in self._patches]

    def show(self, x: float, y: float, yaw: float, ground: Ground) -> None:
        """
        At every crossing, show the road that the camera is on.

        :param x: camera's position [m]
        :param y: camera's position [m]
        :param yaw: camera's heading [rad]
        :param ground: road plane under the camera
        """
        for patch in self._patches:
            level = level_at(patch.crossing, self._map, x, y, yaw, ground)
            if level != patch.shown:
                self._exchange(patch, level)

    def _exchange(self, patch: _Patch, level: int) -> None:
        patch.shown = level
        for k, picture in enumerate(patch.pictures[level]):
            self.pyramid[k][_coarser(patch.window, k)] = picture
        if patch.labels:
            self.labels[patch.window] = patch.labels[level]

    def _paint(self, levels: list[Image]) -> None:
        verge = self._colored(np.zeros((TILE * FINE, TILE * FINE), np.uint8))
        for window in _tiles(*levels[0].shape[:2]):
            target = levels[0][window]
            if self._strokes.within(window).size:
                target[:] = self._colored(self._surfaces(window))
            else:
                target[:] = verge[: target.shape[0], : target.shape[1]]
        for finer, coarser in pairwise(levels):
            cv2.resize(finer, coarser.shape[1::-1], dst=coarser, interpolation=cv2.INTER_AREA)

    def _patch(self, crossing: Crossing) -> _Patch:
        """Paint a crossing from both its roads' points of view; the lower one shows at first."""
        columns, rows = (
            slice(
                max(0, math.floor((low - origin) / self.cell / BLOCK) * BLOCK),
                min(size, math.ceil((high - origin) / self.cell / BLOCK) * BLOCK),
            )
            for low, high, origin, size in zip(
                crossing.low, crossing.high, self.origin, self.pyramid[0].shape[1::-1], strict=True
            )
        )
        patch = _Patch(crossing, (rows, columns))
        for level in (UPPER, LOWER):
            picture: Image = np.empty((rows.stop - rows.start, columns.stop - columns.start, 4), np.uint8)
            for top, left in _tiles(*picture.shape[:2]):
                part = (
                    slice(top.start + rows.start, top.stop + rows.start),
                    slice(left.start + columns.start, left.stop + columns.start),
                )
                picture[top, left] = self._colored(self._surfaces(part, crossing, level))
            patch.pictures[level] = [picture]
            for _ in range(1, LEVELS):
                patch.pictures[level].append(_halved(patch.pictures[level][-1]))
        self._exchange(patch, LOWER)
        return patch

    def _surfaces(self, window: Window, crossing: Crossing | None = None, level: int = LOWER) -> Image:
        """Numbers of ``Surface`` in a part of the town: shape (FINE * rows, FINE * columns), uint8."""
        rows, columns = window
        shape = (rows.stop - rows.start) * FINE, (columns.stop - columns.start) * FINE
        surfaces: Image = np.full(shape, Surface.VERGE, np.uint8)
        numbers = self._strokes.within(window)
        if crossing is not None:
            above = self._strokes.heights[numbers] > crossing.height
            # From below nobody sees the top of the bridge; from above the lower road goes on beneath it.
            numbers = numbers[~above] if level == LOWER else np.concatenate([numbers[~above], numbers[above]])
        shift = np.array((columns.start, rows.start)) * (FINE << SUBPIXEL)
        for number in numbers:
            cv2.fillPoly(
                surfaces,
                [self._strokes.outlines[number] - shift.astype(np.int32)],
                self._strokes.surfaces[number],
                cv2.LINE_8,
                SUBPIXEL,
            )
        return surfaces

    def _colored(self, surfaces: Image) -> Image:
        """Colours with texture: shape (rows, columns, 4), uint8, from a picture ``FINE`` times as large."""
        rows, columns = (length // FINE for length in surfaces.shape)
        # (FINE * rows, FINE * columns, 4): blue, green, red, strength of the texture
        colors = np.take(_COLORS, surfaces).view(np.uint8).reshape(*surfaces.shape, 4)
        mixed = cv2.resize(colors, (columns, rows), interpolation=cv2.INTER_AREA)
        strength = cv2.extractChannel(mixed, 3).astype(np.int16)
        grain = cv2.multiply(cv2.merge([strength] * 4), _texture()[:rows, :columns], scale=1.0 / 64.0)
        textured: Image = np.asarray(cv2.add(mixed, grain, dtype=cv2.CV_8U), np.uint8)
        textured[:, :, 3] = 255
        return textured


class _Strokes:
    """
    Strokes in fine cells, found by place.

    :param painted: strokes in painting order
    :param origin: world position of the first cell's corner [m]
    :param cell: size of a cell [m]
    """

    def __init__(self, painted: list[Stroke], origin: NDArray[np.float64], cell: float) -> None:
        scale = FINE / cell
        cells = [(stroke.outline - origin) * scale for stroke in painted]
        self.outlines = [np.rint((points - 0.5) * (1 << SUBPIXEL)).astype(np.int32) for points in cells]
        self.surfaces = [int(stroke.surface) for stroke in painted]
        self.heights = np.array([stroke.height for stroke in painted])
        self._low = np.array([points.min(axis=0) for points in cells]) / FINE - 1.0
        self._high = np.array([points.max(axis=0) for points in cells]) / FINE + 1.0

    def within(self, window: Window) -> NDArray[np.int64]:
        """Numbers of the strokes that may touch a window of cells, in painting order."""
        rows, columns = window
        touching = (self._low[:, 0] < columns.stop) & (self._high[:, 0] > columns.start)
        touching &= (self._low[:, 1] < rows.stop) & (self._high[:, 1] > rows.start)
        return np.flatnonzero(touching)


_COLORS = np.array([(*PALETTE[surface][0], PALETTE[surface][1]) for surface in Surface], np.uint8).view(np.uint32)[:, 0]
_LABELS = np.array([PALETTE[surface][2] for surface in Surface], np.uint8)


def _tiles(rows: int, columns: int) -> Iterator[Window]:
    """Squares of ``TILE`` cells that cover a picture."""
    for top in range(0, rows, TILE):
        for left in range(0, columns, TILE):
            yield slice(top, min(top + TILE, rows)), slice(left, min(left + TILE, columns))


def _cut(buffer: Buffer, shapes: Sequence[tuple[int, int, int]]) -> list[Image]:
    """Pictures of these shapes, one after the other in a buffer."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(buffer, ends[:-1]), shapes, strict=True)]


def _halved(image: Image) -> Image:
    half: Image = np.empty((image.shape[0] // 2, image.shape[1] // 2, 4), np.uint8)
    cv2.resize(image, half.shape[1::-1], dst=half, interpolation=cv2.INTER_AREA)
    return half


def _coarser(window: Window, level: int) -> Window:
    rows, columns = window
    return slice(rows.start >> level, rows.stop >> level), slice(columns.start >> level, columns.stop >> level)


@functools.lru_cache(maxsize=1)
def _texture() -> NDArray[np.int16]:
    """
    Noise with grain of every size that repeats without a seam: amplitude falls with the root of the frequency.

    :return: shape (TILE, TILE, 4), int16, blue, green, red, 0; a standard deviation of 64
    """
    rng, fields = np.random.default_rng(0), []
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None])
    frequency[0, 0] = np.inf
    for _ in range(2):
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((TILE, TILE))) / np.sqrt(frequency), (TILE, TILE))
        fields.append(noise / noise.std())
    light, hue = fields
    channels = [0.9 * light - 0.3 * hue, light, 0.9 * light + 0.4 * hue, 0.0 * light]
    texture: NDArray[np.float64] = 64.0 * np.clip(np.stack(channels, axis=2), -3.0, 3.0)
    return np.rint(texture).astype(np.int16)
