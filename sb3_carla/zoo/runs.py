"""What an rl-zoo3 run leaves behind: its models, and the environment that they were trained in."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sb3_carla.errors import ModelError
from sb3_carla.zoo import algorithms
from sb3_carla.zoo.hyperparameters import merge_env_kwargs

__all__ = ["changed_hyperparameters", "environment_settings", "find_model", "latest_model", "load_model"]

logger = logging.getLogger(__name__)

ENV_ID = "CarlaLane-v0"
NOT_OF_THE_TASK = (
    "town", "scenario", "host", "port", "render_mode", "timeout", "start_curriculum", "server",
)  # fmt: skip
"""Arguments of the environment that say where a run took place, not what was learnt in it."""
WRAPPERS = ("env_wrapper", "frame_stack", "normalize", "vec_env_wrapper")
"""Hyperparameters that change the observation outside the environment."""


class _DataLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """rl-zoo3 dumps ``OrderedDict`` and tuples with Python tags; this reads their data, and runs nothing."""


def _plain(loader: _DataLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        values = loader.construct_sequence(node, deep=True)
        return dict(values[0]) if suffix.endswith("OrderedDict") and values else values
    return node.value


_DataLoader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)


def find_model(path: str | None, logs: Path, *, algo: str = "td3", best: bool = False) -> Path:
    """
    :param path: of a ``.zip``; None for the last run in ``logs``
    :param logs: what ``--log-folder`` was
    :param algo: rl-zoo3's name of the algorithm
    :param best: see :func:`latest_model`
    :return: path of a ``.zip``
    :raises FileNotFoundError: if there is no such model
    """
    if path is None:
        return latest_model(logs, algo=algo, best=best)
    if not Path(path).is_file():
        raise FileNotFoundError(f"No model at {Path(path).resolve()}")
    return Path(path)


def latest_model(logs: Path, *, algo: str = "td3", best: bool = False) -> Path:
    """
    Model of the last run of an rl-zoo3 log folder.

    :param logs: what ``--log-folder`` was
    :param algo: rl-zoo3's name of the algorithm
    :param best: the best one in rl-zoo3's own evaluations, instead of the last
    :return: path of a ``.zip``
    :raises FileNotFoundError: if there is none
    """
    runs = [path for path in (logs / algo).glob(f"{ENV_ID}_*") if path.name.split("_")[-1].isdigit()]
    if not runs:
        raise FileNotFoundError(f"No run of {algo} on {ENV_ID} in {logs}: expected {logs / algo / ENV_ID}_1 or later")
    run = max(runs, key=lambda path: int(path.name.split("_")[-1]))
    model = run / ("best_model.zip" if best else f"{ENV_ID}.zip")
    if not model.is_file():
        raise FileNotFoundError(f"No model at {model}: was the training interrupted before it saved one?")
    return model


def environment_settings(model: Path) -> dict[str, Any]:
    """
    Environment arguments that a model was trained with, as far as they belong to the task.

    :param model: path of a ``.zip`` in an rl-zoo3 run folder, or of a checkpoint below it
    :return: for instance ``{"action_repeat": 2}``; empty, with a warning, if the run's ``config.yml`` is not there
    :raises ValueError: if wrappers around the environment changed what the model saw
    """
    run = next((folder for folder in model.parents[:3] if (folder / ENV_ID / "config.yml").is_file()), None)
    if run is None:
        # Other arguments make another task of observations and actions that look the same.
        logger.warning(
            "%s lies in no run's folder (no %s/config.yml): it gets the environment's defaults, which are not those of "
            "the default training. Name its arguments (--env-kwargs)", model, ENV_ID,
        )  # fmt: skip
        return {}
    config = _read(run / ENV_ID / "config.yml")
    wrapped = [key for key in WRAPPERS if config.get(key)]
    if wrapped:
        raise ValueError(f"{model} was trained with {', '.join(wrapped)} around the environment: use rl_zoo3.enjoy")
    arguments = _read(run / ENV_ID / "args.yml")
    settings = merge_env_kwargs(config.get("env_kwargs") or {}, arguments.get("env_kwargs") or {})
    return {key: value for key, value in settings.items() if key not in NOT_OF_THE_TASK}


def changed_hyperparameters(run: Path, asked: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """
    :param run: folder of an rl-zoo3 run
    :param asked: hyperparameters as a file has them
    :return: those that are others than the run's, with the run's value and the one asked for, None where there is none;
        of dicts their keys (``env_kwargs.town``); empty if the run's ``config.yml`` is not there
    """
    had = _flat(_read(run / ENV_ID / "config.yml"))
    wanted = _flat(yaml.load(yaml.dump(dict(asked)), Loader=_DataLoader)) if had else {}
    keys = sorted({*had, *wanted})
    return {key: (had.get(key), wanted.get(key)) for key in keys if had.get(key) != wanted.get(key)}


def _flat(entry: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in entry.items():
        flat.update(_flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value})
    return flat


def load_model(path: Path, *, algo: str = "td3", device: str = "auto") -> Any:
    """
    The file is unpickled, which can run anything: for one that you do not trust there is
    :func:`sb3_carla.td3.weights.load_policy`.

    :param path: of a ``.zip``
    :param algo: rl-zoo3's name of the algorithm; ``"td3"`` is ours
    :param device: PyTorch device
    :return: the model, with a replay buffer of one place where it needs one
    :raises ModelError: if the file is no such model
    """
    algorithm = algorithms.algorithm(algo)
    off_policy = {"buffer_size": 1} if hasattr(algorithm, "load_replay_buffer") else {}
    with warnings.catch_warnings():
        # Stable-Baselines3 says so of every model with n-step returns that it loads; their settings are in the file.
        warnings.filterwarnings("ignore", message=r"`n_steps=\d+` is ignored", category=UserWarning)
        try:
            return algorithm.load(path, device=device, **off_policy)
        except Exception as error:  # whatever a damaged zip, or the pickles in it, come to
            raise ModelError(f"{path} cannot be loaded as a {algo} model: {type(error).__name__}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as file:
        return dict(yaml.load(file, Loader=_DataLoader) or {})
