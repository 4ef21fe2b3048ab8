"""
The metrics of an evaluation, with 95 % confidence intervals.

Every metric but the percentile is a quotient of two sums over the episodes, so that an episode counts in proportion to
its length:

| metric | sum of | divided by sum of |
| --- | --- | --- |
| success rate | episodes that reached the end of their route | episodes |
| route completion | share of the route that was driven | episodes |
| driving score | route completion x 0.60 for a collision | episodes |
| lateral mean | distance of the car's centre from the lane's after each decision | decisions |
| lateral RMSE | its square, and the root of the quotient | decisions |
| lateral p95 | 95th percentile of that distance over all decisions | |
| heading RMSE | square of the angle to the lane, and the root | decisions |
| steering rate | change of the wheel angle that was asked for, from decision to decision | time |
| jerk | square of the acceleration's change by time, and the root; acceleration along and across the car | decisions |
| speed | distance driven | time |
| departures, collisions | episodes that ended so | kilometres driven |

The driving score follows the CARLA leaderboard: completion times the penalty of each infraction (0.60 is its factor for
hitting another car). Differs: an episode of this task ends at its first infraction. A car that leaves its lane
completes no more of its route, as in the leaderboard.

Intervals come from a bootstrap over the episodes with a fixed seed: percentiles of 2 000 resamples, of 500 for p95. The
success rate has Wilson's interval, because a bootstrap of 50 successes in 50 episodes has the width 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sb3_carla.evaluation.episodes import EpisodeRecord, Trace

__all__ = ["METRICS", "Estimate", "Metric", "estimate_metrics", "jerk", "wilson_interval"]

RESAMPLES = 2000
COLLISION_PENALTY = 0.60
Z_95 = 1.959964
"""Quantile of the normal distribution, two-sided 95 %."""


@dataclass(frozen=True)
class Estimate:
    """A metric's value and its 95 % confidence interval, ``low`` to ``high``."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Metric:
    """
    How a metric is computed and shown.

    :param title: heading in tables, with the unit
    :param fraction: numerator and denominator of one episode, both summed over the episodes; None: the 95th percentile
        of the distance from the lane's centre
    :param root: take the square root of the quotient
    :param digits: after the decimal point
    :param percent: show the value in per cent
    """

    title: str
    fraction: Callable[[EpisodeRecord], tuple[float, float]] | None
    root: bool = False
    digits: int = 2
    percent: bool = False

    def show(self, value: float) -> str:
        """
        :param value: of this metric
        :return: text for tables
        """
        return f"{100.0 * value:.{self.digits}f} %" if self.percent else f"{value:.{self.digits}f}"

    def value(self, records: Sequence[EpisodeRecord]) -> float:
        """
        :param records: of one driver, at least one
        :return: the metric, without an interval
        """
        if self.fraction is None:
            return float(np.percentile(np.concatenate([record.trace.deviations for record in records]), 95))
        return float(_quotient(np.array([self.fraction(record) for record in records]).sum(axis=0), self.root))


def jerk(trace: Trace) -> NDArray[np.float64]:
    """
    Change of the acceleration from decision to decision: along the car the speed's change, across it speed by yaw rate.

    :param trace: of an episode of n decisions
    :return: magnitude [m/s^3], shape (n - 1,), empty for fewer than two
    """
    if len(trace.speed) < 3:
        return np.empty(0)
    along = np.diff(trace.speed) / trace.seconds
    turned = np.diff(np.unwrap(trace.heading))
    across = 0.5 * (trace.speed[1:] + trace.speed[:-1]) * turned / trace.seconds
    return np.hypot(np.diff(along), np.diff(across)) / trace.seconds


def _duration(record: EpisodeRecord) -> float:
    return record.decisions * record.trace.seconds


