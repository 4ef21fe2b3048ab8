"""The ablation's table and figures, from the results of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sb3_carla.ablation.records import CURVES, Run
from sb3_carla.diagnostics.html import markdown_table

__all__ = ["draw", "families", "table"]

RECORDED = {
    "completed": "recorded drives completed",
    "metres_a_departure": "m a departure",
    "right_at_10_deg": "right at 10 deg",
    "steering_on_a_straight": "steering on a straight",
}
"""Scores on recordings, and their headings; only in the table of runs that have them."""
LOGARITHMIC_LIMIT = 200.0
"""A chart is logarithmic if a value exceeds this."""


def table(runs: dict[str, list[Run]]) -> str:
    """
    Make a Markdown table with a row per variant: median and range over its seeds.

    :param runs: result of :func:`sb3_carla.ablation.records.read_runs`
    :return: the table
    """
    heads = ["variant", "seeds", "success", "route completion", "lateral mean [m]"]
    recorded = any("recorded" in run.result for members in runs.values() for run in members)
    rows = [heads + (list(RECORDED.values()) if recorded else []) + [curve.head for curve in CURVES.values()]]
    for members in sorted(runs.values(), key=lambda found: -_median(_scores(found, "success_rate"))):
        diverged = sum(run.diverged for run in members)
        seeds = str(len(members)) + (f", {diverged} to NaN" if diverged else "")
        cells = [members[0].result["title"], seeds]
        cells += [_range(100.0 * _scores(members, name), " %") for name in ("success_rate", "route_completion")]
        cells.append(_range(_scores(members, "lateral_mean_m")))
        if recorded:
            drives = [run.result["recorded"] for run in members if "recorded" in run.result]
            cells += [_range(np.array([each[name] for each in drives])) if drives else "" for name in RECORDED]
        cells += [_range(np.array([run.tail(name) for run in members])) for name in CURVES]
        rows.append(cells)
    return markdown_table(rows)


def families(runs: dict[str, list[Run]]) -> dict[str, dict[str, list[Run]]]:
    """
    Group the variants for one figure each, because more than ten curves cannot be told apart.

    :param runs: result of :func:`sb3_carla.ablation.records.read_runs`
    :return: family -> variant -> runs; the families are variants of ours ("ours"), random episodes without some
        groups ("random"), SB3's TD3 with our settings ("sb3"), and all others ("published"); a family without runs is
        left out
    """
    found: dict[str, dict[str, list[Run]]] = {}
    for name, members in runs.items():
        family = name.split("-")[0]
        found.setdefault(family if family in ("ours", "random", "sb3") else "published", {})[name] = members
    return found


def draw(runs: dict[str, list[Run]]) -> Figure:
    """
    Draw the curves of every variant, one line per seed, and bars of their scores, which also serve as the legend.

    :param runs: result of :func:`sb3_carla.ablation.records.read_runs`
    :return: the figure
    """
    figure = Figure(figsize=(20.0, 11.0), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 4)
    axes = [figure.add_subplot(grid[divmod(place, 4)]) for place in range(len(CURVES))]
    names = sorted(runs)
    colours = dict(zip(names, _colours(len(names)), strict=True))
    for axis, name in zip(axes, CURVES, strict=True):
        _draw_curve(axis, name, runs, colours)
    scores = {"success_rate": "success on held-out towns [%]", "route_completion": "route completion [%]"}
    for place, (name, title) in enumerate(scores.items()):
        axis = figure.add_subplot(grid[2, 2 * place : 2 * place + 2])
        _draw_scores(axis, title, name, runs, colours)
    return figure


def _draw_curve(axis: Axes, name: str, runs: dict[str, list[Run]], colours: dict[str, Any]) -> None:
    curve, largest = CURVES[name], 0.0
    for variant, members in runs.items():
        for run in members:
            series = run.curve(name)
            if series is None:
                continue
            finite = np.isfinite(series.values)
            values = np.abs(series.values[finite]) if curve.magnitude else series.values[finite]
            axis.plot(series.steps[finite], values, color=colours[variant], linewidth=0.9, alpha=0.8)
            largest = max(largest, float(np.abs(values).max(initial=0.0)))
    if largest > LOGARITHMIC_LIMIT:
        axis.set_yscale("symlog", linthresh=1.0)
    axis.set_title(curve.title, fontsize=10)
    axis.set_xlabel("decisions", fontsize=8)
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=8)


def _draw_scores(axis: Axes, title: str, score: str, runs: dict[str, list[Run]], colours: dict[str, Any]) -> None:
    names = sorted(runs, key=lambda name: _median(_scores(runs[name], score)))
    for height, name in enumerate(names):
        values = 100.0 * _scores(runs[name], score)
        axis.barh(height, _median(values), color=colours[name], alpha=0.4)
        axis.plot(values, np.full(len(values), height), "o", color=colours[name], markersize=4)
        axis.plot(2.0, height, "s", color=colours[name], markersize=8)
        axis.text(4.0, height, runs[name][0].result["title"], va="center", fontsize=8)
    axis.set_yticks([])
    axis.set_xlim(0.0, 100.0)
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.25, axis="x")


def _scores(members: Sequence[Run], name: str) -> NDArray[np.float64]:
    """One score per seed. A diverged run completes no route: its scores are 0, and its lateral deviation is NaN."""
    diverged = float("nan") if name.endswith("_m") else 0.0
    return np.array([diverged if run.diverged else run.result["scores"][name]["value"] for run in members])


def _median(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _range(values: NDArray[np.float64], unit: str = "") -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "–"
    low, middle, high = (f"{value:.3g}" for value in (known.min(), _median(known), known.max()))
    return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low} to {high})"


def _colours(count: int) -> list[Any]:
    return [mpl.colormaps["tab20"](i % 20) for i in range(count)]
