"""rl-zoo3's hyperparameter files: read an entry, check it, and pick the algorithm's arguments from it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import yaml

from sb3_carla.td3.schedules import LINEAR, rate_schedule

__all__ = [
    "check_hyperparameters",
    "constructor_arguments",
    "merge_env_kwargs",
    "read_hyperparameter_file",
    "read_hyperparameters",
]

ENVIRONMENT_KEYS = (
    "n_envs", "env_kwargs", "env_wrapper", "vec_env_wrapper", "frame_stack", "normalize", "callback", "monitor_kwargs",
    "vec_env",
)  # fmt: skip
"""Keys of an entry that describe the environments and callbacks; a resumed training takes them from the file."""
ZOO_KEYS = (*ENVIRONMENT_KEYS, "n_timesteps", "noise_type", "noise_std", "policy")
"""Keys of an entry that rl-zoo3 or :mod:`sb3_carla.zoo.hooks` uses; all others are the algorithm's arguments."""
NUMBER_KEYS = ("n_timesteps", "n_envs")
"""Those of ``ZOO_KEYS`` that are numbers."""
RATE_KEYS = ("learning_rate", "learning_rates")
"""Keys of an entry that hold learning rates: one, or a mapping of several."""
OPTION_GROUPS = ("control", "server")
"""Arguments of the environment that are mappings of options."""


def read_hyperparameter_file(path: str) -> dict[str, Any]:
    """
    :param path: rl-zoo3 hyperparameter file
    :return: its entries by environment
    :raises ValueError: if it cannot be read, or is not a mapping of mappings
    """
    try:
        with open(path, encoding="utf-8") as file:
            entries = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError(f"{path}: expected a mapping of environments to their hyperparameters, got {entries!r:.100}")
    return entries


def read_hyperparameters(path: str, env_id: str) -> dict[str, Any]:
    """
    :param path: rl-zoo3 hyperparameter file
    :param env_id: id of the environment
    :return: its entry
    :raises ValueError: if the file cannot be read or lacks the entry, or the entry lacks ``learning_rate``
    """
    entries = read_hyperparameter_file(path)
    if env_id not in entries:
        raise ValueError(f"{path}: expected an entry {env_id}, got {', '.join(map(str, entries))}")
    entry: dict[str, Any] = entries[env_id]
    if "learning_rate" not in entry:
        raise ValueError(f"{path}: {env_id}: expected a learning_rate, got {', '.join(entry)}")
    return entry


def check_hyperparameters(entry: Mapping[str, Any], algorithm: type[Any]) -> None:
    """
    Check an entry where the file's name is known. rl-zoo3 reports most mistakes later, and some (a learning rate of
    ``quadratic_3``) not at all.

    :param entry: entry of a hyperparameter file
    :param algorithm: class that the entry is for
    :raises ValueError: if a key is unknown, a number is text, or a learning rate cannot be parsed
    """
    defaults = _defaults(algorithm)
    known = {*defaults, *ZOO_KEYS}
    numbers = {*NUMBER_KEYS, *(key for key, default in defaults.items() if _is_number(default))}
    for key, value in entry.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ValueError(f"{key}: no hyperparameter of {algorithm.__name__}" + (f"; {near[0]}?" if near else ""))
        if key in RATE_KEYS:
            _schedules(key, value)
        elif key in numbers and _is_text(value):
            hint = " (YAML takes 1e-2 for text, 1.0e-2 for a number)" if "e" in value else ""
            raise ValueError(f"{key}: expected a number, got {value!r}{hint}")


def _defaults(algorithm: type[Any]) -> dict[str, Any]:
    """Default values of all constructor arguments, including those that base classes take from ``**kwargs``."""
    found: dict[str, Any] = {}
    for base in algorithm.__mro__:
        for name, parameter in inspect.signature(base.__init__).parameters.items():  # type: ignore[misc]
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(name, parameter.default)
    return found


def _is_text(value: object) -> bool:
    """Whether it is text other than a schedule, such as PPO's ``clip_range: lin_0.2``."""
    return isinstance(value, str) and not value.startswith(LINEAR)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def constructor_arguments(entry: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param entry: entry of a hyperparameter file
    :return: arguments that rl-zoo3 passes to the algorithm beside policy, environment and seed; learning rates as
        schedules
    """
    arguments = {key: value for key, value in entry.items() if key not in ZOO_KEYS}
    return arguments | {key: _schedules(key, value) for key, value in arguments.items() if key in RATE_KEYS}


def _schedules(key: str, value: Any) -> Any:
    """A rate, or each rate of a mapping, as a schedule."""
    if isinstance(value, Mapping):
        return {part: _schedules(f"{key}: {part}", rate) for part, rate in value.items()}
    try:
        return None if value is None else rate_schedule(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def merge_env_kwargs(env_kwargs: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param env_kwargs: arguments of the environment
    :param changes: what goes over them, key by key; within ``control`` and ``server`` key by key as well
    :return: the result, a new dict
    """
    merged = {**env_kwargs, **changes}
    for name in OPTION_GROUPS:
        before, after = env_kwargs.get(name), changes.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            merged[name] = {**before, **after}
    return merged
