"""The models that one town has to choose from: a few variants of every kind, drawn from the town's seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import carla
import numpy as np

from sb3_carla.simulator.rendering.mesh import Mesh, Pattern, Shape
from sb3_carla.simulator.scenery import models
from sb3_carla.simulator.scenery.palettes import (
    BRICK,
    CONCRETE,
    LEAVES,
    METALS,
    NEEDLES,
    PAINTS,
    PANES,
    PLASTER,
    ROOFS,
    SIGNALS,
    SOILS,
    WOODS,
)
from sb3_carla.simulator.scenery.shapes import Color, Look

__all__ = ["Model", "catalogue"]

_LABEL, _LAYER = carla.CityObjectLabel, carla.MapLayer
BUILDINGS, FENCES, WALLS, VEGETATION = (
    int(label) for label in (_LABEL.Buildings, _LABEL.Fences, _LABEL.Walls, _LABEL.Vegetation)
)
GUARD_RAIL, STATIC, CAR, TRUCK = (int(label) for label in (_LABEL.GuardRail, _LABEL.Static, _LABEL.Car, _LABEL.Truck))
POLES, SIGNS, TERRAIN = (int(label) for label in (_LABEL.Poles, _LABEL.TrafficSigns, _LABEL.Terrain))
IN_BUILDINGS, IN_FOLIAGE, IN_PROPS, IN_WALLS, IN_LIGHTS, IN_PARKED, IN_GROUND = (
    int(layer)
    for layer in (
        _LAYER.Buildings, _LAYER.Foliage, _LAYER.Props, _LAYER.Walls, _LAYER.StreetLights, _LAYER.ParkedVehicles,
        _LAYER.Ground,
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Model:
    """
    One thing to put into the world.

    :param mesh: in local axes
    :param half_extents: of its footprint, and half its height [m]
    :param layer: ``carla.MapLayer``
    :param tag: ``carla.CityObjectLabel`` of its solid
    :param solid: whether a car can hit it
    :param room: how far it reaches beyond its footprint, over the ground [m]: crowns of trees, arms of street lights
    :param lamp: height of its lamp [m], 0: none
    :param arm: how far the lamp is in front of the post [m]
    """

    mesh: Mesh
    half_extents: tuple[float, float, float]
    layer: int
    tag: int
    solid: bool = True
    room: float = 0.0
    lamp: float = 0.0
    arm: float = 0.0


class _Draw:
    """Random choices of one town."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self.random.random())

    def one_of(self, colors: tuple[Color, ...]) -> Color:
        """A colour of a palette, a little lighter or darker."""
        factor = self.between(0.75, 1.2)
        blue, green, red = colors[int(self.random.integers(len(colors)))]
        return min(255.0, factor * blue), min(255.0, factor * green), min(255.0, factor * red)

    def leaves(self, palette: tuple[Color, ...] = LEAVES) -> tuple[Color, Color]:
        """Two greens, the second one darker."""
        blue, green, red = self.one_of(palette)
        shade = self.between(0.5, 0.8)
        return (blue, green, red), (shade * blue, shade * green, shade * red)

    def wall(self) -> Color:
        """Colour of a house."""
        return self.one_of(PLASTER if self.random.random() < 0.65 else BRICK)


def _house(draw: _Draw) -> Model:
    depth, width = draw.between(4.0, 6.0), draw.between(4.0, 7.5)
    eaves = 3.0 * int(draw.random.integers(1, 4)) + 0.2
    wall = Look(BUILDINGS, draw.wall(), draw.one_of(PANES), Pattern.WINDOWS, draw.between(2.2, 3.6))
    roof = Look(BUILDINGS, draw.one_of(ROOFS), None, Pattern.COURSES, 0.35)
    ridge = eaves + draw.between(0.45, 1.0) * depth
    mesh = models.house(depth, width, eaves, ridge, wall, roof)
    return Model(mesh, (depth, width, 0.5 * ridge), IN_BUILDINGS, BUILDINGS)


def _tower(draw: _Draw) -> Model:
    depth, width = draw.between(5.0, 9.0), draw.between(6.0, 13.0)
    height = 3.0 * int(draw.random.integers(4, 16))
    palette = (PLASTER, BRICK, CONCRETE)[int(draw.random.integers(3))]
    glow = 0.12 if draw.random.random() < 0.3 else 0.0
    wall = Look(BUILDINGS, draw.one_of(palette), draw.one_of(PANES), Pattern.WINDOWS, draw.between(1.8, 4.0), glow)
    mesh = models.tower(depth, width, height, wall, draw.one_of(CONCRETE))
    return Model(mesh, (depth, width, 0.5 * height), IN_BUILDINGS, BUILDINGS)


