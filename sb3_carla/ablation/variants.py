"""
The variants: a YAML file each in ``hyperparams/ablation/``.

| key | meaning |
| --- | --- |
| ``title`` | what stands in the table |
| ``algorithm`` | ``module.Class`` of what trains; taken over from ``like`` if missing |
| ``like`` | another variant, or "default": the tuned hyperparameters of ``td3.yml`` |
| ``but`` | what is different: hyperparameters, merged key by key; null takes one out |
"""

from __future__ import annotations

import importlib
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

__all__ = ["Variant", "load_variant", "variant_names"]

ENV_ID = "CarlaLane-v0"
KEYS = {"title", "algorithm", "like", "but"}


@dataclass(frozen=True)
class Variant:
    """
    One row of the ablation.

    :param name: of its file
    :param title: what stands in the table
    :param algorithm: class that trains
    :param hyperparameters: as in rl-zoo3's files
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
    :param name: of a file in ``hyperparams/ablation/``
    :return: the variant, with everything that it takes over filled in
    :raises ValueError: if there is no such file, or it says what nothing reads
    """
    content = _content(name)
    algorithm, hyperparameters = _resolve(name, (name,))
    module, _, class_name = algorithm.rpartition(".")
    return Variant(name, content["title"], getattr(importlib.import_module(module), class_name), hyperparameters)


def _resolve(name: str, path: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Algorithm and hyperparameters of a variant and all that it is like."""
    content = _content(name)
    like = content.get("like", "default")
    if like in path:
        raise ValueError(f"ablation variants are like each other in a circle: {' -> '.join((*path, like))}")
    if like == "default":
        text = (_folder() / "td3.yml").read_text(encoding="utf-8")
        algorithm, base = "sb3_carla.TD3", dict(yaml.safe_load(text)[ENV_ID])
    else:
        algorithm, base = _resolve(like, (*path, like))
    return content.get("algorithm", algorithm), _merged(base, content.get("but") or {})


def _content(name: str) -> dict[str, Any]:
    if name not in variant_names():
        raise ValueError(f"unknown variant {name!r}, expected one of {', '.join(variant_names())}")
    content = dict(yaml.safe_load((_folder() / "ablation" / f"{name}.yml").read_text(encoding="utf-8")))
    if not {"title"} <= set(content) <= KEYS:
        raise ValueError(f"variant {name}: expected the keys {', '.join(sorted(KEYS))}, got {', '.join(content)}")
    return content


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result


def _folder() -> Any:
    return importlib.resources.files("sb3_carla.hyperparams")
