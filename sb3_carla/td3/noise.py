"""Exploration noise whose standard deviation falls linearly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise

__all__ = ["LinearNormalNoise", "exploration_noise"]


class LinearNormalNoise(ActionNoise):
    """
    Gaussian noise whose standard deviation falls linearly from ``start`` to ``end``.

    Random numbers come from NumPy's global generator, as in SB3's own noise: SB3 seeds it, and copies the noise for
    each environment of a vector.

    :param size: number of actions, or their shape
    :param start: first standard deviation [action units], >= 0
    :param end: last standard deviation [action units], >= 0
    :param calls: number of calls until ``end`` is reached, > 0
    :param count: number of calls so far
    :raises ValueError: if a number is outside its range
    """

    def __init__(self, size: int | tuple[int, ...], start: float, end: float, calls: int, count: int = 0) -> None:
        if start < 0.0 or end < 0.0 or calls <= 0:
            raise ValueError(f"expected start >= 0, end >= 0 and calls > 0, got {start}, {end}, {calls}")
        super().__init__()
        self._size, self._start, self._end, self._calls = size, start, end, calls
        self._count = count

    @property
    def count(self) -> int:
        """Number of calls so far."""
        return self._count

    @property
    def sigma(self) -> float:
        """Current standard deviation [action units]."""
        return self._start + (self._end - self._start) * min(self._count / self._calls, 1.0)

    def __call__(self) -> NDArray[np.float32]:
        """:return: shape of the actions, float32"""
        noise = np.random.normal(0.0, self.sigma, self._size).astype(np.float32)  # noqa: NPY002 (see the docstring)
        self._count += 1
        return noise


def exploration_noise(
    size: int | tuple[int, ...], schedule: Sequence[float], n_envs: int = 1, steps: int = 0
) -> VectorizedActionNoise:
    """
    Noise for a vector of environments.

    :param size: number of actions, or their shape
    :param schedule: first and last standard deviation [action units], and the number of environment steps, all
        environments together, after which the last is reached
    :param n_envs: number of environments
    :param steps: environment steps so far, all environments together
    :return: ``action_noise`` for SB3's off-policy algorithms
    """
    start, end, length = schedule
    calls = max(1, int(length) // n_envs)
    return VectorizedActionNoise(LinearNormalNoise(size, start, end, calls, steps // n_envs), n_envs)
