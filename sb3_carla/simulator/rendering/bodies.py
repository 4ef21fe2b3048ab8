"""Bodies that move, or were put into the world by a client: boxes, and models of vehicles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose, rotation_matrix
from sb3_carla.simulator.rendering.mesh import Mesh
from sb3_carla.simulator.rendering.scene import BODY, FACE, records

__all__ = ["Body", "ModelStore", "box_mesh"]

CAR_TAG = int(carla.CityObjectLabel.Car)


@dataclass(frozen=True, slots=True)
class Body:
    """
    Solid body in the world.

    :param pose: of its centre
    :param half_extents: half length, half width, half height [m]
    :param color: blue, green, red, 0 to 255
    :param tag: ``carla.CityObjectLabel``
    :param model: in its own axes, origin on the ground below its centre; None: a box
    """

    pose: Pose
    half_extents: tuple[float, float, float]
    color: tuple[int, int, int] = (60, 60, 200)
    tag: int = CAR_TAG
    model: Mesh | None = None


def box_mesh(half_extents: tuple[float, float, float], color: tuple[int, int, int], tag: int) -> Mesh:
    """
    A box of one colour, without its lower side.

    :param half_extents: half length, half width, half height [m]
    :param color: blue, green, red
    :param tag: ``carla.CityObjectLabel``
    """
    length, width, height = half_extents
    top = 2.0 * height
    # Seen from outside: bottom left, bottom right, top right, top left.
    around = [(1, 1), (1, -1), (-1, -1), (-1, 1)]  # signs of forward and right, going around the box
    walls = [
        [(fa * length, ra * width, z) for (fa, ra), z in ((a, 0.0), (b, 0.0), (b, top), (a, top))]
        for a, b in zip(around, around[1:] + around[:1], strict=True)
    ]
    roof = [(f * length, r * width, top) for f, r in ((-1, -1), (-1, 1), (1, 1), (1, -1))]
    corners = np.array([*walls, roof], np.float32)
    size = np.array([(2 * width, top), (2 * length, top)] * 2 + [(2 * width, 2 * length)], np.float32)
    return Mesh.of_faces(corners, size, color, tag)


class ModelStore:
    """Faces of all models that a camera has seen, in one array: each model is converted once."""

    def __init__(self) -> None:
        self.faces = np.zeros(0, FACE)
        """Shape (f,), records of type ``FACE``."""
        self._ranges: dict[object, tuple[int, int]] = {}
        self._models: list[Mesh] = []  # kept alive, because they are known by their ids

    def place(self, bodies: Sequence[Body]) -> NDArray[np.void]:
        """
        :param bodies: in the world
        :return: shape (k,), records of type ``BODY``
        """
        rows = []
        for body in bodies:
            axes = rotation_matrix(body.pose).T.tolist()  # rows: forward, right, up
            (up_x, up_y, up_z), (length, width, height) = axes[2], body.half_extents
            # From the centre down to the ground.
            place = body.pose.x - height * up_x, body.pose.y - height * up_y, body.pose.z - height * up_z
            radius = 1.0 + math.sqrt(length * length + width * width + 4.0 * height * height)
            rows.append((place, axes, *self._range(body), (length, width), radius))
        return np.array(rows, BODY)  # faster than field by field

    def _range(self, body: Body) -> tuple[int, int]:
        key = id(body.model) if body.model is not None else (body.half_extents, body.color, body.tag)
        known = self._ranges.get(key)
        if known is None:
            model = body.model or box_mesh(body.half_extents, body.color, body.tag)
            self._models.append(model)
            first = len(self.faces)
            self.faces = np.concatenate([self.faces, records(model)[0]])
            known = self._ranges[key] = first, len(self.faces)
        return known
