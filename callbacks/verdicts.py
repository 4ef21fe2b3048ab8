"""Rules that turn what was logged into words: what is going wrong, how badly, and by what evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from sb3_carla.diagnostics.event_logs import Series
from sb3_carla.diagnostics.limits import FEATURE_NORM, GRADIENT_NORM, MAY_BE_NAN
from sb3_carla.diagnostics.trends import exponential_growth

__all__ = ["RULES", "Evidence", "Verdict", "judge"]

WINDOW = 20
"""Dumps that a growth is judged over."""
SHOWN_VALUES = ("train/q1_value", "train/q2_value", "debug/monte_carlo_q")
GROWING = {
    "debug/cnn_feature_l2_norm": ("the norm of the CNN's features", FEATURE_NORM[1]),
    "debug/actor_grad_norm_BEFORE_clip": ("the actor's gradient norm before clipping", GRADIENT_NORM["warning"]),
    "debug/critic_grad_norm_BEFORE_clip": ("the critic's gradient norm before clipping", GRADIENT_NORM["warning"]),
    "debug/policy_grad_norm_BEFORE_clip": ("the policy's gradient norm before clipping", GRADIENT_NORM["warning"]),
}
"""Tag -> its name, and the value up to which growth does no harm (that of the alerts)."""
GROWING_WITH_RETURNS = {
    "train/q1_value": ("the first critic's Q", 1),
    "train/q2_value": ("the second critic's Q", 1),
    "train/actor_loss": ("the actor's loss", 1),
    "train/critic_loss": ("the critic's loss", 2),
}
"""Tag -> its name, and the power of the largest possible return up to which growth does no harm."""
BIASED, MUCH_BIASED = 3.0, 8.0
"""Normalised bias of Q that is worth a warning: beside a saturated action, and by itself."""
NEGLIGIBLE = 0.05
"""Share of the largest possible return: a smaller difference is no overestimation, however small the return."""
SATURATED = 0.9
"""Share of saturated actions that is worth a warning."""
DORMANT = 0.8
"""Share of dormant units that is worth a warning; before it has seen much, a sound network may have half of them."""


@dataclass(frozen=True)
class Verdict:
    """
    :param rule: name of what is wrong; one verdict a rule at a time
    :param critical: the training cannot be expected to recover
    :param text: evidence, in words
    :param curable: going back to earlier weights may help
    """

    rule: str
    critical: bool
    text: str
    curable: bool = True


@dataclass
class Evidence:
    """
    What the rules look at.

    :param values: tag -> value of this dump
    :param history: tag -> (step, value) of this dump and those before
    :param largest_return: what the rewards seen can add up to at most; Inf where that is not known
    """

    values: Mapping[str, float]
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    largest_return: float = math.inf


def judge(evidence: Evidence) -> list[Verdict]:
    """
    :param evidence: of a dump
    :return: verdicts, the worst first; empty if all is well
    """
    found = [verdict for rule in RULES for verdict in rule(evidence)]
    return sorted(found, key=lambda verdict: not verdict.critical)


def _not_finite(evidence: Evidence) -> Iterator[Verdict]:
    tags = [
        tag
        for tag, value in evidence.values.items()
        if tag.startswith(("train/", "debug/", "gradients/")) and tag not in MAY_BE_NAN and not math.isfinite(value)
    ]
    if tags:
        more = f" (and {len(tags) - 1} more tags)" if len(tags) > 1 else ""
        yield Verdict("not finite", True, f"{tags[0]} is {evidence.values[tags[0]]}{more}")


def _gradients(evidence: Evidence) -> Iterator[Verdict]:
    norms = {tag: value for tag, value in evidence.values.items() if tag.endswith("_grad_norm_BEFORE_clip")}
    for level, critical in (("critical", True), ("warning", False)):
        if f"alerts/gradient_explosion_{level}" in evidence.values and norms:
            tag = max(norms, key=lambda tag: norms[tag])
            network = tag.removeprefix("debug/").removesuffix("_grad_norm_BEFORE_clip")
            limit = f"{GRADIENT_NORM[level]:_.0f}".replace("_", " ")
            text = f"a gradient norm passed {limit} before clipping; the {network}'s is {norms[tag]:.3g} on average"
            yield Verdict("gradients", critical, text)
            return


def _impossible_values(evidence: Evidence) -> Iterator[Verdict]:
    bound = evidence.largest_return
    values = {tag: evidence.values[tag] for tag in SHOWN_VALUES if tag in evidence.values}
    if not values or not 0.0 < bound < math.inf:
        return
    tag = max(values, key=lambda tag: abs(values[tag]))
    if abs(values[tag]) > 1.5 * bound:
        text = f"{tag} is {values[tag]:.3g}, but the rewards seen so far add up to {bound:.3g} at most"
        yield Verdict("impossible values", abs(values[tag]) > 10.0 * bound, text)


def _growth(evidence: Evidence) -> Iterator[Verdict]:
    bound = evidence.largest_return
    limits = dict(GROWING)
    if 0.0 < bound < math.inf:
        limits |= {tag: (name, bound**power) for tag, (name, power) in GROWING_WITH_RETURNS.items()}
    for tag, (name, harmless) in limits.items():
        points = evidence.history.get(tag, [])[-WINDOW:]
        if not points or not abs(points[-1][1]) > harmless:
            continue
        steps, values = zip(*points, strict=True)
        if exponential_growth(Series(np.array(steps), np.array(values))):
            (step, first), (_, last) = points[0], points[-1]
            text = f"{name} grows exponentially: {first:.3g} at step {step}, {last:.3g} now"
            yield Verdict(f"growth of {tag}", True, text)


def _overestimation(evidence: Evidence) -> Iterator[Verdict]:
    bias = evidence.values.get("debug/q_bias_normalized", 0.0)
    q, true_return = (evidence.values.get(f"debug/monte_carlo_{name}", math.nan) for name in ("q", "return"))
    if math.isfinite(evidence.largest_return) and q - true_return < NEGLIGIBLE * evidence.largest_return:
        return
    tags = [tag for tag in evidence.values if tag.startswith("debug/action_saturation_")] or ["debug/action_saturation"]
    tag = max(tags, key=lambda tag: evidence.values.get(tag, 0.0))
    share = evidence.values.get(tag, 0.0)
    name = tag.removeprefix("debug/action_saturation").lstrip("_")
    action = "the action" if not name else f"action {name}" if name.isdigit() else f"the {name}"
    words = f"critic's Q is {q:.3g} where the Monte-Carlo return is {true_return:.3g}"
    if true_return > 0.0 and q > 0.0:
        words = f"critic's Q is {q / true_return:.2g} times the Monte-Carlo return"
    if bias > BIASED and share > SATURATED:
        yield Verdict("overestimation", False, f"{words} and {action} is saturated in {share:.0%} of actions")
    elif bias > MUCH_BIASED:
        yield Verdict("overestimation", False, words)


def _dormancy(evidence: Evidence) -> Iterator[Verdict]:
    share = evidence.values.get("debug/dormant_ratio", 0.0)
    if share > DORMANT:
        yield Verdict("dormant units", False, f"{share:.0%} of the hidden units are dormant")


RULES: tuple[Callable[[Evidence], Iterator[Verdict]], ...] = (
    _not_finite,
    _gradients,
    _growth,
    _impossible_values,
    _overestimation,
    _dormancy,
)