def _shop(draw: _Draw) -> Model:
    depth, width = draw.between(4.5, 7.0), draw.between(4.0, 8.0)
    height = 3.6 + 3.0 * int(draw.random.integers(1, 5))
    wall = Look(BUILDINGS, draw.wall(), draw.one_of(PANES), Pattern.WINDOWS, draw.between(1.8, 3.2))
    frame = draw.one_of(WOODS)
    lit = draw.between(0.0, 0.5)
    glass = Look(BUILDINGS, draw.one_of(PANES), frame, Pattern.STRIPES, draw.between(0.8, 2.5), glow=lit)
    fascia = Look(BUILDINGS, draw.one_of(SIGNALS), glow=lit)
    mesh = models.shop(depth, width, height, wall, glass, fascia)
    return Model(mesh, (depth, width, 0.5 * height), IN_BUILDINGS, BUILDINGS)


def _hall(draw: _Draw) -> Model:
    depth, width, height = draw.between(9.0, 14.0), draw.between(10.0, 18.0), draw.between(6.0, 11.0)
    wall = Look(BUILDINGS, draw.one_of(METALS + CONCRETE), None, Pattern.PLANKS, draw.between(0.5, 2.0))
    gate = Look(BUILDINGS, draw.one_of(METALS + SIGNALS), None, Pattern.COURSES, 0.4)
    mesh = models.hall(depth, width, height, wall, gate)
    return Model(mesh, (depth, width, 0.5 * height), IN_BUILDINGS, BUILDINGS)


def _tree(draw: _Draw) -> Model:
    kind = int(draw.random.integers(3))
    if kind == 0:
        height, width = draw.between(7.0, 13.0), draw.between(1.6, 3.0)
        mesh = models.poplar(height, width, draw.leaves())
    else:
        height, width = draw.between(4.5, 11.0), draw.between(3.0, 6.5)
        mesh = models.broadleaf(height, width, draw.leaves(), draw.one_of(WOODS))
    return _plant(mesh, 0.025 * height, height, 0.5 * width)


def _fir(draw: _Draw) -> Model:
    height = draw.between(6.0, 17.0)
    width = draw.between(0.3, 0.45) * height
    return _plant(models.conifer(height, width, draw.leaves(NEEDLES)), 0.02 * height, height, 0.5 * width)


def _palm(draw: _Draw) -> Model:
    height, width = draw.between(6.0, 12.0), draw.between(3.0, 4.5)
    return _plant(models.palm(height, width, draw.leaves(), draw.one_of(WOODS)), 0.15, height, 0.5 * width)


def _plant(mesh: Mesh, trunk: float, height: float, crown: float) -> Model:
    return Model(mesh, (trunk, trunk, 0.5 * height), IN_FOLIAGE, VEGETATION, room=crown - trunk)


def _bush(draw: _Draw) -> Model:
    height, width = draw.between(0.5, 1.8), draw.between(0.8, 2.6)
    half = (0.5 * width, 0.5 * width, 0.5 * height)
    return Model(models.bush(height, width, draw.leaves()), half, IN_FOLIAGE, VEGETATION, solid=False)


def _hill(draw: _Draw) -> Model:
    height, width = draw.between(4.0, 14.0), draw.between(24.0, 50.0)
    palette = SOILS if draw.random.random() < 0.5 else LEAVES
    mesh = models.rock(height, width, draw.leaves(palette))
    return Model(mesh, (6.0, 6.0, 0.5 * height), IN_GROUND, TERRAIN, solid=False, room=0.5 * width - 6.0)


def _lamp(draw: _Draw) -> Model:
    height = draw.between(4.0, 9.0)
    arm = draw.between(0.5, 1.0) if height > 5.0 else 0.0
    mesh = models.lamp_post(height, arm, draw.one_of(METALS))
    return Model(mesh, (0.12, 0.12, 0.5 * height), IN_LIGHTS, POLES, room=arm, lamp=height, arm=arm)


def _mast(draw: _Draw) -> Model:
    """A high lamp beside a motorway."""
    height = draw.between(9.0, 14.0)
    mesh = models.lamp_post(height, 0.0, draw.one_of(METALS))
    return Model(mesh, (0.15, 0.15, 0.5 * height), IN_LIGHTS, POLES, lamp=height)


