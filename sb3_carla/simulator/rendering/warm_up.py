"""Compiles the camera's kernels, or loads them from disk, before anybody waits for a picture."""

from __future__ import annotations

import fcntl
import math
from contextlib import suppress
from types import SimpleNamespace
from typing import cast

import numpy as np

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering import rasteriser
from sb3_carla.simulator.rendering.bodies import Body
from sb3_carla.simulator.rendering.camera import Camera, Terrain
from sb3_carla.simulator.rendering.raster import LEVELS
from sb3_carla.simulator.rendering.scene import FACE, SPRITE, static_scene
from sb3_carla.simulator.rendering.weather import Weather

__all__ = ["warm_up"]


def warm_up() -> None:
    """
    Draw a picture of nothing. At the first use ever this takes some twelve seconds of a core, later a fraction of one.

    Of several processes that begin at the same time one compiles; the others wait for it, and load what it has kept.
    """
    with open(rasteriser.__file__, "rb") as source:
        with suppress(OSError):  # a file system without locks: each compiles for itself
            fcntl.flock(source, fcntl.LOCK_EX)  # given back with the file
        nothing = static_scene(np.zeros(0, FACE), np.zeros(0, SPRITE))
        raster = SimpleNamespace(
            texels=np.zeros(LEVELS, np.uint32), levels=np.array([(k, 1, 1) for k in range(LEVELS)], np.int64),
            origin=(0.0, 0.0), cell=0.1, select_roads=lambda *_: None,
        )  # fmt: skip
        nowhere = SimpleNamespace(raster=raster, scene=nothing, lamps=np.zeros((0, 3)), seed=0, is_flat=True)
        body = Body(Pose(x=5.0), (1.0, 1.0, 1.0))
        Camera(2, 2, 0.5 * math.pi).render(cast(Terrain, nowhere), Pose(z=1.0), Ground(0.0), Weather(), [body])
