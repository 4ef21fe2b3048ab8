"""
A town seen from above: asphalt, markings and verge as an image pyramid, painted from a ``carla.Map``.

Where roads cross above each other there are two pyramids: ``LOWER`` shows the lower road at each crossing, ``UPPER``
the upper one. A camera looks up in which of them it finds its own road.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import carla
import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.dynamics import Ground
from sb3_carla.simulator.lanes import lane_waypoints

__all__ = ["LOWER", "UPPER", "Raster"]

LOWER, UPPER = 0, 1
CELL = 0.1
"""Finest resolution [m]; larger towns get a coarser one."""
MAX_CELLS = 40_000_000
MARGIN = 40.0
"""Verge around the outermost lanes [m]."""
LEVELS = 5
"""Levels of the pyramid, each half as fine as the one before."""
STEP = 1.0
"""Sampling of the lanes [m]: at 10 m radius the chord is 12 mm off."""
SUBPIXEL = 4
DASH_PERIOD, DASH_LENGTH = 9, 3
"""Broken markings: length of the pattern and of its painted part [m]."""
DEFAULT_WIDTH = 0.12
"""Of markings that the map gives no width [m]."""
CLEARANCE = 2.5
"""Lanes that differ by more in height cross above each other [m]."""
CONFLICT_CELL = 2.0
CONFLICT_REACH = 60.0
"""From this far a crossing decides which pyramid a camera looks at [m]."""

ROADS, SIDEWALKS, ROAD_LINE, TERRAIN = 1, 2, 24, 10
"""``carla.CityObjectLabel`` of CARLA 0.9.16."""
ASPHALT, SHOULDER, SIDEWALK, GRASS = (107, 105, 103), (118, 120, 122), (160, 162, 165), (40, 82, 52)
"""Colours, BGR. Their grey values (105, 120, 163, 68) tell them apart for a grey camera too."""
COLORS = {"Yellow": (70, 190, 225), "Blue": (190, 110, 60), "Green": (80, 150, 80), "Red": (60, 60, 190)}
WHITE = (235, 235, 235)


@dataclass(frozen=True)
class Lane:
    """
    One lane between two cross-sections, sampled along its centre.

    :param points: shape (n, 3), float64, centre [m]
    :param right: shape (n, 2), float64, unit vector to the right
    :param widths: shape (n,), float64 [m]
    :param stations: shape (n,), float64, the road's s [m]
    :param kind: asphalt, shoulder or sidewalk, as a key of ``SURFACES``
    :param markings: of the left and of the right edge: for each sample (type, width, colour)
    """

    points: NDArray[np.float64]
    right: NDArray[np.float64]
    widths: NDArray[np.float64]
    stations: NDArray[np.float64]
    kind: str
    markings: tuple[list[tuple[str, float, tuple[int, int, int]]], ...]

    def edge(self, side: float) -> NDArray[np.float64]:
        """Points on the lane's edge (side -1 left, 1 right, 0 the centre): shape (n, 2), float64 [m]."""
        edge: NDArray[np.float64] = self.points[:, :2] + (0.5 * side) * self.widths[:, None] * self.right
        return edge


SURFACES = {
    "sidewalk": (SIDEWALK, SIDEWALKS),
    "shoulder": (SHOULDER, ROADS),
    "driving": (ASPHALT, ROADS),
}
"""Colour and label of each kind of lane, in the order in which they are painted."""


