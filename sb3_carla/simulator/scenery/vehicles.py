"""Cars and lorries in local axes: forward, right, up; the origin lies on the ground under the middle of the body."""

from __future__ import annotations

from dataclasses import dataclass

import carla

from sb3_carla.simulator.rendering.mesh import Mesh, Pattern
from sb3_carla.simulator.scenery.shapes import Color, Look, MeshBuilder

__all__ = ["car", "truck"]

CAR, TRUCK = int(carla.CityObjectLabel.Car), int(carla.CityObjectLabel.Truck)
GLASS: Color = (52.0, 44.0, 38.0)
TYRE: Color = (26.0, 25.0, 25.0)
HEAD_LIGHT: Color = (225.0, 240.0, 245.0)
TAIL_LIGHT: Color = (30.0, 25.0, 190.0)
PLATE: Color = (215.0, 220.0, 225.0)
RELIEF = 0.02
"""How far wheels, lights and plates stand out from the body [m]."""


@dataclass(frozen=True, slots=True)
class _Body:
    """Builder of one vehicle, with its half length and half width [m]."""

    builder: MeshBuilder
    length: float
    width: float
    paint: Look

    def wheels(self, middles: tuple[float, ...], radius: float) -> None:
        """Dark wheels at both sides; ``middles`` are their positions along the forward axis [m]."""
        tyre = self.paint.painted(TYRE)
        y, narrow = self.width, 0.55 * radius
        for x in middles:
            for side in (1.0, -1.0):
                # Hexagons would need twice the faces: the upper part is hidden by the body, and narrower.
                near, far = side * radius, side * narrow
                self.builder.face(
                    (x - near, side * y, 0.0), (x + near, side * y, 0.0),
                    (x + far, side * y, 2.0 * radius), (x - far, side * y, 2.0 * radius), tyre,
                )  # fmt: skip

    def lights(self, low: float, high: float) -> None:
        """Head lights, tail lights and plates; the lights are between two heights [m]."""
        x, outer, inner = self.length, 0.92 * self.width, 0.58 * self.width
        for left, right in ((-outer, -inner), (inner, outer)):
            head, tail = self.paint.painted(HEAD_LIGHT, glow=0.6), self.paint.painted(TAIL_LIGHT, glow=0.4)
            self.builder.panel((x, right, low), (x, left, low), high - low, head)
            self.builder.panel((-x, left, low), (-x, right, low), high - low, tail)
        plate = self.paint.painted(PLATE)
        self.builder.panel((x, 0.26, 0.45 * low), (x, -0.26, 0.45 * low), 0.12, plate)
        self.builder.panel((-x, -0.26, 0.45 * low), (-x, 0.26, 0.45 * low), 0.12, plate)


def car(half_extents: tuple[float, float, float], color: Color, *, cabin: tuple[float, float] = (-0.9, 0.35)) -> Mesh:
    """
    A car that fills a box: body, narrower cabin of dark glass, four wheels, lights and plates.

    :param half_extents: half length, half width, half height [m]
    :param color: of the paint
    :param cabin: where the cabin begins and ends, in half lengths: (-0.9, 0.35) is a hatchback, (-0.96, 0.8) a van
    :return: 20 faces
    """
    length, width, height = half_extents[0], half_extents[1], 2.0 * half_extents[2]
    paint = Look(CAR, color)
    builder = MeshBuilder()
    body = _Body(builder, length, width, paint)
    waist, sill = 0.56 * height, 0.13 * height
    x, y = length - RELIEF, width - RELIEF
    builder.box((-x, -y, sill), (x, y, waist), paint)
    _cabin(builder, (cabin[0] * length, cabin[1] * length), 0.94 * width, (waist, height), paint)
    radius = min(0.23 * height, 0.2 * length)
    body.wheels((-0.6 * length, 0.6 * length), radius)
    body.lights(0.38 * height, 0.5 * height)
    return builder.build()


def _cabin(
    builder: MeshBuilder, reach: tuple[float, float], width: float, heights: tuple[float, float], paint: Look
) -> None:
    """Cabin with sloping glass: windscreen, rear window and two sides, and a painted roof."""
    (rear, front), (low, high) = reach, heights
    glass = paint.painted(GLASS)
    slope = 0.55 * (high - low)
    roof_rear, roof_front, roof = rear + 0.6 * slope, front - 1.3 * slope, 0.82 * width
    builder.face((front, width, low), (front, -width, low), (roof_front, -roof, high), (roof_front, roof, high), glass)
    builder.face((rear, -width, low), (rear, width, low), (roof_rear, roof, high), (roof_rear, -roof, high), glass)
    builder.face((rear, width, low), (front, width, low), (roof_front, roof, high), (roof_rear, roof, high), glass)
    builder.face((front, -width, low), (rear, -width, low), (roof_rear, -roof, high), (roof_front, -roof, high), glass)
    builder.face(
        (roof_rear, roof, high), (roof_front, roof, high), (roof_front, -roof, high), (roof_rear, -roof, high), paint
    )


def truck(half_extents: tuple[float, float, float], color: Color, load: Color = (205.0, 205.0, 205.0)) -> Mesh:
    """
    A lorry that fills a box: driver's cab, box body, six wheels, lights and plates.

    :param half_extents: half length, half width, half height [m]
    :param color: of the cab
    :param load: of the box body
    :return: 24 faces
    """
    length, width, height = half_extents[0], half_extents[1], 2.0 * half_extents[2]
    paint = Look(TRUCK, color)
    builder = MeshBuilder()
    body = _Body(builder, length, width, paint)
    x, y = length - RELIEF, width - RELIEF
    split, roof, sill = 0.5 * length, 0.72 * height, 0.12 * height
    boards = paint.painted(load, pattern=Pattern.PLANKS, scale=1.2)
    builder.box((-x, -y, 0.24 * height), (split, y, height), boards)
    # The cab's rear wall is hidden by the box body.
    builder.panel((x, y, sill), (x, -y, sill), roof - sill, paint)
    builder.panel((split, y, sill), (x, y, sill), roof - sill, paint)
    builder.panel((x, -y, sill), (split, -y, sill), roof - sill, paint)
    builder.face((split, y, roof), (x, y, roof), (x, -y, roof), (split, -y, roof), paint)
    glass, low = paint.painted(GLASS), 0.42 * height
    builder.panel((length, 0.9 * y, low), (length, -0.9 * y, low), 0.22 * height, glass)
    radius = min(0.15 * height, 0.12 * length)
    body.wheels((-0.68 * length, -0.3 * length, 0.72 * length), radius)
    body.lights(0.22 * height, 0.27 * height)
    return builder.build()
