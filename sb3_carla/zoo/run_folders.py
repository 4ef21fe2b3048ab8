"""Folders of rl-zoo3 runs: find and load a model, and read the settings that it was trained with."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import sb3_carla
from sb3_carla.errors import ModelError
from sb3_carla.zoo import algorithms
from sb3_carla.zoo.hyperparameters import merge_env_kwargs

__all__ = ["PRETRAINED", "changed_hyperparameters", "environment_settings", "find_model", "latest_model", "load_model"]

logger = logging.getLogger(__name__)

ENV_ID = "CarlaLane-v0"
OTHER_ENV_ID = "CarlaRecorded-v0"
"""Its policies drive in ``ENV_ID`` too."""
PRETRAINED = Path(sb3_carla.__file__).parent / "pretrained" / "td3" / f"{ENV_ID}_1" / f"{ENV_ID}.zip"
"""The trained default, which ships with the package."""
NOT_TASK_KEYS = (
    "town", "scenario", "host", "port", "render_mode", "timeout", "start_curriculum", "server", "randomize",
    "recording",
)  # fmt: skip
"""Arguments of the environment that do not change the task: observations, actions and rewards mean the same."""
WRAPPERS = ("env_wrapper", "frame_stack", "normalize", "vec_env_wrapper")
"""Hyperparameters that wrap the environment and change its observations."""


class _DataLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Reads the ``OrderedDict`` and tuples that rl-zoo3 dumps with Python tags, without executing anything."""


def _construct_plain(loader: _DataLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        values = loader.construct_sequence(node, deep=True)
        return dict(values[0]) if suffix.endswith("OrderedDict") and values else values
    return node.value


_DataLoader.add_multi_constructor("tag:yaml.org,2002:python/", _construct_plain)


def find_model(path: str | None, logs: Path, *, algo: str = "td3", best: bool = False) -> Path:
    """
    :param path: path of a ``.zip``; "pretrained" for the one that ships with the package; None for the last run in
        ``logs``, or the pretrained one if there is no run
    :param logs: log folder (``--log-folder`` of rl-zoo3)
    :param algo: rl-zoo3's name of the algorithm
    :param best: see :func:`latest_model`
    :return: path of a ``.zip``
    :raises FileNotFoundError: if there is no such model
    """
    if path == "pretrained":
        return PRETRAINED
    if path is None:
        try:
            return latest_model(logs, algo=algo, best=best)
        except FileNotFoundError:
            if algo != "td3" or best or any((logs / algo).glob(f"{ENV_ID}_*")) or not PRETRAINED.is_file():
                raise
            logger.warning("No run in %s: taking the pretrained model, %s", logs, PRETRAINED)
            return PRETRAINED
    if not Path(path).is_file():
        raise FileNotFoundError(f"No model at {Path(path).resolve()}")
    return Path(path)


def latest_model(logs: Path, *, algo: str = "td3", best: bool = False) -> Path:
    """
    Model of the last run in a log folder.

    :param logs: log folder (``--log-folder`` of rl-zoo3)
    :param algo: rl-zoo3's name of the algorithm
    :param best: take the best model of rl-zoo3's evaluations instead of the last one
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
    Environment arguments that a model was trained with and that define its task.

    :param model: path of a ``.zip`` in an rl-zoo3 run folder, or in a checkpoint below it
    :return: for example ``{"action_repeat": 2}``; empty, with a warning, if the run's ``config.yml`` is missing
    :raises ValueError: if the model was trained with wrappers that change its observations
    """
    settings = (folder / env_id for env_id in (ENV_ID, OTHER_ENV_ID) for folder in model.parents[:3])
    run = next((folder for folder in settings if (folder / "config.yml").is_file()), None)
    if run is None:
        # With other arguments the spaces are the same, but their numbers mean something else.
        logger.warning(
            "%s is not in a run's folder (no %s/config.yml): the environment's defaults are used, which differ from "
            "those of the default training. Pass its arguments with --env-kwargs", model, ENV_ID,
        )  # fmt: skip
        return {}
    config = _read(run / "config.yml")
    wrapped = [key for key in WRAPPERS if config.get(key)]
    if wrapped:
        raise ValueError(f"{model} was trained with {', '.join(wrapped)} around the environment: use rl_zoo3.enjoy")
    arguments = _read(run / "args.yml")
    env_kwargs = merge_env_kwargs(config.get("env_kwargs") or {}, arguments.get("env_kwargs") or {})
    return {key: value for key, value in env_kwargs.items() if key not in NOT_TASK_KEYS}


def changed_hyperparameters(run: Path, requested: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """
    Compare hyperparameters with those of a run.

    :param run: folder of an rl-zoo3 run
    :param requested: hyperparameters as a file has them
    :return: key -> value of the run and requested value, for those that differ; None stands for a missing value;
        nested keys are joined (``env_kwargs.town``); empty if the run's ``config.yml`` is missing
    """
    before = _flattened(_read(run / ENV_ID / "config.yml"))
    wanted = _flattened(yaml.load(yaml.dump(dict(requested)), Loader=_DataLoader)) if before else {}
    keys = sorted({*before, *wanted})
    return {key: (before.get(key), wanted.get(key)) for key in keys if before.get(key) != wanted.get(key)}


def _flattened(entry: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in entry.items():
        flat.update(_flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def load_model(path: Path, *, algo: str = "td3", device: str = "auto") -> Any:
    """
    Load a model. The file is unpickled, which can execute any code: for a file that you do not trust use
    :func:`sb3_carla.td3.weights.load_policy`.

    :param path: path of a ``.zip``
    :param algo: rl-zoo3's name of the algorithm; ``"td3"`` is ours
    :param device: PyTorch device
    :return: the model; an off-policy model has a replay buffer of size 1
    :raises ModelError: if the file cannot be loaded as a model of this algorithm
    """
    algorithm = algorithms.algorithm(algo)
    off_policy = {"buffer_size": 1} if hasattr(algorithm, "load_replay_buffer") else {}
    with warnings.catch_warnings():
        # SB3 warns about every model with n-step returns that it loads, although the file has their settings.
        warnings.filterwarnings("ignore", message=r"`n_steps=\d+` is ignored", category=UserWarning)
        try:
            return algorithm.load(path, device=device, **off_policy)
        except Exception as error:  # a damaged zip or pickle can raise anything
            raise ModelError(f"{path} cannot be loaded as a {algo} model: {type(error).__name__}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as file:
        return dict(yaml.load(file, Loader=_DataLoader) or {})
