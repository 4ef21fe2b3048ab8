"""What a training consists of beside what SB3 saves of its model, and how it is put back."""

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
"""Of SB3's logger: what was recorded since the last dump."""
TIME_LIMITS = {"TimeLimit", "PatchedTimeLimit"}
KNOWN_WRAPPERS = {"Monitor", "OrderEnforcing", "PassiveEnvChecker", *TIME_LIMITS}
"""Wrappers that are put back, or keep nothing of an episode."""


def save_state(model: Any) -> dict[str, Any]:
    """
    :param model: SB3 off-policy model, between two updates
    :return: all that SB3's own file lacks
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
        # What is pickled of it lacks the returns of the episodes so far.
        "normalizer": None if normalizer is None else {**normalizer.__getstate__(), "returns": normalizer.returns},
        "due": getattr(model, "_due", None),
        "noise": model.action_noise,
        "log": model.logger.get_dir() if hasattr(model, "_logger") else None,
        "logged": _logged(model),
        "replay_buffer": model.replay_buffer,
        # Frames that the buffer keeps in a file, which goes on changing.
        "frames": frames.file_contents if isinstance(frames, FrameStorage) else None,
    }


def restore(model: Any, state: dict[str, Any]) -> None:
    """
    Put a loaded model, and the environments that it has, where a checkpoint left them.

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
        logger.warning("With use_sde the training goes on, but not bit for bit: its noise is drawn anew")
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
    """What was recorded since the last dump, by which a guard may judge."""
    found: dict[str, Any] = {"logger": {}}
    if hasattr(model, "_logger"):
        found["logger"] = {name: dict(getattr(model.logger, name)) for name in LOGGER_PARTS}
    if hasattr(model, "_sums"):
        found["sums"] = {key: (total.cpu(), model._counts[key]) for key, total in model._sums.items()}
    return found


def _restore_noise(model: Any, noise: Any) -> None:
    """SB3 resets the noise of a training that begins; that of one that goes on is let be, once."""
    if noise is None:
        return
    model.action_noise = noise
    noise.reset = partial(_let_be, noise)


def _let_be(noise: Any, *_: Any) -> None:
    del noise.reset  # the class's own is in force again


def _continue_log(model: Any, folder: str | None, logged: dict[str, Any] | None) -> None:
    """
    Have a model go on with its own log, or begin one: SB3 would go on with that of the newest training beside it.

    :param folder: of the log that it had, if any
    :param logged: of :func:`_logged`
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
    """Drive the episodes again that were under way, and give the wrappers back what they knew of them."""
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
    if not _same(model._last_obs, state["last_obs"]):
        logger.warning("The environments could not be put where they were: the training goes on, but not bit for bit")
        if isinstance(model.replay_buffer, HerReplayBuffer):
            model.replay_buffer.truncate_last_trajectory()  # goals are taken from one episode
        return
    for index, episode in enumerate(state["episodes"] or ()):
        _count_on(env, index, len(episode.get("actions", ())), state["returns"] and state["returns"][index])
    if normalizer is not None and statistics is not None:
        normalizer.returns = statistics["returns"]


def _count_on(env: Any, index: int, steps: int, rewards: Any) -> None:
    """Have an environment's wrappers know of its episode, which was driven again inside of them."""
    # By their names: rl-zoo3 has a TimeLimit of its own, which it puts in the place of Gymnasium's.
    wrappers = re.findall(r"<(\w+)(?=<\w+[< ])", env.env_method("__str__", indices=[index])[0])
    if TIME_LIMITS.intersection(wrappers):
        env.env_method("set_wrapper_attr", "_elapsed_steps", steps, indices=[index])
    if rewards is not None:
        env.env_method("set_wrapper_attr", "rewards", rewards, indices=[index])
    unknown = [name for name in wrappers if name not in KNOWN_WRAPPERS]
    if unknown and index == 0:
        logger.warning(
            "The training may not go on bit for bit: nothing is known of what %s keep of an episode", ", ".join(unknown)
        )


def _reset(env: Any, normalizer: Any) -> Any:
    """Observations after a reset that a normalizer's statistics do not count: they have seen them before."""
    if normalizer is None:
        return env.reset()
    training, normalizer.training = normalizer.training, False
    observations = env.reset()
    normalizer.training = training
    return observations


def _same(observations: Any, others: Any) -> bool:
    if isinstance(observations, dict):
        return all(np.array_equal(value, others[key]) for key, value in observations.items())
    return np.array_equal(observations, others)
