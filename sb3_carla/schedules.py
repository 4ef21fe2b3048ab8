"""Learning-rate schedules."""

from __future__ import annotations

from dataclasses import dataclass

from stable_baselines3.common.type_aliases import Schedule

__all__ = ["ScaledSchedule"]


@dataclass(frozen=True)
class ScaledSchedule:
    """
    Another schedule, times a factor. Saved models can hold it.

    :param schedule: remaining progress (1 at the start, 0 at the end) -> rate
    :param factor: of the rate [-]
    """

    schedule: Schedule
    factor: float

    def __call__(self, progress_remaining: float) -> float:
        """
        :param progress_remaining: 1 at the start, 0 at the end
        :return: learning rate
        """
        return self.factor * self.schedule(progress_remaining)
