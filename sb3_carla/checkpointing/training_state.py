"""The part of a training's state that SB3's ``model.save`` leaves out: save it, and restore it."""

from __future__ import annotations

import logging
import random
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import configure_logger

from sb3_carla.td3.frame_storage import FrameStorage

__all__ = ["restore", "save_state"]

logger = logging.getLogger(__name__)

LOGGER_PARTS = ("name_to_value", "name_to_count", "name_to_excluded")
"""Attributes of SB3's logger that hold what was recorded since the last dump."""
TIME_LIMITS = {"TimeLimit", "PatchedTimeLimit"}
KNOWN_WRAPPERS = {"Monitor", "OrderEnforcing", "PassiveEnvChecker", *TIME_LIMITS}
"""Wrappers that have no state within an episode, or whose state is restored here."""


def save_state(model: Any) -> dict[str, Any]:
    """
    :param model: SB3 off-policy model, between two updates
    :return: everything that ``model.save`` leaves out
    """
    env = model.env
    repeatable = env.has_attr("episode_so_far")
    normalizer = model.get_vec_normalize_env()
    frames = getattr(model.replay_buffer, "frames", None)
    return {
        "random": {
            "python": random.getstate(),
            "numpy": np.random.get_state(),  # noqa: NPY002 (SB3 draws from it)
            "torch": th.get_rng_state(),
            "cuda": th.cuda.get_rng_state_all() if th.cuda.is_available() else [],
            "actions": model.action_space.np_random.bit_generator.state,
        },
        "episodes": env.get_attr("episode_so_far") if repeatable else None,
        "returns": [list(rewards) for rewards in env.get_attr("rewards")] if env.has_attr("rewards") else None,
        "last_obs": model._last_obs,
        # VecNormalize pickles itself without the discounted returns of the current episodes.
        "normalizer": None if normalizer is None else {**normalizer.__getstate__(), "returns": normalizer.returns},
        "due": getattr(model, "_due", None),
        "noise": model.action_noise,
        "log": model.logger.get_dir() if hasattr(model, "_logger") else None,
        "logged": _logged(model),
        "replay_buffer": model.replay_buffer,
        # A buffer with memory-mapped frames pickles only the file's path, and the file changes later.
        "frames": frames.file_contents if isinstance(frames, FrameStorage) else None,
    }


def restore(model: Any, state: dict[str, Any]) -> None:
    """
    Bring a loaded model and its environments to the state of a checkpoint.

    :param model: loaded from the checkpoint's ``model.zip``, with environments
    :param state: from :func:`save_state`
    """
    model.replay_buffer = state["replay_buffer"]
    model.replay_buffer.device = model.device
    if state["frames"] is not None:
        model.replay_buffer.frames.put_back(state["frames"])
    if isinstance(model.replay_buffer, HerReplayBuffer):
        model.replay_buffer.set_env(model.env)
    _restore_episodes(model, state)
    _restore_noise(model, state.get("noise"))
    if getattr(model, "use_sde", False):
        logger.warning("With use_sde the training continues, but not bit for bit: its noise is drawn anew")
    if state["due"] is not None:
        model._due = state["due"]
    _continue_log(model, state.get("log"), state.get("logged"))
    random.setstate(state["random"]["python"])
    np.random.set_state(state["random"]["numpy"])  # noqa: NPY002 (SB3 draws from it)
    th.set_rng_state(state["random"]["torch"])
    if th.cuda.is_available():
        th.cuda.set_rng_state_all(state["random"]["cuda"][: th.cuda.device_count()])
    model.action_space.np_random.bit_generator.state = state["random"]["actions"]


def _logged(model: Any) -> dict[str, Any]:
    """What was recorded since the last dump."""
    found: dict[str, Any] = {"logger": {}}
    if hasattr(model, "_logger"):
        found["logger"] = {name: dict(getattr(model.logger, name)) for name in LOGGER_PARTS}
    if hasattr(model, "_sums"):
        found["sums"] = {key: (total.cpu(), model._counts[key]) for key, total in model._sums.items()}
    return found


