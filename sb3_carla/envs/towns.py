"""The built-in towns: those to train in, and those to evaluate in, which training never sees."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["HELD_OUT_TOWNS", "TRAINING_TOWNS", "expand_towns"]

TRAINING_TOWNS: tuple[str, ...] = (
    "Circuit01",
    "Circuit02",
    "Circuit03",
    "Circuit04",
    "Circuit05",
    "Circuit09",
    "Village01",
    "Village02",
    "Village04",
    "Village05",
    "Village06",
    "Village07",
    *(f"Village{number}" for number in range(10, 42)),
    *(f"Village{number}" for number in range(44, 52)),
    *(f"Motorway0{number}" for number in range(1, 5)),
)
"""
Towns to train in. The first twelve have hand-picked styles; those of Village10 to Village41 are random. Village34 to
Village41 have three or four lanes in each direction. From Village44 on streets of several kinds meet: avenues of four
lanes, dual carriageways, streets without lines, hills. Motorways have ramps, and turning loops at their ends.
"""

HELD_OUT_TOWNS: tuple[str, ...] = (
    "Circuit06",
    "Circuit07",
    "Circuit08",
    "Village03",
    "Village08",
    "Village09",
    "Village42",
    "Village43",
    "Village52",
    "Village53",
    "Motorway05",
)
"""Towns to evaluate in: other seeds; their styles overlap with those of training but are not the same."""


def expand_towns(names: str | Iterable[str]) -> list[str]:
    """
    Names of towns, with the sets "training" and "held-out" replaced by their towns.

    :param names: one or several: names of towns or sets, paths of OpenDRIVE files, or CARLA's long names
        (``Carla/Maps/Town01`` of ``world.get_map().name``, ``/Game/Carla/Maps/Town01`` of
        ``client.get_available_maps()``)
    :return: the towns, in this order
    """
    sets = {"training": TRAINING_TOWNS, "held-out": HELD_OUT_TOWNS}
    listed = [names] if isinstance(names, str) else names
    return [town for name in listed for town in sets.get(name, (_short(name),))]


def _short(name: str) -> str:
    """A town's name without the folders of an Unreal project."""
    return name.rsplit("/", 1)[-1] if "Maps/" in name and not name.endswith(".xodr") else name
