"""Go or no-go: what a training's log must look like after 100, 500, 5 000 and 50 000 steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sb3_carla.diagnostics.event_logs import RunLog, ScalarSeries
from sb3_carla.diagnostics.limits import FEATURE_NORM, MAY_BE_NAN
from sb3_carla.diagnostics.trends import exponential_growth, trend

__all__ = ["PROFILES", "Limits", "Profile", "Report", "Result", "validate"]

PASS, FAIL, UNJUDGED, LEFT_OUT = "pass", "FAIL", "cannot be judged", "left out"
LONG_ENOUGH = 0.8
"""Share of a profile's steps that a log must reach: dumps come at the ends of episodes."""
ROUNDING = 1e-6
"""Relative: norms are float32."""
HARMLESS_VALUE = 50.0
"""Q and losses up to here may grow as they like: a fourth of the limit on Q."""
WORTH_MENTIONING = 0.1
"""Share of its size that a reward or length must lose over half a training to be called degrading."""


@dataclass(frozen=True)
class Limits:
    """
    What the checks compare with. Sources: docs/metrics.md; DDPG lane keeping, DQN on Atari.

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
class Result:
    """
    One line of a report.

    :param check: what was looked at
    :param saw: in words
    :param limit: in words
    :param verdict: "pass", "FAIL", "cannot be judged" (something that must be there is missing) or "left out"
    """

    check: str
    saw: str
    limit: str
    verdict: str


Check = Callable[[RunLog, Limits], Iterator[Result]]


@dataclass(frozen=True)
class Profile:
    """
    :param steps: that a training is expected to have
    :param checks: each yields one result or several
    """

    steps: int
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Report:
    """
    All that was checked.

    :param run: the log's folder or file
    :param profile: its name
    :param results: a line a check
    :param notes: what could not be read
    """

    run: str
    profile: str
    results: list[Result]
    notes: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        """0 for go, 1 for no-go, 2 where nothing failed but something that must be there is missing."""
        verdicts = {result.verdict for result in self.results}
        return 1 if FAIL in verdicts else 2 if UNJUDGED in verdicts else 0

    def to_dict(self) -> dict[str, Any]:
        """:return: all of it, and the status, for JSON"""
        return {**asdict(self), "status": self.status}

    def __str__(self) -> str:
        rows = [("check", "saw", "limit", "verdict")]
        rows += [(result.check, result.saw, result.limit, result.verdict) for result in self.results]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        verdict = {0: "GO", 1: "NO-GO", 2: "CANNOT BE JUDGED"}[self.status]
        return "\n".join([f"{self.run}: profile {self.profile}", *lines, *(f"note: {n}" for n in self.notes), verdict])


def validate(log: RunLog, profile: str, limits: Limits | None = None) -> Report:
    """
    :param log: of :func:`sb3_carla.diagnostics.event_logs.read_run`
    :param profile: one of ``PROFILES``
    :param limits: None for the usual ones
    :return: what was seen, and whether that will do
    :raises ValueError: if there is no such profile
    """
    if profile not in PROFILES:
        raise ValueError(f"profile: expected one of {', '.join(PROFILES)}, got {profile!r}")
    chosen, limits = PROFILES[profile], limits or Limits()
    enough = log.last_step >= LONG_ENOUGH * chosen.steps
    needed = f">= {LONG_ENOUGH * chosen.steps:.0f}"
    results = [Result("steps in the log", str(log.last_step), needed, PASS if enough else UNJUDGED)]
    for check in chosen.checks:
        results += check(log, limits)
    return Report(str(log.path), profile, results, log.notes)


# --- checks: each reads METRICS' tags and yields a line or several -------------------------------------------------


def _finite(log: RunLog, limits: Limits) -> Iterator[Result]:
    bad = [tag for tag, s in log.scalars.items() if tag not in MAY_BE_NAN and not np.isfinite(s.values).all()]
    saw = f"{len(log.scalars)} tags, all finite"
    if bad:
        series = log.scalars[bad[0]]
        where = int(np.flatnonzero(~np.isfinite(series.values))[0])
        saw = f"{bad[0]} is {series.values[where]} at step {series.steps[where]}"
        saw += f"; {len(bad) - 1} more tags" if len(bad) > 1 else ""
    yield Result("no NaN, no Inf", saw, "finite", FAIL if bad else PASS)


def _feature_ceiling(log: RunLog, limits: Limits) -> Iterator[Result]:
    yield from _features(log, -math.inf, limits.feature_norm[1])


def _feature_range(log: RunLog, limits: Limits) -> Iterator[Result]:
    yield from _features(log, *limits.feature_norm)


def _features(log: RunLog, low: float, high: float) -> Iterator[Result]:
    tags = [tag for tag in log.scalars if tag.endswith("cnn_feature_l2_norm")]
    if not tags:
        yield _missing("CNN feature norm", "debug/cnn_feature_l2_norm")
    for tag in tags:
        yield _within(tag, log.scalars[tag], low, high)


def _after_clipping(log: RunLog, limits: Limits) -> Iterator[Result]:
    for network, limit in (("actor", limits.actor_norm), ("critic", limits.critic_norm)):
        wanted = [f"debug/{network}_{part}grad_norm_AFTER_clip" for part in ("", "cnn_", "mlp_")]
        if not any(tag in log.scalars for tag in wanted):
            yield _missing(f"{network} norms after clipping", *wanted)
            continue
        for tag in wanted:
            if tag in log.scalars:
                yield _within(tag, log.scalars[tag], -math.inf, limit * (1.0 + ROUNDING))
            else:  # of a network without a part, or a log without the whole
                yield _missing(tag, tag, optional=True)


def _clip_ratios(log: RunLog, limits: Limits) -> Iterator[Result]:
    for network in ("actor", "critic"):
        tag = f"debug/{network}_grad_clip_ratio"
        if tag in log.scalars:
            yield _within(tag, log.scalars[tag], -math.inf, 1.0 + ROUNDING)
        else:
            yield _missing(tag, tag, optional=True)


def _actor_learns(log: RunLog, limits: Limits) -> Iterator[Result]:
    tag = "debug/actor_mlp_grad_norm_AFTER_clip"
    if tag not in log.scalars:
        yield _missing("actor MLP norm > 0", tag)
        return
    values = log.scalars[tag].values
    zeros = int((values <= 0.0).sum())
    saw = f"smallest of {len(values)}: {values.min():.3g}"
    if zeros:
        saw = f"0 at {zeros} of {len(values)} points: no gradient, or 0 written where the actor was not updated"
    yield Result("actor MLP norm > 0", saw, "> 0", FAIL if zeros else PASS)


def _no_alerts(log: RunLog, limits: Limits) -> Iterator[Result]:
    raised = {
        tag: series.steps[series.values != 0.0]
        for tag, series in log.scalars.items()
        if tag.startswith("alerts/") and (series.values != 0.0).any()
    }
    saw = "; ".join(f"{tag} {len(steps)} times, first at step {steps[0]}" for tag, steps in raised.items())
    yield Result("no alerts", saw or "none", "none", FAIL if raised else PASS)


def _q_values(log: RunLog, limits: Limits) -> Iterator[Result]:
    for tag in ("train/q1_value", "train/q2_value", "train/target_Q_mean"):
        if tag in log.scalars:
            yield _within(tag, log.scalars[tag], -limits.q_value, limits.q_value)
            yield _not_exploding(tag, log.scalars[tag])
        else:
            yield _missing(tag, tag, optional=tag != "train/q1_value")


def _critics_agree(log: RunLog, limits: Limits) -> Iterator[Result]:
    check, tags = "mean abs(Q1 - Q2)", ("train/q1_value", "train/q2_value")
    pairs = _at_equal_steps(log, *tags)
    if pairs is None:
        yield _missing(check, *(tag for tag in tags if tag not in log.scalars), optional=True)
        return
    difference = float(np.abs(pairs[0].values - pairs[1].values).mean())
    yield _below(check, difference, limits.q_difference)


def _critic_loss(log: RunLog, limits: Limits) -> Iterator[Result]:
    tag = "train/critic_loss"
    if tag not in log.scalars:
        yield _missing("mean critic loss", tag)
    else:
        yield _below("mean critic loss", float(log.scalars[tag].values.mean()), limits.critic_loss)


def _not_degrading(log: RunLog, limits: Limits) -> Iterator[Result]:
    for name, tags in EPISODE_TAGS.items():
        series = next((log.scalars[tag] for tag in tags if tag in log.scalars), None)
        found = None if series is None else trend(series, start=0.5)
        if found is None:
            yield _missing(f"{name} not degrading", *tags)
        else:
            falls = found.falls(WORTH_MENTIONING)
            yield Result(f"{name} not degrading", str(found), "no fall of 10 %", FAIL if falls else PASS)


def _rising_reward(log: RunLog, limits: Limits) -> Iterator[Result]:
    tags = EPISODE_TAGS["episode reward"]
    series = next((log.scalars[tag] for tag in tags if tag in log.scalars), None)
    found = None if series is None else trend(series)
    if found is None:
        yield _missing("episode reward rising", *tags)
    else:
        yield Result("episode reward rising", str(found), "interval above 0", PASS if found.rises() else FAIL)


def _falling_errors(log: RunLog, limits: Limits) -> Iterator[Result]:
    """
    Relative to Q: while a policy gets better, Q grows from zero, and errors of the same relative size grow with it. The
    loss is a square, so it is compared with the square of Q.
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
            yield Result(check, str(found), "interval below 0", PASS if found.falls() else FAIL)


