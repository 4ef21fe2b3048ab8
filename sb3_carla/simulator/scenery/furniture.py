"""
What stands on pavements and verges, and what runs along them, in local axes.

Posts and signs face forward. Walls, hedges, fences and rails run along the forward axis and are 1 m long, from -0.5 to
0.5 m: they are stretched where they are placed.
"""

from __future__ import annotations

import carla

from sb3_carla.simulator.rendering.mesh import Mesh, Pattern, Shape
from sb3_carla.simulator.scenery.shapes import Color, Look, MeshBuilder

__all__ = [
    "bench",
    "bin_",
    "block",
    "fence",
    "guard_rail",
    "hydrant",
    "lamp_post",
    "pole",
    "sign",
    "solid_wall",
    "utility_pole",
]

_LABEL = carla.CityObjectLabel
POLES, SIGNS, STATIC, GUARD_RAIL = (
    int(label) for label in (_LABEL.Poles, _LABEL.TrafficSigns, _LABEL.Static, _LABEL.GuardRail)
)
FENCES = int(_LABEL.Fences)
LAMP_GLASS: Color = (200.0, 230.0, 245.0)


def lamp_post(height: float, arm: float, color: Color) -> Mesh:
    """
    A street light: a post, an arm that reaches forward, and the lamp at its end.

    :param height: of the lamp [m]
    :param arm: length of the arm [m]; 0: the lamp stands on the post
    :param color: of the post
    :return: up to 2 faces, 2 sprites
    """
    metal = Look(POLES, color)
    builder = MeshBuilder()
    builder.sprite((0.0, 0.0, 0.0), 0.2, height, Shape.RECTANGLE, metal)
    if arm > 0.0:
        builder.panel((0.0, 0.0, height - 0.15), (arm, 0.0, height - 0.1), 0.15, metal, both_sides=True)
    builder.sprite((arm, 0.0, height - 0.25), 0.7, 0.3, Shape.ELLIPSE, Look(POLES, LAMP_GLASS, glow=0.8))
    return builder.build()


def pole(height: float, width: float, color: Color, glow: float = 0.0) -> Mesh:
    """
    A bare post, or a bollard.

    :param height: [m]
    :param width: [m]
    :param color: of the post
    :param glow: 0 to 1
    :return: 1 sprite
    """
    builder = MeshBuilder()
    builder.sprite((0.0, 0.0, 0.0), width, height, Shape.RECTANGLE, Look(POLES, color, glow=glow))
    return builder.build()


def utility_pole(height: float, color: Color) -> Mesh:
    """
    A wooden pole with two cross-arms, across the forward axis.

    :param height: [m]
    :param color: of the wood
    :return: 4 faces, 1 sprite
    """
    wood = Look(POLES, color)
    builder = MeshBuilder()
    builder.sprite((0.0, 0.0, 0.0), 0.28, height, Shape.RECTANGLE, wood)
    for drop in (0.6, 1.4):
        builder.panel((0.0, 0.9, height - drop), (0.0, -0.9, height - drop), 0.15, wood, both_sides=True)
    return builder.build()


def sign(height: float, width: float, shape: Shape, colors: tuple[Color, Color], post: Color) -> Mesh:
    """
    A traffic sign that faces forward; its back is grey.

    :param height: of the upper edge [m]
    :param width: of the plate [m]
    :param shape: ``ELLIPSE``: a round plate with a rim; else a rectangular plate
    :param colors: of the plate and of its rim
    :param post: of the post
    :return: up to 2 faces, up to 3 sprites
    """
    plate, rim = (Look(SIGNS, color) for color in colors)
    builder = MeshBuilder()
    builder.sprite((0.0, 0.0, 0.0), 0.09, height, Shape.RECTANGLE, Look(POLES, post))
    low = height - width
    if shape is Shape.ELLIPSE:
        builder.sprite((0.0, 0.0, low), width, width, shape, rim)
        builder.sprite((0.05, 0.0, low + 0.14 * width), 0.72 * width, 0.72 * width, shape, plate)
        return builder.build()
    half = 0.5 * width
    builder.panel((0.06, half, low), (0.06, -half, low), width, rim.painted(colors[0]))
    builder.panel((0.06, -half, low), (0.06, half, low), width, rim.painted((130.0, 130.0, 130.0)))
    return builder.build()


