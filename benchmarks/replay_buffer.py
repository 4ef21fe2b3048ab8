#!/usr/bin/env python
"""
Time of storing and sampling camera transitions: ``FrameReplayBuffer`` and SB3's buffers, in one process, in turns.

    python benchmarks/replay_buffer.py --transitions 40000

4x84x84 pictures, four environments, n-step 3 if the buffer has it, episodes of 200 steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from tqdm import tqdm

from sb3_carla import FrameReplayBuffer

N_ENVS, EPISODE, CALLS = 4, 200, 10
OBSERVATIONS = spaces.Box(0, 255, (4, 84, 84), np.uint8)
ACTIONS = spaces.Box(-1.0, 1.0, (2,), np.float32)


def fill(buffer: Any, transitions: int) -> float:
    """:return: seconds to store a transition"""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (64, N_ENVS, 1, 84, 84), dtype=np.uint8)
    action, reward, spent = np.zeros((N_ENVS, 2), np.float32), np.zeros(N_ENVS, np.float32), 0.0
    obs = np.repeat(frames[0], 4, axis=1)
    for step in tqdm(range(transitions // N_ENVS), desc=type(buffer).__name__, leave=False):
        after = np.concatenate([obs[:, 1:], frames[step % len(frames)]], axis=1)
        done = np.full(N_ENVS, step % EPISODE == EPISODE - 1)
        begin = time.perf_counter()
        buffer.add(obs, after, action, reward, done, [{}] * N_ENVS)
        spent += time.perf_counter() - begin
        obs = after
    return spent / transitions


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=40_000, help="in each buffer (default: 40000)")
    parser.add_argument("--batch", type=int, default=256, help="default: 256")
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    options = parser.parse_args()
    common: dict[str, Any] = {"device": "cpu", "n_envs": N_ENVS}
    buffers: list[Any] = [
        FrameReplayBuffer(options.transitions, OBSERVATIONS, ACTIONS, n_steps=3, gamma=0.98, **common),
        NStepReplayBuffer(options.transitions, OBSERVATIONS, ACTIONS, n_steps=3, gamma=0.98, **common),
        ReplayBuffer(options.transitions, OBSERVATIONS, ACTIONS, **common),
    ]
    stored = [fill(buffer, options.transitions) for buffer in buffers]
    sampled: list[list[float]] = [[] for _ in buffers]
    for _ in tqdm(range(options.rounds), desc="sampling", leave=False):
        for times, buffer in zip(sampled, buffers, strict=True):
            begin = time.perf_counter()
            for _ in range(CALLS):
                buffer.sample(options.batch)
            times.append((time.perf_counter() - begin) / CALLS)
    print(f"| | microseconds to store | ms to sample {options.batch} | GB for a million |\n| --- | --- | --- | --- |")
    for buffer, seconds, times in zip(buffers, stored, sampled, strict=True):
        arrays = [value for value in vars(buffer).values() if isinstance(value, np.ndarray)]
        size = sum(array.nbytes for array in arrays) / options.transitions * 1e6 / 1e9
        print(f"| {type(buffer).__name__} | {1e6 * seconds:.0f} | {1e3 * statistics.median(times):.2f} | {size:.1f} |")


if __name__ == "__main__":
    main()
