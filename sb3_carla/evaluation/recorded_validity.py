"""
Whether driving on recordings says what driving does: success of both on the packaged server, on the same routes.

The scripted driver records numbered scenarios; then every driver drives them on the recordings and in the environment,
from the middle of the lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_carla.evaluation.episodes import EpisodeRecord, Policy, cases, run_episode
from sb3_carla.evaluation.recorded import evaluate_recordings
from sb3_carla.evaluation.recorded_command import recorded_arguments
from sb3_carla.evaluation.recorder import LONGEST, DriveRecorder

__all__ = ["Validity", "compare_with_environment"]


@dataclass(frozen=True)
class Validity:
    """
    One driver's episodes on the same routes.

    :param driver: its name
    :param recorded: on recordings
    :param environment: in ``CarlaLane-v0``
    """

    driver: str
    recorded: list[EpisodeRecord]
    environment: list[EpisodeRecord]

    @property
    def difference(self) -> float:
        """Success on recordings minus success in the environment, -1 to 1."""
        return _success(self.recorded) - _success(self.environment)

    def __str__(self) -> str:
        shares = f"{_success(self.recorded):.0%} on recordings, {_success(self.environment):.0%} in the environment"
        return f"{self.driver}: {shares}, difference {100 * self.difference:+.0f} points, {len(self.recorded)} routes"


def compare_with_environment(
    policies: Mapping[str, Policy],
    towns: Sequence[str],
    routes: int,
    folder: Path,
    *,
    env_kwargs: Mapping[str, Any],
    route_length: float = LONGEST,
    cameras: Sequence[str] = ("front", "left", "right"),
) -> list[Validity]:
    """
    Record routes on the packaged server and drive them twice.

    :param policies: by name
    :param towns: names, or paths of OpenDRIVE files
    :param routes: number in each town
    :param folder: for the recording; it stays
    :param env_kwargs: arguments of ``CarlaLane-v0``
    :param route_length: at most 300 [m]
    :param cameras: of the recording
    :return: one result for each driver
    :raises ServerError: if a server is lost
    """
    kwargs = {**env_kwargs, "route_length": route_length}
    recorder = DriveRecorder(folder, cameras=cameras, longest=route_length)
    recorder.record(towns, ["ClearNoon"], routes * route_length)
    found = evaluate_recordings(policies, [folder], recorded_arguments(kwargs), starts=((0.0, 0.0),)).results
    env = gym.make("CarlaLane-v0", disable_env_checker=True, **{**kwargs, "town": list(towns)})
    try:
        to_drive = [case for town in towns for case in cases([town], routes)]  # in the recording's order
        return [
            Validity(
                result.driver, result.records, [run_episode(env, case, policies[result.driver]) for case in to_drive]
            )
            for result in found
        ]
    finally:
        env.close()


def _success(records: Sequence[EpisodeRecord]) -> float:
    return sum(record.success for record in records) / len(records)
