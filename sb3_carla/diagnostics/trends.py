"""Trends of noisy series: a robust slope with its confidence interval, and a test for exponential growth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import theilslopes

from sb3_carla.diagnostics.event_logs import ScalarSeries

__all__ = ["Trend", "block_means", "exponential_growth", "trend"]

MAX_POINTS = 100
"""A longer series is averaged in as many blocks. The slope takes quadratic time, and its interval assumes independent
points, which block means are more nearly than single dumps."""
MIN_POINTS = 5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trend:
    """
    Straight line through a series.

    :param slope: change per step
    :param low: lower end of the slope's 95 % confidence interval
    :param high: upper end of it
    :param steps: number of steps that the series spans
    :param size: typical size of the values: median of their absolute values, or interquartile range if that is larger
    """

    slope: float
    low: float
    high: float
    steps: float
    size: float

    @property
    def change(self) -> float:
        """Change over the whole span."""
        return self.slope * self.steps

    def rises(self, share: float = 0.0) -> bool:
        """
        :param share: smallest rise over the span that counts, as a share of ``size`` [-]
        :return: whether the whole interval is above 0, and the rise is large enough
        """
        return self.low > 0.0 and self.change >= share * self.size

    def falls(self, share: float = 0.0) -> bool:
        """
        :param share: smallest fall over the span that counts, as a share of ``size`` [-]
        :return: whether the whole interval is below 0, and the fall is large enough
        """
        return self.high < 0.0 and -self.change >= share * self.size

    def __str__(self) -> str:
        low, high = self.low * self.steps, self.high * self.steps
        return f"{self.change:+.3g} over {self.steps:.0f} steps ({low:+.3g} to {high:+.3g})"


def trend(series: ScalarSeries, start: float = 0.0) -> Trend | None:
    """
    Theil-Sen slope (median of the slopes of all pairs) with Sen's interval. Points that are not finite are ignored.

    Source: Sen, Estimates of the regression coefficient based on Kendall's tau, JASA 63, 1968.

    :param series: points of a tag
    :param start: share of the steps to ignore at the beginning [-]
    :return: None if fewer than five points are left, or all are at one step
    """
    steps, values = _finite(series.steps, series.values)
    if len(steps):
        kept = steps >= steps[0] + start * (steps[-1] - steps[0])
        steps, values = block_means(steps[kept], values[kept])
    if len(steps) < MIN_POINTS or steps[-1] <= steps[0]:
        return None
    slope, _, low, high = theilslopes(values, steps)
    low_quarter, high_quarter = np.quantile(values, (0.25, 0.75))
    size = max(float(np.median(np.abs(values))), float(high_quarter - low_quarter))
    return Trend(float(slope), float(low), float(high), float(steps[-1] - steps[0]), size)


def exponential_growth(series: ScalarSeries, factor: float = 10.0) -> bool:
    """
    Test whether the absolute values grow exponentially up to the end.

    A straight line is fitted to their logarithms over the whole series, its last half and its last fifth. In one of
    these windows the values must grow by ``factor``, and the slope of the second half must be at least half of the
    total slope. So a training that explodes late counts, and a curve that rises from zero and flattens does not.

    :param series: points of a tag; a last point that is not finite counts as growth
    :param factor: smallest growth that counts [-]
    :return: False if there are fewer than ten points
    """
    if len(series.values) and not np.isfinite(series.values[-1]):
        return True
    steps, values = _finite(series.steps, series.values)
    steps, values = block_means(steps, np.abs(values))
    logs = np.log(np.maximum(values, 1e-12))
    windows = {max(len(steps) - int(share * len(steps)), 0) for share in (1.0, 0.5, 0.2)}
    return any(_explodes(steps[start:], logs[start:], factor) for start in windows)


def _explodes(steps: Floats, logs: Floats, factor: float) -> bool:
    if len(steps) < 2 * MIN_POINTS:
        return False
    half = len(steps) // 2
    slope, _, low, _ = theilslopes(logs, steps)
    late = theilslopes(logs[half:], steps[half:])[0]
    return bool(low > 0.0 and slope * (steps[-1] - steps[0]) > np.log(factor) and late > 0.5 * slope)


def _finite(steps: npt.NDArray[np.int64], values: Floats) -> tuple[Floats, Floats]:
    finite = np.isfinite(values)
    return steps[finite].astype(np.float64), values[finite]


def block_means(steps: Floats, values: Floats, most: int = MAX_POINTS) -> tuple[Floats, Floats]:
    """
    Average consecutive points of a series that is too long.

    :param steps: shape (n,)
    :param values: shape (n,)
    :param most: largest number of points to return
    :return: steps and values, shape (min(n, most),)
    """
    if len(steps) <= most:
        return steps, values
    parts = [np.array_split(column, most) for column in (steps, values)]
    means = [np.array([part.mean() for part in column]) for column in parts]
    return means[0], means[1]
