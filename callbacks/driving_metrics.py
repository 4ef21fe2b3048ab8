"""Driving metrics of each episode: return, length, collisions, route completion, reward terms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat

from sb3_carla.callbacks.probes import exclude_if_too_long

__all__ = ["DrivingMetricsCallback"]

EPISODE_TAGS = {
    "collisions": "train/collisions_per_episode",
    "lane_invasions": "train/lane_invasions_per_episode",
    "route_completion": "driving/route_completion",
    "lateral_deviation_m": "driving/lateral_deviation_m",
    "mean_speed_mps": "driving/speed_mps",
    "is_success": "driving/success",
}
"""Key in the ``info`` of an episode's last step -> tag."""
MONITOR_TAGS = {"r": "train/episode_reward", "l": "train/episode_length"}
"""Key in the ``info["episode"]`` of SB3's ``Monitor`` -> tag."""


class DrivingMetricsCallback(BaseCallback):
    """
    Logs what ``CarlaLane-v0`` reports in ``info`` at the end of each episode, and the mean of each reward term.

    Tags: ``train/episode_reward``, ``train/episode_length``, those of ``EPISODE_TAGS``, ``reward/<term>``. TensorBoard
    gets one point per episode; the logger's other outputs get the mean over the episodes between two dumps. A key that
    is missing, or is not a number, is skipped, so the callback works with every environment.
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._sums: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._steps: dict[int, int] = defaultdict(int)

    def _on_training_start(self) -> None:
        if self.num_timesteps == 0:  # not resumed: the environments start new episodes
            self._sums.clear()
            self._steps.clear()

    def _on_step(self) -> bool:
        steps = zip(self.locals.get("infos", []), self.locals.get("dones", []), strict=True)
        for index, (info, ended) in enumerate(steps):
            self._steps[index] += 1
            for term, value in _numbers(info.get("reward_terms")).items():
                self._sums[index][term] += value
            if ended:
                self._record(index, info)
        return True

    def _record(self, index: int, info: dict[str, Any]) -> None:
        values: dict[str, float] = {}
        for tags, place in ((EPISODE_TAGS, info), (MONITOR_TAGS, info.get("episode"))):
            values |= {tags[key]: value for key, value in _numbers(place).items() if key in tags}
        for term, total in self._sums.pop(index, {}).items():
            values[f"reward/{term}"] = total / self._steps[index]
        self._steps[index] = 0
        for tag, value in values.items():
            self.logger.record_mean(tag, value, exclude=("tensorboard", *exclude_if_too_long(tag)))
        for output in self.logger.output_formats:
            if isinstance(output, TensorBoardOutputFormat):
                output.write(values, dict.fromkeys(values, ()), self.num_timesteps)


def _numbers(values: Any) -> dict[str, float]:
    """Values of a mapping that are numbers, or arrays with one number; empty if it is not a mapping."""
    items = values.items() if isinstance(values, Mapping) else ()
    arrays = {key: np.asarray(value) for key, value in items if isinstance(value, (int, float, np.generic, np.ndarray))}
    return {key: float(array.item()) for key, array in arrays.items() if array.size == 1 and array.dtype.kind in "biuf"}
