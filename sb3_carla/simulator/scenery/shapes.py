"""Builds meshes out of boxes, panels and sprites, and puts copies of a mesh into the world."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.mesh import Mesh, Pattern, Shape

__all__ = ["Color", "Look", "MeshBuilder", "empty_mesh", "placed"]

Color = tuple[float, float, float]
"""Blue, green, red, 0 to 255."""
Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Look:
    """
    Surface of a face or a sprite; see :class:`Mesh` for the fields.

    :param tag: ``carla.CityObjectLabel``
    :param color: blue, green, red, 0 to 255
    :param color2: second colour; None: as the first
    :param pattern: of faces
    :param scale: repetition [m], > 0
    :param glow: 0 to 1
    """

    tag: int
    color: Color
    color2: Color | None = None
    pattern: Pattern = Pattern.PLAIN
    scale: float = 1.0
    glow: float = 0.0

    def painted(self, color: Color, **changes: Any) -> Look:
        """The same look, plain and in another colour; ``changes`` replace other fields."""
        return replace(self, **{"color": color, "color2": None, "pattern": Pattern.PLAIN, **changes})


@dataclass
class MeshBuilder:
    """Collects faces and sprites in local axes: forward, right, up; the origin lies on the ground."""

    _faces: list[tuple[tuple[Point, Point, Point, Point], Look]] = field(default_factory=list)
    _sprites: list[tuple[Point, float, float, Shape, Look]] = field(default_factory=list)

    def face(self, bottom_left: Point, bottom_right: Point, top_right: Point, top_left: Point, look: Look) -> None:
        """
        A quadrilateral; its corners as seen from its front.

        With z up, it faces along the cross product of its left edge (upwards) and its lower edge (to the right).
        """
        self._faces.append(((bottom_left, bottom_right, top_right, top_left), look))

    def box(self, low: Point, high: Point, look: Look, top: Look | None = None, *, inset: float = 0.0) -> None:
        """
        Four walls and a roof.

        :param low: least x, y, z [m]
        :param high: greatest x, y, z [m]
        :param look: of the walls
        :param top: of the roof; None: as the walls, plain
        :param inset: how much narrower the roof is than the floor, at each side [m]
        """
        (x, y, z), (front, right, up) = low, high
        rear_top, front_top, left_top, right_top = x + inset, front - inset, y + inset, right - inset
        corners = {
            "front": ((front, right, z), (front, y, z), (front_top, left_top, up), (front_top, right_top, up)),
            "rear": ((x, y, z), (x, right, z), (rear_top, right_top, up), (rear_top, left_top, up)),
            "right": ((x, right, z), (front, right, z), (front_top, right_top, up), (rear_top, right_top, up)),
            "left": ((front, y, z), (x, y, z), (rear_top, left_top, up), (front_top, left_top, up)),
        }
        for four in corners.values():
            self.face(*four, look)
        self.face(
            (rear_top, right_top, up),
            (front_top, right_top, up),
            (front_top, left_top, up),
            (rear_top, left_top, up),
            top or look.painted(look.color),
        )

    def panel(self, start: Point, end: Point, height: float, look: Look, *, both_sides: bool = False) -> None:
        """
        An upright rectangle; its front is where ``start`` is left of ``end``.

        :param start: lower left corner
        :param end: lower right corner
        :param height: [m]
        :param look: of the rectangle
        :param both_sides: whether it gets a second face for the other side
        """
        (ax, ay, az), (bx, by, bz) = start, end
        self.face(start, end, (bx, by, bz + height), (ax, ay, az + height), look)
        if both_sides:
            self.face(end, start, (ax, ay, az + height), (bx, by, bz + height), look)

    def sprite(self, place: Point, width: float, height: float, shape: Shape, look: Look) -> None:
        """
        An upright shape that turns towards the camera.

        :param place: middle of its lower edge
        :param width: [m]
        :param height: [m]
        :param shape: what is cut out
        :param look: of the sprite; its pattern has no meaning
        """
        self._sprites.append((place, width, height, shape, look))

    def build(self) -> Mesh:
        """
        All of it as a mesh.

        :return: in local axes, with ``base`` 0
        """
        corners = np.array([four for four, _ in self._faces], np.float32).reshape(-1, 4, 3)
        looks, sprite_looks = [look for _, look in self._faces], [sprite[4] for sprite in self._sprites]
        return Mesh(
            corners=corners,
            base=np.zeros(len(looks), np.float32),
            size=_size(corners),
            pattern=np.array([look.pattern for look in looks], np.int32),
            scale=_numbers([look.scale for look in looks]),
            color=_colors([look.color for look in looks]),
            color2=_colors([look.color2 or look.color for look in looks]),
            tag=np.array([look.tag for look in looks], np.uint8),
            glow=_numbers([look.glow for look in looks]),
            sprite_place=_colors([sprite[0] for sprite in self._sprites]),
            sprite_base=np.zeros(len(sprite_looks), np.float32),
            sprite_size=np.array([sprite[1:3] for sprite in self._sprites], np.float32).reshape(-1, 2),
            sprite_shape=np.array([sprite[3] for sprite in self._sprites], np.int32),
            sprite_scale=_numbers([look.scale for look in sprite_looks]),
            sprite_color=_colors([look.color for look in sprite_looks]),
            sprite_color2=_colors([look.color2 or look.color for look in sprite_looks]),
            sprite_tag=np.array([look.tag for look in sprite_looks], np.uint8),
            sprite_glow=_numbers([look.glow for look in sprite_looks]),
        )


def _numbers(values: list[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def _colors(values: list[Color]) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(-1, 3)


def _size(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lengths of the first and of the last edge: shape (n, 4, 3) to (n, 2)."""
    edges = corners[:, 1::2] - corners[:, :1]
    lengths: NDArray[np.float32] = np.sqrt((edges * edges).sum(axis=2))
    return lengths