def _actor_loss(log: RunLog, limits: Limits) -> Iterator[Result]:
    tag = "train/actor_loss"
    yield _not_exploding(tag, log.scalars[tag]) if tag in log.scalars else _missing(f"{tag} not exploding", tag)


EPISODE_TAGS = {
    "episode reward": ("train/episode_reward", "rollout/ep_rew_mean"),
    "episode length": ("train/episode_length", "rollout/ep_len_mean"),
}

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

PROFILES = {
    "smoke": Profile(100, SMOKE),
    "gradients": Profile(500, GRADIENTS),
    "5k": Profile(5_000, FIVE_K),
    "50k": Profile(50_000, FIFTY_K),
}


# --- lines ---------------------------------------------------------------------------------------------------------


def _within(tag: str, series: ScalarSeries, low: float, high: float) -> Result:
    values = series.values
    outside = ~((values >= low) & (values <= high))  # NaN, too
    limit = f"{low:g} to {high:g}" if math.isfinite(low) else f"<= {high:g}"
    saw = f"{values.min():.4g} to {values.max():.4g}"
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        saw += (
            f"; {int(outside.sum())} of {len(values)} outside, first {values[first]:.4g} at step {series.steps[first]}"
        )
    return Result(tag, saw, limit, FAIL if outside.any() else PASS)


def _below(check: str, value: float, limit: float) -> Result:
    return Result(check, f"{value:.4g}", f"< {limit:g}", PASS if value < limit else FAIL)


def _not_exploding(tag: str, series: ScalarSeries) -> Result:
    last = float(np.abs(series.values[-1]))
    explodes = not last <= HARMLESS_VALUE and exponential_growth(series)
    saw = f"ends at {series.values[-1]:.4g}"
    return Result(f"{tag} not exploding", saw, "no exponential growth", FAIL if explodes else PASS)


def _missing(check: str, *tags: str, optional: bool = False) -> Result:
    return Result(check, f"no {' or '.join(tags)}, or too few points", "", LEFT_OUT if optional else UNJUDGED)


def _at_equal_steps(log: RunLog, first: str, second: str) -> tuple[ScalarSeries, ScalarSeries] | None:
    if first not in log.scalars or second not in log.scalars:
        return None
    one, other = log.scalars[first], log.scalars[second]
    steps, mine, theirs = np.intersect1d(one.steps, other.steps, return_indices=True)
    if not len(steps):
        return None
    return ScalarSeries(steps, one.values[mine]), ScalarSeries(steps, other.values[theirs])
