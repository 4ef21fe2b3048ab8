#!/usr/bin/env python
"""
Decisions per second of several environments: in one process, in several, and in supervised ones.

    python benchmarks/vector_environments.py --n-envs 4 --repeats 5 --seconds 4

CarlaLane-v0 as in the default hyperparameters, random actions, each kind of SB3 vector environment in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv
from tqdm import tqdm

from sb3_carla import SupervisedVecEnv
from sb3_carla.diagnostics.html import markdown_table
from sb3_carla.zoo.algorithms import default_config
from sb3_carla.zoo.hyperparameters import read_hyperparameters

KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (DummyVecEnv, SubprocVecEnv, SupervisedVecEnv)}


def rate(env: VecEnv, seconds: float, rng: np.random.Generator) -> float:
    """
    :param env: environments, after a reset
    :param seconds: length of the measurement [s]
    :param rng: source of the random actions
    :return: decisions per second, all environments together
    """
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        env.step(rng.uniform(-1.0, 1.0, (env.num_envs, 2)).astype(np.float32))
        count += env.num_envs
    return count / elapsed


def main() -> None:
    """Parse, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-envs", type=int, default=4, help="environments of each kind (default: 4)")
    parser.add_argument("--repeats", type=int, default=5, help="default: 5")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each repeat (default: 4)")
    options = parser.parse_args()
    env_kwargs = {**read_hyperparameters(str(default_config("td3")), "CarlaLane-v0")["env_kwargs"], "town": "Circuit01"}
    rng = np.random.default_rng(0)
    envs = {
        name: make_vec_env("CarlaLane-v0", options.n_envs, seed=0, env_kwargs=env_kwargs, vec_env_cls=kind)
        for name, kind in KINDS.items()
    }
    rates: dict[str, list[float]] = {name: [] for name in envs}
    try:
        for env in envs.values():
            env.reset()
            rate(env, 1.0, rng)
        for _ in tqdm(range(options.repeats)):
            for name, env in envs.items():
                rates[name].append(rate(env, options.seconds, rng))
    finally:
        for env in envs.values():
            env.close()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    rows = [["", "decisions/s (median)", "range", "of DummyVecEnv's"]]
    for name, values in rates.items():
        share = medians[name] / medians["DummyVecEnv"]
        rows.append([name, f"{medians[name]:.0f}", f"{min(values):.0f} to {max(values):.0f}", f"{share:.2f}"])
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
