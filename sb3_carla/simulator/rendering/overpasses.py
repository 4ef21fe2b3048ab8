"""Overpasses: where one road lies above another, and which of the two a camera is on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import carla
import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering.lane_strips import LaneStrip

__all__ = ["LOWER", "UPPER", "Overpass", "camera_road", "find_overpasses"]

LOWER, UPPER = 0, 1
"""The two roads of an overpass."""
CLEARANCE = 2.5
"""Lanes at one place that differ by more in height lie above each other [m]."""
GRID = 4.0
"""Cell size of the search grid [m]; at least the distance between two cross-sections of a lane."""
GROWTH = 2
"""How many cells an overpass reaches beyond the lanes that overlap."""
REACH = 150.0
"""Overpasses farther away show their lower road: at 84 px they are a row high or less [m]."""
NEARBY = 30.0
"""Up to this distance the road plane under the camera tells which road it is on [m]."""


@dataclass(frozen=True, slots=True)
class Overpass:
    """
    A rectangle in which one road lies above another.

    :param low: corner with the smallest x and y [m]
    :param high: corner with the largest x and y [m]
    :param height: halfway between the two roads [m]
    """

    low: tuple[float, float]
    high: tuple[float, float]
    height: float


def find_overpasses(strips: Sequence[LaneStrip]) -> list[Overpass]:
    """
    Find the places where lanes lie above each other.

    :param strips: lanes of a map
    :return: rectangles that do not overlap
    """
    heights = np.concatenate([strip.heights for strip in strips])  # (n,): all cross-sections of all lanes
    if float(np.ptp(heights)) <= CLEARANCE:
        return []
    # Inner edge, middle and outer edge of every cross-section: three of shape (n, 2). Lanes are less than 2 cells wide.
    edges = [np.concatenate([line(strip) for strip in strips]) for line in (_inner, _middle, _outer)]
    origin = np.min([edge.min(axis=0) for edge in edges], axis=0) - GROWTH * GRID
    cells = [((edge - origin) / GRID).astype(np.int64) for edge in edges]
    columns, rows = np.max([cell.max(axis=0) for cell in cells], axis=0) + GROWTH + 1
    # (rows, columns): least and greatest height of the lanes in each cell.
    bottom, top = np.full((rows, columns), np.inf), np.full((rows, columns), -np.inf)
    for cell in cells:
        np.minimum.at(bottom, (cell[:, 1], cell[:, 0]), heights)
        np.maximum.at(top, (cell[:, 1], cell[:, 0]), heights)
    over = top > bottom + CLEARANCE
    grown = cv2.dilate(over.astype(np.uint8), np.ones((2 * GROWTH + 1, 2 * GROWTH + 1), np.uint8))
    # Row 0 of OpenCV's statistics is the background.
    boxes = _merged([tuple(stats[:4]) for stats in cv2.connectedComponentsWithStats(grown)[2][1:].tolist()])
    overpasses = []
    for left, upper, width, height in boxes:
        part = slice(upper, upper + height), slice(left, left + width)
        middle = 0.5 * (top[part][over[part]] + bottom[part][over[part]])
        low, high = origin + GRID * np.array((left, upper)), origin + GRID * np.array((left + width, upper + height))
        overpasses.append(Overpass(tuple(low.tolist()), tuple(high.tolist()), float(middle.mean())))
    return overpasses


def _inner(strip: LaneStrip) -> NDArray[np.float64]:
    return strip.inner


def _middle(strip: LaneStrip) -> NDArray[np.float64]:
    middle: NDArray[np.float64] = 0.5 * (strip.inner + strip.outer)
    return middle


def _outer(strip: LaneStrip) -> NDArray[np.float64]:
    return strip.outer


def _merged(boxes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Unite rectangles (left, top, width, height) until none overlap."""
    pending = list(boxes)
    apart: list[tuple[int, ...]] = []
    while pending:
        box = pending.pop()
        other = next((o for o in pending if _overlap(box, o)), None)
        if other is None:
            clash = next((o for o in apart if _overlap(box, o)), None)
            if clash is None:
                apart.append(box)
                continue
            apart.remove(clash)
            other = clash
        else:
            pending.remove(other)
        left, top = min(box[0], other[0]), min(box[1], other[1])
        right = max(box[0] + box[2], other[0] + other[2])
        bottom = max(box[1] + box[3], other[1] + other[3])
        pending.append((left, top, right - left, bottom - top))
    return sorted(apart)


def _overlap(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def camera_road(overpass: Overpass, carla_map: Any, x: float, y: float, yaw: float, ground: Ground) -> int:
    """
    Which road of an overpass a camera is on.

    Near the overpass the road plane tells. Farther away the lane is followed for the distance to the overpass, because
    a ramp may still have to climb.

    :param overpass: the overpass
    :param carla_map: ``carla.Map``
    :param x: camera's position [m]
    :param y: camera's position [m]
    :param yaw: camera's heading [rad]
    :param ground: road plane under the camera
    :return: ``LOWER`` or ``UPPER``
    """
    # The point of the rectangle that is nearest to the camera.
    px = min(max(x, overpass.low[0]), overpass.high[0])
    py = min(max(y, overpass.low[1]), overpass.high[1])
    distance = math.hypot(px - x, py - y)
    if distance > REACH:
        return LOWER
    share = min(1.0, NEARBY / distance) if distance > 0.0 else 0.0
    height = ground.z + share * (ground.slope_x * (px - x) + ground.slope_y * (py - y))
    if distance > NEARBY:
        reached = _height_along_lane(overpass, carla_map, carla.Location(x, y, ground.z), yaw, distance)
        height = height if reached is None else reached
    return UPPER if height > overpass.height else LOWER


def _height_along_lane(overpass: Overpass, carla_map: Any, here: Any, yaw: float, distance: float) -> float | None:
    """Height of the lane where it reaches the overpass [m]; None if it does not lead there."""
    waypoint = carla_map.get_waypoint(here)
    along = math.cos(math.radians(waypoint.transform.rotation.yaw) - yaw) > 0.0
    # Half a rectangle further and with as much tolerance: the road may bend a little on the way.
    depth = 0.5 * min(overpass.high[0] - overpass.low[0], overpass.high[1] - overpass.low[1])
    for ahead in waypoint.next(distance + depth) if along else waypoint.previous(distance + depth):
        place = ahead.transform.location
        if (
            overpass.low[0] - depth < place.x < overpass.high[0] + depth
            and overpass.low[1] - depth < place.y < overpass.high[1] + depth
        ):
            return float(place.z)
    return None
