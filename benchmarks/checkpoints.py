#!/usr/bin/env python
"""
Time and size of saving a training: our checkpoints and SB3's ``model.save`` with ``save_replay_buffer``.

    python benchmarks/checkpoints.py --transitions 100000 --new 25000 --saves 4

Both models have one encoder, trained by the critic, and random pictures in buffers of the same size: full at the first
save, then with ``--new`` transitions more before every save. SB3's buffer has ``optimize_memory_usage``, which makes it
smaller. The files are deleted at the end; ``--folder`` should be on a disk, not in memory.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
from gymnasium import spaces
from tqdm import tqdm

from sb3_carla import TD3
from sb3_carla.checkpointing.checkpoints import Checkpoints
from sb3_carla.diagnostics.html import markdown_table


class Pictures(gym.Env[np.ndarray, np.ndarray]):
    """Defines only the spaces; the transitions are added to the buffers by :func:`fill`."""

    observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape, np.uint8), {}


def fill(buffer: Any, transitions: int, rng: np.random.Generator) -> None:
    """Add episodes of 200 steps, each step with a new frame."""
    action, reward = np.zeros((1, 2), np.float32), np.zeros(1, np.float32)
    obs = np.zeros((1, 4, 84, 84), np.uint8)
    for step in range(transitions):
        frame = rng.integers(0, 256, (1, 1, 84, 84), dtype=np.uint8)
        after = np.concatenate([obs[:, 1:], frame], axis=1)
        buffer.add(obs, after, action, reward, np.array([step % 200 == 199]), [{}])
        obs = after


def size(folder: Path) -> dict[tuple[str, int], int]:
    """:return: bytes of every file, by its path and when it was written"""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {(str(path), path.stat().st_mtime_ns): path.stat().st_size for path in files}


def main() -> None:
    """Save both in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transitions", type=int, default=100_000, help="in each buffer (default: 100 000)")
    parser.add_argument("--new", type=int, default=25_000, help="before every save but the first (default: 25 000)")
    parser.add_argument("--saves", type=int, default=4, help="after the first (default: 4)")
    parser.add_argument("--folder", type=Path, help="for the files (default: the system's temporary folder)")
    options = parser.parse_args()
    rng, count = np.random.default_rng(0), options.transitions
    small: dict[str, Any] = {"features_extractor_kwargs": {"features_dim": 64}}
    ours = TD3(
        "LayerNormCnnPolicy", Pictures(), buffer_size=count, deduplicate_frames=True, n_steps=3,
        policy_kwargs={**small, "encoder": "critic"},
    )  # fmt: skip
    stock = stable_baselines3.TD3(
        "CnnPolicy", Pictures(), buffer_size=count, optimize_memory_usage=True, policy_kwargs=small,
        replay_buffer_kwargs={"handle_timeout_termination": False},
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        checkpoints = Checkpoints(Path(name) / "ours")
        folder = Path(name) / "stock"
        folder.mkdir()

        def save_ours() -> None:
            ours.num_timesteps += options.new
            checkpoints.save(ours)

        def save_stock() -> None:  # what SB3's CheckpointCallback(save_replay_buffer=True) does
            stock.save(folder / "model.zip")
            stock.save_replay_buffer(folder / "buffer.pkl")
            os.sync()  # ours waits for the disk too

        kinds: dict[str, tuple[Any, Callable[[], None], Path]] = {
            "sb3_carla": (ours, save_ours, checkpoints.folder),
            "SB3": (stock, save_stock, folder),
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        written: dict[str, list[float]] = {kind: [] for kind in kinds}
        for save in tqdm(range(options.saves + 1)):
            for kind, (model, act, place) in kinds.items():
                fill(model.replay_buffer, options.new if save else count, rng)
                os.sync()
                before, begin = size(place) if save else {}, time.perf_counter()
                act()
                seconds[kind].append(time.perf_counter() - begin)
                now = size(place)
                written[kind].append(sum(now[file] for file in now.keys() - before.keys()) / 1e6)
    rows = [["", "first save [s]", "MB", f"each with {options.new} new [s] (median, range)", "MB"]]
    for kind in kinds:
        first, *later = seconds[kind]
        spread = f"{statistics.median(later):.1f} ({min(later):.1f} to {max(later):.1f})"
        rows.append([kind, f"{first:.1f}", f"{written[kind][0]:.0f}", spread, f"{written[kind][-1]:.0f}"])
    print(markdown_table(rows))
    ratio = statistics.median(b / a for a, b in zip(seconds["sb3_carla"][1:], seconds["SB3"][1:], strict=True))
    print(f"A later save with SB3 takes {ratio:.1f} times as long as ours")


if __name__ == "__main__":
    main()
