"""
Evaluation on a fixed list of scenarios: the same ones for a model, the scripted driver and a random policy.

Definitions, each over all episodes of one driver:

- success rate: share of episodes that reached the end of their route.
- route completion: mean share of the route that was driven.
- lateral deviation: distance of the car's centre from the route's centre line after each decision; mean and
  95th percentile over all decisions.
- speed: mean over all decisions.
- collisions, departures per km: number of episodes that ended so, by the kilometres driven.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sb3_carla.driver import PurePursuitDriver
from sb3_carla.errors import ServerError

__all__ = [
    "FIRST_SEED",
    "Case",
    "EpisodeRecord",
    "Evaluation",
    "cases",
    "evaluate",
    "model_policy",
    "provenance",
    "random_policy",
    "run_episode",
    "scripted_policy",
    "summary",
]

FIRST_SEED = 1_000_000
"""Seed of the first evaluation episode: far from the small numbers that trainings are started with."""

Env = gym.Env[NDArray[np.uint8], NDArray[np.float32]]
Act = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Observation to action."""
Policy = Callable[[Env, "Case"], Act]
"""Made anew for every episode, so that no episode depends on those before it."""


@dataclass(frozen=True)
class Case:
    """One episode to drive."""

    town: str
    scenario: int
    seed: int


@dataclass
class EpisodeRecord:
    """What came of one episode. Lengths in metres, speeds in m/s."""

    town: str
    scenario: int
    seed: int
    success: bool
    end_reason: str
    route_completion: float
    distance_m: float
    collisions: int
    departures: int
    episode_return: float
    decisions: int
    lateral_deviation_m: float
    speed_mps: float
    offsets: list[float] = field(default_factory=list, repr=False)
    """Absolute lateral offset after each decision [m]."""


