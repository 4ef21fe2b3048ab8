"""Carries out the recipes: finds places along the roadsides, and leaves out what would stand too near to a lane."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.scenery.catalogue import Model
from sb3_carla.simulator.scenery.land_use import Zones
from sb3_carla.simulator.scenery.lane_grid import Curve, LaneGrid
from sb3_carla.simulator.scenery.recipes import SLOTS, Choice, Line, Row, Scatter

__all__ = ["Placed", "Site"]

Floats = NDArray[np.float64]
STEP = 1.0
"""Distance of neighbouring places on a curve [m]."""
SPACING = 0.45
"""Distance of the places of a footprint that are looked up [m]; less than a cell."""
COARSE = 1.5
"""Likewise for distances to lanes [m]; less than the width of a lane."""
FARTHEST = 50.0
"""Nothing stands farther from the lanes [m]."""
GAP = 0.3
"""Half the least distance of two objects, about [m]."""
PIECE = 4.0
"""Length of a piece of wall in a bend, half of that on a straight [m]."""
STRAIGHT = 0.07
"""Pieces whose directions differ by less are joined [rad]."""
FOLD = 0.6 * math.pi
"""A line that turns by more than this folds back: its pieces there are not neighbours [rad]."""
SEAM = 0.03
"""Half the gap between the solids of neighbouring pieces of wall [m]."""


@dataclass(frozen=True)
class Placed:
    """
    Copies of one model.

    :param model: the model
    :param places: shape (k, 2), world x and y [m]
    :param yaw: shape (k,), of the forward axis [rad]
    :param stretch: shape (k,), factor of the length
    :param trim: shape (k,), how much shorter the solid is at each end [m]: neighbouring pieces of a wall touch in bends
    """

    model: Model
    places: Floats
    yaw: Floats
    stretch: Floats
    trim: Floats


class Site:
    """
    Land on which things are placed, one recipe after the other.

    :param grid: of the town
    :param zones: of the town
    :param models: by kind
    :param random: of the town
    """

    def __init__(
        self, grid: LaneGrid, zones: Zones, models: dict[str, list[Model]], random: np.random.Generator
    ) -> None:
        self.grid, self.zones, self.models, self.random = grid, zones, models, random
        self._taken = np.zeros(grid.shape[0] * grid.shape[1], np.bool_)
        self._slots = {slot: random.random(len(zones.use)) for slot in SLOTS}
        self._curves: dict[tuple[str, float], list[Curve]] = {}
        self._fields = {"road": grid.to_road, "lane": grid.to_lane}
        # The lanes' edges may lie that much beyond the centres of the outermost cells.
        self._slack = 0.7 * grid.cell
        land = (grid.to_lane > 2.0) & (grid.to_lane < FARTHEST) & ~grid.blocked
        self._land = np.flatnonzero(land.ravel())
        self._footprints: dict[int, tuple[Floats, Floats]] = {}

    def place(self, recipe: Row | Line | Scatter) -> list[Placed]:
        """
        Carry out one recipe.

        :param recipe: what to place
        :return: what fits
        """
        if isinstance(recipe, Line):
            return list(self._line(recipe))
        if isinstance(recipe, Scatter):
            return list(self._scatter(recipe))
        return list(self._row(recipe))

    # --- rows ----------------------------------------------------------------------------------------------------

    def _row(self, row: Row) -> Iterator[Placed]:
        models = [model for kind in row.kinds for model in self.models[kind]]
        across = 0 if row.facing == "road" else 1
        # Crowns and arms reach up to the lanes, and no farther.
        least = self._slack + 0.1 - row.distance[0]
        depth = np.array([m.half_extents[across] + max(0.0, m.room and m.room + least) for m in models])
        width = np.array([2.0 * model.half_extents[1 - across] for model in models])
        field = self._fields[row.near]
        places, chosen = [], []
        for curve in self._curve(row.near, row.distance[0]):
            numbers, at = self._sequence(row, width, len(curve) * STEP)
            places.append(curve[(at / STEP).astype(np.int64) % len(curve)])
            chosen.append(numbers)
        if not places:
            return
        line, number = np.concatenate(places), np.concatenate(chosen)
        inward = self.grid.inward(line, field)
        jitter = (row.distance[1] - row.distance[0]) * self.random.random(len(line))
        middle = line - inward * (depth[number] + jitter)[:, None]
        # Traffic keeps right: beside the road, its direction has the road at its left.
        toward = {"road": inward, "along": inward[:, ::-1] * (-1.0, 1.0), "against": inward[:, ::-1] * (1.0, -1.0)}
        yaw = np.arctan2(toward[row.facing][:, 1], toward[row.facing][:, 0])
        wanted = self._wanted(middle, row.uses, row.choice, row.corner)
        yield from self._fitting(models, number, middle, yaw, wanted, (field, row.clear))

    def _sequence(self, row: Row, width: Floats, length: float) -> tuple[NDArray[np.int64], Floats]:
        """Models along a curve of a length [m]: their numbers, and the places of their middles [m]."""
        count = 1 + int(length / (float(width.min()) + row.gap[0]))
        runs = self.random.integers(1, row.repeat + 1, count)
        numbers = np.repeat(self.random.integers(0, len(width), count), runs)[:count]
        gaps = row.gap[0] + (row.gap[1] - row.gap[0]) * self.random.random(count)
        ends = np.cumsum(width[numbers] + gaps)
        fits = ends < length
        return numbers[fits], (ends - gaps - 0.5 * width[numbers])[fits]

    def _curve(self, near: str, distance: float) -> list[Curve]:
        key = (near, distance)
        if key not in self._curves:
            self._curves[key] = self.grid.curves(self._fields[near], distance, STEP)
        return self._curves[key]

    def _wanted(self, places: Floats, uses: tuple[int, ...], choice: Choice, corner: float) -> NDArray[np.bool_]:
        """Whether a place's zone has the recipe, and no junction or bridge is near."""
        cells = self.grid.indices(places)
        zone = self.zones.of_cell.ravel()[cells]
        has = np.isin(self.zones.use, [int(use) for use in uses])
        slot, low, high = choice
        if slot:
            has &= (self._slots[slot] >= low) & (self._slots[slot] < high)
        free = (self.grid.to_junction.ravel()[cells] >= corner) & ~self.grid.blocked.ravel()[cells]
        inside = ((places >= self.grid.origin) & (places < self.grid.far)).all(axis=1)
        wanted: NDArray[np.bool_] = has[zone] & free & inside
        return wanted

    # --- footprints ----------------------------------------------------------------------------------------------

    def _fitting(
        self,
        models: list[Model],
        number: NDArray[np.int64],
        places: Floats,
        yaw: Floats,
        wanted: NDArray[np.bool_],
        limit: tuple[NDArray[np.float32], float],
    ) -> Iterator[Placed]:
        """Those that keep clear of lanes and of each other; ``limit`` is a field and its least value in a footprint."""
        field, clear = limit
        for index in np.unique(number[wanted]).tolist():
            model = models[index]
            candidates = np.flatnonzero(wanted & (number == index))
            reach = model.room + max(model.half_extents[:2]) + self._slack
            candidates = candidates[self.grid.sample(self.grid.to_road, places[candidates]) >= reach]
            if id(model) not in self._footprints:
                self._footprints[id(model)] = _outline(model), _footprint(model)
            outline, footprint = self._footprints[id(model)]
            distances = self.grid.sample(field, _moved(outline, places[candidates], yaw[candidates]))  # (k, p)
            candidates = candidates[distances.min(axis=1, initial=np.inf) >= clear + self._slack]
            cells = self.grid.indices(_moved(footprint, places[candidates], yaw[candidates]))  # (k, q)
            kept = [i for i, row in zip(candidates.tolist(), cells, strict=True) if self._take(row)]
            if kept:
                yield Placed(model, places[kept], yaw[kept], np.ones(len(kept)), np.zeros(len(kept)))

    def _take(self, cells: NDArray[np.int64]) -> bool:
        """Take cells, if all are free."""
        if self._taken[cells].any():
            return False
        self._taken[cells] = True
        return True

    # --- lines ---------------------------------------------------------------------------------------------------

    def _line(self, line: Line) -> Iterator[Placed]:
        models = [model for kind in line.kinds for model in self.models[kind]]
        of_zone = self.random.integers(0, len(models), len(self.zones.use))
        field = self._fields[line.near]
        for curve in self._curve(line.near, line.distance):
            start, end = _pieces(curve)
            middle, along = 0.5 * (start + end), end - start
            wanted = self._wanted(middle, line.uses, line.choice, line.corner)
            wanted &= self.random.random(len(middle)) >= line.openings
            number = of_zone[self.zones.of_cell.ravel()[self.grid.indices(middle)]]
            yaw, length = np.arctan2(along[:, 1], along[:, 0]), np.linalg.norm(along, axis=1)
            footprints: dict[int, NDArray[np.int64]] = {}  # cells of every piece that keeps clear of the lanes
            for index in np.unique(number[wanted]).tolist():
                outline, footprint = _strip(models[index].half_extents[1])
                pieces = np.flatnonzero(wanted & (number == index))
                scale = np.stack([length, np.ones_like(length)], axis=1)[pieces, None]  # (k, 1, 2)
                places = _moved(scale * outline, middle[pieces], yaw[pieces])  # (k, p, 2)
                clears = self.grid.sample(field, places).min(axis=1, initial=np.inf) >= line.clear + self._slack
                pieces, scale = pieces[clears], scale[clears]
                cells = self.grid.indices(_moved(scale * footprint, middle[pieces], yaw[pieces]))  # (k, q)
                footprints.update(zip(pieces.tolist(), cells, strict=True))
            turn = _turn(yaw)
            kept = np.array(self._take_pieces(footprints, turn < FOLD), np.int64)
            tangent = np.tan(0.5 * np.minimum(np.maximum(turn, np.roll(turn, -1)), FOLD))
            for index in np.unique(number[kept]).tolist():
                part = kept[number[kept] == index]
                trim = SEAM + models[index].half_extents[1] * tangent[part]
                yield Placed(models[index], middle[part], yaw[part], length[part], trim)

    def _take_pieces(self, footprints: dict[int, NDArray[np.int64]], goes_on: NDArray[np.bool_]) -> list[int]:
        """
        Take the cells of the pieces of a line, in order; only neighbours may touch.

        :param footprints: cells of each piece that keeps clear of the lanes
        :param goes_on: whether each piece goes on from the one before, and does not fold back over it
        :return: the pieces that fit
        """
        kept: list[int] = []
        before = np.empty(0, np.int64)  # cells of the piece before, free until the next one has its own
        for piece in sorted(footprints):
            cells = footprints[piece]
            if not kept or piece != kept[-1] + 1 or not goes_on[piece]:
                self._taken[before] = True
                before = before[:0]
            if not self._taken[cells].any():
                kept.append(piece)
                self._taken[before] = True
                before = cells
        self._taken[before] = True
        return kept

    # --- scattered things ----------------------------------------------------------------------------------------

    def _scatter(self, scatter: Scatter) -> Iterator[Placed]:
        models = [model for kind in scatter.kinds for model in self.models[kind]]
        if len(self._land) == 0:
            return
        count = round(scatter.density * len(self._land) * self.grid.cell**2)
        places = self.grid.centres(self._land[self.random.integers(0, len(self._land), count)])
        places += self.grid.cell * (self.random.random((count, 2)) - 0.5)
        number = self.random.integers(0, len(models), count)
        yaw = 2.0 * math.pi * self.random.random(count)
        distance = self.grid.sample(self.grid.to_lane, places)
        wanted = self._wanted(places, scatter.uses, scatter.choice, scatter.corner)
        wanted &= (distance >= scatter.band[0]) & (distance < scatter.band[1])
        yield from self._fitting(models, number, places, yaw, wanted, (self.grid.to_lane, 0.5 * scatter.band[0]))


