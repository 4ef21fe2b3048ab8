"""
Buildings in local axes: the front faces forward, the origin is the middle of the floor.

All are closed boxes of few faces; windows, bricks and tiles are patterns on them.
"""

from __future__ import annotations

import carla

from sb3_carla.simulator.rendering.mesh import Mesh, Pattern
from sb3_carla.simulator.scenery.shapes import Color, Look, MeshBuilder

__all__ = ["hall", "house", "shop", "tower"]

BUILDINGS = int(carla.CityObjectLabel.Buildings)
GROUND_FLOOR = 3.6
"""Height of a shop's ground floor [m]."""
FASCIA = 0.7
"""Height of the board over a shop's window [m]."""


def house(half_depth: float, half_width: float, eaves: float, ridge: float, wall: Look, roof: Look) -> Mesh:
    """
    A house with a gable roof, whose ridge runs along the street.

    :param half_depth: along the forward axis [m]
    :param half_width: along the street [m]
    :param eaves: height of the walls [m]
    :param ridge: height of the roof's ridge [m]
    :param wall: of the four walls
    :param roof: of the roof
    :return: 8 faces
    """
    x, y = half_depth, half_width
    builder = MeshBuilder()
    builder.panel((x, y, 0.0), (x, -y, 0.0), eaves, wall)
    builder.panel((-x, -y, 0.0), (-x, y, 0.0), eaves, wall)
    builder.panel((-x, y, 0.0), (x, y, 0.0), eaves, wall)
    builder.panel((x, -y, 0.0), (-x, -y, 0.0), eaves, wall)
    gable = wall.painted(wall.color)
    builder.face((-x, y, eaves), (x, y, eaves), (0.0, y, ridge), (0.0, y, ridge), gable)
    builder.face((x, -y, eaves), (-x, -y, eaves), (0.0, -y, ridge), (0.0, -y, ridge), gable)
    builder.face((x, y, eaves), (x, -y, eaves), (0.0, -y, ridge), (0.0, y, ridge), roof)
    builder.face((-x, -y, eaves), (-x, y, eaves), (0.0, y, ridge), (0.0, -y, ridge), roof)
    return builder.build()


def tower(half_depth: float, half_width: float, height: float, wall: Look, roof: Color) -> Mesh:
    """
    A block with a flat roof.

    :param half_depth: along the forward axis [m]
    :param half_width: along the street [m]
    :param height: [m]
    :param wall: of the four walls
    :param roof: colour of the roof
    :return: 5 faces
    """
    builder = MeshBuilder()
    builder.box((-half_depth, -half_width, 0.0), (half_depth, half_width, height), wall, wall.painted(roof))
    return builder.build()


def shop(half_depth: float, half_width: float, height: float, wall: Look, glass: Look, fascia: Look) -> Mesh:
    """
    A town house with a shop window and a board over it, and a flat roof.

    :param half_depth: along the forward axis [m]
    :param half_width: along the street [m]
    :param height: more than the ground floor's 3.6 m [m]
    :param wall: of the house
    :param glass: of the shop window
    :param fascia: of the board
    :return: 7 faces
    """
    x, y, window = half_depth, half_width, GROUND_FLOOR - FASCIA
    builder = MeshBuilder()
    builder.panel((x, y, 0.0), (x, -y, 0.0), window, glass)
    builder.panel((x, y, window), (x, -y, window), FASCIA, fascia)
    builder.panel((x, y, GROUND_FLOOR), (x, -y, GROUND_FLOOR), height - GROUND_FLOOR, wall)
    builder.panel((-x, -y, 0.0), (-x, y, 0.0), height, wall)
    builder.panel((-x, y, 0.0), (x, y, 0.0), height, wall)
    builder.panel((x, -y, 0.0), (-x, -y, 0.0), height, wall)
    builder.face((-x, y, height), (x, y, height), (x, -y, height), (-x, -y, height), wall.painted(wall.color))
    return builder.build()


def hall(half_depth: float, half_width: float, height: float, wall: Look, gate: Look) -> Mesh:
    """
    An industrial hall with a flat roof and two gates in its front.

    :param half_depth: along the forward axis [m]
    :param half_width: along the street, at least 6 m [m]
    :param height: at least 5 m [m]
    :param wall: of the hall
    :param gate: of the gates, 4 m wide and high
    :return: 7 faces
    """
    builder = MeshBuilder()
    roof = wall.painted(wall.color, tag=BUILDINGS, pattern=Pattern.PLANKS, scale=3.0)
    builder.box((-half_depth, -half_width, 0.0), (half_depth - 0.1, half_width, height), wall, roof)
    for middle in (-0.5 * half_width, 0.5 * half_width):
        builder.panel((half_depth, middle + 2.0, 0.0), (half_depth, middle - 2.0, 0.0), 4.0, gate)
    return builder.build()
