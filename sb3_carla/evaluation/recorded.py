"""
Driving on recordings: completed drives, metres a departure, and the response to single poses, by weather.

Every driver starts every drive in the lane's centre, shifted by ±0.4 m, and turned by ±4 degrees. Where asked for, the
same drives are driven on drawn pictures: the control, see :mod:`sb3_carla.evaluation.drawn_control`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from sb3_carla.diagnostics.html import markdown_table
from sb3_carla.evaluation.episodes import FIRST_SEED, Case, Env, EpisodeRecord, Policy, run_episode
from sb3_carla.evaluation.metrics import wilson_interval
from sb3_carla.evaluation.response import Probe, probe_driver, summarize
from sb3_carla.zoo.provenance import provenance

if TYPE_CHECKING:
    from sb3_carla.envs.carla_recorded import CarlaRecordedEnv

__all__ = ["STARTS", "RecordedCase", "RecordedEvaluation", "RecordedResult", "evaluate_recordings", "recorded_cases"]

STARTS = ((0.0, 0.0), (-0.4, 0.0), (0.4, 0.0), (0.0, math.radians(-4.0)), (0.0, math.radians(4.0)))
"""Starts of every drive: offset from the lane's centre [m], angle to the lane [rad]; right positive."""
DEPARTURES = ("off_lane", "wrong_way")
"""End reasons that count as departures."""


@dataclass(frozen=True)
class RecordedCase(Case):
    """
    One episode on a recording.

    :param sequence: name of the recorded sequence
    :param station: of the start [m]
    :param lateral_offset: of the start, right positive [m]
    :param heading_error: of the start, right positive [rad]
    """

    sequence: str = ""
    station: float = 0.0
    lateral_offset: float = 0.0
    heading_error: float = 0.0

    @property
    def options(self) -> dict[str, Any]:
        """For ``reset``."""
        names = ("sequence", "station", "lateral_offset", "heading_error")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class RecordedResult:
    """
    What one driver did.

    :param driver: its name
    :param pictures: "recorded" or "drawn"
    :param cases: what it drove
    :param records: one for each case
    :param probes: its answers to single poses
    """

    driver: str
    pictures: str
    cases: list[RecordedCase]
    records: list[EpisodeRecord]
    probes: list[Probe]

    def scores(self, weather: str | None = None) -> dict[str, Any]:
        """
        :param weather: only its drives; None: all
        :return: drives, completed (share), completed_interval, metres, metres_a_departure (infinite without one),
            mean_offset_m, response
        """
        records = [record for record in self.records if weather in (None, record.weather)]
        completed = float(np.mean([record.success for record in records]))
        departures = sum(record.end_reason in DEPARTURES for record in records)
        metres = sum(record.distance_m for record in records)
        return {
            "drives": len(records),
            "completed": completed,
            "completed_interval": wilson_interval(completed, len(records)),
            "metres": metres,
            "metres_a_departure": metres / departures if departures else math.inf,
            "mean_offset_m": float(np.concatenate([record.trace.deviations for record in records]).mean()),
            "response": summarize([probe for probe in self.probes if weather in (None, probe.weather)]),
        }


