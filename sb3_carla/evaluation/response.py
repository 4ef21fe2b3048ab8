"""
How a driver steers when it is put beside the lane's centre, or askew: the response to single poses.

At places every ``SPACING`` metres of a recorded drive the car stands turned by ±5 and ±10 degrees, shifted by ±0.3 and
±0.6 m, and straight in the lane's centre. The observation is that after ``reset``: all its frames are alike. Only
places where the lane is nearly straight count, as the right answer to a disturbance is then the opposite of its sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sb3_carla.evaluation.episodes import Case, Env, Policy

if TYPE_CHECKING:
    from sb3_carla.envs.carla_recorded import CarlaRecordedEnv

__all__ = ["ANGLES_DEG", "SHIFTS", "Probe", "Response", "probe_driver", "summarize"]

ANGLES_DEG, SHIFTS = (5.0, 10.0), (0.3, 0.6)
"""Disturbances to both sides: turned [deg], shifted [m]."""
SPACING = 10.0
"""Distance between two places [m]."""
NEARLY_STRAIGHT, STRAIGHT = 1.0 / 100.0, 1.0 / 200.0
"""Largest curvatures of places for disturbances, and for the steering without one [1/m]."""


@dataclass(frozen=True)
class Probe:
    """
    One answer.

    :param weather: of the recording
    :param curvature: of the lane, right positive [1/m]
    :param turned_deg: heading against the lane, right positive [deg]
    :param shifted: offset from the lane's centre, right positive [m]
    :param steering: action, -1 (left) to 1 (right)
    """

    weather: str
    curvature: float
    turned_deg: float
    shifted: float
    steering: float


@dataclass(frozen=True)
class Response:
    """
    Probes in numbers; NaN where there was no place to probe.

    :param right_signs: share of answers that steer back, by disturbance such as "5 deg" and "0.3 m"
    :param per_10_deg: slope of the steering, a negative number steers back [1/10 deg]
    :param per_metre: slope of the steering, likewise [1/m]
    :param straight: mean steering on a straight in the lane's centre
    :param places: number of places that were probed
    """

    right_signs: dict[str, float]
    per_10_deg: float
    per_metre: float
    straight: float
    places: int


def probe_driver(env: Env, policy: Policy) -> list[Probe]:
    """
    :param env: a ``CarlaRecorded-v0`` environment
    :param policy: the driver
    :return: its answers
    """
    recorded: CarlaRecordedEnv = env.unwrapped  # type: ignore[assignment]
    disturbances = [(0.0, 0.0)]
    disturbances += [(sign * angle, 0.0) for angle in ANGLES_DEG for sign in (-1.0, 1.0)]
    disturbances += [(0.0, sign * shift) for shift in SHIFTS for sign in (-1.0, 1.0)]
    probes = []
    for drive in recorded.drives:
        sequence = drive.sequence
        for station in np.arange(drive.start + 1.0, drive.start + drive.length - 6.0, SPACING).tolist():
            curvature = float(np.interp(station, sequence.stations, sequence.curvatures))
            if abs(curvature) > NEARLY_STRAIGHT:
                continue
            case = Case(sequence.town, drive.number, 0, sequence.weather)
            for turned, shifted in disturbances:
                options = {
                    "sequence": sequence.name, "station": station, "lateral_offset": shifted,
                    "heading_error": math.radians(turned),
                }  # fmt: skip
                observation, _ = env.reset(seed=0, options=options)
                steering = float(policy(env, case)(observation)[0])
                probes.append(Probe(sequence.weather, curvature, turned, shifted, steering))
    return probes


def summarize(probes: Sequence[Probe]) -> Response:
    """
    :param probes: of one driver
    :return: the numbers
    """
    signs = {f"{angle:g} deg": [p for p in probes if abs(p.turned_deg) == angle] for angle in ANGLES_DEG}
    signs |= {f"{shift:g} m": [p for p in probes if abs(p.shifted) == shift] for shift in SHIFTS}
    centred = [probe for probe in probes if probe.turned_deg == probe.shifted == 0.0]
    return Response(
        {name: _mean([p.steering * (p.turned_deg + p.shifted) < 0.0 for p in found]) for name, found in signs.items()},
        _slope([(p.turned_deg / 10.0, p.steering) for p in probes if p.shifted == 0.0]),
        _slope([(p.shifted, p.steering) for p in probes if p.turned_deg == 0.0]),
        _mean([probe.steering for probe in centred if abs(probe.curvature) <= STRAIGHT]),
        len(centred),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares through (disturbance, steering); the disturbances add up to 0."""
    if not points:
        return math.nan
    xs, ys = np.array(points).T
    return float(xs @ ys / (xs @ xs))