def _squares(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(np.square(values).sum()), float(len(values))


METRICS: dict[str, Metric] = {
    "success_rate": Metric("success", lambda r: (float(r.success), 1.0), percent=True, digits=0),
    "route_completion": Metric("route completion", lambda r: (r.route_completion, 1.0), percent=True, digits=1),
    "driving_score": Metric(
        "driving score",
        lambda r: (100.0 * r.route_completion * COLLISION_PENALTY**r.collisions, 1.0),
        digits=1,
    ),
    "lateral_mean_m": Metric("lateral mean [m]", lambda r: (float(r.trace.deviations.sum()), r.decisions), digits=3),
    "lateral_rmse_m": Metric("lateral RMSE [m]", lambda r: _squares(r.trace.deviations), root=True, digits=3),
    "lateral_p95_m": Metric("lateral p95 [m]", None),
    "heading_rmse_deg": Metric(
        "heading RMSE [deg]", lambda r: _squares(np.degrees(r.trace.heading_error[1:])), root=True, digits=1
    ),
    "steering_rate_degps": Metric(
        "steering rate [deg/s]",
        lambda r: (float(np.degrees(np.abs(np.diff(r.trace.wheel_angle))).sum()), _duration(r)),
        digits=1,
    ),
    "jerk_rms_mps3": Metric("jerk RMS [m/s^3]", lambda r: _squares(jerk(r.trace)), root=True, digits=1),
    "speed_mps": Metric("speed [m/s]", lambda r: (r.distance_m, _duration(r))),
    "departures_per_km": Metric("departures / km", lambda r: (r.departures, r.distance_m / 1000.0)),
    "collisions_per_km": Metric("collisions / km", lambda r: (r.collisions, r.distance_m / 1000.0)),
}
"""Metrics by name, in the order of the tables; a name ends in its unit."""


def estimate_metrics(records: Sequence[EpisodeRecord]) -> dict[str, Estimate]:
    """
    :param records: of one driver, at least one
    :return: every metric of ``METRICS``
    :raises ValueError: if there are no records
    """
    if not records:
        raise ValueError("expected at least one episode, got none")
    draws = np.random.default_rng(0).integers(0, len(records), (RESAMPLES, len(records)))
    counts = np.array([np.bincount(draw, minlength=len(records)) for draw in draws])  # (resamples, records)
    found = {}
    for name, metric in METRICS.items():
        if metric.fraction is None:
            resampled = _percentiles([record.trace.deviations for record in records], counts[: RESAMPLES // 4])
        else:
            fractions = np.array([metric.fraction(record) for record in records])  # (records, 2)
            resampled = _quotient(counts @ fractions, metric.root)
        low, high = np.percentile(resampled, (2.5, 97.5))
        found[name] = Estimate(metric.value(records), float(low), float(high))
    rate = found["success_rate"].value
    found["success_rate"] = Estimate(rate, *wilson_interval(rate, len(records)))
    return found


def _quotient(sums: NDArray[np.float64], root: bool) -> NDArray[np.float64]:
    """Quotient of sums of shape (..., 2): shape (...). 0 / 0 is 0: a car that stood still and hit nobody."""
    above, below = sums[..., 0], sums[..., 1]
    quotient = np.divide(above, below, out=np.where(above > 0.0, np.inf, 0.0), where=below > 0.0)
    return np.sqrt(quotient) if root else quotient


def _percentiles(offsets: Sequence[NDArray[np.float64]], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """
    ``np.percentile(resample, 95)`` of every resample, with one sort of all offsets instead of one for each resample.

    :param offsets: of each of n episodes
    :param counts: how often each resample contains each episode, shape (resamples, n)
    :return: shape (resamples,)
    """
    whole = np.concatenate(offsets)
    order = np.argsort(whole)
    whole, episodes = whole[order], np.repeat(np.arange(len(offsets)), [len(each) for each in offsets])[order]
    found = []
    for count in counts:
        ranks = np.cumsum(count[episodes])  # number of the resample's offsets up to each
        place = 0.95 * (ranks[-1] - 1)
        below, above = whole[np.searchsorted(ranks, (math.floor(place), math.ceil(place)), side="right")]
        found.append(below + (place - math.floor(place)) * (above - below))
    return np.array(found)


def wilson_interval(rate: float, n: int) -> tuple[float, float]:
    """
    Wilson's 95 % interval of a share (Wilson, JASA 1927).

    :param rate: observed share, 0 to 1
    :param n: number of trials, >= 1
    :return: low, high
    """
    centre = (rate + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    reach = Z_95 / (1 + Z_95**2 / n) * math.sqrt(rate * (1 - rate) / n + Z_95**2 / (4 * n**2))
    return (0.0 if rate == 0.0 else centre - reach), (1.0 if rate == 1.0 else centre + reach)
