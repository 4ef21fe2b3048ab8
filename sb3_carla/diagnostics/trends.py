"""Does a noisy series rise, fall, or explode? Robust answers with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import theilslopes

from sb3_carla.diagnostics.event_logs import ScalarSeries

__all__ = ["Trend", "exponential_growth", "trend"]

MOST_POINTS = 100
"""Blocks that a longer series is averaged into: the slope takes time with their square, and its interval takes the
points to be independent, which means of blocks are sooner than single dumps."""
FEWEST_POINTS = 5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trend:
    """
    A straight line through a series.

    :param slope: change a step
    :param low: lower end of its 95 % confidence interval
    :param high: upper end
    :param steps: that the series spans
    :param size: what a change is compared with: median of the absolute values, or interquartile range if that is larger
    """

    slope: float
    low: float
    high: float
    steps: float
    size: float

    @property
    def change(self) -> float:
        """Over the whole span."""
        return self.slope * self.steps

    def rises(self, share: float = 0.0) -> bool:
        """
        :param share: of ``size`` that it must rise by over the span, at least [-]
        :return: whether even the lower end of the interval is above 0
        """
        return self.low > 0.0 and self.change >= share * self.size

    def falls(self, share: float = 0.0) -> bool:
        """
        :param share: of ``size`` that it must fall by over the span, at least [-]
        :return: whether even the upper end of the interval is below 0
        """
        return self.high < 0.0 and -self.change >= share * self.size

    def __str__(self) -> str:
        low, high = self.low * self.steps, self.high * self.steps
        return f"{self.change:+.3g} over {self.steps:.0f} steps ({low:+.3g} to {high:+.3g})"


def trend(series: ScalarSeries, start: float = 0.0) -> Trend | None:
    """
    Theil-Sen slope (the median of all pairs' slopes) with Sen's interval. Points that are not finite are left out.

    Source: Sen, Estimates of the regression coefficient based on Kendall's tau, JASA 63, 1968.

    :param series: points
    :param start: share of the steps to leave out at the beginning [-]
    :return: None where fewer than five points, or points of a single step, are left
    """
    steps, values = _finite(series.steps, series.values)
    if len(steps):
        kept = steps >= steps[0] + start * (steps[-1] - steps[0])
        steps, values = _blocks(steps[kept], values[kept])
    if len(steps) < FEWEST_POINTS or steps[-1] <= steps[0]:
        return None
    slope, _, low, high = theilslopes(values, steps)
    low_quarter, high_quarter = np.quantile(values, (0.25, 0.75))
    size = max(float(np.median(np.abs(values))), float(high_quarter - low_quarter))
    return Trend(float(slope), float(low), float(high), float(steps[-1] - steps[0]), size)


def exponential_growth(series: ScalarSeries, factor: float = 10.0) -> bool:
    """
    Whether the absolute values grow exponentially up to the end: by ``factor`` at least, and without flattening out.

    A straight line is fitted to their logarithms, over the whole series, its last half, and its last fifth: so a
    training that was well for a long time and then explodes counts, and a curve that rises from zero and flattens out
    does not.

    :param series: points; one that is not finite, at the end, counts as exploded
    :param factor: by which they grow, at least [-]
    :return: False where there are fewer than ten points
    """
    if len(series.values) and not np.isfinite(series.values[-1]):
        return True
    steps, values = _finite(series.steps, series.values)
    steps, values = _blocks(steps, np.abs(values))
    logs = np.log(np.maximum(values, 1e-12))
    windows = {max(len(steps) - int(share * len(steps)), 0) for share in (1.0, 0.5, 0.2)}
    return any(_explodes(steps[start:], logs[start:], factor) for start in windows)


def _explodes(steps: Floats, logs: Floats, factor: float) -> bool:
    if len(steps) < 2 * FEWEST_POINTS:
        return False
    half = len(steps) // 2
    slope, _, low, _ = theilslopes(logs, steps)
    late = theilslopes(logs[half:], steps[half:])[0]
    return bool(low > 0.0 and slope * (steps[-1] - steps[0]) > np.log(factor) and late > 0.5 * slope)


def _finite(steps: npt.NDArray[np.int64], values: Floats) -> tuple[Floats, Floats]:
    finite = np.isfinite(values)
    return steps[finite].astype(np.float64), values[finite]


def _blocks(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Means of consecutive points, at most MOST_POINTS of them."""
    if len(steps) <= MOST_POINTS:
        return steps, values
    parts = [np.array_split(column, MOST_POINTS) for column in (steps, values)]
    means = [np.array([part.mean() for part in column]) for column in parts]
    return means[0], means[1]
