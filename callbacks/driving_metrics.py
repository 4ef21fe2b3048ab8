"""What the driver did in each episode."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import TensorBoardOutputFormat

from sb3_carla.callbacks.probes import outside_table

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
"""The same of what SB3's ``Monitor`` says there."""


class DrivingMetricsCallback(BaseCallback):
    """
    Logs what ``CarlaLane-v0`` says in ``info`` at the end of each episode, and the means of its reward terms.

    Tags: ``train/episode_reward``, ``train/episode_length``, those of ``EPISODE_TAGS``, ``reward/<term>``. TensorBoard
    gets a point for each episode, when it ends; the logger's other outputs get the mean of those between two dumps.
    Infos that lack a key, or have no number there, are passed over: it does no harm elsewhere.
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._sums: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._steps: dict[int, int] = defaultdict(int)

    def _on_training_start(self) -> None:
        if self.num_timesteps == 0:  # the environments begin anew
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
            self.logger.record_mean(tag, value, exclude=("tensorboard", *outside_table(tag)))
        for output in self.logger.output_formats:
            if isinstance(output, TensorBoardOutputFormat):
                output.write(values, dict.fromkeys(values, ()), self.num_timesteps)


def _numbers(values: Any) -> dict[str, float]:
    """Those of a mapping's values that are a number, or an array of one; none of anything else."""
    items = values.items() if isinstance(values, Mapping) else ()
    arrays = {key: np.asarray(value) for key, value in items if isinstance(value, (int, float, np.generic, np.ndarray))}
    return {key: float(array.item()) for key, array in arrays.items() if array.size == 1 and array.dtype.kind in "biuf"}
