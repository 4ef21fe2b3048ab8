"""Which algorithm trains on our environments, and with which hyperparameter files."""

from __future__ import annotations

import importlib
import importlib.resources
from typing import Any

import gymnasium as gym

__all__ = ["ALGORITHMS", "algorithm", "default_config", "is_ours", "presets"]

# rl-zoo3's name of an algorithm -> module and class that replace it for our environments.
ALGORITHMS: dict[str, tuple[str, str]] = {"td3": ("sb3_carla.td3.td3", "TD3")}


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
    :return: word for ``--conf-file`` -> path of the hyperparameter file that it stands for
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
    :return: the class that trains it on our environments: ours, or else the zoo's
    :raises ValueError: if there is neither
    """
    if algo in ALGORITHMS:
        module, name = ALGORITHMS[algo]
        return getattr(importlib.import_module(module), name)
    known = importlib.import_module("rl_zoo3").ALGOS
    if algo not in known:
        raise ValueError(f"Unknown algorithm {algo!r}, expected one of {', '.join(sorted({*known, *ALGORITHMS}))}")
    return known[algo]
