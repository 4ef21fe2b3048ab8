#!/usr/bin/env python
"""
Cost of the diagnostics: time of a training step with all callbacks, relative to the time without any.

    python benchmarks/diagnostics.py --blocks 30 --output results/diagnostics.json

Two TD3 models with the default policy train side by side on 4x84x84 pictures at batch 256, one with
``sb3_carla.callbacks.DiagnosticsCallback``, one without, in turns of some steps each. A turn has environment steps,
gradient steps and a dump, as in ``learn()``. Measured is processor time, because other work on the machine changes it
least, with one thread (--threads), so that none waits. Each pair of turns gives one ratio; the table has their median
with a bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from scipy.stats import bootstrap
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from tqdm import tqdm

from sb3_carla import TD3
from sb3_carla.callbacks import DiagnosticsCallback

EPISODE = 20
"""Steps: short, as at the start of a training, where dumps are most frequent."""


class Pictures(gym.Env[np.ndarray, np.ndarray]):
    """Random pictures, drawn beforehand, so that the environment takes almost no time."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._pictures = np.random.default_rng(0).integers(0, 256, (32, 4, 84, 84), dtype=np.uint8)
        self._step = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._pictures[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        picture = self._pictures[self._step % len(self._pictures)]
        return picture, float(action[0]), False, self._step % EPISODE == 0, {}


class Training:
    """``learn()``, but some steps at a time."""

    def __init__(self, encoder: str, callback: BaseCallback | None, folder: Path) -> None:
        self.model = TD3(
            "LayerNormCnnPolicy", Pictures(), 3e-4,
            policy_kwargs={"encoder": encoder, "optimizer_kwargs": {"fused": True}},
            batch_size=256, buffer_size=2000, learning_starts=300, train_freq=1, random_shift=4,
            exploration_noise=(0.4, 0.1, 1000), seed=0,
        )  # fmt: skip
        self.model.set_logger(configure(str(folder), ["tensorboard"]))
        _, self.callback = self.model._setup_learn(10**6, callback)
        self.callback.on_training_start({}, {})
        self.steps(320)

    def steps(self, number: int) -> float:
        """:return: processor seconds for ``number`` environment steps, each with a gradient step once there is data"""
        model, begin = self.model, time.process_time()
        assert model.env is not None
        assert model.replay_buffer is not None
        for _ in range(number):
            model.collect_rollouts(
                model.env, self.callback, model.train_freq, model.replay_buffer,  # type: ignore[arg-type]
                model.action_noise, model.learning_starts, log_interval=4,
            )  # fmt: skip
            if model.num_timesteps > model.learning_starts:
                model.train(1, batch_size=256)
        return time.process_time() - begin


def ratios(encoder: str, blocks: int, steps: int) -> tuple[np.ndarray, float]:
    """:return: time with callbacks by time without, of each pair of turns; seconds of a step without"""
    with tempfile.TemporaryDirectory() as folder:
        plain = Training(encoder, None, Path(folder, "plain"))
        watched = Training(encoder, DiagnosticsCallback(), Path(folder, "watched"))
        pairs = []
        for block in tqdm(range(blocks), desc=encoder):
            order = (plain, watched) if block % 2 == 0 else (watched, plain)
            seconds = {id(training): training.steps(steps) for training in order}
            pairs.append((seconds[id(plain)], seconds[id(watched)]))
        watched.callback.on_training_end()
    without, with_callbacks = np.array(pairs).T
    return with_callbacks / without, float(np.median(without)) / steps


def interval(values: np.ndarray) -> tuple[float, float]:
    """:return: 95 % bootstrap interval of the median"""
    found = bootstrap((values,), np.median, n_resamples=2000, method="percentile", random_state=0)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=30, help="pairs of turns (default: 30)")
    parser.add_argument("--steps", type=int, default=80, help="in each turn: one dump (default: 80)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    th.set_num_threads(options.threads)
    results = {}
    print("| encoder | ms a step without | with / without (median) | 95 % interval |\n| --- | --- | --- | --- |")
    for encoder in ("critic", "separate"):
        found, seconds = ratios(encoder, options.blocks, options.steps)
        low, high = interval(found)
        results[encoder] = {"seconds_per_step": seconds, "ratio": float(np.median(found)), "interval": [low, high]}
        print(f"| {encoder} | {1e3 * seconds:.1f} | {np.median(found):.3f} | {low:.3f} to {high:.3f} |")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
