"""Compare the learning rates of a hyperparameter file with those that the optimizers use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stable_baselines3.common.logger import Logger

from sb3_carla.td3.schedules import rate_schedule
from sb3_carla.zoo.hyperparameters import constructor_arguments

__all__ = ["PROGRESS", "RateCheck", "build", "verify"]

PROGRESS = (1.0, 0.5, 0.0)
"""Remaining progress at which rates are compared: start, middle and end of a training."""


@dataclass(frozen=True)
class RateCheck:
    """
    Learning rate of one parameter group at one moment of a training.

    :param group: "actor", "actor_cnn", "critic" or "critic_cnn"
    :param progress: remaining progress, 1 at the start and 0 at the end
    :param expected: learning rate according to the file
    :param found: learning rate of the optimizer
    """

    group: str
    progress: float
    expected: float
    found: float

    @property
    def passed(self) -> bool:
        """Whether they are equal."""
        return math.isclose(self.expected, self.found, rel_tol=1e-9, abs_tol=1e-15)


def build(algorithm: Any, entry: Mapping[str, Any], env: Any) -> Any:
    """
    The model that rl-zoo3 would train, with a replay buffer of one place.

    :param algorithm: class of the model
    :param entry: entry of a hyperparameter file
    :param env: environment
    :return: the model
    """
    model = algorithm(entry["policy"], env, **{**constructor_arguments(entry), "buffer_size": 1})
    model.set_logger(Logger(None, []))  # SB3 logs each rate that it sets
    return model


def verify(model: Any, entry: Mapping[str, Any]) -> list[RateCheck]:
    """
    Compare every parameter group's rate with the file's, after the schedule update that starts each ``train`` call.

    :param model: result of :func:`build`; afterwards it has the rates of a training's end
    :param entry: entry of a hyperparameter file
    :return: one check per group and moment
    :raises ValueError: if the algorithm has no actor and critic
    """
    if not (hasattr(model, "actor") and hasattr(model, "critic")):
        raise ValueError(f"expected an algorithm with an actor and a critic, got {type(model).__name__}")
    checks = []
    optimizers = {"actor": model.actor.optimizer, "critic": model.critic.optimizer}
    for progress in PROGRESS:
        model._current_progress_remaining = progress
        model._update_learning_rate(list(optimizers.values()))
        for network, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                name = f"{network}_cnn" if group.get("name") == "cnn" else network
                checks.append(RateCheck(name, progress, _expected(entry, name, progress), float(group["lr"])))
    return checks


def _expected(entry: Mapping[str, Any], name: str, progress: float) -> float:
    """The CNN's own rate, if there is none the network's, if there is none ``learning_rate``."""
    rates = entry.get("learning_rates") or {}
    choices = (rates.get(name), rates.get(name.removesuffix("_cnn")), entry["learning_rate"])
    return rate_schedule(next(value for value in choices if value is not None))(progress)