def bin_(width: float, height: float, color: Color) -> Mesh:
    """
    A waste bin, a letter box or a cabinet: a box.

    :param width: [m]
    :param height: [m]
    :param color: of the box
    :return: 5 faces
    """
    half = 0.5 * width
    builder = MeshBuilder()
    builder.box((-half, -half, 0.0), (half, half, height), Look(STATIC, color))
    return builder.build()


def hydrant(color: Color) -> Mesh:
    """
    A hydrant, 0.8 m high.

    :param color: of the hydrant
    :return: 2 sprites
    """
    builder = MeshBuilder()
    builder.sprite((0.0, 0.0, 0.0), 0.28, 0.7, Shape.RECTANGLE, Look(STATIC, color))
    builder.sprite((0.0, 0.0, 0.5), 0.42, 0.3, Shape.ELLIPSE, Look(STATIC, color))
    return builder.build()


def bench(color: Color) -> Mesh:
    """
    A bench 1.8 m long: a seat, and a back at its rear.

    :param color: of the wood
    :return: 7 faces
    """
    wood = Look(STATIC, color, pattern=Pattern.COURSES, scale=0.12)
    builder = MeshBuilder()
    builder.box((-0.25, -0.9, 0.0), (0.25, 0.9, 0.45), wood)
    builder.panel((-0.2, 0.9, 0.45), (-0.2, -0.9, 0.45), 0.4, wood, both_sides=True)
    return builder.build()


def solid_wall(height: float, thickness: float, look: Look, top: Look, inset: float = 0.0) -> Mesh:
    """
    A wall, a hedge or a concrete barrier.

    :param height: [m]
    :param thickness: [m]
    :param look: of both sides
    :param top: of its upper side
    :param inset: how much narrower it is at the top, at each side [m]
    :return: 3 faces
    """
    low, high = 0.5 * thickness, 0.5 * thickness - inset
    builder = MeshBuilder()
    for side in (1.0, -1.0):
        start, end = -0.5 * side, 0.5 * side
        corners = ((start, side * low, 0.0), (end, side * low, 0.0), (end, side * high, height))
        builder.face(*corners, (start, side * high, height), look)
    builder.face((-0.5, high, height), (0.5, high, height), (0.5, -high, height), (-0.5, -high, height), top)
    return builder.build()


def fence(height: float, look: Look) -> Mesh:
    """
    A fence, seen from both sides if its pattern is ``BARS`` or ``RAILS``.

    :param height: [m]
    :param look: of the fence
    :return: 1 face for these patterns, else 2
    """
    builder = MeshBuilder()
    through = look.pattern in (Pattern.BARS, Pattern.RAILS)
    builder.panel((-0.5, 0.0, 0.0), (0.5, 0.0, 0.0), height, look, both_sides=not through)
    return builder.build()


def guard_rail(color: Color, post: Color) -> Mesh:
    """
    A guard rail on posts, 0.75 m high.

    :param color: of the rail
    :param post: of the posts
    :return: 3 faces
    """
    builder = MeshBuilder()
    builder.panel((-0.5, 0.0, 0.0), (0.5, 0.0, 0.0), 0.45, Look(GUARD_RAIL, post, pattern=Pattern.BARS, scale=0.6))
    rail = Look(GUARD_RAIL, color, pattern=Pattern.COURSES, scale=0.1)
    builder.panel((-0.5, 0.0, 0.45), (0.5, 0.0, 0.45), 0.3, rail, both_sides=True)
    return builder.build()


def block(half_extents: tuple[float, float, float], look: Look) -> Mesh:
    """
    A box: a container, a stack of boards, a planter, a bale of hay.

    :param half_extents: half length, half width, half height [m]
    :param look: of all sides
    :return: 5 faces
    """
    length, width, height = half_extents
    builder = MeshBuilder()
    builder.box((-length, -width, 0.0), (length, width, 2.0 * height), look)
    return builder.build()
