"""The algorithms that train on our environments, and their hyperparameter files."""

from __future__ import annotations

import importlib
import importlib.resources
import pkgutil
from typing import Any

import gymnasium as gym

__all__ = ["ALGORITHMS", "algorithm", "default_config", "is_ours", "presets"]

ALGORITHMS = {"td3": "sb3_carla.td3.td3:TD3"}
"""rl-zoo3's name of an algorithm -> class that replaces it for our environments, imported when it is needed."""


def is_ours(env_id: str) -> bool:
    """
    :param env_id: id of an environment, registered or not
    :return: True if this package provides it
    """
    spec = gym.registry.get(env_id)
    return spec is not None and str(spec.entry_point).startswith("sb3_carla.")


def default_config(algo: str) -> str | None:
    """
    :param algo: rl-zoo3's name of an algorithm, for instance ``"td3"``
    :return: path of our hyperparameter file, None if there is none for this algorithm
    """
    path = importlib.resources.files("sb3_carla.hyperparams") / f"{algo}.yml"
    return str(path) if path.is_file() else None


def presets(algo: str) -> dict[str, str]:
    """
    :param algo: rl-zoo3's name of an algorithm
    :return: name of a preset, as ``--conf-file`` takes it -> path of its hyperparameter file
    """
    files = importlib.resources.files("sb3_carla.hyperparams").iterdir()
    start, end = f"{algo}-", ".yml"
    return {
        file.name[len(start) : -len(end)]: str(file)
        for file in sorted(files, key=lambda file: file.name)
        if file.name.startswith(start) and file.name.endswith(end)
    }


def algorithm(algo: str) -> Any:
    """
    :param algo: rl-zoo3's name of an algorithm
    :return: its class for our environments: ours if there is one, otherwise the zoo's
    :raises ValueError: if the name is unknown
    """
    if algo in ALGORITHMS:
        return pkgutil.resolve_name(ALGORITHMS[algo])
    known = importlib.import_module("rl_zoo3").ALGOS
    if algo not in known:
        raise ValueError(f"Unknown algorithm {algo!r}, expected one of {', '.join(sorted({*known, *ALGORITHMS}))}")
    return known[algo]
