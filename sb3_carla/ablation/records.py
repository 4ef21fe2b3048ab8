"""The result of an ablation run: one JSON file, small enough for version control."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sb3_carla.diagnostics.event_logs import RunLog, ScalarSeries

__all__ = ["CURVES", "RESULT", "Curve", "Run", "downsampled_curves", "read_runs", "to_json"]

RESULT = "result.json"
"""Written at the end of a run; a run without it is repeated from the start."""


class Curve(NamedTuple):
    """
    One quantity of a run over time.

    :param head: heading of the column in the table
    :param title: title of the chart in the figure
    :param tags: the first of them that the log has is used
    :param magnitude: whether the chart shows absolute values
    :param required: tag without which the curve is left out, for example because the critic has no CNN
    """

    head: str
    title: str
    tags: tuple[str, ...]
    magnitude: bool = False
    required: str | None = None


CURVES: Mapping[str, Curve] = {
    "actor_features": Curve(
        "actor features",
        "norm of the actor's CNN features",
        ("debug/actor_cnn_feature_l2_norm", "debug/cnn_feature_l2_norm"),
    ),
    "critic_features": Curve(
        "critic features",
        "norm of the critic's CNN features",
        ("debug/critic_cnn_feature_l2_norm", "debug/cnn_feature_l2_norm"),
        required="gradients/critic_cnn_norm",
    ),
    "critic_cnn_gradient": Curve(
        "critic CNN gradient", "norm of the critic CNN's gradient, before clipping", ("gradients/critic_cnn_norm",)
    ),
    "q": Curve("Q", "critic's Q", ("debug/monte_carlo_q", "train/q1_value")),
    "monte_carlo_return": Curve(
        "Monte-Carlo return", "Monte-Carlo return that Q stands for", ("debug/monte_carlo_return",)
    ),
    "actor_loss": Curve("actor loss", "magnitude of the actor's loss", ("train/actor_loss",), magnitude=True),
    "action_saturation": Curve("saturated actions", "share of actions at their limits", ("debug/action_saturation",)),
    "episode_length": Curve(
        "episode length",
        "length of an episode in training [decisions]",
        ("train/episode_length", "rollout/ep_len_mean"),
    ),
}
"""By name."""
MAX_POINTS = 100
"""Largest number of points of a curve; a longer one is downsampled."""
TAIL = 0.1
"""Share of a curve at its end that is averaged for the table."""


def downsampled_curves(log: RunLog) -> dict[str, dict[str, list[Any]]]:
    """
    :param log: scalars of a run
    :return: name in ``CURVES`` -> ``steps`` and ``values``, five digits each, None for NaN and Inf
    """
    found: dict[str, dict[str, list[Any]]] = {}
    for name, curve in CURVES.items():
        series = next((log.scalars[tag] for tag in curve.tags if tag in log.scalars), None)
        if series is not None and (curve.required is None or curve.required in log.scalars):
            last = len(series.values) - 1
            chosen = np.unique(np.linspace(0, last, min(last + 1, MAX_POINTS)).round().astype(int))
            values = [float(f"{value:.5g}") if math.isfinite(value) else None for value in series.values[chosen]]
            found[name] = {"steps": series.steps[chosen].tolist(), "values": values}
    return found


def to_json(result: Mapping[str, Any]) -> str:
    """
    :param result: result of a run
    :return: JSON with one line per key, at most 15 KB: easy to compare with ``diff``
    """
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in result.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


@dataclass(frozen=True)
class Run:
    """A finished run, read from its ``result.json``."""

    result: dict[str, Any]

    @property
    def diverged(self) -> bool:
        """Whether its weights became NaN or Inf."""
        return self.result["diverged_at"] is not None

    def curve(self, name: str) -> ScalarSeries | None:
        """
        :param name: one of ``CURVES``
        :return: its points, NaN where the log has NaN or Inf; None if the log does not have the curve
        """
        points = self.result["curves"].get(name)
        return points and ScalarSeries(np.array(points["steps"], np.int64), np.array(points["values"], np.float64))

    def tail(self, name: str) -> float:
        """
        :param name: one of ``CURVES``
        :return: mean of the last tenth of its points; NaN if there are none, or if one of them is not finite
        """
        series = self.curve(name)
        if series is None:
            return float("nan")
        return float(series.values[-max(1, round(TAIL * len(series.values))) :].mean())


def read_runs(folder: Path) -> dict[str, list[Run]]:
    """
    :param folder: results folder of :func:`sb3_carla.ablation.runner.run_all`
    :return: finished runs by variant
    :raises FileNotFoundError: if there are none
    """
    runs: dict[str, list[Run]] = {}
    for path in sorted(folder.glob(f"*/seed_*/{RESULT}")):
        result = json.loads(path.read_text(encoding="utf-8"))
        runs.setdefault(result["variant"], []).append(Run(result))
    if not runs:
        raise FileNotFoundError(f"No finished run in {folder}: expected {folder}/VARIANT/seed_N/{RESULT}")
    return runs
