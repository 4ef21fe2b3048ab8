"""Entries of rl-zoo3's hyperparameter files, and what of them is for the algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from sb3_carla.schedules import rate_schedule

__all__ = ["constructor_arguments", "read_entry"]

OF_THE_ZOO = (
    "n_timesteps", "n_envs", "env_kwargs", "env_wrapper", "vec_env_wrapper", "frame_stack", "normalize", "callback",
    "monitor_kwargs", "noise_type", "noise_std", "policy",
)  # fmt: skip
"""Keys of an entry that rl-zoo3 uses itself, and the policy."""


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


def constructor_arguments(entry: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param entry: of a hyperparameter file
    :return: what rl-zoo3 hands to the algorithm beside policy, environment and seed, rates as schedules
    """
    arguments = {key: value for key, value in entry.items() if key not in OF_THE_ZOO}
    rates = {key: rate_schedule(value) for key, value in arguments.items() if _is_rate(key) and value is not None}
    return arguments | rates


def _is_rate(key: str) -> bool:
    return key.endswith("learning_rate")