def cases(
    towns: Sequence[str], episodes: int, *, first_seed: int = FIRST_SEED, scenarios: Sequence[int] | None = None
) -> list[Case]:
    """
    The fixed list: episode i is scenario ``i // len(towns)`` of town ``i % len(towns)``, with seed ``first_seed + i``.

    :param towns: names or ``.xodr`` paths
    :param episodes: how many, >= 1
    :param first_seed: decides nothing but traffic: scenarios fix the start and the route
    :param scenarios: numbers to go through instead of 0, 1, 2, ...; repeated where there are too few
    :return: one case an episode
    :raises ValueError: if there is nothing to drive
    """
    if not towns or episodes < 1 or (scenarios is not None and not scenarios):
        raise ValueError(f"expected a town, an episode and a scenario at least, got {towns}, {episodes}, {scenarios}")
    rounds = [i // len(towns) for i in range(episodes)]
    numbers = rounds if scenarios is None else [scenarios[i % len(scenarios)] for i in rounds]
    return [Case(towns[i % len(towns)], numbers[i], first_seed + i) for i in range(episodes)]


def model_policy(model: Any) -> Policy:
    """
    :param model: any Stable-Baselines3 algorithm
    :return: its deterministic action
    """

    def begin(env: Env, case: Case) -> Act:
        return lambda observation: np.asarray(model.predict(observation, deterministic=True)[0], np.float32)

    return begin


def scripted_policy(env: Env, case: Case) -> Act:
    """
    :param env: the environment to be driven
    :param case: unused: the driver has no choice to make
    :return: pure pursuit on the map, whatever the camera sees
    """
    driver = PurePursuitDriver(env)
    return lambda observation: driver.act()


def random_policy(env: Env, case: Case) -> Act:
    """
    :param env: the environment to be driven
    :param case: its seed makes the actions repeatable
    :return: uniform actions
    """
    rng = np.random.default_rng(case.seed)
    space = env.action_space
    assert isinstance(space, gym.spaces.Box)
    return lambda observation: rng.uniform(space.low, space.high).astype(np.float32)


def run_episode(env: Env, case: Case, policy: Policy) -> EpisodeRecord:
    """
    Drive one episode to its end.

    :param env: a ``CarlaLane-v0`` environment
    :param case: what to drive
    :param policy: who drives
    :return: record of the episode
    :raises ServerError: if the server was lost: that says nothing about the driver
    """
    observation, info = env.reset(seed=case.seed, options={"town": case.town, "scenario": case.scenario})
    act = policy(env, case)
    offsets: list[float] = []
    speeds: list[float] = []
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, info = env.step(act(observation))
        offsets.append(abs(info["lateral_offset_m"]))
        speeds.append(info["speed_mps"])
        total += float(reward)
        ended = terminated or truncated
    if info["end_reason"] == "server_lost":
        raise ServerError(f"The server was lost in {case}; the evaluation is not complete")
    return EpisodeRecord(
        **asdict(case),
        success=bool(info["is_success"]),
        end_reason=info["end_reason"],
        route_completion=float(info["route_completion"]),
        distance_m=float(info["distance_m"]),
        collisions=int(info["end_reason"] == "collision"),
        departures=int(info["departures"]),
        episode_return=total,
        decisions=len(offsets),
        lateral_deviation_m=float(np.mean(offsets)),
        speed_mps=float(np.mean(speeds)),
        offsets=offsets,
    )


def summary(records: Sequence[EpisodeRecord]) -> dict[str, float]:
    """
    :param records: of one driver, at least one
    :return: the quantities defined at the top of this module
    """
    offsets = np.concatenate([record.offsets for record in records])
    decisions = np.array([record.decisions for record in records])
    kilometres = max(sum(record.distance_m for record in records), 1.0) / 1000.0  # nobody drove: at least 1 m
    return {
        "episodes": len(records),
        "success_rate": float(np.mean([record.success for record in records])),
        "route_completion": float(np.mean([record.route_completion for record in records])),
        "lateral_deviation_mean_m": float(offsets.mean()),
        "lateral_deviation_p95_m": float(np.percentile(offsets, 95)),
        "speed_mean_mps": float(np.average([record.speed_mps for record in records], weights=decisions)),
        "collisions_per_km": sum(record.collisions for record in records) / kilometres,
        "departures_per_km": sum(record.departures for record in records) / kilometres,
        "distance_km": kilometres,
    }


def evaluate(
    env: Env,
    policies: Mapping[str, Policy],
    to_drive: Iterable[Case],
    *,
    on_episode: Callable[[], object] = lambda: None,
) -> Evaluation:
    """
    Let every policy drive the same cases, in one environment.

    :param env: a ``CarlaLane-v0`` environment; stays open
    :param policies: by the name that stands in the table
    :param to_drive: see :func:`cases`
    :param on_episode: called after each episode, for a progress bar
    :return: all records
    """
    to_drive = list(to_drive)
    records: dict[str, list[EpisodeRecord]] = {}
    for name, policy in policies.items():
        records[name] = []
        for case in to_drive:
            records[name].append(run_episode(env, case, policy))
            on_episode()
    return Evaluation(records)


@dataclass
class Evaluation:
    """
    Records by driver, and what to say about them.

    :param records: driver's name to its episodes, at least one each
    :param settings: whatever else is needed to repeat the evaluation, for the JSON
    """

    records: dict[str, list[EpisodeRecord]]
    settings: dict[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """
        :return: Markdown, a row for each driver
        """
        lines = [
            "| driver | success | route completion | lateral deviation mean / p95 [m] | speed [m/s] "
            "| collisions / km | departures / km |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, records in self.records.items():
            row = summary(records)
            lines.append(
                f"| {name} | {sum(record.success for record in records)} of {len(records)} "
                f"| {row['route_completion']:.1%} "
                f"| {row['lateral_deviation_mean_m']:.2f} / {row['lateral_deviation_p95_m']:.2f} "
                f"| {row['speed_mean_mps']:.2f} | {row['collisions_per_km']:.2f} | {row['departures_per_km']:.2f} |"
            )
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """
        Write everything as JSON: settings, versions, command, date, summaries and every episode.

        :param path: file to write; its folder is made
        """
        drivers = {
            name: {"summary": summary(records), "episodes": [_without_offsets(record) for record in records]}
            for name, records in self.records.items()
        }
        document = {"settings": self.settings, **provenance(), "drivers": drivers}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _without_offsets(record: EpisodeRecord) -> dict[str, Any]:
    values = asdict(record)
    offsets = values.pop("offsets")
    return {**values, "lateral_deviation_p95_m": float(np.percentile(offsets, 95))}


def provenance() -> dict[str, Any]:
    """
    :return: ``command``, ``date`` (UTC) and ``versions``, as every published number needs them
    """
    packages = ("sb3-carla", "carla", "gymnasium", "numpy", "opencv-python", "rl-zoo3", "stable-baselines3", "torch")
    versions = {"python": platform.python_version(), **{package: _version(package) for package in packages}}
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"command": " ".join(sys.orig_argv), "date": date, "versions": versions}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
