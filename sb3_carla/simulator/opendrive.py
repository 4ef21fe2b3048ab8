"""The catalogue of built-in towns: from a name to OpenDRIVE."""

from __future__ import annotations

from functools import lru_cache

from sb3_carla.errors import MapError
from sb3_carla.simulator.circuits import CircuitStyle, circuit_opendrive
from sb3_carla.simulator.roads import CrossSection, Marking

__all__ = ["built_in_opendrive", "circuit_opendrive"]

_WHITE = Marking("solid", "white", 0.15)
_BROKEN = Marking("broken", "white", 0.15)
_YELLOW = Marking("solid", "yellow", 0.15)

_CIRCUITS: dict[str, tuple[int, CircuitStyle]] = {
    "Circuit01": (101, CircuitStyle(CrossSection(1, 3.5, 0.0, _BROKEN, _BROKEN, _WHITE))),
    "Circuit02": (102, CircuitStyle(CrossSection(1, 3.25, 0.5, _YELLOW, _BROKEN, _WHITE), corners=10)),
    "Circuit06": (106, CircuitStyle(CrossSection(1, 3.4, 0.4, _WHITE, _BROKEN, _WHITE), corners=9)),
}


@lru_cache(maxsize=None)
def built_in_opendrive(name: str) -> str:
    """
    OpenDRIVE 1.4 of a built-in town, bit for bit the same everywhere.

    :param name: one of ``sb3_carla.towns.BUILT_IN_TOWNS``
    :return: XML
    :raises MapError: if there is no such town
    """
    if name in _CIRCUITS:
        seed, style = _CIRCUITS[name]
        return circuit_opendrive(name, seed, style)
    raise MapError(f"no built-in town is called {name!r}; available: {', '.join(sorted(_CIRCUITS))}")