@dataclass
class RecordedEvaluation:
    """
    All drivers' results.

    :param results: the first driver on recorded pictures comes first
    :param settings: what else is needed to repeat the evaluation, for the JSON
    """

    results: list[RecordedResult]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def weathers(self) -> list[str]:
        """Of all recordings."""
        return list(dict.fromkeys(record.weather for result in self.results for record in result.records))

    def rows(self) -> list[list[str]]:
        """
        :return: headings, then a row for each driver and kind of pictures, and for each of its weathers if there are
            several
        """
        signs = summarize([]).right_signs
        rows = [[
            "pictures", "driver", "weather", "drives", "completed", "m a departure", "mean offset [m]",
            *(f"right at {name}" for name in signs), "steering per 10 deg", "per m", "on a straight",
        ]]  # fmt: skip
        groups: list[str | None] = [None, *(self.weathers if len(self.weathers) > 1 else ())]
        for weather in groups:
            rows += [
                [result.pictures, result.driver, weather or "all", *_cells(result.scores(weather))]
                for result in self.results
                if any(weather in (None, record.weather) for record in result.records)
            ]
        return rows

    def table(self) -> str:
        """
        :return: Markdown
        """
        return markdown_table(self.rows())

    def worst(self) -> RecordedCase:
        """
        :return: what the first driver drove the smallest share of; of several, that with the largest mean offset
        """
        first = self.results[0]
        order = sorted(
            range(len(first.records)),
            key=lambda i: (first.records[i].route_completion, -first.records[i].trace.deviations.mean()),
        )
        return first.cases[order[0]]

    def save(self, path: Path) -> None:
        """
        Write settings, versions, command, date, scores, every drive and every probe as JSON.

        :param path: file to write; its folder is made
        """
        results = [
            {
                "pictures": result.pictures,
                "driver": result.driver,
                "scores": {name or "all": _plain(result.scores(name)) for name in (None, *self.weathers)
                           if any(name in (None, record.weather) for record in result.records)},
                "drives": [
                    {**asdict(case), "success": record.success, "end_reason": record.end_reason,
                     "route_completion": record.route_completion, "distance_m": record.distance_m,
                     "mean_offset_m": float(record.trace.deviations.mean())}
                    for case, record in zip(result.cases, result.records, strict=True)
                ],
                "probes": [asdict(probe) for probe in result.probes],
            }
            for result in self.results
        ]  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"settings": self.settings, **provenance(), "results": results}
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def recorded_cases(env: Env, starts: Sequence[tuple[float, float]] = STARTS) -> list[RecordedCase]:
    """
    :param env: a ``CarlaRecorded-v0`` environment
    :param starts: offset [m] and angle [rad] of the starts of every drive
    :return: one case for each drive and start
    """
    recorded: CarlaRecordedEnv = env.unwrapped  # type: ignore[assignment]
    return [
        RecordedCase(
            drive.sequence.town, drive.number, FIRST_SEED, drive.sequence.weather,
            drive.sequence.name, drive.start, offset, angle,
        )
        for drive in recorded.drives
        for offset, angle in starts
    ]  # fmt: skip


def evaluate_recordings(
    policies: Mapping[str, Policy],
    recordings: Sequence[str | Path],
    env_kwargs: Mapping[str, Any] | None = None,
    *,
    pictures: str = "recorded",
    starts: Sequence[tuple[float, float]] = STARTS,
    on_episode: Callable[[], object] = lambda: None,
) -> RecordedEvaluation:
    """
    Let every policy drive the same recordings.

    :param policies: by name in the table
    :param recordings: folders
    :param env_kwargs: other arguments of ``CarlaRecorded-v0``
    :param pictures: what to call these pictures in the table
    :param starts: offset [m] and angle [rad] of the starts of every drive
    :param on_episode: called after each episode, for a progress bar
    :return: all results
    :raises RecordingError: if a recording cannot be read
    """
    env = gym.make("CarlaRecorded-v0", disable_env_checker=True, recording=list(recordings), **dict(env_kwargs or {}))
    cases = recorded_cases(env, starts)
    results = []
    for name, policy in policies.items():
        records = []
        for case in cases:
            records.append(run_episode(env, case, policy))
            on_episode()
        results.append(RecordedResult(name, pictures, cases, records, probe_driver(env, policy)))
    env.close()
    return RecordedEvaluation(results)


def _cells(scores: dict[str, Any]) -> list[str]:
    response = scores["response"]
    low, high = scores["completed_interval"]
    departure = scores["metres_a_departure"]
    return [
        str(scores["drives"]),
        f"{scores['completed']:.0%} [{100 * low:.0f}, {100 * high:.0f}]",
        f"{departure:.1f}" if math.isfinite(departure) else f"> {scores['metres']:.0f}",
        f"{scores['mean_offset_m']:.3f}",
        *(_shown(share, ".0%") for share in response.right_signs.values()),
        _shown(response.per_10_deg, "+.2f"), _shown(response.per_metre, "+.2f"), _shown(response.straight, "+.2f"),
    ]  # fmt: skip


def _shown(value: float, how: str) -> str:
    return "–" if math.isnan(value) else format(value, how)


def _plain(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores for JSON, which knows neither infinity nor NaN: None in their place."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return plain({**scores, "response": asdict(scores["response"])})  # type: ignore[no-any-return]
