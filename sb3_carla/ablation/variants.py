"""
The variants of the ablation: one YAML file each in ``hyperparams/ablation/``.

| key | meaning |
| --- | --- |
| ``title`` | name in the table |
| ``algorithm`` | ``module.Class`` that trains; that of ``like`` if missing |
| ``like`` | variant to start from, or "default": the hyperparameters of ``td3.yml`` |
| ``but`` | hyperparameters that differ, merged key by key; ``policy_kwargs`` name classes as ``module.Class`` |
| ``without`` | hyperparameters to remove; ``policy_kwargs.encoder`` means a nested one |
"""

from __future__ import annotations

import functools
import importlib.resources
import operator
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from sb3_carla.zoo.hyperparameters import read_hyperparameters

__all__ = ["ENV_ID", "Variant", "load_variant", "variant_names"]

ENV_ID = "CarlaLane-v0"
KEYS = {"title", "algorithm", "like", "but", "without"}


@dataclass(frozen=True)
class Variant:
    """
    One row of the ablation.

    :param name: name of its file
    :param title: name in the table
    :param algorithm: class that trains
    :param hyperparameters: an entry as in rl-zoo3's files
    """

    name: str
    title: str
    algorithm: type[Any]
    hyperparameters: dict[str, Any]


def variant_names() -> list[str]:
    """
    :return: names of all variants, sorted
    """
    files = (_folder() / "ablation").iterdir()
    return sorted(file.name.removesuffix(".yml") for file in files if file.name.endswith(".yml"))


def load_variant(name: str) -> Variant:
    """
    :param name: name of a file in ``hyperparams/ablation/``, without ``.yml``
    :return: the variant, merged with the one that it is ``like``
    :raises ValueError: if there is no such file, or it has an unknown key
    """
    content = _content(name)
    algorithm, hyperparameters = _resolve(name, (name,))
    policy_kwargs = dict(hyperparameters.get("policy_kwargs", {}))
    for key, value in policy_kwargs.items():
        if key.endswith("_class"):
            policy_kwargs[key] = pkgutil.resolve_name(value)
    hyperparameters = {**hyperparameters, "policy_kwargs": policy_kwargs}
    return Variant(name, content["title"], pkgutil.resolve_name(algorithm), hyperparameters)


def _resolve(name: str, path: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Algorithm and hyperparameters of a variant, merged with those that it is ``like``."""
    content = _content(name)
    like = content.get("like", "default")
    if like in path:
        raise ValueError(f"ablation variants refer to each other in a circle: {' -> '.join((*path, like))}")
    if like == "default":
        algorithm, base = "sb3_carla.TD3", read_hyperparameters(str(_folder() / "td3.yml"), ENV_ID)
    else:
        algorithm, base = _resolve(like, (*path, like))
    merged = _merged(base, content.get("but", {}))
    for path_of_key in content.get("without", []):
        *parents, key = path_of_key.split(".")
        functools.reduce(operator.getitem, parents, merged).pop(key, None)
    return content.get("algorithm", algorithm), merged


def _content(name: str) -> dict[str, Any]:
    if name not in variant_names():
        raise ValueError(f"unknown variant {name!r}, expected one of {', '.join(variant_names())}")
    content = dict(yaml.safe_load((_folder() / "ablation" / f"{name}.yml").read_text(encoding="utf-8")))
    if not {"title"} <= set(content) <= KEYS:
        raise ValueError(f"variant {name}: expected the keys {', '.join(sorted(KEYS))}, got {', '.join(content)}")
    return content


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = {key: _merged(value, {}) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result


def _folder() -> Any:
    return importlib.resources.files("sb3_carla.hyperparams")
