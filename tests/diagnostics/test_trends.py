"""Trends of series whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_carla.diagnostics.event_logs import ScalarSeries
from sb3_carla.diagnostics.trends import exponential_growth, trend


def series(values: np.ndarray, last: int = 1000) -> ScalarSeries:
    return ScalarSeries(np.linspace(0, last, len(values)).astype(np.int64), np.asarray(values, np.float64))


@given(slope=st.floats(-10.0, 10.0), offset=st.floats(-100.0, 100.0), points=st.integers(5, 400))
def test_slope_of_a_line(slope: float, offset: float, points: int) -> None:
    steps = np.arange(points)
    found = trend(ScalarSeries(steps, offset + slope * steps))
    assert found is not None
    assert found.slope == pytest.approx(slope, abs=1e-9)
    assert found.low <= found.slope + 1e-9
    assert found.high >= found.slope - 1e-9


def test_outliers_do_not_turn_it() -> None:
    values = np.linspace(0.0, 10.0, 50)
    values[[5, 20, 45, 49]] = [900.0, 900.0, -900.0, -900.0]
    found = trend(series(values))
    assert found is not None
    assert found.rises(0.5)
    assert not found.falls()
    assert found.change == pytest.approx(10.0, rel=0.2)


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_no_trend(seed: int) -> None:
    found = trend(series(np.random.default_rng(seed).normal(size=300)))
    assert found is not None
    assert not found.rises(0.3)
    assert not found.falls(0.3)


def test_a_part_of_it() -> None:
    values = np.concatenate([np.linspace(0.0, 100.0, 50), np.linspace(100.0, 60.0, 50)])
    whole, late = trend(series(values)), trend(series(values), start=0.5)
    assert whole is not None
    assert late is not None
    assert whole.rises()
    assert late.falls(0.1)
    assert not late.falls(0.9)


def test_too_little_to_say() -> None:
    assert trend(series(np.arange(4.0))) is None
    assert trend(ScalarSeries(np.zeros(20, np.int64), np.arange(20.0))) is None
    assert trend(series(np.full(20, np.nan))) is None
    assert trend(ScalarSeries(np.zeros(0, np.int64), np.zeros(0))) is None
    gaps = np.arange(20.0)
    gaps[::3] = np.nan
    found = trend(series(gaps))
    assert found is not None
    assert found.rises()


@pytest.mark.parametrize("points", [60, 600])
def test_an_explosion_after_a_long_time(points: int) -> None:
    times = np.linspace(0.0, 1.0, points)
    values = np.where(times < 0.8, 5.0, 5.0 * 10.0 ** (40.0 * (times - 0.8)))
    assert exponential_growth(series(values * np.random.default_rng(points).normal(1.0, 0.05, points)))


@pytest.mark.parametrize("points", [20, 80, 600])
@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (lambda t: 10.0 ** (12.0 * t), True),
        (lambda t: -(10.0 ** (3.0 * t)), True),
        (lambda t: 30.0 * (1.0 - np.exp(-4.0 * t)) + 1e-3, False),  # learning
        (lambda t: 25.0 / (1.0 + np.exp(-12.0 * (t - 0.4))), False),  # learning after a while
        (lambda t: 1.0 + 100.0 * t, False),
        (lambda t: 5.0 + 0.0 * t, False),
        (lambda t: 100.0 * np.exp(-9.0 * t), False),
    ],
)
def test_exponential_growth(curve: Callable[[np.ndarray], np.ndarray], expected: bool, points: int) -> None:
    rng = np.random.default_rng(points)
    times = np.linspace(0.0, 1.0, points)
    assert exponential_growth(series(curve(times) * rng.normal(1.0, 0.05, points))) is expected


def test_what_ends_in_nan_has_exploded() -> None:
    assert exponential_growth(series(np.array([1.0, 2.0, np.nan])))
    assert exponential_growth(series(np.array([1.0, np.inf])))
    assert not exponential_growth(series(np.zeros(0)))
