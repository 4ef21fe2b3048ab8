#!/usr/bin/env python
"""
Time of a gradient step at batch 256 on 4x84x84 pictures: stock TD3, and ours with clipping and gradient norms.

    python benchmarks/train_step.py --rounds 9 --output results/train_step.json

- stock: ``stable_baselines3.TD3("CnnPolicy")``, separate encoders for actor and critic, no clipping, no log.
- separate: ``sb3_carla.TD3("LayerNormCnnPolicy")``, the same two encoders, with LayerNorm.
- critic: one encoder, trained by the critic's loss.
- default: as in the default hyperparameters: critics that see the state, one encoder with 64 features, trained by the
  policy's loss at every step.

``--profile`` prints where the time of a step goes: the time of its arithmetic at the rate that this processor reaches
in a large matrix product, in float32 and in bfloat16, and the operations that take longest.

All train on the same random transitions, in turns of two steps (one with an actor update). Measured is wall time; each
round gives one ratio to stock, so that other work on the machine affects all alike.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from sb3_carla import TD3
from sb3_carla.callbacks import GradientNormCallback
from sb3_carla.envs.privileged_state import PRIVILEGED_STATE_SIZE

BATCH = 256
TRANSITIONS = 600


class Pictures(gym.Env[np.ndarray, np.ndarray]):
    """Random pictures, with one new frame per step."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def _frame(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (1, 84, 84), dtype=np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._stack = np.repeat(self._frame(), 4, axis=0)
        return self._stack, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._stack = np.concatenate([self._stack[1:], self._frame()])
        ended = bool(self.np_random.random() < 0.01)
        return self._stack, float(action[0]), False, ended, {"state": self.np_random.normal(size=PRIVILEGED_STATE_SIZE)}


def contender(name: str) -> Any:
    """:return: a model with its buffer filled and nothing trained"""
    common: dict[str, Any] = {
        "buffer_size": 2 * TRANSITIONS,
        "learning_starts": 10**6,
        "learning_rate": 3e-4,
        "seed": 0,
    }
    if name == "stock":
        model: Any = stable_baselines3.TD3("CnnPolicy", Pictures(), **common)
    else:
        policy_kwargs: dict[str, Any] = {"encoder": name, "optimizer_kwargs": {"fused": True}}
        options: dict[str, Any] = {"n_steps": 3, "random_shift": 4}
        if name == "default":
            policy_kwargs |= {"encoder": "actor", "state_size": PRIVILEGED_STATE_SIZE}
            policy_kwargs["features_extractor_kwargs"] = {"features_dim": 64}
            options = {"critic_state": "state", "policy_delay": 1}
        model = TD3(
            "LayerNormCnnPolicy", Pictures(), deduplicate_frames=True, policy_kwargs=policy_kwargs, **options, **common
        )
    model.learn(TRANSITIONS)
    model.set_logger(Logger(None, []))
    if name != "stock":
        callback = GradientNormCallback()
        callback.init_callback(model)
        callback.on_training_start({}, {})
    return model


def seconds(model: Any, steps: int) -> float:
    """:return: wall time of a gradient step"""
    begin = time.perf_counter()
    model.train(steps, BATCH)
    return (time.perf_counter() - begin) / steps


def peak(dtype: th.dtype, size: int = 2048) -> float:
    """:return: operations a second of the best of ten matrix products"""
    a, b = th.randn(size, size).to(dtype), th.randn(size, size).to(dtype)
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - begin)
    return 2.0 * size**3 / min(times)


def profile(name: str, model: Any) -> None:
    """Print the time of a step and of its arithmetic at the processor's peak, and the ten longest operations."""
    with FlopCounterMode(display=False) as counter:
        model.train(2, BATCH)
    operations = counter.get_total_flops() / 2.0
    taken = float(np.median([seconds(model, 2) for _ in range(5)]))
    at_peak = {dtype: operations / peak(dtype) for dtype in (th.float32, th.bfloat16)}
    print(f"\n{name}: {1e3 * taken:.0f} ms a step for {operations / 1e9:.1f} GFLOP, which take", end=" ")
    print(", ".join(f"{1e3 * least:.0f} ms at the peak of {dtype}" for dtype, least in at_peak.items()))
    with th.profiler.profile(activities=[th.profiler.ProfilerActivity.CPU]) as profiler:
        model.train(2, BATCH)
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    for event in events[:10]:
        print(f"  {event.self_cpu_time_total / total:5.1%} {event.count:5d} x {event.key}")


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="default: 9")
    parser.add_argument("--threads", type=int, help="of PyTorch (default: its own)")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    if options.threads is not None:
        th.set_num_threads(options.threads)
    models = {name: contender(name) for name in ("stock", "separate", "critic", "default")}
    for model in models.values():
        model.train(2, BATCH)
    rounds = [{name: seconds(model, 2) for name, model in models.items()} for _ in tqdm(range(options.rounds))]
    results = {}
    print("| | ms a step (median) | range | times as fast as stock |\n| --- | --- | --- | --- |")
    for name in models:
        found = np.array([row[name] for row in rounds])
        ratios = np.array([row["stock"] / row[name] for row in rounds])
        results[name] = {"seconds": found.tolist(), "ratio": float(np.median(ratios))}
        spread = f"{1e3 * found.min():.0f} to {1e3 * found.max():.0f}"
        print(f"| {name} | {1e3 * np.median(found):.0f} | {spread} | {np.median(ratios):.1f} |")
    if options.profile:
        for name, model in models.items():
            profile(name, model)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
