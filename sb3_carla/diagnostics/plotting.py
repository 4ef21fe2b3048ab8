"""Plot the log of a training, or of several seeds of one: a figure and an HTML page."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import binned_statistic

from sb3_carla.diagnostics.charts import CATEGORIES, Chart
from sb3_carla.diagnostics.event_logs import RunLog, ScalarSeries
from sb3_carla.diagnostics.html import COLOURS, escaped, html_page, html_table
from sb3_carla.diagnostics.trends import block_means

__all__ = ["draw", "page", "save"]

COLUMNS = 3
GRID = 200
"""Number of common steps at which several seeds are averaged."""
MAX_POINTS = 600
"""Largest number of points of a single run's line; a longer one is averaged in blocks."""


def draw(runs: Sequence[RunLog]) -> tuple[Figure, list[str]]:
    """
    Draw all charts for which the runs have data, with the alerts as vertical lines.

    :param runs: seeds of one experiment; of several, the mean, the standard deviation and each run as a thin line
    :return: the figure; titles of the charts without data
    """
    known = sorted({tag for run in runs for tag in run.scalars})
    charts = [chart for group in CATEGORIES.values() for chart in group]
    shown = [chart for chart in charts if any(not tag.startswith("limits/") for tag in chart.tags(known))]
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = Figure(figsize=(5.2 * COLUMNS, 3.1 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    alerts = _alerts(runs)
    last = max((run.last_step for run in runs), default=1)
    for axis, chart in zip(axes, shown, strict=False):
        _draw_chart(axis, chart, runs, known)
        for step, tag in alerts:
            axis.axvline(step, color="#C00000" if "critical" in tag else "#E6B000", linewidth=0.8, alpha=0.6)
        axis.set_xlim(0, max(last, 1))
    for axis in axes[len(shown) :]:
        axis.axis("off")
    seeds = "" if len(runs) == 1 else f": mean of {len(runs)} runs, band of one standard deviation, each run thin"
    marks = "; vertical lines: alerts" if alerts else ""
    figure.suptitle(f"{_common_folder([run.path for run in runs])}{seeds}{marks}", fontsize=10)
    return figure, [chart.title for chart in charts if chart not in shown]


def _common_folder(paths: list[Path]) -> str:
    if any(path.is_absolute() for path in paths):
        paths = [path.absolute() for path in paths]
    return os.path.commonpath(paths)


def save(figure: Figure, path: Path) -> None:
    """
    :param figure: result of :func:`draw`
    :param path: path of a ``.png``
    """
    figure.savefig(path, dpi=110)


def page(runs: Sequence[RunLog], figure: Figure, left_out: Sequence[str]) -> str:
    """
    Make a page that needs no other file and no network.

    :param runs: seeds that were drawn
    :param figure: result of :func:`draw`
    :param left_out: result of :func:`draw`
    :return: HTML
    """
    drawing = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sb3_carla"}):
        figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = drawing.getvalue()
    svg = svg[svg.index("<svg") :]
    items = "".join(f"<li>{escaped(run.path)}: up to step {run.last_step:,}</li>" for run in runs)
    notes = "".join(f"<li>{escaped(note)}</li>" for run in runs for note in run.notes)
    alerts = "".join(f"<li>step {step:,}: {escaped(tag)}</li>" for step, tag in _alerts(runs)) or "<li>none</li>"
    body = _BODY.format(
        runs=items, alerts=alerts, svg=svg, values=html_table(_values(runs)),
        notes=f"<h2>Notes</h2><ul>{notes}</ul>" if notes else "",
        left_out=f"<p>Nothing was logged for: {escaped(', '.join(left_out))}.</p>" if left_out else "",
    )  # fmt: skip
    return html_page("Training", body, "td:first-child { font-family: ui-monospace, monospace; }")


_BODY = """<ul>{runs}</ul>
<h2>Alerts</h2><ul>{alerts}</ul>
<figure>{svg}</figure>{left_out}
<h2>Values</h2>
{values}
{notes}"""


def _draw_chart(axis: Axes, chart: Chart, runs: Sequence[RunLog], known: Sequence[str]) -> None:
    tags = chart.tags(known)
    names = _labels(tags)
    positive = True
    for number, tag in enumerate(tags):
        found = [run.scalars[tag] for run in runs if tag in run.scalars]
        limit = tag.startswith("limits/")
        colour = "#808080" if limit else COLOURS[number % len(COLOURS)]
        if limit:
            axis.axhline(found[0].values[-1], color=colour, linestyle="--", linewidth=1.0, label=names[tag])
        elif len(found) == 1:
            _draw_one(axis, found[0], colour, names[tag])
        else:
            _draw_several(axis, found, colour, names[tag])
        positive &= all(bool((series.values[np.isfinite(series.values)] > 0.0).all()) for series in found)
    if chart.logarithmic and positive:
        axis.set_yscale("log")
    axis.set_title(chart.title, fontsize=10)
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:g}k" if step >= 1000 else f"{step:g}")
    if len(tags) > 1:
        axis.legend(fontsize=7, loc="best", framealpha=0.7)


def _draw_one(axis: Axes, series: ScalarSeries, colour: str, label: str) -> None:
    finite = np.isfinite(series.values)
    steps, values = series.steps[finite].astype(np.float64), series.values[finite]
    steps, values = block_means(steps, values, MAX_POINTS)
    many = len(steps) > 60
    axis.plot(steps, values, color=colour, linewidth=0.7 if many else 1.4, alpha=0.35 if many else 1.0,
              marker="." if len(steps) < 3 else None, label=None if many else label)  # fmt: skip
    if many:
        width = max(3, len(steps) // 25)
        kernel = np.ones(width)
        smooth = np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
        axis.plot(steps, smooth, color=colour, linewidth=1.4, label=label)
    _mark_not_finite(axis, series.steps[~finite], colour)


def _draw_several(axis: Axes, found: Sequence[ScalarSeries], colour: str, label: str) -> None:
    grid, values = _on_a_grid(found)
    for row, series in zip(values, found, strict=True):
        axis.plot(grid, row, color=colour, linewidth=0.5, alpha=0.35)
        _mark_not_finite(axis, series.steps[~np.isfinite(series.values)], colour)
    there = np.isfinite(values).any(axis=0)
    mean, spread = np.nanmean(values[:, there], axis=0), np.nanstd(values[:, there], axis=0)
    axis.plot(grid[there], mean, color=colour, linewidth=1.5, label=label)
    axis.fill_between(grid[there], mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)


def _on_a_grid(found: Sequence[ScalarSeries]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Steps, shape (g,), and values, shape (n, g): mean of each series per cell, NaN outside its steps."""
    edges = np.linspace(0.0, max(float(series.steps[-1]) for series in found) + 1.0, GRID + 1)
    grid = 0.5 * (edges[1:] + edges[:-1])
    rows = []
    for series in found:
        finite = np.isfinite(series.values)
        steps, values = series.steps[finite], series.values[finite]
        row = binned_statistic(steps, values, bins=edges).statistic if len(steps) else np.full(GRID, np.nan)
        known = np.flatnonzero(np.isfinite(row))
        if len(known):  # cells without points, between others, are interpolated
            inside = slice(known[0], known[-1] + 1)
            row[inside] = np.interp(grid[inside], grid[known], row[known])
        rows.append(row)
    return grid, np.array(rows)


def _mark_not_finite(axis: Axes, steps: npt.NDArray[np.int64], colour: str) -> None:
    if len(steps):
        heights, across = np.full(len(steps), 0.97), axis.get_xaxis_transform()
        axis.plot(steps, heights, "x", color=colour, markersize=5, transform=across, label="NaN or Inf")


def _labels(tags: Sequence[str]) -> dict[str, str]:
    """Label of each tag in the legend: without the words that all tags share at the beginning and the end."""
    plain = [tag for tag in tags if not tag.startswith("limits/")]
    words = {tag: re.split(r"[_/]", tag) for tag in plain}
    first, last = (_common(list(words.values()), step) if len(plain) > 1 else 0 for step in (1, -1))
    names = {tag: "_".join(parts[first : len(parts) - last]) or tag.rpartition("/")[2] for tag, parts in words.items()}
    return {tag: names.get(tag, "limit") for tag in tags}


def _common(words: Sequence[Sequence[str]], step: int) -> int:
    """Number of words that all rows share at their start (step 1) or end (step -1)."""
    columns = zip(*(row[::step] for row in words), strict=False)
    return next((count for count, column in enumerate(columns) if len(set(column)) > 1), min(map(len, words)))


def _alerts(runs: Sequence[RunLog]) -> list[tuple[int, str]]:
    """(step, tag) of all alerts, in order; at most one per tag and thousandth of the training."""
    last = max((run.last_step for run in runs), default=1)
    found = {
        (int(step) * 1000 // max(last, 1), tag): (int(step), tag)
        for run in runs
        for tag, series in run.scalars.items()
        if tag.startswith("alerts/")
        for step in series.steps[series.values != 0.0]
    }
    return sorted(found.values())


def _values(runs: Sequence[RunLog]) -> list[list[str]]:
    rows = [["tag", "last tenth, mean", "last", "least", "largest", "points"]]
    for tag in sorted({tag for run in runs for tag in run.scalars}):
        found = [run.scalars[tag] for run in runs if tag in run.scalars]
        values = np.concatenate([series.values for series in found])
        tails = np.concatenate([series.values[-max(1, len(series.values) // 10) :] for series in found])
        last = np.mean([series.values[-1] for series in found])
        cells = (tails.mean(), last, values.min(), values.max())
        rows.append([tag, *(f"{value:.4g}" for value in cells), str(len(values))])
    return rows
