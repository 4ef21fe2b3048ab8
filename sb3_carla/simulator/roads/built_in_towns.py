"""
Catalogue of the built-in towns: seed and style of each. Those with several kinds of streets are in ``city_styles``.

``sb3_carla.envs.towns`` says which towns are for training. The others are held out: their seeds are different, and
their styles overlap with those of the training towns, but none is equal.

To add a town, give it a seed and a style here or there, list it in ``sb3_carla.envs.towns``, and add its fingerprint
(and its lanes, slope and tightest bend, if unusual) to the tests of the towns.
"""

from __future__ import annotations

from functools import lru_cache

from sb3_carla.errors import MapError
from sb3_carla.simulator.roads.circuits import CircuitStyle, circuit_opendrive
from sb3_carla.simulator.roads.city_styles import CITIES, MOTORWAYS
from sb3_carla.simulator.roads.motorways import motorway_opendrive
from sb3_carla.simulator.roads.opendrive import CrossSection, Marking
from sb3_carla.simulator.roads.random_villages import random_village_style
from sb3_carla.simulator.roads.villages import VillageStyle, village_opendrive

__all__ = ["BUILT_IN_TOWNS", "built_in_opendrive"]


def _broken(color: str = "white", width: float = 0.15) -> Marking:
    return Marking("broken", color, width)


def _solid(color: str = "white", width: float = 0.15) -> Marking:
    return Marking("solid", color, width)


_NONE = Marking("none")

_CIRCUITS: dict[str, tuple[int, CircuitStyle]] = {
    # Training.
    "Circuit01": (
        101,
        CircuitStyle(
            CrossSection(1, 3.5, 0.0, _broken(), _broken(), _solid()), corners=10, turning=10.0, sidewalk=(2.2, 0.5)
        ),
    ),
    "Circuit02": (
        102,
        CircuitStyle(
            CrossSection(1, 3.0, 0.5, _solid("yellow", 0.12), _broken(), _solid(width=0.12)),
            corners=13,
            dent=0.7,
            turning=13.5,
            size=(320.0, 280.0),
            radii=(12.0, 45.0),
            speed_kmh=30,
            sidewalk=(1.8, 0.4),
        ),
    ),
    "Circuit03": (
        103,
        CircuitStyle(
            CrossSection(2, 3.5, 0.0, _solid("yellow"), _broken(width=0.12), _solid()),
            size=(345.0, 320.0),
            dent=0.6,
            corners=9,
            turning=10.0,
            radii=(28.0, 60.0),
            speed_kmh=50,
            sidewalk=(3.0, 0.6),
        ),
    ),
    "Circuit04": (
        104,
        CircuitStyle(
            CrossSection(1, 4.0, 0.8, _broken("yellow", 0.2), _broken(), _solid(width=0.2)),
            corners=11,
            dent=0.65,
            size=(320.0, 260.0),
            turning=12.0,
            slope=0.045,
            bend_centre=_solid("yellow", 0.2),
        ),
    ),
    "Circuit05": (
        105,
        CircuitStyle(
            CrossSection(2, 3.25, 0.3, _solid(width=0.2), _broken(width=0.15), _solid(width=0.15)),
            corners=11,
            dent=0.65,
            turning=11.0,
            size=(345.0, 345.0),
            radii=(28.0, 60.0),
            speed_kmh=50,
            sidewalk=(2.5, 0.5),
        ),
    ),
    "Circuit09": (
        109,
        CircuitStyle(
            CrossSection(3, 3.5, 2.5, _solid("yellow"), _broken(width=0.12), _solid()),
            size=(350.0, 350.0),
            dent=0.55,
            corners=8,
            turning=8.0,
            radii=(30.0, 80.0),
            speed_kmh=60,
        ),
    ),
    # Held out.
    "Circuit06": (
        206,
        CircuitStyle(
            CrossSection(1, 3.3, 0.4, _broken(width=0.13), _broken(), _solid(width=0.16)),
            corners=12,
            dent=0.65,
            turning=13.0,
            size=(310.0, 270.0),
            radii=(13.0, 50.0),
            bend_centre=_solid(width=0.13),
            sidewalk=(2.0, 0.5),
        ),
    ),
    "Circuit07": (
        207,
        CircuitStyle(
            CrossSection(2, 3.4, 0.6, _solid("yellow", 0.18), _broken(width=0.14), _solid(width=0.18)),
            corners=10,
            dent=0.6,
            turning=10.5,
            size=(345.0, 330.0),
            radii=(28.0, 55.0),
            speed_kmh=50,
            sidewalk=(2.6, 0.6),
        ),
    ),
    "Circuit08": (
        208,
        CircuitStyle(
            CrossSection(1, 3.7, 1.0, _solid("yellow", 0.16), _broken(), _solid(width=0.14)),
            corners=11,
            dent=0.6,
            turning=11.5,
            size=(330.0, 280.0),
            radii=(14.0, 55.0),
            slope=0.04,
        ),
    ),
}