def _restore_noise(model: Any, noise: Any) -> None:
    """Restore the action noise, and skip the reset that SB3 makes at the start of ``learn``."""
    if noise is None:
        return
    model.action_noise = noise
    noise.reset = partial(_skip_one_reset, noise)


def _skip_one_reset(noise: Any, *_: Any) -> None:
    del noise.reset  # uncovers the method of the class


def _continue_log(model: Any, folder: str | None, logged: dict[str, Any] | None) -> None:
    """
    Continue the model's own log, or begin a new one. SB3 would continue the newest log of the folder, which may be
    another training's.

    :param folder: folder of the log so far, None if there is none
    :param logged: result of :func:`_logged`
    """
    _choose_log(model, folder)
    if logged is not None:
        for name, values in logged["logger"].items():
            getattr(model.logger, name).update(values)
        for key, (total, count) in logged.get("sums", {}).items():
            model._sums[key], model._counts[key] = total.to(model.device), count


def _choose_log(model: Any, folder: str | None) -> None:
    if model.tensorboard_log is None:
        model.set_logger(configure_logger(model.verbose, None, "", reset_num_timesteps=True))
    elif folder is not None and Path(folder).resolve().parent == Path(model.tensorboard_log).resolve():
        formats = ["stdout", "tensorboard"] if model.verbose >= 1 else ["tensorboard"]
        model.set_logger(configure(folder, formats))
    else:
        name = type(model).__name__
        model.set_logger(configure_logger(model.verbose, model.tensorboard_log, name, reset_num_timesteps=True))


def _restore_episodes(model: Any, state: dict[str, Any]) -> None:
    """Drive the current episodes again from their start, and restore the wrappers' states."""
    env, normalizer, statistics = model.env, model.get_vec_normalize_env(), state["normalizer"]
    if normalizer is not None and statistics is not None:
        for name in ("obs_rms", "ret_rms"):
            if name in statistics:  # without norm_obs it has no obs_rms
                setattr(normalizer, name, statistics[name])
    if state["episodes"] is not None and env.has_attr("episode_so_far"):
        env.set_options([{"resume": episode} for episode in state["episodes"]])
    model._last_obs = _reset(env, normalizer)
    if normalizer is not None:
        model._last_original_obs = normalizer.get_original_obs()
    if not _equal(model._last_obs, state["last_obs"]):
        logger.warning("The environments could not be restored: the training continues, but not bit for bit")
        if isinstance(model.replay_buffer, HerReplayBuffer):
            model.replay_buffer.truncate_last_trajectory()  # hindsight goals must come from the same episode
        return
    for index, episode in enumerate(state["episodes"] or ()):
        _restore_wrappers(env, index, len(episode.get("actions", ())), state["returns"] and state["returns"][index])
    if normalizer is not None and statistics is not None:
        normalizer.returns = statistics["returns"]


def _restore_wrappers(env: Any, index: int, steps: int, rewards: Any) -> None:
    """Restore the step counts and rewards of the wrappers: the episode was driven again below them."""
    # By class name, because rl-zoo3 replaces Gymnasium's TimeLimit by its own class.
    wrappers = re.findall(r"<(\w+)(?=<\w+[< ])", env.env_method("__str__", indices=[index])[0])
    if TIME_LIMITS.intersection(wrappers):
        env.env_method("set_wrapper_attr", "_elapsed_steps", steps, indices=[index])
    if rewards is not None:
        env.env_method("set_wrapper_attr", "rewards", rewards, indices=[index])
    unknown = [name for name in wrappers if name not in KNOWN_WRAPPERS]
    if unknown and index == 0:
        logger.warning(
            "The training may not continue bit for bit: the state of these wrappers is unknown: %s", ", ".join(unknown)
        )


def _reset(env: Any, normalizer: Any) -> Any:
    """Reset without updating VecNormalize's statistics, which include these observations already."""
    if normalizer is None:
        return env.reset()
    training, normalizer.training = normalizer.training, False
    observations = env.reset()
    normalizer.training = training
    return observations


def _equal(observations: Any, others: Any) -> bool:
    if isinstance(observations, dict):
        return all(np.array_equal(value, others[key]) for key, value in observations.items())
    return np.array_equal(observations, others)
