"""
Load a policy without unpickling anything.

SB3 saves a model as a zip whose ``data`` contains pickles, and a pickle can run any code when it is loaded. Zips of
:class:`sb3_carla.TD3` also contain ``arguments.json``: the policy's class, spaces and arguments. From this file and
``policy.pth``, which PyTorch reads with ``weights_only=True``, a policy can be made although its source is not trusted.
"""

from __future__ import annotations

import io
import json
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.utils import get_device

from sb3_carla.errors import ModelError
from sb3_carla.policies import LayerNormCnnPolicy

__all__ = ["ARGUMENTS", "arguments_of", "load_policy", "write_arguments"]

ARGUMENTS, WEIGHTS = "arguments.json", "policy.pth"
POLICIES = {"LayerNormCnnPolicy": LayerNormCnnPolicy}
"""Policies that a file may name."""
MOST_BYTES = 2**31
"""Largest size of a file in the zip, which can claim any size [bytes]."""
MOST_PIXELS, MOST_UNITS = 2**24, 2**16
"""Largest observation and largest layer."""
UNREADABLE = (
    OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, pickle.UnpicklingError,
)  # fmt: skip
"""Errors that reading a damaged zip, JSON or weights file raises."""


def arguments_of(policy: Any, policy_kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    The content of ``arguments.json``.

    :param policy: of a model
    :param policy_kwargs: that it was made with
    :return: JSON data; None if an argument is not plain data, or the policy is not one of ours
    """
    box, actions = policy.observation_space, policy.action_space
    if type(policy).__name__ not in POLICIES or not isinstance(box, spaces.Box) or not isinstance(actions, spaces.Box):
        return None
    found = {
        "policy": type(policy).__name__,
        "observation_space": _box(box),
        "action_space": _box(actions),
        "policy_kwargs": dict(policy_kwargs),
    }
    try:
        return dict(json.loads(json.dumps(found)))
    except TypeError:
        return None


def _box(space: spaces.Box) -> dict[str, Any]:
    return {
        "low": _bounds(space.low),
        "high": _bounds(space.high),
        "shape": list(space.shape),
        "dtype": str(space.dtype),
    }


def _bounds(bounds: NDArray[Any]) -> Any:
    """One number if all bounds are equal, as in an image's space, else a list."""
    return float(bounds.flat[0]) if (bounds == bounds.flat[0]).all() else bounds.tolist()


def write_arguments(file: Any, arguments: Mapping[str, Any]) -> None:
    """
    Add ``arguments.json`` to a saved model.

    :param file: path of a zip, or an open one
    :param arguments: from :func:`arguments_of`
    """
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(ARGUMENTS, json.dumps(arguments, indent=2) + "\n")


def load_policy(path: Path | str, device: str = "auto") -> LayerNormCnnPolicy:
    """
    Load a policy from a model file that is not trusted. It predicts; it cannot be trained further.

    :param path: of a zip that :class:`sb3_carla.TD3` saved
    :param device: PyTorch device
    :raises ModelError: if the file is damaged or has an unexpected field; the message names both
    """
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in (ARGUMENTS, WEIGHTS) if name not in archive.namelist()]
            if missing:
                raise ModelError(f"{path} has no {missing[0]}: expected a model saved by sb3_carla.TD3")
            for name in (ARGUMENTS, WEIGHTS):
                size = archive.getinfo(name).file_size
                if size > MOST_BYTES:
                    raise ModelError(f"{path}: {name} claims {size} bytes, expected at most {MOST_BYTES}")
            arguments = json.loads(archive.read(ARGUMENTS))
            weights = th.load(io.BytesIO(archive.read(WEIGHTS)), map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ModelError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    policy = _made(arguments, str(path))
    try:
        policy.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: {WEIGHTS} does not fit {ARGUMENTS}: {error}") from error
    policy.set_training_mode(False)
    return policy.to(get_device(device))


def _made(arguments: Any, path: str) -> LayerNormCnnPolicy:
    given = _field(arguments, "", dict, path)
    name = _field(given.get("policy"), "policy", str, path)
    if name not in POLICIES:
        raise ModelError(f"{path}: {ARGUMENTS}: policy: expected one of {', '.join(POLICIES)}, got {name!r:.80}")
    observations = _space(given.get("observation_space"), "observation_space", path)
    actions = _space(given.get("action_space"), "action_space", path)
    policy_kwargs = _field(given.get("policy_kwargs"), "policy_kwargs", dict, path)
    _check_sizes(policy_kwargs, "policy_kwargs", path)
    try:
        return POLICIES[name](observations, actions, lambda _: 0.0, **policy_kwargs)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ModelError(f"{path}: {ARGUMENTS}: no {name} can be made of it: {error}") from error


def _field(value: Any, key: str, kind: type[Any], path: str) -> Any:
    if not isinstance(value, kind):
        where = f"{ARGUMENTS}: {key}" if key else ARGUMENTS
        raise ModelError(f"{path}: {where}: expected a {kind.__name__}, got {value!r:.80}")
    return value


def _space(value: Any, key: str, path: str) -> spaces.Box:
    box = _field(value, key, dict, path)
    shape = _field(box.get("shape"), f"{key}.shape", list, path)
    whole = all(isinstance(side, int) and not isinstance(side, bool) and 0 < side <= MOST_PIXELS for side in shape)
    if not whole or len(shape) > 4 or int(np.prod(shape, dtype=object)) > MOST_PIXELS:
        raise ModelError(f"{path}: {ARGUMENTS}: {key}.shape: expected up to 4 sides, got {shape!r:.80}")
    try:
        dtype = np.dtype(box["dtype"])
        low, high = (_read_bounds(box[end], tuple(shape), dtype) for end in ("low", "high"))
        return spaces.Box(low, high, tuple(shape), dtype.type)
    except (KeyError, TypeError, ValueError, OverflowError, AssertionError) as error:
        raise ModelError(f"{path}: {ARGUMENTS}: {key}: {type(error).__name__}: {error}") from error


def _read_bounds(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Reads what :func:`_bounds` wrote: one number, or an array of the space's shape and dtype."""
    if not isinstance(value, list):
        return float(value)
    bounds = np.array(value, np.float64)
    if bounds.shape != shape or not np.isfinite(bounds).all() or (bounds.astype(dtype) != bounds).any():
        raise ValueError(f"expected finite {dtype} bounds of shape {shape}, got {value!r:.80}")
    return bounds.astype(dtype)


def _check_sizes(value: Any, key: str, path: str) -> None:
    """Refuse numbers that would make a layer too large."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_sizes(inner, f"{key}.{name}", path)
    elif isinstance(value, list):
        for inner in value:
            _check_sizes(inner, key, path)
    elif isinstance(value, (int, float)) and not abs(value) <= MOST_UNITS:
        raise ModelError(f"{path}: {ARGUMENTS}: {key}: expected a number up to {MOST_UNITS}, got {value!r:.80}")
