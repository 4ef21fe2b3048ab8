"""
What stands on the ground, as flat faces and as sprites: buildings, trees, poles, cars.

A face is a quadrilateral with a pattern (:class:`Pattern`) on it. A sprite is an upright rectangle that always turns
towards the camera, with a shape cut out of it: a tree's crown, a pole, a round sign.

Heights are measured from the ground below (``base`` is the ground's height in the world), because the camera draws the
whole town as if it lay in the plane of the road under the car.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mesh", "Pattern", "Shape"]


class Pattern(IntEnum):
    """
    What a face looks like. ``scale`` of a face is the length of one repetition [m]; ``color`` and ``color2`` are its
    two colours. u runs along the first edge, v along the last one, both in metres from the first corner.
    """

    PLAIN = 0
    """One colour."""
    WINDOWS = 1
    """Windows of ``color2`` in a wall: one every ``scale`` metres, storeys of 3 m."""
    COURSES = 2
    """Rows (bricks, tiles, boards) whose brightness differs a little; a row is ``scale`` high."""
    PLANKS = 3
    """Columns whose brightness differs a little; a column is ``scale`` wide."""
    FOLIAGE = 4
    """Leaves: patches of both colours; a patch is ``scale`` wide."""
    BARS = 5
    """Upright bars of ``color``, a quarter of ``scale`` wide, with holes between them."""
    RAILS = 6
    """Level rails of ``color``, half of ``scale`` high, with holes between them."""
    STRIPES = 7
    """Upright stripes of both colours in turn, each ``scale`` wide."""


class Shape(IntEnum):
    """What is cut out of a sprite's rectangle."""

    RECTANGLE = 0
    """All of it: poles, trunks, signs."""
    ELLIPSE = 1
    """A smooth ellipse: round signs, lamps."""
    CROWN = 2
    """An ellipse of leaves with a ragged edge and a few holes: crowns of broad-leaved trees, bushes."""
    CONE = 3
    """A triangle of leaves, wide at the bottom: conifers."""


@dataclass(frozen=True)
class Mesh:
    """
    n faces and m sprites, in world axes, or in the axes of a body (forward, right, up; origin on the ground).

    Seen from its front, a face's corners are: bottom left, bottom right, top right, top left. A face is seen from its
    front only, but for ``BARS`` and ``RAILS``, which are seen from both sides.

    :param corners: shape (n, 4, 3), float32: x, y, height over the ground [m]
    :param base: shape (n,), float32: height of the ground there in the world [m]
    :param size: shape (n, 2), float32: length along u and v [m]
    :param pattern: shape (n,), int32: :class:`Pattern`
    :param scale: shape (n,), float32: repetition of the pattern [m], > 0
    :param color: shape (n, 3), float32: blue, green, red, 0 to 255, in clear daylight
    :param color2: shape (n, 3), float32: second colour of the pattern
    :param tag: shape (n,), uint8: ``carla.CityObjectLabel``
    :param glow: shape (n,), float32: share of the colour that does not depend on the light, 0 to 1: lamps, lit windows
    :param sprite_place: shape (m, 3), float32: x, y, height of the lower edge over the ground [m]
    :param sprite_base: shape (m,), float32: as ``base``
    :param sprite_size: shape (m, 2), float32: width and height [m]
    :param sprite_shape: shape (m,), int32: :class:`Shape`
    :param sprite_scale: shape (m,), float32: size of a patch of leaves [m], > 0
    :param sprite_color: shape (m, 3), float32: as ``color``
    :param sprite_color2: shape (m, 3), float32: as ``color2``
    :param sprite_tag: shape (m,), uint8: as ``tag``
    :param sprite_glow: shape (m,), float32: as ``glow``
    """

    corners: NDArray[np.float32]
    base: NDArray[np.float32]
    size: NDArray[np.float32]
    pattern: NDArray[np.int32]
    scale: NDArray[np.float32]
    color: NDArray[np.float32]
    color2: NDArray[np.float32]
    tag: NDArray[np.uint8]
    glow: NDArray[np.float32]
    sprite_place: NDArray[np.float32]
    sprite_base: NDArray[np.float32]
    sprite_size: NDArray[np.float32]
    sprite_shape: NDArray[np.int32]
    sprite_scale: NDArray[np.float32]
    sprite_color: NDArray[np.float32]
    sprite_color2: NDArray[np.float32]
    sprite_tag: NDArray[np.uint8]
    sprite_glow: NDArray[np.float32]

    @classmethod
    def of_faces(
        cls,
        corners: NDArray[np.float32],
        size: NDArray[np.float32],
        color: tuple[float, float, float],
        tag: int,
        *,
        base: NDArray[np.float32] | None = None,
        pattern: Pattern = Pattern.PLAIN,
    ) -> Mesh:
        """
        Faces of one colour, without sprites.

        :param corners: as the field
        :param size: as the field
        :param color: of all faces
        :param tag: of all faces
        :param base: as the field; None: 0
        :param pattern: of all faces, repeated every metre
        """
        faces = len(corners)
        colors = np.tile(np.array(color, np.float32), (faces, 1))
        none = np.zeros(0, np.float32)
        return cls(
            corners, np.zeros(faces, np.float32) if base is None else base, size, np.full(faces, pattern, np.int32),
            np.ones(faces, np.float32), colors, colors, np.full(faces, tag, np.uint8), np.zeros(faces, np.float32),
            none.reshape(0, 3), none, none.reshape(0, 2), none.astype(np.int32), none, none.reshape(0, 3),
            none.reshape(0, 3), none.astype(np.uint8), none,
        )  # fmt: skip

    @classmethod
    def joined(cls, meshes: Sequence[Mesh]) -> Mesh:
        """
        :param meshes: at least one, all in the same axes
        :return: all their faces and sprites, in this order
        """
        return cls(*(np.concatenate([getattr(mesh, field.name) for mesh in meshes]) for field in fields(cls)))