class Raster:
    """
    Painted pyramids of a town.

    :param carla_map: ``carla.Map`` with at least one driving lane
    :param seed: of the textures
    """

    def __init__(self, carla_map: Any, seed: int = 0) -> None:
        lanes = list(_lanes(carla_map))
        points = np.concatenate([lane.points for lane in lanes])
        low, high = points[:, :2].min(axis=0) - MARGIN, points[:, :2].max(axis=0) + MARGIN
        self.origin: NDArray[np.float64] = low
        """World position of the first cell's outer corner [m]."""
        area = float(np.prod(high - low))
        self.cell: float = max(CELL, (area / MAX_CELLS) ** 0.5)
        """Size of a cell of level 0 [m]."""
        block = 1 << (LEVELS - 1)
        columns, rows = (int(np.ceil(length / self.cell / block)) * block for length in high - low)
        self._shape = rows, columns
        self._conflicts = _Conflicts(lanes, low, high)
        layers = (LOWER, UPPER) if self._conflicts.any else (LOWER,)
        painted = [self._paint(lanes, layer, seed) for layer in layers]
        self.pyramids: list[list[NDArray[np.uint8]]] = [_pyramid(image) for image, _ in painted]
        """For each layer the levels, finest first: shape (rows >> k, columns >> k, 4), uint8 BGRA."""
        self.labels: list[NDArray[np.uint8]] = [labels for _, labels in painted]
        """For each layer: shape (rows, columns), uint8, semantic labels."""

    def layer(self, x: float, y: float, ground: Ground) -> int:
        """
        Which pyramid shows the road that a camera stands on.

        :param x: camera's position [m]
        :param y: camera's position [m]
        :param ground: road plane under the camera
        :return: ``LOWER`` or ``UPPER``
        """
        return self._conflicts.layer(x, y, ground) if self._conflicts.any else LOWER

    def _cells(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """World positions as fixed-point pixel coordinates for OpenCV."""
        pixels = (points - self.origin) / self.cell - 0.5
        return np.rint(pixels * (1 << SUBPIXEL)).astype(np.int32)

    def _paint(self, lanes: list[Lane], layer: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        labels = np.full(self._shape, TERRAIN, np.uint8)
        surface = np.zeros(self._shape, np.uint8)
        kept = [(lane, self._conflicts.belongs(lane, layer)) for lane in lanes]
        for number, kind in enumerate(SURFACES, start=1):
            for lane, keep in kept:
                if lane.kind == kind:
                    for part in _runs(keep):
                        outline = np.concatenate([lane.edge(-1.0)[part], lane.edge(1.0)[part][::-1]])
                        cells = [self._cells(outline)]
                        cv2.fillPoly(surface, cells, number, cv2.LINE_8, SUBPIXEL)
                        cv2.fillPoly(labels, cells, SURFACES[kind][1], cv2.LINE_8, SUBPIXEL)
        image = _textured(surface, seed)
        for lane, keep in kept:
            for outline, color in _marking_strips(lane, keep):
                cells = [self._cells(outline)]
                cv2.fillPoly(image, cells, (*color, 255), cv2.LINE_AA, SUBPIXEL)
                cv2.fillPoly(labels, cells, ROAD_LINE, cv2.LINE_8, SUBPIXEL)
        return image, labels


class _Conflicts:
    """
    Places where one lane lies above another.

    :param lanes: all lanes
    :param low: corner of the town [m]
    :param high: opposite corner [m]
    """

    def __init__(self, lanes: list[Lane], low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        self._low = low
        columns, rows = (int(n) + 1 for n in np.ceil((high - low) / CONFLICT_CELL))
        bottom, top = np.full((rows, columns), np.inf), np.full((rows, columns), -np.inf)
        for lane in lanes:
            for side in (-1.0, 0.0, 1.0):
                cells = self._index(lane.edge(side))
                np.minimum.at(bottom, cells, lane.points[:, 2])
                np.maximum.at(top, cells, lane.points[:, 2])
        crossing = top > bottom + CLEARANCE
        self.any = bool(crossing.any())
        if not self.any:
            return
        heights = 0.5 * (top[crossing] + bottom[crossing])
        distance, nearest = cv2.distanceTransformWithLabels(
            (~crossing).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
        )
        places = np.argwhere(crossing)
        order = np.empty(int(nearest.max()) + 1, np.int64)
        order[nearest[crossing]] = np.arange(len(places))
        self._nearest = order[nearest]  # (rows, columns): which crossing cell is nearest
        self._distance = distance * CONFLICT_CELL
        self._places = (places[:, ::-1] + 0.5) * CONFLICT_CELL + low  # (k, 2) [m]
        self._heights = heights  # (k,) [m]

    def _index(self, points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        cells = ((points - self._low) / CONFLICT_CELL).astype(np.int64)
        return cells[:, 1], cells[:, 0]

    def belongs(self, lane: Lane, layer: int) -> NDArray[np.bool_]:
        """Which samples of a lane a layer shows: shape (n,), bool."""
        keep = np.ones(len(lane.points), bool)
        if self.any:
            cells = self._index(lane.points[:, :2])
            heights = self._heights[self._nearest[cells]]
            above = lane.points[:, 2] > heights
            close = self._distance[cells] < 4.0 * CONFLICT_CELL
            far_apart = np.abs(lane.points[:, 2] - heights) > 0.4 * CLEARANCE
            keep[close & far_apart & (above == (layer == LOWER))] = False
        return keep

    def layer(self, x: float, y: float, ground: Ground) -> int:
        row, column = int((y - self._low[1]) / CONFLICT_CELL), int((x - self._low[0]) / CONFLICT_CELL)
        rows, columns = self._nearest.shape
        if not (0 <= row < rows and 0 <= column < columns) or self._distance[row, column] > CONFLICT_REACH:
            return LOWER
        crossing = self._nearest[row, column]
        px, py = self._places[crossing]
        height = ground.z + ground.slope_x * (px - x) + ground.slope_y * (py - y)
        return UPPER if height > self._heights[crossing] else LOWER


def _lanes(carla_map: Any) -> Iterator[Lane]:
    """All lanes of a map; those without traffic are found beside those with."""
    for waypoints in lane_waypoints(carla_map, STEP):
        yield _lane(waypoints, "driving")
        for neighbour in ("get_right_lane", "get_left_lane"):
            yield from _side_lanes(waypoints, neighbour)


def _side_lanes(waypoints: list[Any], neighbour: str) -> Iterator[Lane]:
    """Shoulders and sidewalks to one side of a lane, outwards until the road or its traffic ends."""
    same_side = np.sign(waypoints[0].lane_id)
    row = waypoints
    for _ in range(6):
        stepped = [getattr(waypoint, neighbour)() for waypoint in row]
        row = [w for w in stepped if w is not None and np.sign(w.lane_id) == same_side]
        if len(row) < 2 or len(row) < len(stepped):
            return
        kind = row[0].lane_type
        if kind == carla.LaneType.Driving:
            return
        if kind == carla.LaneType.Sidewalk:
            yield _lane(row, "sidewalk")
        elif kind != carla.LaneType.NONE:
            yield _lane(row, "shoulder")


def _lane(waypoints: list[Any], kind: str) -> Lane:
    transforms = [waypoint.transform for waypoint in waypoints]
    yaw = np.radians([transform.rotation.yaw for transform in transforms])
    points = np.array([[t.location.x, t.location.y, t.location.z] for t in transforms])
    marked = kind == "driving" and not waypoints[0].is_junction
    markings: tuple[list[Any], ...] = ([], [])
    if marked:
        markings = (
            [_marking(waypoint.left_lane_marking) for waypoint in waypoints],
            [_marking(waypoint.right_lane_marking) for waypoint in waypoints],
        )
    return Lane(
        points=points,
        right=np.stack([-np.sin(yaw), np.cos(yaw)], axis=1),
        widths=np.array([waypoint.lane_width for waypoint in waypoints]),
        stations=np.array([waypoint.s for waypoint in waypoints]),
        kind=kind,
        markings=markings,
    )


def _marking(marking: Any) -> tuple[str, float, tuple[int, int, int]]:
    kind = str(marking.type)
    if kind in ("NONE", "Curb", "Grass", "Other"):
        return "NONE", 0.0, WHITE
    return kind, marking.width or DEFAULT_WIDTH, COLORS.get(str(marking.color), WHITE)


def _marking_strips(lane: Lane, keep: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.float64], tuple[int, int, int]]]:
    """Outlines of the painted stripes of a lane: shape (m, 2), float64 [m]; and their colours."""
    dashes = np.floor(lane.stations) % DASH_PERIOD < DASH_LENGTH
    for side, markings in zip((-1.0, 1.0), lane.markings, strict=True):
        for kind, width, color in sorted(set(markings)):
            if kind == "NONE":
                continue
            here = keep & np.array([marking == (kind, width, color) for marking in markings])
            edge = lane.edge(side)
            parts = kind.replace("Solid", "S ").replace("Broken", "B ").split()
            shifts = (-width, width) if len(parts) == 2 else (0.0,)
            for part, shift in zip(parts if len(parts) == 2 else [kind[0]], shifts, strict=True):
                painted = here if part == "S" else here & dashes
                for run in _runs(painted):
                    left = edge[run] + (shift - 0.5 * width) * lane.right[run]
                    right = edge[run] + (shift + 0.5 * width) * lane.right[run]
                    yield np.concatenate([left, right[::-1]]), color


def _runs(keep: NDArray[np.bool_]) -> Iterator[slice]:
    """Stretches of samples to be painted, each with the sample that follows it."""
    changes = np.flatnonzero(np.diff(np.concatenate(([False], keep, [False])).astype(np.int8)))
    for first, after in zip(changes[::2], changes[1::2], strict=True):
        last = min(after + 1, len(keep))
        if last - first >= 2:
            yield slice(int(first), int(last))


def _textured(surface: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Colours with a texture, from the numbers of the surfaces (0 is the verge): shape (rows, columns, 4), uint8."""
    rng = np.random.default_rng(seed)
    size = 512
    tiles = [_tile(rng, GRASS, size, (10.0, 14.0, 10.0))]
    tiles += [_tile(rng, color, size, (4.0, 3.0, 3.0)) for color, _ in SURFACES.values()]
    image = np.empty((*surface.shape, 4), np.uint8)
    for row in range(0, surface.shape[0], size):
        for column in range(0, surface.shape[1], size):
            part = surface[row : row + size, column : column + size]
            target = image[row : row + size, column : column + size]
            height, width = part.shape
            target[:] = tiles[0][:height, :width]
            for number, tile in enumerate(tiles[1:], start=1):
                mask = part == number
                if mask.any():
                    np.copyto(target, tile[:height, :width], where=mask[:, :, None])
    return image


def _tile(
    rng: np.random.Generator, color: tuple[int, int, int], size: int, amplitudes: tuple[float, ...]
) -> NDArray[np.uint8]:
    """A colour with noise of several sizes of grain, which repeats without a seam: shape (size, size, 4), uint8."""
    noise = np.zeros((size, size))
    for octave, amplitude in enumerate(amplitudes):
        grain = rng.standard_normal((size >> (2 * octave), size >> (2 * octave)))
        noise += amplitude * np.kron(grain, np.ones((1 << (2 * octave), 1 << (2 * octave))))
    tile = np.empty((size, size, 4))
    tile[:, :, :3] = np.array(color) + noise[:, :, None]
    tile[:, :, 3] = 255.0
    return np.clip(tile, 0, 255).astype(np.uint8)


def _pyramid(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    levels = [image]
    for _ in range(LEVELS - 1):
        rows, columns = levels[-1].shape[:2]
        smaller = cv2.resize(levels[-1], (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)
        levels.append(smaller)  # type: ignore[arg-type]
    return levels
