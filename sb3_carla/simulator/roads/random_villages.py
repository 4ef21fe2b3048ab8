"""
Random styles of villages: many different ones to train on.

A policy that is trained in a dozen towns learns these towns by heart. How well it does elsewhere grows with the number
of towns (Cobbe et al., Leveraging procedural generation to benchmark reinforcement learning, ICML 2020).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sb3_carla.simulator.roads.opendrive import CrossSection, Marking
from sb3_carla.simulator.roads.villages import VillageStyle

__all__ = ["random_village_style"]

_TWO_LANES = 0.4
"""Share of villages with two lanes in each direction instead of one [-]."""
_LANE_ROOM = 30.0
"""Each lane after the second adds this to the distance between two places, because junctions grow [m]."""
_EDGE_LINES = 0.6
"""Share of villages with a line at the outer edge of the driving lanes [-]."""
_COLORS, _LINES = ("white", "yellow"), ("broken", "solid")


def random_village_style(seed: int, lanes: int | None = None) -> VillageStyle:
    """
    Random style within the range of the hand-written ones in ``built_in_towns``.

    :param seed: of the random numbers
    :param lanes: in each direction; None: one or two at random
    :return: style of a village of 3 x 3 places, or 4 x 3 if it has single lanes, with up to three streets missing
    """
    rng = np.random.default_rng(seed)
    drawn = 2 if rng.random() < _TWO_LANES else 1
    lanes = drawn if lanes is None else lanes
    columns = 3 if lanes > 1 else int(rng.integers(3, 5))
    width = float(rng.uniform(0.1, 0.2))
    edge = Marking("solid", "white", width) if rng.random() < _EDGE_LINES else Marking("none")
    section = CrossSection(
        lanes,
        _tenths(rng, 3.0, 4.0 if lanes == 1 else 3.6),
        _tenths(rng, 0.0, 1.0),
        Marking(str(rng.choice(_LINES)), str(rng.choice(_COLORS)), width),
        Marking("broken", "white", width),
        edge,
        sidewalk=float(rng.choice((0.0, 2.0, 3.0, 4.0))),
    )
    jitter = _tenths(rng, 1.0, 10.0)
    # A generator of its own: what is beside the streets does not change their course.
    looks = np.random.default_rng((seed, 2))
    if not section.sidewalk:
        section = replace(section, sidewalk=_tenths(looks, 1.5, 3.0))
        share = float(looks.choice((0.0, 0.5)))
    else:
        share = _tenths(looks, 0.5, 1.0)
    return VillageStyle(
        section,
        columns=columns,
        spacing=_spacing(rng, lanes, columns),
        jitter=jitter,
        bow=_tenths(rng, 2.0, 12.0),
        missing=_missing(rng, columns, int(rng.integers(1, 4 if lanes == 1 else 3))),
        radii=(_tenths(rng, 6.5, 14.0) if lanes == 1 else _tenths(rng, 20.0, 28.0), _tenths(rng, 40.0, 60.0)),
        corner_radius=_tenths(rng, 5.0, 8.5),
        speed_kmh=30 if lanes == 1 else 40,
        sidewalk_share=share,
    )


def _spacing(rng: np.random.Generator, lanes: int, columns: int) -> float:
    if lanes == 1:
        return _tenths(rng, 85.0, 100.0 if columns > 3 else 110.0)
    return _tenths(rng, 125.0, 135.0) + _LANE_ROOM * (lanes - 2)


def _tenths(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 1)


def _missing(rng: np.random.Generator, columns: int, count: int) -> tuple[tuple[int, int], ...]:
    """Streets to leave out of a grid of three rows: each place keeps at least two, and all stay connected."""
    places = 3 * columns
    streets = [(a, a + 1) for a in range(places) if (a + 1) % columns]
    streets += [(a, a + columns) for a in range(places - columns)]
    gone: list[tuple[int, int]] = []
    for index in rng.permutation(len(streets)).tolist():
        rest = [street for street in streets if street not in gone and street != streets[index]]
        ends = [place for street in rest for place in street]
        if len(gone) < count and min(map(ends.count, range(places))) > 1 and _connected(rest, places):
            gone.append(streets[index])
    return tuple(sorted(gone))


def _connected(streets: list[tuple[int, int]], places: int) -> bool:
    reached = {0}
    for _ in range(places):
        reached |= {place for street in streets if reached & set(street) for place in street}
    return len(reached) == places
