"""Train every variant with every seed, each in its own process; finished runs with the same settings are kept."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure

from sb3_carla import evaluation
from sb3_carla.ablation.records import RESULT, downsampled_curves, to_json
from sb3_carla.ablation.variants import ENV_ID, Variant, load_variant
from sb3_carla.callbacks import DiagnosticsCallback
from sb3_carla.diagnostics.event_logs import read_run
from sb3_carla.envs.towns import HELD_OUT_TOWNS
from sb3_carla.evaluation.recorded import evaluate_recordings
from sb3_carla.evaluation.recorded_command import recorded_arguments
from sb3_carla.td3.noise import exploration_noise
from sb3_carla.td3.td3 import TD3
from sb3_carla.zoo.hyperparameters import constructor_arguments
from sb3_carla.zoo.provenance import provenance

__all__ = ["run_all", "train_and_evaluate"]


class DivergedError(Exception):
    """The weights have become NaN or Inf, so that there is no valid action."""


class StopOnNonFinite(BaseCallback):
    """Raises :class:`DivergedError` if a weight is NaN or Inf, before the environment gets such an action."""

    def _on_rollout_start(self) -> None:
        # A sum takes a twentieth of the time of isfinite().all(), and NaN and Inf propagate through it.
        if not math.isfinite(sum(float(parameter.detach().sum()) for parameter in self.model.policy.parameters())):
            raise DivergedError

    def _on_step(self) -> bool:
        return True


def run_all(
    names: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    *,
    episodes: int,
    decisions: int | None = None,
    recordings: Sequence[Path] = (),
    jobs: int = 1,
    minutes: float = float("inf"),
    report: Callable[[str], object] = print,
) -> int:
    """
    Train the missing runs, seed by seed: an interrupted ablation has the same seeds of all variants.

    A run whose result has other decisions, episodes or hyperparameters is repeated.

    :param names: names of the variants
    :param seeds: seeds of each variant
    :param folder: results go to ``folder / name / seed_N``
    :param episodes: number of episodes of each evaluation, on the held-out towns
    :param decisions: environment steps of each training; None for the variant's ``n_timesteps``
    :param recordings: folders of recorded drives, on which the models drive too
    :param jobs: number of parallel processes, with one thread each
    :param minutes: no run begins later than this [min]
    :param report: called with a line when a run begins or ends, and for each result with other settings
    :return: number of runs that are still missing
    :raises Exception: an error of a run; the other running ones finish first
    """
    requested = {name: _settings(load_variant(name), episodes, decisions, recordings) for name in names}
    todo = [
        (name, seed)
        for seed in seeds
        for name in names
        if not _is_done(folder / name / f"seed_{seed}" / RESULT, requested[name], report)
    ]
    deadline = time.monotonic() + 60.0 * minutes
    running: dict[Future[float], tuple[str, int]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_init_worker, initargs=(os.getpid(),)) as pool:
        while running or (todo and time.monotonic() < deadline):
            while todo and len(running) < jobs and time.monotonic() < deadline:
                name, seed = todo.pop(0)
                report(f"{name} seed {seed}: begins, {len(todo)} more to do")
                target = folder / name / f"seed_{seed}"
                job = pool.submit(train_and_evaluate, name, seed, target, episodes, decisions, recordings)
                running[job] = (name, seed)
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                name, seed = running.pop(done)
                report(f"{name} seed {seed}: done in {done.result() / 60.0:.1f} min")
    return len(todo)


def _settings(variant: Variant, episodes: int, decisions: int | None, recordings: Sequence[Path]) -> dict[str, Any]:
    """The settings that a result depends on beside the seed, as ``result.json`` has them."""
    found = {
        "decisions": int(variant.hyperparameters["n_timesteps"]) if decisions is None else decisions,
        "episodes": episodes,
        "hyperparameters": variant.hyperparameters,
    }
    if recordings:
        found["recordings"] = [folder.name for folder in recordings]
    return dict(json.loads(json.dumps(found, default=str)))  # JSON has a class as text


def _is_done(path: Path, requested: dict[str, Any], report: Callable[[str], object]) -> bool:
    """Whether there is a result with the requested settings."""
    if not path.exists():
        return False
    result = json.loads(path.read_text(encoding="utf-8"))
    other = [key for key, value in requested.items() if result.get(key) != value]
    if other:
        report(f"{result['variant']} seed {result['seed']}: its result has other {' and '.join(other)}")
    return not other


def _command(name: str, seed: int, episodes: int, decisions: int | None, recordings: Sequence[Path]) -> str:
    """Command line that repeats a run."""
    length = "" if decisions is None else f" --decisions {decisions}"
    length += f" --recordings {' '.join(folder.name for folder in recordings)}" if recordings else ""
    return f"python scripts/ablation.py --variants {name} --seeds {seed}{length} --episodes {episodes}"


def _init_worker(parent: int) -> None:
    """Use one thread, and exit when the parent ends: it may be killed, and then cannot end its workers."""
    th.set_num_threads(1)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def train_and_evaluate(
    name: str, seed: int, folder: Path, episodes: int, decisions: int | None = None, recordings: Sequence[Path] = ()
) -> float:
    """
    Train and evaluate one run; write its event files and ``result.json``.

    :param name: name of the variant
    :param seed: seed of the training
    :param folder: folder of the run; its content is deleted first
    :param episodes: number of episodes of the evaluation
    :param decisions: environment steps, all environments together; None for the variant's ``n_timesteps``
    :param recordings: folders of recorded drives, on which the model drives too
    :return: duration [s]
    """
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    variant = load_variant(name)
    settings = variant.hyperparameters
    recorded = _settings(variant, episodes, decisions, recordings)
    steps = int(recorded["decisions"])
    env = make_vec_env(ENV_ID, settings.get("n_envs", 1), seed=seed, env_kwargs=settings["env_kwargs"])
    diverged_at = None
    diagnostics = DiagnosticsCallback(guard=None)
    try:
        model = _build(variant, env, seed, steps)
        model.set_logger(configure(str(folder), ["tensorboard"]))
        try:
            model.learn(steps, callback=[diagnostics, StopOnNonFinite()], log_interval=4)
        except DivergedError:
            diverged_at = int(model.num_timesteps)
            diagnostics.on_training_end()  # removes the hooks; SB3 calls it only if there was no exception
        model.dump_logs()
        model.logger.close()
        model.save(folder / "model.zip")
    finally:
        env.close()
    result: dict[str, Any] = {
        "variant": name,
        "title": variant.title,
        "seed": seed,
        "updates": model._n_updates,
        "diverged_at": diverged_at,
        **recorded,
        **provenance(),
        "command": _command(name, seed, episodes, decisions, recordings),
    }
    result["curves"] = downsampled_curves(read_run(folder))
    result["scores"] = None if diverged_at is not None else _evaluate(model, settings["env_kwargs"], episodes)
    if recordings and diverged_at is None:
        result["recorded"] = _drive_recordings(model, settings["env_kwargs"], recordings)
    result["seconds"] = time.monotonic() - began
    unfinished = folder / f"{RESULT}.part"  # renamed when complete
    unfinished.write_text(to_json(result), encoding="utf-8")
    unfinished.replace(folder / RESULT)
    return float(result["seconds"])


def _build(variant: Variant, env: Any, seed: int, decisions: int) -> Any:
    arguments = constructor_arguments(variant.hyperparameters)
    arguments["buffer_size"] = min(arguments.get("buffer_size", 10**6), decisions)
    if not issubclass(variant.algorithm, TD3) and "exploration_noise" in arguments:
        # SB3's own TD3 has no noise schedule as an argument, but takes a noise object.
        schedule = arguments.pop("exploration_noise")
        arguments["action_noise"] = exploration_noise(env.action_space.shape[0], schedule, env.num_envs)
    return variant.algorithm(variant.hyperparameters["policy"], env, seed=seed, **arguments)


def _evaluate(model: Any, env_kwargs: dict[str, Any], episodes: int) -> dict[str, Any]:
    env = gym.make(ENV_ID, disable_env_checker=True, **{**env_kwargs, "town": list(HELD_OUT_TOWNS), "randomize": None})
    try:
        cases = evaluation.cases(HELD_OUT_TOWNS, episodes)
        found = evaluation.evaluate(env, {"model": evaluation.model_policy(model)}, cases)
    finally:
        env.close()
    return {name: asdict(score) for name, score in found.scores["model"].items()}


def _drive_recordings(model: Any, env_kwargs: dict[str, Any], recordings: Sequence[Path]) -> dict[str, float]:
    """Numbers of the table, from all recordings together."""
    policies = {"model": evaluation.model_policy(model)}
    found = evaluate_recordings(policies, recordings, recorded_arguments(env_kwargs)).results[0].scores()
    response = found["response"]
    return {
        "completed": found["completed"],
        # Without a departure: all that was driven.
        "metres_a_departure": min(found["metres_a_departure"], found["metres"]),
        "right_at_10_deg": response.right_signs["10 deg"],
        "steering_on_a_straight": response.straight,
    }