def empty_mesh() -> Mesh:
    """A mesh without faces and sprites."""
    return MeshBuilder().build()


def placed(
    mesh: Mesh,
    places: NDArray[np.float64],
    yaw: NDArray[np.float64],
    base: NDArray[np.float64],
    tint: NDArray[np.float64],
    stretch: NDArray[np.float64],
) -> Mesh:
    """
    Copies of a mesh in the world.

    :param mesh: in local axes, n faces and m sprites
    :param places: shape (k, 2), world x and y of each copy's origin [m]
    :param yaw: shape (k,), direction of each copy's forward axis [rad]
    :param base: shape (k,), height of the ground under each copy [m]
    :param tint: shape (k, 3), factor of the colours of each copy
    :param stretch: shape (k,), factor of the length of each copy along its forward axis
    :return: k * n faces and k * m sprites, one copy after the other
    """
    copies, faces, sprites = len(places), len(mesh.base), len(mesh.sprite_base)

    def repeated(values: NDArray[Any]) -> Any:
        return np.tile(values, (copies, *([1] * (values.ndim - 1))))

    def tinted(colors: NDArray[np.float32]) -> NDArray[np.float32]:
        # (k, 1, 3) * (1, n, 3) -> (k * n, 3)
        return np.clip(tint[:, None] * colors[None], 0.0, 255.0).reshape(-1, 3).astype(np.float32)

    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]

    def moved(points: NDArray[np.float32]) -> NDArray[np.float32]:
        x, y, z = points[None, :, 0] * stretch[:, None], points[None, :, 1], points[None, :, 2]
        at_x = places[:, :1] + cos * x - sin * y
        at_y = places[:, 1:] + sin * x + cos * y
        result: NDArray[np.float32] = np.stack([at_x, at_y, np.broadcast_to(z, at_x.shape)], axis=2).astype(np.float32)
        return result

    corners = moved(mesh.corners.reshape(-1, 3)).reshape(copies * faces, 4, 3)
    return Mesh(
        corners=corners,
        base=np.repeat(base, faces).astype(np.float32),
        size=_size(corners),
        pattern=repeated(mesh.pattern),
        scale=repeated(mesh.scale),
        color=tinted(mesh.color),
        color2=tinted(mesh.color2),
        tag=repeated(mesh.tag),
        glow=repeated(mesh.glow),
        sprite_place=moved(mesh.sprite_place).reshape(copies * sprites, 3),
        sprite_base=np.repeat(base, sprites).astype(np.float32),
        sprite_size=repeated(mesh.sprite_size),
        sprite_shape=repeated(mesh.sprite_shape),
        sprite_scale=repeated(mesh.sprite_scale),
        sprite_color=tinted(mesh.sprite_color),
        sprite_color2=tinted(mesh.sprite_color2),
        sprite_tag=repeated(mesh.sprite_tag),
        sprite_glow=repeated(mesh.sprite_glow),
    )
