"""The result of an evaluation: tables, and everything as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_carla.diagnostics.html import markdown_table
from sb3_carla.evaluation.episodes import Case, Env, EpisodeRecord, Policy, run_episode
from sb3_carla.evaluation.lane_edges import Polylines, lane_edges
from sb3_carla.evaluation.metrics import METRICS, Estimate, estimate_metrics
from sb3_carla.zoo.provenance import provenance

if TYPE_CHECKING:
    from sb3_carla.envs.carla_lane import CarlaLaneEnv

__all__ = ["Evaluation", "evaluate"]

GROUPED = ("success_rate", "driving_score", "lateral_mean_m", "lateral_p95_m")
"""Metrics that are shown for each town and each weather."""


@dataclass
class Evaluation:
    """
    Records by driver, and their metrics.

    :param records: episodes by the driver's name, at least one each
    :param models: names of the drivers that are seeds of one training; their mean and spread are shown
    :param lane_edges: by town, for the maps
    :param settings: what else is needed to repeat the evaluation, for the JSON
    """

    records: dict[str, list[EpisodeRecord]]
    models: tuple[str, ...] = ()
    lane_edges: dict[str, Polylines] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scores: dict[str, dict[str, Estimate]] = {
            name: estimate_metrics(found) for name, found in self.records.items()
        }
        """Metrics by driver and name."""

    def rows(self) -> list[list[str]]:
        """
        The scorecard.

        :return: a column for each driver, a row for each metric, headings first; intervals in brackets
        """
        columns = [["driver", "episodes", *(metric.title for metric in METRICS.values())]]
        for name, found in self.scores.items():
            cells = [f"{METRICS[key].show(e.value)} [{_interval(key, e)}]" for key, e in found.items()]
            columns.append([name, str(len(self.records[name])), *cells])
        if len(self.models) > 1:
            columns.append([f"{len(self.models)} models, mean ± sd", "", *self._spread()])
        return [list(row) for row in zip(*columns, strict=True)]

    def _spread(self) -> list[str]:
        cells = []
        for key, metric in METRICS.items():
            values = [self.scores[name][key].value for name in self.models]
            cells.append(f"{metric.show(float(np.mean(values)))} ± {metric.show(float(np.std(values, ddof=1)))}")
        return cells

    def grouped_rows(self, by: str) -> list[list[str]]:
        """
        A few metrics for every town, or every weather.

        :param by: "town" or "weather"
        :return: headings, then a row for each driver and group; only headings if there is only one group
        """
        rows = [["driver", by, "episodes", *(METRICS[key].title for key in GROUPED)]]
        groups = list(dict.fromkeys(getattr(record, by) for found in self.records.values() for record in found))
        if len(groups) < 2:
            return rows
        for name, found in self.records.items():
            for group in groups:
                members = [record for record in found if getattr(record, by) == group]
                if members:
                    cells = [METRICS[key].show(METRICS[key].value(members)) for key in GROUPED]
                    rows.append([name, group, str(len(members)), *cells])
        return rows

    def table(self) -> str:
        """
        :return: Markdown: the scorecard, and a table by weather if there were several
        """
        text = markdown_table(self.rows())
        by_weather = self.grouped_rows("weather")
        return text if len(by_weather) == 1 else f"{text}\n\n{markdown_table(by_weather)}"

    def worst(self, driver: str) -> EpisodeRecord:
        """
        The episode with the least route completion; of several, the one furthest from the lane's centre on average.

        :param driver: its name
        :return: record
        """
        return min(self.records[driver], key=lambda r: (r.route_completion, -r.trace.deviations.mean()))

    def save(self, path: Path) -> None:
        """
        Write everything but the traces as JSON: settings, versions, command, date, scores and every episode.

        :param path: file to write; its folder is made
        """
        drivers = {
            name: {
                "scores": {key: asdict(estimate) for key, estimate in self.scores[name].items()},
                "episodes": [_without_trace(record) for record in records],
            }
            for name, records in self.records.items()
        }
        document = {"settings": self.settings, **provenance(), "models": list(self.models), "drivers": drivers}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def evaluate(
    env: Env,
    policies: Mapping[str, Policy],
    to_drive: Iterable[Case],
    *,
    models: Sequence[str] = (),
    on_episode: Callable[[], object] = lambda: None,
) -> Evaluation:
    """
    Let every policy drive the same cases, in one environment.

    :param env: a ``CarlaLane-v0`` environment; stays open
    :param policies: by name in the table
    :param to_drive: see :func:`sb3_carla.evaluation.cases`
    :param models: names of the policies that are seeds of one training
    :param on_episode: called after each episode, for a progress bar
    :return: all records
    :raises ServerError: if the server was lost
    """
    lane: CarlaLaneEnv = env.unwrapped  # type: ignore[assignment]
    to_drive = list(to_drive)
    records: dict[str, list[EpisodeRecord]] = {}
    edges: dict[str, Polylines] = {}
    for name, policy in policies.items():
        records[name] = []
        for case in to_drive:
            records[name].append(run_episode(env, case, policy))
            if case.town not in edges:
                edges[case.town] = lane_edges(lane.simulation.town_map)
            on_episode()
    return Evaluation(records, tuple(models), edges)


def _interval(key: str, estimate: Estimate) -> str:
    low, high = (METRICS[key].show(value).removesuffix(" %") for value in (estimate.low, estimate.high))
    return f"{low}, {high}"


def _without_trace(record: EpisodeRecord) -> dict[str, Any]:
    values = {key: value for key, value in vars(record).items() if key != "trace"}
    offsets = record.trace.deviations
    return {**values, "lateral_mean_m": float(offsets.mean()), "lateral_p95_m": float(np.percentile(offsets, 95))}
