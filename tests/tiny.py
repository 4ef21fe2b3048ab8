"""A tiny image environment in which learning takes seconds: the action must match the column of a bright bar."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.logger import configure

SMALL: dict[str, Any] = {"buffer_size": 500, "learning_starts": 40, "batch_size": 16, "seed": 3, "device": "cpu"}
"""Arguments of a small TD3."""


class BarEnv(gym.Env[np.ndarray, np.ndarray]):
    """Reward 1 - |action - bar| with the bar's column scaled to -1..1; ten steps an episode."""

    def __init__(self, size: int = 36, terminate: bool = False) -> None:
        self.observation_space = spaces.Box(0, 255, (2, size, size), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._size, self._terminate = size, terminate

    def _draw(self) -> np.ndarray:
        self._column = int(self.np_random.integers(2, self._size - 2))
        image = np.zeros(self.observation_space.shape, np.uint8)
        image[:, :, self._column - 2 : self._column + 2] = 255
        return image

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = 10
        return self._draw(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = 1.0 - abs(float(action[0]) - (2.0 * self._column / (self._size - 1) - 1.0))
        self._left -= 1
        ended = self._left == 0
        return self._draw(), reward, ended and self._terminate, ended and not self._terminate, {}


class SlidingBar(BarEnv):
    """Its observations are the last two frames."""

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        self.frame = observation[0]
        return observation, info

    def step(self, action: np.ndarray) -> Any:
        observation, *rest = super().step(action)
        observation[0], self.frame = self.frame, observation[1].copy()
        return observation, *rest


class ToldBar(SlidingBar):
    """Its infos have the bar's position, in -1 to 1."""

    def step(self, action: np.ndarray) -> Any:
        *rest, info = super().step(action)
        return *rest, {**info, "bar": [2.0 * self._column / (self._size - 1) - 1.0]}


STATE_CRITIC: dict[str, Any] = {
    "critic_state": "bar", "deduplicate_frames": True, "policy_kwargs": {"encoder": "actor", "state_size": 1},
}  # fmt: skip
"""Arguments of a TD3 whose critics see the bar's position instead of its picture."""


def train(model: Any, folder: Path, callbacks: list[Any], steps: int = 121) -> list[dict[str, float]]:
    """Train, and return one dict per dump: tag -> value, without tags that have none."""
    model.set_logger(configure(str(folder), ["csv"]))
    model.learn(steps, callback=callbacks, log_interval=1)
    model.logger.close()
    with (folder / "progress.csv").open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
