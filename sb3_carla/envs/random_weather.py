"""Random weather and sun, anywhere in CARLA's ranges: the group ``weather`` of ``randomize``."""

from __future__ import annotations

import numpy as np

__all__ = ["KINDS", "draw_weather"]

KINDS = {"clear": 0.25, "cloudy": 0.2, "rain": 0.2, "wet": 0.15, "fog": 0.12, "dust": 0.08}
"""Kinds of weather, and their shares."""
SUN = {"day": (0.66, 10.0, 90.0), "dusk": (0.16, -6.0, 10.0), "night": (0.18, -90.0, -6.0)}
"""Share of the episodes, least and greatest altitude of the sun [deg]."""
FULL = 100.0
"""[%]"""


def draw_weather(rng: np.random.Generator) -> dict[str, float]:
    """
    Draw a kind of weather, then numbers that go together: rain has clouds and a wet road, after rain the road is wet.

    :param rng: source of randomness
    :return: parameters of ``carla.WeatherParameters``, in its units
    """
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    _, low, high = SUN[str(rng.choice(list(SUN), p=[share for share, _, _ in SUN.values()]))]
    weather = {
        "sun_altitude_angle": float(rng.uniform(low, high)),
        "sun_azimuth_angle": float(rng.uniform(0.0, 360.0)),
        "wind_intensity": FULL * float(rng.random() ** 2),
        "cloudiness": float(rng.uniform(0.0, 30.0)),
        "precipitation": 0.0,
        "precipitation_deposits": 0.0,
        "wetness": 0.0,
        "fog_density": float(rng.uniform(0.0, 5.0)),
        "fog_distance": 0.75,
        "dust_storm": 0.0,
    }
    return {**weather, **_of_kind(kind, rng)}


def _of_kind(kind: str, rng: np.random.Generator) -> dict[str, float]:
    """The parameters that make a kind what it is."""
    strength = float(rng.random())
    if kind == "cloudy":
        return {"cloudiness": 30.0 + 70.0 * strength}
    if kind == "rain":
        return {
            "cloudiness": float(rng.uniform(50.0, FULL)),
            "precipitation": 10.0 + 90.0 * strength,
            "precipitation_deposits": float(rng.uniform(20.0, FULL)),
            "wetness": float(rng.uniform(40.0, FULL)),
            "fog_density": float(rng.uniform(0.0, 20.0)),
        }
    if kind == "wet":
        return {
            "cloudiness": float(rng.uniform(0.0, FULL)),
            "precipitation_deposits": FULL * strength,
            "wetness": float(rng.uniform(30.0, FULL)),
        }
    if kind == "fog":
        return {
            "cloudiness": float(rng.uniform(0.0, FULL)),
            "fog_density": 10.0 + 90.0 * strength,
            "fog_distance": float(rng.uniform(0.0, 60.0)),
        }
    return {"dust_storm": 20.0 + 80.0 * strength} if kind == "dust" else {}