_VILLAGES: dict[str, tuple[int, VillageStyle]] = {
    # Training.
    "Village01": (
        301,
        VillageStyle(
            CrossSection(1, 3.4, 0.3, _broken("yellow"), _broken(), _solid(), sidewalk=2.5),
            sidewalk_share=0.6,
        ),
    ),
    "Village02": (
        302,
        VillageStyle(
            CrossSection(2, 3.2, 0.0, _solid("yellow"), _broken(), _solid(), sidewalk=3.0),
            spacing=130.0,
            missing=((3, 4),),
            radii=(28.0, 60.0),
            speed_kmh=40,
            sidewalk_share=0.7,
        ),
    ),
    # Streets at right angles between pavements, as in an American suburb.
    "Village04": (
        304,
        VillageStyle(
            CrossSection(1, 4.0, 0.3, _broken("yellow", 0.12), _broken(), _NONE, sidewalk=4.0),
            columns=4,
            spacing=82.0,
            jitter=1.0,
            bow=2.0,
            missing=((1, 5), (4, 5), (6, 10)),
            radii=(6.5, 40.0),
            corner_radius=5.0,
            sidewalk_share=0.85,
        ),
    ),
    "Village05": (
        305,
        VillageStyle(
            CrossSection(1, 3.1, 0.0, _broken(width=0.13), _broken(), _NONE, sidewalk=2.0),
            columns=4,
            spacing=85.0,
            jitter=7.0,
            missing=((2, 6), (5, 9)),
            radii=(8.0, 40.0),
            corner_radius=6.0,
            sidewalk_share=0.7,
        ),
    ),
    # No edge lines.
    "Village06": (
        306,
        VillageStyle(
            CrossSection(1, 3.7, 0.6, _broken(width=0.2), _broken(), _NONE),
            spacing=100.0,
            jitter=10.0,
            bow=14.0,
            missing=((1, 4), (3, 4)),
            radii=(9.0, 50.0),
            corner_radius=7.0,
        ),
    ),
    "Village07": (
        307,
        VillageStyle(
            CrossSection(2, 3.5, 1.5, _solid("yellow", 0.18), _broken(width=0.12), _solid(width=0.18), sidewalk=3.0),
            spacing=135.0,
            jitter=4.0,
            bow=6.0,
            missing=((4, 7),),
            radii=(20.0, 60.0),
            corner_radius=6.0,
            speed_kmh=50,
            sidewalk_share=0.6,
        ),
    ),
    **{f"Village{number}": (300 + number, random_village_style(300 + number)) for number in range(10, 34)},
    **{f"Village{number}": (300 + number, random_village_style(300 + number, lanes=3)) for number in range(34, 39)},
    **{f"Village{number}": (300 + number, random_village_style(300 + number, lanes=4)) for number in range(39, 42)},
    # Held out.
    "Village03": (
        403,
        VillageStyle(
            CrossSection(1, 3.5, 0.5, _broken(width=0.14), _broken(), _solid(width=0.14), sidewalk=2.0),
            columns=4,
            spacing=95.0,
            jitter=10.0,
            missing=((1, 5),),
            radii=(14.0, 45.0),
            sidewalk_share=0.5,
        ),
    ),
    "Village08": (
        408,
        VillageStyle(
            CrossSection(1, 3.8, 0.4, _broken("yellow", 0.14), _broken(), _NONE, sidewalk=3.0),
            columns=4,
            spacing=88.0,
            jitter=3.0,
            bow=5.0,
            missing=((1, 5), (5, 6), (6, 10)),
            radii=(7.0, 45.0),
            corner_radius=5.5,
            sidewalk_share=0.8,
        ),
    ),
    "Village09": (
        409,
        VillageStyle(
            CrossSection(2, 3.3, 0.5, _solid(width=0.15), _broken(), _solid(width=0.12), sidewalk=2.5),
            spacing=125.0,
            missing=((1, 4),),
            radii=(22.0, 55.0),
            corner_radius=7.0,
            speed_kmh=40,
            sidewalk_share=0.7,
        ),
    ),
    "Village42": (
        442,
        VillageStyle(
            CrossSection(3, 3.3, 0.4, _solid("yellow", 0.16), _broken(width=0.16), _solid(width=0.14), sidewalk=2.0),
            spacing=155.0,
            bow=9.0,
            missing=((3, 4),),
            radii=(26.0, 55.0),
            corner_radius=7.0,
            speed_kmh=50,
            sidewalk_share=0.7,
        ),
    ),
    "Village43": (
        443,
        VillageStyle(
            CrossSection(4, 3.4, 0.2, _broken("yellow", 0.13), _broken(width=0.13), _NONE, sidewalk=3.0),
            spacing=190.0,
            bow=5.0,
            radii=(24.0, 50.0),
            corner_radius=6.0,
            speed_kmh=40,
            sidewalk_share=0.8,
        ),
    ),
    **CITIES,
}

BUILT_IN_TOWNS: tuple[str, ...] = tuple(sorted((*_CIRCUITS, *_VILLAGES, *MOTORWAYS)))
"""Names of all built-in towns, sorted."""


@lru_cache
def built_in_opendrive(name: str) -> str:
    """
    OpenDRIVE 1.4 text of a built-in town, bit for bit the same everywhere.

    :param name: one of :data:`BUILT_IN_TOWNS`
    :return: XML
    :raises MapError: if there is no such town
    """
    if name in _CIRCUITS:
        return circuit_opendrive(name, *_CIRCUITS[name])
    if name in _VILLAGES:
        return village_opendrive(name, *_VILLAGES[name])
    if name in MOTORWAYS:
        return motorway_opendrive(name, *MOTORWAYS[name])
    raise MapError(f"no built-in town is called {name!r}; available: {', '.join(BUILT_IN_TOWNS)}")
