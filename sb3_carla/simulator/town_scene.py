"""A town's scenery as arrays that processes share: what the camera draws, what lights the ground, what cars hit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.scene import FACE, GRID, SPRITE, StaticScene, records, static_scene
from sb3_carla.simulator.rendering.shared_rasters import Buffer
from sb3_carla.simulator.scenery.scenery import Scenery

__all__ = ["TownScene", "load_town_scene"]

_TYPES = {
    "faces": (FACE, ()),
    "sprites": (SPRITE, ()),
    "starts": (np.dtype(np.int64), ()),
    "grid": (GRID, ()),
    "lamps": (np.dtype(np.float64), (3,)),
    "solids": (np.dtype(np.float64), (7,)),
    "solid_layers": (np.dtype(np.int64), ()),
    "solid_tags": (np.dtype(np.int64), ()),
}
"""Type of each array and the shape of one entry, in the order in which they lie in the buffer."""


class TownScene(NamedTuple):
    """
    A town's scenery as arrays.

    :param static: for the camera
    :param lamps: shape (l, 3), float64: x, y, height over the ground of street lights [m]
    :param solids: shape (k, 7), float64: see :class:`sb3_carla.simulator.scenery.scenery.Scenery`
    :param solid_layers: shape (k,), int64: ``carla.MapLayer``
    :param solid_tags: shape (k,), int64: ``carla.CityObjectLabel``
    """

    static: StaticScene
    lamps: NDArray[np.float64]
    solids: NDArray[np.float64]
    solid_layers: NDArray[np.int64]
    solid_tags: NDArray[np.int64]


def load_town_scene(
    build: Callable[[], Scenery], allocate: Callable[[int, Callable[[Buffer], None]], Buffer]
) -> TownScene:
    """
    Build a town's scenery, unless another process has done so already.

    :param build: builds it
    :param allocate: ``allocate(size, fill)`` returns a buffer of ``size`` bytes that ``fill`` has filled, or that
        another process has filled already
    """
    arrays: dict[str, NDArray[np.generic]] = {}

    def built() -> dict[str, NDArray[np.generic]]:
        if not arrays:
            arrays.update(_arrays(build()))
        return arrays

    def write_counts(buffer: Buffer) -> None:
        buffer.view(np.int64)[:] = [len(built()[name]) for name in _TYPES]

    counts = allocate(8 * len(_TYPES), write_counts).view(np.int64).tolist()
    sizes = [
        count * kind.itemsize * math.prod(shape) for count, (kind, shape) in zip(counts, _TYPES.values(), strict=True)
    ]
    ends = np.cumsum([-(-size // 8) * 8 for size in sizes]).tolist()  # whole words, so that numbers are aligned

    def write(buffer: Buffer) -> None:
        for name, size, end in zip(_TYPES, sizes, ends, strict=True):
            start = end - -(-size // 8) * 8
            buffer[start : start + size] = np.ascontiguousarray(built()[name]).reshape(-1).view(np.uint8)

    # One word more, so that the size is not that of another buffer of this town, nor zero.
    whole = allocate(ends[-1] + 8, write)
    parts = {
        name: whole[end - -(-size // 8) * 8 :][:size].view(kind).reshape(-1, *shape)
        for (name, (kind, shape)), size, end in zip(_TYPES.items(), sizes, ends, strict=True)
    }
    static = StaticScene(parts["faces"], parts["sprites"], parts["starts"].reshape(2, -1), parts["grid"])
    return TownScene(static, parts["lamps"], parts["solids"], parts["solid_layers"], parts["solid_tags"])


def _arrays(scenery: Scenery) -> dict[str, NDArray[np.generic]]:
    static = static_scene(*records(scenery.mesh, scenery.face_layer, scenery.sprite_layer))
    return {
        "faces": static.faces,
        "sprites": static.sprites,
        "starts": static.starts.reshape(-1),
        "grid": static.grid,
        "lamps": scenery.lamps.astype(np.float64),
        "solids": scenery.solids.astype(np.float64),
        "solid_layers": scenery.solid_layer.astype(np.int64),
        "solid_tags": scenery.solid_tag.astype(np.int64),
    }
