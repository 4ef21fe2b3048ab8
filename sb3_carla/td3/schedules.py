"""Learning-rate schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

__all__ = ["LINEAR", "ScaledSchedule", "rate_schedule"]

LINEAR = "lin_"
"""Prefix in rl-zoo3's files of a rate that falls linearly to zero: ``lin_3e-4``."""


def rate_schedule(value: str | float | Schedule) -> Schedule:
    """
    A learning rate as rl-zoo3's files write it.

    :param value: a number, ``lin_3e-4`` for one that falls linearly to zero, or a schedule
    :return: remaining progress (1 at the start, 0 at the end) -> rate
    :raises ValueError: if it is none of these
    """
    if callable(value):
        return FloatSchedule(value)
    linear = isinstance(value, str) and value.startswith(LINEAR)
    try:
        rate = float(value.removeprefix(LINEAR) if isinstance(value, str) else value)
    except (TypeError, ValueError):
        rate = math.nan
    if not 0.0 <= rate < math.inf:
        raise ValueError(f"expected a rate of at least 0, or {LINEAR}RATE for one that falls to 0, got {value!r}")
    return LinearSchedule(rate, 0.0, 1.0) if linear else FloatSchedule(rate)


@dataclass(frozen=True)
class ScaledSchedule:
    """
    A schedule times a factor. It can be pickled, so saved models can hold it.

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
