"""Trees and bushes as sprites, in local axes; the origin is the foot of the trunk."""

from __future__ import annotations

import carla

from sb3_carla.simulator.rendering.mesh import Mesh, Shape
from sb3_carla.simulator.scenery.shapes import Color, Look, MeshBuilder

__all__ = ["broadleaf", "bush", "conifer", "palm", "poplar", "rock"]

VEGETATION, TERRAIN = int(carla.CityObjectLabel.Vegetation), int(carla.CityObjectLabel.Terrain)
BARK: Color = (48.0, 62.0, 78.0)


def _leaves(color: Color, color2: Color, scale: float) -> Look:
    return Look(VEGETATION, color, color2, scale=scale)


def _trunk(builder: MeshBuilder, width: float, height: float, bark: Color) -> None:
    builder.sprite((0.0, 0.0, 0.0), width, height, Shape.RECTANGLE, Look(VEGETATION, bark))


def _tree(height: float, bark: Color, trunk: tuple[float, float], crown: tuple[float, float, Shape, Look]) -> Mesh:
    """
    A trunk and one crown, which reaches up to the tree's top.

    :param height: of the tree [m]
    :param bark: of the trunk
    :param trunk: its width [m], and its height as a share of the tree's
    :param crown: its lower end as a share of the tree's height, its width [m], its shape and its look
    """
    low, width, shape, look = crown
    builder = MeshBuilder()
    _trunk(builder, trunk[0], trunk[1] * height, bark)
    builder.sprite((0.0, 0.0, low * height), width, (1.0 - low) * height, shape, look)
    return builder.build()


def broadleaf(height: float, width: float, colors: tuple[Color, Color], bark: Color = BARK) -> Mesh:
    """
    A broad-leaved tree: trunk, and a crown in two parts.

    :param height: of the tree [m]
    :param width: of the crown [m]
    :param colors: of the leaves
    :param bark: of the trunk
    :return: 3 sprites
    """
    builder = MeshBuilder()
    _trunk(builder, 0.05 * height, 0.45 * height, bark)
    builder.sprite((0.0, 0.0, 0.28 * height), width, 0.55 * height, Shape.CROWN, _leaves(*colors, 0.12 * width))
    builder.sprite((0.0, 0.0, 0.5 * height), 0.7 * width, 0.5 * height, Shape.CROWN, _leaves(*colors, 0.1 * width))
    return builder.build()


def conifer(height: float, width: float, colors: tuple[Color, Color], bark: Color = BARK) -> Mesh:
    """
    A fir: trunk and cone.

    :param height: of the tree [m]
    :param width: of the cone [m]
    :param colors: of the needles
    :param bark: of the trunk
    :return: 2 sprites
    """
    return _tree(height, bark, (0.04 * height, 0.2), (0.1, width, Shape.CONE, _leaves(*colors, 0.15 * width)))


def poplar(height: float, width: float, colors: tuple[Color, Color], bark: Color = BARK) -> Mesh:
    """
    A slender tree: trunk and one high crown.

    :param height: of the tree [m]
    :param width: of the crown [m]
    :param colors: of the leaves
    :param bark: of the trunk
    :return: 2 sprites
    """
    return _tree(height, bark, (0.03 * height, 0.2), (0.12, width, Shape.CROWN, _leaves(*colors, 0.2 * width)))


def palm(height: float, width: float, colors: tuple[Color, Color], bark: Color = BARK) -> Mesh:
    """
    A palm: a bare trunk and a flat crown.

    :param height: of the tree [m]
    :param width: of the crown [m]
    :param colors: of the leaves
    :param bark: of the trunk
    :return: 2 sprites
    """
    return _tree(height, bark, (0.3, 0.88), (0.72, width, Shape.CROWN, _leaves(*colors, 0.15 * width)))


def bush(height: float, width: float, colors: tuple[Color, Color]) -> Mesh:
    """
    A bush.

    :param height: [m]
    :param width: [m]
    :param colors: of the leaves
    :return: 1 sprite
    """
    builder = MeshBuilder()
    builder.sprite((0.0, 0.0, 0.0), width, height, Shape.CROWN, _leaves(*colors, 0.15 * width))
    return builder.build()


def rock(height: float, width: float, colors: tuple[Color, Color]) -> Mesh:
    """
    A hill of rock or earth, far from the road.

    :param height: [m]
    :param width: [m]
    :param colors: of its patches
    :return: 1 sprite
    """
    builder = MeshBuilder()
    look = Look(TERRAIN, colors[0], colors[1], scale=0.08 * width)
    # The lower half of the ellipse is below the ground.
    builder.sprite((0.0, 0.0, -height), width, 2.0 * height, Shape.CROWN, look)
    return builder.build()