def _utility_pole(draw: _Draw) -> Model:
    height = draw.between(7.0, 10.0)
    mesh = models.utility_pole(height, draw.one_of(WOODS))
    return Model(mesh, (0.15, 0.15, 0.5 * height), IN_PROPS, POLES)


def _sign(draw: _Draw) -> Model:
    round_plate = draw.random.random() < 0.5
    width, height = draw.between(0.55, 0.8), draw.between(2.0, 2.8)
    shape = Shape.ELLIPSE if round_plate else Shape.RECTANGLE
    colors = (SIGNALS[4] if round_plate else draw.one_of(SIGNALS), SIGNALS[int(draw.random.integers(2))])
    mesh = models.sign(height, width, shape, colors, draw.one_of(METALS))
    return Model(mesh, (0.08, 0.08, 0.5 * height), IN_PROPS, SIGNS, room=0.5 * width)


def _big_sign(draw: _Draw) -> Model:
    """A direction sign beside a wide road."""
    width, height = draw.between(1.8, 3.0), draw.between(3.8, 5.0)
    plate = (SIGNALS[1], SIGNALS[3])[int(draw.random.integers(2))]
    mesh = models.sign(height, width, Shape.RECTANGLE, (plate, SIGNALS[4]), draw.one_of(METALS))
    return Model(mesh, (0.1, 0.1, 0.5 * height), IN_PROPS, SIGNS, room=0.5 * width)


def _bollard(draw: _Draw) -> Model:
    height, width = draw.between(0.6, 1.1), draw.between(0.12, 0.25)
    mesh = models.pole(height, width, draw.one_of(METALS + SIGNALS))
    return Model(mesh, (0.5 * width, 0.5 * width, 0.5 * height), IN_PROPS, POLES)


def _thing(draw: _Draw) -> Model:
    """A bin, a letter box, a cabinet, a hydrant, a bench."""
    kind = int(draw.random.integers(4))
    if kind == 0:
        return Model(models.hydrant(draw.one_of(SIGNALS)), (0.2, 0.2, 0.4), IN_PROPS, STATIC)
    if kind == 1:
        return Model(models.bench(draw.one_of(WOODS)), (0.25, 0.9, 0.42), IN_PROPS, STATIC)
    width, height = draw.between(0.45, 0.9), draw.between(0.8, 1.4)
    mesh = models.bin_(width, height, draw.one_of(METALS + SIGNALS))
    return Model(mesh, (0.5 * width, 0.5 * width, 0.5 * height), IN_PROPS, STATIC)


def _goods(draw: _Draw) -> Model:
    """A container or a stack of goods."""
    half = (draw.between(1.0, 3.0), 1.2, draw.between(0.7, 1.3))
    look = Look(STATIC, draw.one_of(SIGNALS + METALS), None, Pattern.PLANKS, 0.3)
    return Model(models.block(half, look), half, IN_PROPS, STATIC)


def _bale(draw: _Draw) -> Model:
    half = (draw.between(0.6, 1.2), 0.6, draw.between(0.5, 0.8))
    look = Look(STATIC, draw.one_of(((90, 160, 190), (110, 190, 215))), None, Pattern.COURSES, 0.2)
    return Model(models.block(half, look), half, IN_PROPS, STATIC)


def _car(draw: _Draw) -> Model:
    half = (draw.between(1.8, 2.5), draw.between(0.82, 0.98), draw.between(0.68, 0.85))
    cabin = ((-0.9, 0.35), (-0.62, 0.35), (-0.96, 0.5))[int(draw.random.integers(3))]
    return Model(models.car(half, draw.one_of(PAINTS), cabin=cabin), half, IN_PARKED, CAR)


def _van(draw: _Draw) -> Model:
    half = (draw.between(2.3, 2.8), draw.between(0.95, 1.02), draw.between(0.95, 1.25))
    return Model(models.car(half, draw.one_of(PAINTS), cabin=(-0.96, 0.75)), half, IN_PARKED, CAR)


def _truck(draw: _Draw) -> Model:
    half = (draw.between(3.2, 4.5), 1.2, draw.between(1.4, 1.9))
    return Model(models.truck(half, draw.one_of(PAINTS), draw.one_of(PAINTS)), half, IN_PARKED, TRUCK)


def _line(mesh: Mesh, thickness: float, height: float, layer: int, tag: int) -> Model:
    return Model(mesh, (0.5, 0.5 * thickness, 0.5 * height), layer, tag)


