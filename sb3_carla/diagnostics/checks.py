"""The checks of the validation profiles: each reads the scalars of a run, and yields one result or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sb3_carla.diagnostics.event_logs import RunLog, ScalarSeries
from sb3_carla.diagnostics.limits import FEATURE_LIMITS, FEATURE_NORM, MAY_BE_NAN
from sb3_carla.diagnostics.trends import exponential_growth, trend

__all__ = ["FAIL", "FIFTY_K", "FIVE_K", "GRADIENTS", "PASS", "SMOKE", "UNJUDGED", "Check", "CheckResult", "Limits"]

PASS, FAIL, UNJUDGED, LEFT_OUT = "pass", "FAIL", "cannot be judged", "left out"
ROUNDING = 1e-6
"""Relative tolerance of limits: norms are float32."""
HARMLESS_VALUE = 50.0
"""Q and losses up to this value may grow exponentially: a fourth of the limit on Q."""
SMALLEST_FALL = 0.1
"""Share of its size that a reward or length must lose over half a training to count as degrading."""
EPISODE_TAGS = {
    "episode reward": ("train/episode_reward", "rollout/ep_rew_mean"),
    "episode length": ("train/episode_length", "rollout/ep_len_mean"),
}
"""Name in words -> tags, the first of which that was logged is used."""


@dataclass(frozen=True)
class Limits:
    """
    Limits of the checks. Sources: "Limits" in docs/metrics.md.

    :param actor_norm: largest gradient norm of the actor after clipping
    :param critic_norm: largest gradient norm of the critic after clipping
    :param feature_norm: smallest and largest norm of the CNN's features
    :param q_value: largest absolute Q
    :param q_difference: largest mean abs(Q1 - Q2)
    :param critic_loss: largest mean loss
    """

    actor_norm: float = 1.0
    critic_norm: float = 10.0
    feature_norm: tuple[float, float] = FEATURE_NORM
    q_value: float = 200.0
    q_difference: float = 5.0
    critic_loss: float = 200.0


@dataclass(frozen=True)
class CheckResult:
    """
    One line of a report.

    :param check: name of the check
    :param observed: what was found, in words
    :param limit: what was expected, in words
    :param verdict: "pass", "FAIL", "cannot be judged" (a required tag is missing), or "left out" (an optional one is)
    """

    check: str
    observed: str
    limit: str
    verdict: str


Check = Callable[[RunLog, Limits], Iterator[CheckResult]]


def _finite(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    bad = [tag for tag, s in log.scalars.items() if tag not in MAY_BE_NAN and not np.isfinite(s.values).all()]
    observed = f"{len(log.scalars)} tags, all finite"
    if bad:
        series = log.scalars[bad[0]]
        where = int(np.flatnonzero(~np.isfinite(series.values))[0])
        observed = f"{bad[0]} is {series.values[where]} at step {series.steps[where]}"
        observed += f"; {len(bad) - 1} more tags" if len(bad) > 1 else ""
    yield CheckResult("no NaN, no Inf", observed, "finite", FAIL if bad else PASS)


def _feature_ceiling(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    yield from _features(log, -math.inf, limits.feature_norm[1])


def _feature_range(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    yield from _features(log, *limits.feature_norm)


def _features(log: RunLog, low: float, high: float) -> Iterator[CheckResult]:
    tags = [tag for tag in log.scalars if tag.endswith("cnn_feature_l2_norm")]
    if not tags:
        yield _missing("CNN feature norm", "debug/cnn_feature_l2_norm")
    # A log tells the limits for its number of features; without them it is held against those for 512.
    logged = [log.scalars.get(tag) for tag in FEATURE_LIMITS]
    low, high = (
        limit if series is None or math.isinf(limit) else float(series.values[-1])
        for series, limit in zip(logged, (low, high), strict=True)
    )
    for tag in tags:
        yield _within(tag, log.scalars[tag], low, high)


def _after_clipping(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    for network, limit in (("actor", limits.actor_norm), ("critic", limits.critic_norm)):
        wanted = [f"debug/{network}_{part}grad_norm_AFTER_clip" for part in ("", "cnn_", "mlp_")]
        if not any(tag in log.scalars for tag in wanted):
            yield _missing(f"{network} norms after clipping", *wanted)
            continue
        for tag in wanted:
            if tag in log.scalars:
                yield _within(tag, log.scalars[tag], -math.inf, limit * (1.0 + ROUNDING))
            else:  # the network has no such part, or the log has only the parts
                yield _missing(tag, tag, optional=True)


def _clip_ratios(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    for network in ("actor", "critic"):
        tag = f"debug/{network}_grad_clip_ratio"
        if tag in log.scalars:
            yield _within(tag, log.scalars[tag], -math.inf, 1.0 + ROUNDING)
        else:
            yield _missing(tag, tag, optional=True)


def _actor_learns(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    tag = "debug/actor_mlp_grad_norm_AFTER_clip"
    if tag not in log.scalars:
        yield _missing("actor MLP norm > 0", tag)
        return
    values = log.scalars[tag].values
    zeros = int((values <= 0.0).sum())
    observed = f"smallest of {len(values)}: {values.min():.3g}"
    if zeros:
        observed = f"0 at {zeros} of {len(values)} points: no gradient, or 0 written where the actor was not updated"
    yield CheckResult("actor MLP norm > 0", observed, "> 0", FAIL if zeros else PASS)


def _no_alerts(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    raised = {
        tag: series.steps[series.values != 0.0]
        for tag, series in log.scalars.items()
        if tag.startswith("alerts/") and (series.values != 0.0).any()
    }
    observed = "; ".join(f"{tag} {len(steps)} times, first at step {steps[0]}" for tag, steps in raised.items())
    yield CheckResult("no alerts", observed or "none", "none", FAIL if raised else PASS)


def _q_values(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    for tag in ("train/q1_value", "train/q2_value", "train/target_Q_mean"):
        if tag in log.scalars:
            yield _within(tag, log.scalars[tag], -limits.q_value, limits.q_value)
            yield _not_exploding(tag, log.scalars[tag])
        else:
            yield _missing(tag, tag, optional=tag != "train/q1_value")


def _critics_agree(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    check, tags = "mean abs(Q1 - Q2)", ("train/q1_value", "train/q2_value")
    pairs = _at_equal_steps(log, *tags)
    if pairs is None:
        yield _missing(check, *(tag for tag in tags if tag not in log.scalars), optional=True)
        return
    difference = float(np.abs(pairs[0].values - pairs[1].values).mean())
    yield _below(check, difference, limits.q_difference)


def _critic_loss(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    tag = "train/critic_loss"
    if tag not in log.scalars:
        yield _missing("mean critic loss", tag)
    else:
        yield _below("mean critic loss", float(log.scalars[tag].values.mean()), limits.critic_loss)


def _not_degrading(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    for name, tags in EPISODE_TAGS.items():
        series = next((log.scalars[tag] for tag in tags if tag in log.scalars), None)
        found = None if series is None else trend(series, start=0.5)
        if found is None:
            yield _missing(f"{name} not degrading", *tags)
        else:
            falls = found.falls(SMALLEST_FALL)
            yield CheckResult(f"{name} not degrading", str(found), "no fall of 10 %", FAIL if falls else PASS)


def _rising_reward(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    tags = EPISODE_TAGS["episode reward"]
    series = next((log.scalars[tag] for tag in tags if tag in log.scalars), None)
    found = None if series is None else trend(series)
    if found is None:
        yield _missing("episode reward rising", *tags)
    else:
        yield CheckResult("episode reward rising", str(found), "interval above 0", PASS if found.rises() else FAIL)


def _falling_errors(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    """
    Errors relative to Q: as the policy improves, Q grows from zero, and its errors grow with it. The loss is a squared
    error, so it is divided by the square of Q.
    """
    for tag, power in (("train/critic_loss", 2), ("debug/td_error_q1", 1), ("debug/td_error_q2", 1)):
        check = f"{tag} falling, relative to Q"
        pairs = _at_equal_steps(log, tag, "train/target_Q_mean") or _at_equal_steps(log, tag, "train/q1_value")
        if pairs is None:
            yield _missing(check, tag, "train/target_Q_mean", optional=tag == "debug/td_error_q2")
            continue
        error, q = pairs
        found = trend(ScalarSeries(error.steps, error.values / np.maximum(np.abs(q.values), 1.0) ** power))
        if found is None:
            yield _missing(check, tag)
        else:
            yield CheckResult(check, str(found), "interval below 0", PASS if found.falls() else FAIL)


def _actor_loss(log: RunLog, limits: Limits) -> Iterator[CheckResult]:
    tag = "train/actor_loss"
    yield _not_exploding(tag, log.scalars[tag]) if tag in log.scalars else _missing(f"{tag} not exploding", tag)


# --- results ------------------------------------------------------------------------------------------------------


def _within(tag: str, series: ScalarSeries, low: float, high: float) -> CheckResult:
    values = series.values
    outside = ~((values >= low) & (values <= high))  # True for NaN, too
    limit = f"{low:g} to {high:g}" if math.isfinite(low) else f"<= {high:g}"
    observed = f"{values.min():.4g} to {values.max():.4g}"
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        observed += (
            f"; {int(outside.sum())} of {len(values)} outside, first {values[first]:.4g} at step {series.steps[first]}"
        )
    return CheckResult(tag, observed, limit, FAIL if outside.any() else PASS)


def _below(check: str, value: float, limit: float) -> CheckResult:
    return CheckResult(check, f"{value:.4g}", f"< {limit:g}", PASS if value < limit else FAIL)


def _not_exploding(tag: str, series: ScalarSeries) -> CheckResult:
    last = float(np.abs(series.values[-1]))
    explodes = not last <= HARMLESS_VALUE and exponential_growth(series)
    observed = f"ends at {series.values[-1]:.4g}"
    return CheckResult(f"{tag} not exploding", observed, "no exponential growth", FAIL if explodes else PASS)


def _missing(check: str, *tags: str, optional: bool = False) -> CheckResult:
    return CheckResult(check, f"no {' or '.join(tags)}, or too few points", "", LEFT_OUT if optional else UNJUDGED)


def _at_equal_steps(log: RunLog, first: str, second: str) -> tuple[ScalarSeries, ScalarSeries] | None:
    """Two tags at the steps that both have; None if there are none."""
    if first not in log.scalars or second not in log.scalars:
        return None
    one, other = log.scalars[first], log.scalars[second]
    steps, ours, theirs = np.intersect1d(one.steps, other.steps, return_indices=True)
    if not len(steps):
        return None
    return ScalarSeries(steps, one.values[ours]), ScalarSeries(steps, other.values[theirs])


SMOKE: tuple[Check, ...] = (_finite, _feature_ceiling)
GRADIENTS: tuple[Check, ...] = (_after_clipping, _clip_ratios, _actor_learns, _no_alerts)
FIVE_K: tuple[Check, ...] = (*SMOKE, *GRADIENTS, _q_values, _critics_agree, _critic_loss, _not_degrading)
FIFTY_K: tuple[Check, ...] = (
    *(check for check in FIVE_K if check is not _feature_ceiling),
    _feature_range,
    _falling_errors,
    _rising_reward,
    _actor_loss,
)
