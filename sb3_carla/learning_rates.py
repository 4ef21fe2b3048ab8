"""Are the learning rates that a hyperparameter file asks for the ones that the optimizers use?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from stable_baselines3.common.logger import Logger

from sb3_carla.schedules import rate_schedule

__all__ = ["PROGRESS", "RateCheck", "build", "read_entry", "verify"]

PROGRESS = (1.0, 0.5, 0.0)
"""Remaining progress at which rates are compared: start, middle and end of a training."""
OF_THE_ZOO = (
    "n_timesteps", "n_envs", "env_kwargs", "env_wrapper", "vec_env_wrapper", "frame_stack", "normalize", "callback",
    "monitor_kwargs", "noise_type", "noise_std", "policy",
)  # fmt: skip
"""Keys of an entry that rl-zoo3 uses itself."""


@dataclass(frozen=True)
class RateCheck:
    """
    One parameter group at one moment of a training.

    :param group: "actor", "actor_cnn", "critic", "critic_cnn"
    :param progress: remaining, 1 at the start
    :param expected: by the file
    :param found: in the optimizer
    """

    group: str
    progress: float
    expected: float
    found: float

    @property
    def passed(self) -> bool:
        """Whether they are equal."""
        return math.isclose(self.expected, self.found, rel_tol=1e-9, abs_tol=1e-15)


def read_entry(path: str, env_id: str) -> dict[str, Any]:
    """
    :param path: rl-zoo3 hyperparameter file
    :param env_id: environment
    :return: its entry
    :raises ValueError: if the file cannot be read, or has no such entry, or the entry no learning rate
    """
    try:
        with open(path, encoding="utf-8") as file:
            entries = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(entries, dict) or not isinstance(entries.get(env_id), dict):
        names = ", ".join(map(str, entries)) if isinstance(entries, dict) else type(entries).__name__
        raise ValueError(f"{path}: expected an entry {env_id}, got {names}")
    entry: dict[str, Any] = entries[env_id]
    if "learning_rate" not in entry:
        raise ValueError(f"{path}: {env_id}: expected a learning_rate, got {', '.join(entry)}")
    return entry


def build(algorithm: Any, entry: Mapping[str, Any], env: Any) -> Any:
    """
    The model that rl-zoo3 would train, with a replay buffer of one place.

    :param algorithm: class
    :param entry: of a hyperparameter file
    :param env: environment
    :return: the model
    """
    arguments = {key: value for key, value in entry.items() if key not in OF_THE_ZOO}
    for key, value in arguments.items():
        if key.endswith("learning_rate") and value is not None:
            arguments[key] = rate_schedule(value)
    model = algorithm(entry["policy"], env, **{**arguments, "buffer_size": 1})
    model.set_logger(Logger(None, []))  # SB3 writes each rate that it sets
    return model


def verify(model: Any, entry: Mapping[str, Any]) -> list[RateCheck]:
    """
    Compare every parameter group's rate with the file's, after the schedule update that each train step begins with.

    :param model: of :func:`build`; its rates are left as at the end of a training
    :param entry: of a hyperparameter file
    :return: one check a group and moment
    """
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
    """A part's own rate goes before its network's, and that before ``learning_rate``."""
    keys = (f"{name}_learning_rate", f"{name.removesuffix('_cnn')}_learning_rate", "learning_rate")
    value = next(entry[key] for key in keys if entry.get(key) is not None)
    if isinstance(value, str) and value.startswith("lin_"):
        return float(value.removeprefix("lin_")) * progress
    return float(value)