def _garden_wall(draw: _Draw) -> Model:
    height, thickness = draw.between(0.6, 2.2), draw.between(0.2, 0.4)
    color = draw.one_of(PLASTER + BRICK + CONCRETE)
    look = Look(WALLS, color, None, Pattern.COURSES, draw.between(0.2, 0.6))
    mesh = models.solid_wall(height, thickness, look, look.painted(draw.one_of(CONCRETE)))
    return _line(mesh, thickness, height, IN_WALLS, WALLS)


def _hedge(draw: _Draw) -> Model:
    height, thickness = draw.between(0.7, 2.2), draw.between(0.5, 0.9)
    leaves = draw.leaves()
    look = Look(VEGETATION, *leaves, Pattern.FOLIAGE, draw.between(0.15, 0.4))
    return _line(models.solid_wall(height, thickness, look, look), thickness, height, IN_FOLIAGE, VEGETATION)


def _garden_fence(draw: _Draw) -> Model:
    height = draw.between(0.8, 1.5)
    pattern = (Pattern.BARS, Pattern.PLANKS, Pattern.BARS)[int(draw.random.integers(3))]
    look = Look(FENCES, draw.one_of(WOODS), None, pattern, draw.between(0.2, 0.5))
    return _line(models.fence(height, look), 0.1, height, IN_WALLS, FENCES)


def _wire_fence(draw: _Draw) -> Model:
    height = draw.between(1.8, 2.6)
    pattern = (Pattern.BARS, Pattern.PLANKS)[int(draw.random.integers(2))]
    look = Look(FENCES, draw.one_of(METALS), None, pattern, draw.between(0.25, 0.8))
    return _line(models.fence(height, look), 0.1, height, IN_WALLS, FENCES)


def _field_fence(draw: _Draw) -> Model:
    height = draw.between(0.9, 1.3)
    look = Look(FENCES, draw.one_of(WOODS), None, Pattern.RAILS, draw.between(0.3, 0.45))
    return _line(models.fence(height, look), 0.1, height, IN_WALLS, FENCES)


def _guard_rail(draw: _Draw) -> Model:
    mesh = models.guard_rail(draw.one_of(METALS[:2] + METALS[-1:]), draw.one_of(METALS))
    return _line(mesh, 0.2, 0.75, IN_WALLS, GUARD_RAIL)


def _barrier(draw: _Draw) -> Model:
    height = draw.between(0.8, 1.1)
    look = Look(WALLS, draw.one_of(CONCRETE), None, Pattern.PLANKS, 4.0)
    return _line(models.solid_wall(height, 0.6, look, look.painted(look.color), 0.2), 0.6, height, IN_WALLS, WALLS)


def _noise_wall(draw: _Draw) -> Model:
    height = draw.between(2.5, 4.5)
    pattern = Pattern.PLANKS if draw.random.random() < 0.5 else Pattern.COURSES
    look = Look(WALLS, draw.one_of(CONCRETE + WOODS + SOILS), None, pattern, draw.between(0.5, 2.5))
    return _line(models.solid_wall(height, 0.3, look, look.painted(look.color)), 0.3, height, IN_WALLS, WALLS)


# Name: how it is drawn, number of variants in a town.
_KINDS: dict[str, tuple[Callable[[_Draw], Model], int]] = {
    "house": (_house, 16), "tower": (_tower, 12), "shop": (_shop, 12), "hall": (_hall, 8),
    "tree": (_tree, 14), "fir": (_fir, 8), "palm": (_palm, 3), "bush": (_bush, 8), "hill": (_hill, 6),
    "lamp": (_lamp, 2), "mast": (_mast, 1), "utility pole": (_utility_pole, 2), "sign": (_sign, 8),
    "big sign": (_big_sign, 3), "bollard": (_bollard, 3), "thing": (_thing, 12), "goods": (_goods, 6),
    "bale": (_bale, 3), "car": (_car, 12), "van": (_van, 4), "truck": (_truck, 4),
    "garden wall": (_garden_wall, 6), "hedge": (_hedge, 4), "garden fence": (_garden_fence, 4),
    "wire fence": (_wire_fence, 3), "field fence": (_field_fence, 3), "guard rail": (_guard_rail, 2),
    "barrier": (_barrier, 2), "noise wall": (_noise_wall, 3),
}  # fmt: skip


def catalogue(random: np.random.Generator) -> dict[str, list[Model]]:
    """
    Models of a town, by kind.

    :param random: of the town
    :return: at least one of each kind; walls, fences and rails are 1 m long, to be stretched
    """
    draw = _Draw(random)
    return {name: [make(draw) for _ in range(count)] for name, (make, count) in _KINDS.items()}
