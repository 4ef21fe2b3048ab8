"""
All models of the scenery, as functions that give a :class:`Mesh` in local axes (forward, right, up; on the ground).

:func:`car` and :func:`truck` are made for any size; parked cars and driven ones use them.
"""

from __future__ import annotations

from sb3_carla.simulator.scenery.buildings import hall, house, shop, tower
from sb3_carla.simulator.scenery.furniture import (
    bench,
    bin_,
    block,
    fence,
    guard_rail,
    hydrant,
    lamp_post,
    pole,
    sign,
    solid_wall,
    utility_pole,
)
from sb3_carla.simulator.scenery.plants import broadleaf, bush, conifer, palm, poplar, rock
from sb3_carla.simulator.scenery.vehicles import car, truck

__all__ = [
    "bench",
    "bin_",
    "block",
    "broadleaf",
    "bush",
    "car",
    "conifer",
    "fence",
    "guard_rail",
    "hall",
    "house",
    "hydrant",
    "lamp_post",
    "palm",
    "pole",
    "poplar",
    "rock",
    "shop",
    "sign",
    "solid_wall",
    "tower",
    "truck",
    "utility_pole",
]
