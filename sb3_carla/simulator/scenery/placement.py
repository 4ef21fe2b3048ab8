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
GAP = 0.3
"""Half the least distance of two objects, about [m]."""
PIECE = 4.0
"""Length of a piece of wall in a bend, half of that on a straight [m]."""
STRAIGHT = 0.07
"""Pieces whose directions differ by less are joined [rad]."""
SHORTENED = 0.1
"""How much shorter the solid of a piece of wall is at each end, so that neighbours do not overlap in bends [m]."""


@dataclass(frozen=True)
class Placed:
    """
    Copies of one model.

    :param model: the model
    :param places: shape (k, 2), world x and y [m]
    :param yaw: shape (k,), of the forward axis [rad]
    :param stretch: shape (k,), factor of the length
    """

    model: Model
    places: Floats
    yaw: Floats
    stretch: Floats


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
        # A distance between centres of cells is that much more than the distance between what lies in them, at most.
        self._slack = grid.cell

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
        depth = np.array([model.half_extents[across] for model in models])
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
        inward /= np.maximum(np.linalg.norm(inward, axis=1), 1e-9)[:, None]
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
        road, distance = self.grid.to_road.ravel(), field.ravel()
        for index in np.unique(number[wanted]).tolist():
            model = models[index]
            candidates = np.flatnonzero(wanted & (number == index))
            reach = model.room + max(model.half_extents[:2]) + self._slack
            candidates = candidates[road[self.grid.indices(places[candidates])] >= reach]
            cells = self.grid.indices(_moved(_footprint(model), places[candidates], yaw[candidates]))  # (k, p)
            clears = distance[cells].min(axis=1, initial=np.inf) >= clear + self._slack
            kept = [i for i, row in zip(candidates[clears].tolist(), cells[clears], strict=True) if self._take(row)]
            if kept:
                yield Placed(model, places[kept], yaw[kept], np.ones(len(kept)))

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
        field = self._fields[line.near].ravel()
        for curve in self._curve(line.near, line.distance):
            start, end = _pieces(curve)
            middle, along = 0.5 * (start + end), end - start
            wanted = self._wanted(middle, line.uses, line.choice, line.corner)
            wanted &= self.random.random(len(middle)) >= line.openings
            number = of_zone[self.zones.of_cell.ravel()[self.grid.indices(middle)]]
            yaw, length = np.arctan2(along[:, 1], along[:, 0]), np.linalg.norm(along, axis=1)
            taken = []
            for index in np.unique(number[wanted]).tolist():
                model = models[index]
                of_model = np.flatnonzero(wanted & (number == index))
                points = (
                    _strip(model.half_extents[1]) * np.stack([length, np.ones_like(length)], axis=1)[of_model, None]
                )
                cells = self.grid.indices(_moved(points, middle[of_model], yaw[of_model]))  # (k, p)
                fits = field[cells].min(axis=1, initial=np.inf) >= line.clear + self._slack
                fits &= ~self._taken[cells].any(axis=1)
                taken.append(cells[fits].ravel())
                kept = of_model[fits]
                if len(kept):
                    yield Placed(model, middle[kept], yaw[kept], length[kept])
            # Neighbours touch: a line takes its cells when all its pieces are there.
            for cells in taken:
                self._taken[cells] = True

    # --- scattered things ----------------------------------------------------------------------------------------

    def _scatter(self, scatter: Scatter) -> Iterator[Placed]:
        models = [model for kind in scatter.kinds for model in self.models[kind]]
        low, high = scatter.band
        band = np.flatnonzero((self.grid.to_lane.ravel() >= low) & (self.grid.to_lane.ravel() < high))
        if len(band) == 0:
            return
        count = round(scatter.density * len(band) * self.grid.cell**2)
        places = self.grid.centres(band[self.random.integers(0, len(band), count)])
        places += self.grid.cell * (self.random.random((count, 2)) - 0.5)
        number = self.random.integers(0, len(models), count)
        yaw = 2.0 * math.pi * self.random.random(count)
        wanted = self._wanted(places, scatter.uses, scatter.choice, scatter.corner)
        yield from self._fitting(models, number, places, yaw, wanted, (self.grid.to_lane, 0.5 * low))


def _footprint(model: Model) -> Floats:
    """Places in local axes that cover a model's footprint and the gap around it: shape (p, 2) [m]."""
    # Crowns may touch each other a little.
    least = 0.35 * (model.half_extents[0] + model.room) if model.room else 0.0
    sides = [max(half, least) + GAP for half in model.half_extents[:2]]
    x, y = (np.linspace(-side, side, 2 + int(2.0 * side / SPACING)) for side in sides)
    return np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 2)


def _strip(half_width: float) -> Floats:
    """As ``_footprint`` for a wall of length 1: shape (p, 2)."""
    x = np.linspace(-0.5, 0.5, 2 + int(2.0 * PIECE / SPACING))
    y = np.linspace(-half_width - GAP, half_width + GAP, 2 + int(2.0 * (half_width + GAP) / SPACING))
    return np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 2)


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
    turn = np.abs((heading - np.roll(heading, 1) + math.pi) % (2.0 * math.pi) - math.pi)
    # Every second node is left out where the line does not bend.
    kept = nodes[(turn >= STRAIGHT) | (np.arange(len(nodes)) % 2 == 0)]
    return kept, np.roll(kept, -1, axis=0)