def _lattice(half_length: float, half_width: float, spacing: float) -> Floats:
    """Places that cover a rectangle, its corners among them: shape (p, 2) [m]."""
    x, y = (np.linspace(-half, half, 2 + int(2.0 * half / spacing)) for half in (half_length, half_width))
    return np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 2)


def _outline(model: Model) -> Floats:
    """Places at which a model's distance to the lanes is looked up, in local axes: shape (p, 2) [m]."""
    return _lattice(model.half_extents[0], model.half_extents[1], COARSE)


def _footprint(model: Model) -> Floats:
    """Places that cover what a model takes, with a gap around it, in local axes: shape (q, 2) [m]."""
    # Crowns may touch each other a little.
    least = 0.35 * (model.half_extents[0] + model.room) if model.room else 0.0
    length, width = (max(half, least) + GAP for half in model.half_extents[:2])
    return _lattice(length, width, SPACING)


def _strip(half_width: float) -> tuple[Floats, Floats]:
    """Outline and footprint of a wall of length 1, of enough places for its greatest length."""
    scale = np.array([0.5 / PIECE, 1.0])
    return _lattice(PIECE, half_width, COARSE) * scale, _lattice(PIECE, half_width + GAP, SPACING) * scale


def _moved(points: Floats, places: Floats, yaw: Floats) -> Floats:
    """Local points, shape (p, 2) or (k, p, 2), at k places: shape (k, p, 2), world."""
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x, y = points[..., 0], points[..., 1]
    return places[:, None] + np.stack([cos * x - sin * y, sin * x + cos * y], axis=2)


def _pieces(curve: Curve) -> tuple[Floats, Floats]:
    """Cut a closed curve into straight pieces: their starts and ends, each of shape (k, 2)."""
    nodes = curve[:: round(PIECE / STEP)]
    nodes = nodes[:-1] if len(nodes) % 2 else nodes
    edges = np.roll(nodes, -1, axis=0) - nodes
    heading = np.arctan2(edges[:, 1], edges[:, 0])
    # Every second node is left out where the line does not bend.
    kept = nodes[(_turn(heading) >= STRAIGHT) | (np.arange(len(nodes)) % 2 == 0)]
    return kept, np.roll(kept, -1, axis=0)


def _turn(heading: Floats) -> Floats:
    """By how much each edge of a closed line turns from the one before, >= 0: shape (k,) [rad]."""
    turn: Floats = np.abs((heading - np.roll(heading, 1) + math.pi) % (2.0 * math.pi) - math.pi)
    return turn
