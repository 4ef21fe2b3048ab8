"""Rules that find signs of divergence in logged values, and say in words what they found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from sb3_carla.diagnostics.event_logs import ScalarSeries
from sb3_carla.diagnostics.limits import FEATURE_NORM, GRADIENT_NORM, MAY_BE_NAN
from sb3_carla.diagnostics.trends import exponential_growth

__all__ = ["RULES", "Alert", "LoggedValues", "find_alerts"]

WINDOW = 20
"""Number of dumps over which growth is measured."""
VALUE_TAGS = ("train/q1_value", "train/q2_value", "debug/monte_carlo_q")
GROWTH_LIMITS = {
    "debug/cnn_feature_l2_norm": ("the norm of the CNN's features", FEATURE_NORM[1]),
    "debug/actor_grad_norm_BEFORE_clip": ("the actor's gradient norm before clipping", GRADIENT_NORM["warning"]),
    "debug/critic_grad_norm_BEFORE_clip": ("the critic's gradient norm before clipping", GRADIENT_NORM["warning"]),
    "debug/policy_grad_norm_BEFORE_clip": ("the policy's gradient norm before clipping", GRADIENT_NORM["warning"]),
}
"""Tag -> its name in words, and the value below which growth is ignored."""
RETURN_GROWTH_LIMITS = {
    "train/q1_value": ("the first critic's Q", 1),
    "train/q2_value": ("the second critic's Q", 1),
    "train/actor_loss": ("the actor's loss", 1),
    "train/critic_loss": ("the critic's loss", 2),
}
"""Tag -> its name in words, and p: growth is ignored below the largest possible return to the power of p."""
BIAS_WITH_SATURATION, BIAS_ALONE = 3.0, 8.0
"""Normalised bias of Q that raises a warning: together with a saturated action, and by itself."""
NEGLIGIBLE = 0.05
"""Smallest overestimation that counts, as a share of the largest possible return."""
SATURATED = 0.9
"""Share of saturated actions that raises a warning, together with a bias of Q."""
DORMANT = 0.8
"""Share of dormant units that raises a warning. Early in a training, half of them may be dormant without harm."""


@dataclass(frozen=True)
class Alert:
    """
    One sign of divergence.

    :param rule: name of the rule; a rule has one alert at a time
    :param critical: whether the training is unlikely to recover by itself
    :param text: what was found, in words
    :param recoverable: whether earlier weights may help
    """

    rule: str
    critical: bool
    text: str
    recoverable: bool = True


@dataclass
class LoggedValues:
    """
    Input of the rules.

    :param values: tag -> value of this dump
    :param history: tag -> (step, value) of this dump and the dumps before
    :param largest_return: upper bound of a return, from the largest reward so far; Inf if unknown
    """

    values: Mapping[str, float]
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    largest_return: float = math.inf


def find_alerts(logged: LoggedValues) -> list[Alert]:
    """
    :param logged: values of a dump, and their history
    :return: alerts, the critical ones first
    """
    found = [alert for rule in RULES for alert in rule(logged)]
    return sorted(found, key=lambda alert: not alert.critical)


def _not_finite(logged: LoggedValues) -> Iterator[Alert]:
    tags = [
        tag
        for tag, value in logged.values.items()
        if tag.startswith(("train/", "debug/", "gradients/")) and tag not in MAY_BE_NAN and not math.isfinite(value)
    ]
    if tags:
        more = f" (and {len(tags) - 1} more tags)" if len(tags) > 1 else ""
        yield Alert("not finite", True, f"{tags[0]} is {logged.values[tags[0]]}{more}")


def _gradients(logged: LoggedValues) -> Iterator[Alert]:
    norms = {tag: value for tag, value in logged.values.items() if tag.endswith("_grad_norm_BEFORE_clip")}
    for level, critical in (("critical", True), ("warning", False)):
        if f"alerts/gradient_explosion_{level}" in logged.values and norms:
            tag = max(norms, key=lambda tag: norms[tag])
            network = tag.removeprefix("debug/").removesuffix("_grad_norm_BEFORE_clip")
            limit = f"{GRADIENT_NORM[level]:_.0f}".replace("_", " ")
            text = f"a gradient norm passed {limit} before clipping; the {network}'s is {norms[tag]:.3g} on average"
            yield Alert("gradients", critical, text)
            return


def _impossible_values(logged: LoggedValues) -> Iterator[Alert]:
    bound = logged.largest_return
    values = {tag: logged.values[tag] for tag in VALUE_TAGS if tag in logged.values}
    if not values or not 0.0 < bound < math.inf:
        return
    tag = max(values, key=lambda tag: abs(values[tag]))
    if abs(values[tag]) > 1.5 * bound:
        text = f"{tag} is {values[tag]:.3g}, but the rewards seen so far add up to {bound:.3g} at most"
        yield Alert("impossible values", abs(values[tag]) > 10.0 * bound, text)


def _growth(logged: LoggedValues) -> Iterator[Alert]:
    bound = logged.largest_return
    limits = dict(GROWTH_LIMITS)
    if 0.0 < bound < math.inf:
        limits |= {tag: (name, bound**power) for tag, (name, power) in RETURN_GROWTH_LIMITS.items()}
    for tag, (name, limit) in limits.items():
        points = logged.history.get(tag, [])[-WINDOW:]
        if not points or not abs(points[-1][1]) > limit:
            continue
        steps, values = zip(*points, strict=True)
        if exponential_growth(ScalarSeries(np.array(steps), np.array(values))):
            (step, first), (_, last) = points[0], points[-1]
            text = f"{name} grows exponentially: {first:.3g} at step {step}, {last:.3g} now"
            yield Alert(f"growth of {tag}", True, text)


def _overestimation(logged: LoggedValues) -> Iterator[Alert]:
    bias = logged.values.get("debug/q_bias_normalized", 0.0)
    q, true_return = (logged.values.get(f"debug/monte_carlo_{name}", math.nan) for name in ("q", "return"))
    if math.isfinite(logged.largest_return) and q - true_return < NEGLIGIBLE * logged.largest_return:
        return
    tags = [tag for tag in logged.values if tag.startswith("debug/action_saturation_")] or ["debug/action_saturation"]
    tag = max(tags, key=lambda tag: logged.values.get(tag, 0.0))
    share = logged.values.get(tag, 0.0)
    name = tag.removeprefix("debug/action_saturation").lstrip("_")
    action = "the action" if not name else f"action {name}" if name.isdigit() else f"the {name}"
    words = f"critic's Q is {q:.3g} where the Monte-Carlo return is {true_return:.3g}"
    if true_return > 0.0 and q > 0.0:
        words = f"critic's Q is {q / true_return:.2g} times the Monte-Carlo return"
    if bias > BIAS_WITH_SATURATION and share > SATURATED:
        yield Alert("overestimation", False, f"{words} and {action} is saturated in {share:.0%} of actions")
    elif bias > BIAS_ALONE:
        yield Alert("overestimation", False, words)


def _dormancy(logged: LoggedValues) -> Iterator[Alert]:
    share = logged.values.get("debug/dormant_ratio", 0.0)
    if share > DORMANT:
        yield Alert("dormant units", False, f"{share:.0%} of the hidden units are dormant")


RULES: tuple[Callable[[LoggedValues], Iterator[Alert]], ...] = (
    _not_finite,
    _gradients,
    _growth,
    _impossible_values,
    _overestimation,
    _dormancy,
)
