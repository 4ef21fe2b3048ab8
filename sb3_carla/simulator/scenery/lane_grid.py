"""The town from above in cells: how far it is to the lanes from any place, and how high the nearest lane lies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from sb3_carla.simulator.rendering.lane_strips import LaneStrip

__all__ = ["Curve", "LaneGrid"]

CELL = 0.5
"""Side of a cell [m]; larger in towns with more than ``MAX_CELLS`` or ``MAX_SIDE``."""
MAX_CELLS, MAX_SIDE = 16_000_000, 32_000
MARGIN = 52.0
"""How far the grid reaches beyond the lanes [m]."""
CHUNK = 8
"""Cross-sections in one polygon."""
FOOTWAYS = ("sidewalk", "walking")
"""Kinds of lanes on which poles, bins and trees may stand; all others are kept clear."""
COARSE = 4.0
"""Cell size of the search for lanes that lie above each other [m]."""
STOREY, NEIGHBOURHOOD = 2.5, 20.0
"""Where lanes within this distance [m] differ in height by more than this [m], nothing is placed."""
SMOOTHING = 9
"""Length of the averages that smooth a curve [cells]."""

Curve = NDArray[np.float64]
"""Shape (n, 2): places along a closed curve, [m], a step apart."""


class LaneGrid:
    """
    Distances to lanes on a grid.

    :param strips: lanes of the town, at least one

    Fields, all of shape (rows, columns), distances as float32 [m] between the centres of cells:

    - ``to_road``: to the nearest lane that must be kept clear; ``to_lane``: to the nearest lane of any kind
    - ``to_junction``: to the nearest lane of a junction
    - ``road_width``: width of the widest stretch of lanes nearby [m]
    - ``blocked``: whether lanes near there lie above each other
    """

    def __init__(self, strips: Sequence[LaneStrip]) -> None:
        edges = [np.concatenate([strip.inner, strip.outer]) for strip in strips]
        low = np.min([edge.min(axis=0) for edge in edges], axis=0) - MARGIN
        high = np.max([edge.max(axis=0) for edge in edges], axis=0) + MARGIN
        width, height = (high - low).tolist()
        self.origin = low
        self.cell = max(CELL, math.sqrt(width * height / MAX_CELLS), max(width, height) / MAX_SIDE)
        self.far = high
        self.shape = (math.ceil(height / self.cell), math.ceil(width / self.cell))
        road, lane, junction = (np.zeros(self.shape, np.uint8) for _ in range(3))
        for strip in strips:
            masks = [lane]
            if strip.kind not in FOOTWAYS:
                masks.append(road)
            if strip.junction:
                masks.append(junction)
            self._fill(strip, masks)
        self.lane = lane.astype(bool)
        self.to_lane = self._distance(lane)
        self.to_road = self.to_lane if np.array_equal(road, lane) else self._distance(road)
        self.to_junction = self._distance(junction, cv2.DIST_MASK_5)
        self.road_width = self._road_width(road, junction)
        self._places = np.concatenate([(strip.inner + strip.outer) / 2.0 for strip in strips] + edges)
        middles = [strip.heights for strip in strips]
        self._heights = np.concatenate(middles + [np.tile(heights, 2) for heights in middles])
        self._tree = cKDTree(self._places)
        self.blocked = self._blocked()

    def _fill(self, strip: LaneStrip, masks: list[NDArray[np.uint8]]) -> None:
        inner, outer = (
            np.rint(((line - self.origin) / self.cell - 0.5) * 16.0).astype(np.int32)
            for line in (strip.inner, strip.outer)
        )
        for first in range(0, len(inner) - 1, CHUNK):
            part = slice(first, first + CHUNK + 1)
            outline = np.concatenate([inner[part], outer[part][::-1]])
            for mask in masks:
                cv2.fillPoly(mask, [outline], 1, shift=4)

    def _distance(self, mask: NDArray[np.uint8], method: int = cv2.DIST_MASK_PRECISE) -> NDArray[np.float32]:
        if not mask.any():
            return np.full(self.shape, 1e6, np.float32)
        distance = np.asarray(cv2.distanceTransform(1 - mask, cv2.DIST_L2, method), np.float32)
        distance *= np.float32(self.cell)
        return distance

    def _road_width(self, road: NDArray[np.uint8], junction: NDArray[np.uint8]) -> NDArray[np.float32]:
        inside = cv2.distanceTransform(road & (1 - junction), cv2.DIST_L2, 3) * np.float32(2.0 * self.cell)
        reach = 2 * round(12.0 / self.cell) + 1
        # A separable filter: the greatest value within a square.
        widest = cv2.dilate(cv2.dilate(inside, np.ones((1, reach), np.uint8)), np.ones((reach, 1), np.uint8))
        return np.asarray(widest, np.float32)

    def _blocked(self) -> NDArray[np.bool_]:
        if float(np.ptp(self._heights)) <= STOREY:
            return np.zeros(self.shape, np.bool_)
        coarse = max(COARSE, self.cell)
        rows, columns = (math.ceil(side * self.cell / coarse) + 1 for side in self.shape)
        cells = ((self._places - self.origin) / coarse).astype(np.int64)
        bottom, top = (np.full((rows, columns), value, np.float32) for value in (np.inf, -np.inf))
        np.minimum.at(bottom, (cells[:, 1], cells[:, 0]), self._heights.astype(np.float32))
        np.maximum.at(top, (cells[:, 1], cells[:, 0]), self._heights.astype(np.float32))
        radius = max(1, round(NEIGHBOURHOOD / coarse))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        edge = cv2.BORDER_REPLICATE
        over = cv2.dilate(top, disc, borderType=edge) - cv2.erode(bottom, disc, borderType=edge) > STOREY
        whole = cv2.resize(over.astype(np.uint8), None, fx=coarse / self.cell, fy=coarse / self.cell, interpolation=0)
        return whole[: self.shape[0], : self.shape[1]].astype(np.bool_)

    def indices(self, places: NDArray[np.float64]) -> NDArray[np.int64]:
        """
        Cells of places.

        :param places: shape (..., 2), world x and y [m]
        :return: shape (...,), int64, indices into a flattened field; places outside belong to the outermost cells
        """
        cells = ((places - self.origin) / self.cell).astype(np.int64)
        columns = np.maximum(np.minimum(cells[..., 0], self.shape[1] - 1), 0)
        rows = np.maximum(np.minimum(cells[..., 1], self.shape[0] - 1), 0)
        flat: NDArray[np.int64] = rows * self.shape[1] + columns
        return flat

    def sample(self, field: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float64]:
        """
        Values of a distance field between the centres of its cells, bilinear.

        :param field: shape (rows, columns)
        :param places: shape (..., 2), world x and y [m]
        :return: shape (...,)
        """
        cells = (places - self.origin) / self.cell - 0.5
        cells = np.maximum(np.minimum(cells, np.array(self.shape[::-1]) - 1.001), 0.0)
        whole = cells.astype(np.int64)
        right, down = np.moveaxis(cells - whole, -1, 0)
        index, flat, width = whole[..., 1] * self.shape[1] + whole[..., 0], field.ravel(), self.shape[1]
        upper = (1.0 - right) * flat[index] + right * flat[index + 1]
        lower = (1.0 - right) * flat[index + width] + right * flat[index + width + 1]
        values: NDArray[np.float64] = (1.0 - down) * upper + down * lower
        return values

    def centres(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Places of the centres of cells: shape (n,) to (n, 2) [m]."""
        rows, columns = np.divmod(indices, self.shape[1])
        places: NDArray[np.float64] = (np.stack([columns, rows], axis=1) + 0.5) * self.cell + self.origin
        return places

    def height(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """
        Heights of the nearest lanes' cross-sections.

        :param places: shape (n, 2), world x and y [m]
        :return: shape (n,), world z [m]
        """
        if len(places) == 0:
            return np.empty(0)
        heights: NDArray[np.float64] = self._heights[self._tree.query(places)[1]]
        return heights

    def inward(self, places: NDArray[np.float64], field: NDArray[np.float32]) -> NDArray[np.float64]:
        """
        Directions in which the distance to the lanes falls.

        :param places: shape (n, 2), world x and y [m]
        :param field: ``to_road`` or ``to_lane``
        :return: shape (n, 2), unit vectors
        """
        step = 2.0 * self.cell
        sides = [self.sample(field, places + shift) for shift in ((step, 0), (-step, 0), (0, step), (0, -step))]
        fall = np.stack([sides[1] - sides[0], sides[3] - sides[2]], axis=1)
        inward: NDArray[np.float64] = fall / np.maximum(np.linalg.norm(fall, axis=1), 1e-9)[:, None]
        return inward

    def curves(self, field: NDArray[np.float32], distance: float, step: float = 1.0) -> list[Curve]:
        """
        Closed curves on which a distance field has a given value.

        :param field: ``to_road`` or ``to_lane``
        :param distance: [m]
        :param step: distance of the places on a curve [m]
        :return: those that are longer than 30 m, smoothed
        """
        found, _ = cv2.findContours((field < distance).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        curves = []
        for contour in found:
            if len(contour) * self.cell < 30.0:
                continue
            line = (contour[:, 0].astype(np.float64) + 0.5) * self.cell + self.origin
            for _ in range(2):
                line = _smoothed(line)
            line = _resampled(line, step)
            excess = self.sample(field, line) - distance
            curves.append(line + excess[:, None] * self.inward(line, field))
        return curves


def _smoothed(line: Curve) -> Curve:
    """Running average along a closed curve."""
    half = SMOOTHING // 2
    sums = np.cumsum(np.concatenate([np.zeros((1, 2)), line[-half:], line, line[:half]]), axis=0)
    smooth: Curve = (sums[SMOOTHING:] - sums[:-SMOOTHING]) / SMOOTHING
    return smooth


def _resampled(line: Curve, step: float) -> Curve:
    """Places at equal distances along a closed curve."""
    closed = np.concatenate([line, line[:1]])
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    at = np.linspace(0.0, lengths[-1], max(4, round(lengths[-1] / step)), endpoint=False)
    return np.stack([np.interp(at, lengths, closed[:, axis]) for axis in (0, 1)], axis=1)
