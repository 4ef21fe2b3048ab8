"""What the land beside the roads is used for: zones of 40 to 200 m along every roadside."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.scenery.lane_grid import LaneGrid

__all__ = ["LandUse", "Zones", "divide"]

SHORTEST, LONGEST = 40.0, 200.0
"""Length of a zone along the roadside [m]."""
WIDE_ROAD = 15.5
"""Roads that are wider than this [m], and have no pavement, may be motorways."""
MOTORWAY_SHARE = 0.75
"""Share of such roads that are."""


class LandUse(IntEnum):
    """Use of a zone."""

    CITY = 0
    RESIDENTIAL = 1
    INDUSTRIAL = 2
    PARK = 3
    COUNTRY = 4
    MOTORWAY = 5


# Factors of a town's weights for CITY to COUNTRY, with and without a pavement.
_WITH_PAVEMENT = np.array([2.0, 1.6, 0.8, 0.8, 0.3])
_WITHOUT = np.array([0.4, 1.0, 1.0, 1.2, 1.4])


@dataclass(frozen=True)
class Zones:
    """
    Division of the land.

    :param of_cell: shape (rows, columns), int32: number of the zone, that of the nearest roadside
    :param use: shape (n,), int64: :class:`LandUse` of every zone
    """

    of_cell: NDArray[np.int32]
    use: NDArray[np.int64]


def divide(grid: LaneGrid, random: np.random.Generator) -> Zones:
    """
    Divide the land beside the lanes into zones.

    :param grid: of the town
    :param random: of the town
    :return: at least one zone
    """
    # A town's own mix: some are all city, some all forest.
    weights = random.dirichlet(np.full(5, 1.2)) + 0.06
    contours, _ = cv2.findContours(grid.lane.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    number = np.zeros(grid.shape, np.uint16)
    uses: list[int] = [int(LandUse.COUNTRY)]  # zone 0 has no cells
    for contour in contours:
        pixels = contour[:, 0].astype(np.int32)
        for part in _parts(len(pixels) * grid.cell, grid.cell, random):
            columns, rows = pixels[part, 0], pixels[part, 1]
            if len(columns) == 0 or len(uses) >= np.iinfo(np.uint16).max:
                continue
            number[rows, columns] = len(uses)
            uses.append(_use(grid, rows, columns, weights, random))
    return Zones(_spread(number), np.array(uses))


def _spread(number: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Give every cell the number of the nearest cell that has one: shape (rows, columns)."""
    blank = (number == 0).astype(np.uint8)
    labels = cv2.distanceTransformWithLabels(blank, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)[1]
    table = np.zeros(int(labels.max()) + 1, np.int32)
    numbered = blank == 0
    table[labels[numbered]] = number[numbered]
    return table[labels]


def _parts(length: float, cell: float, random: np.random.Generator) -> list[slice]:
    """Cut a contour, of a length [m], into zones: parts of its list of cells."""
    ends, at = [0], 0.0
    while at < length:
        at += SHORTEST + (LONGEST - SHORTEST) * float(random.random())
        ends.append(round(min(at, length) / cell))
    return [slice(first, last) for first, last in itertools.pairwise(ends)]


def _use(
    grid: LaneGrid,
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    weights: NDArray[np.float64],
    random: np.random.Generator,
) -> int:
    pavement = float((grid.to_road[rows, columns] > 0.0).mean()) > 0.5
    chance, pick = random.random(2).tolist()
    wide = float(np.median(grid.road_width[rows, columns])) > WIDE_ROAD
    if wide and not pavement and chance < MOTORWAY_SHARE:
        return int(LandUse.MOTORWAY)
    shares = np.cumsum(weights * (_WITH_PAVEMENT if pavement else _WITHOUT))
    return int(np.searchsorted(shares, pick * shares[-1]))
