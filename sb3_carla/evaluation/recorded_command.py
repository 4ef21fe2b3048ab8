"""``scripts/evaluate.py --recording``: drive on recordings, print the table, write the files."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
from tqdm import tqdm

from sb3_carla.envs.carla_recorded import CarlaRecordedEnv
from sb3_carla.evaluation.drawn_control import can_be_drawn, draw_recordings
from sb3_carla.evaluation.episodes import Policy, scripted_policy
from sb3_carla.evaluation.recorded import RecordedResult, evaluate_recordings
from sb3_carla.evaluation.video import film
from sb3_carla.recordings.sequence import read_recordings

__all__ = ["evaluate_on_recordings", "recorded_arguments"]


def recorded_arguments(env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param env_kwargs: arguments of ``CarlaLane-v0``
    :return: those that ``CarlaRecorded-v0`` has too; the others say what a server does
    """
    known = inspect.signature(CarlaRecordedEnv).parameters.keys() - {"recording", "render_mode"}
    return {name: value for name, value in env_kwargs.items() if name in known}


def evaluate_on_recordings(
    policies: Mapping[str, Policy],
    recordings: Sequence[Path],
    env_kwargs: Mapping[str, Any],
    output: Path | None,
    *,
    settings: Mapping[str, Any],
    control: bool = True,
    video: bool = False,
) -> None:
    """
    Let models and the scripted driver drive, print the table, write a JSON file and, if asked for, a film.

    :param policies: the models by name
    :param recordings: folders
    :param env_kwargs: arguments of the environment that the models were trained in
    :param output: JSON file to write; None: none
    :param settings: what else is needed to repeat the evaluation
    :param control: the same on pictures that the packaged server draws for the same poses
    :param video: film the first driver's worst drive, beside the JSON file
    :raises RecordingError: if a recording cannot be read
    """
    kwargs = recorded_arguments(env_kwargs)
    drivers = {**policies, "scripted": scripted_policy}
    print(f"{', '.join(map(str, recordings))}: {kwargs}")
    with tqdm(unit="drive") as bar:
        result = evaluate_recordings(drivers, recordings, kwargs, on_episode=bar.update)
        if control:
            result.results += _control(drivers, recordings, kwargs, bar)
    result.settings = {**settings, "recordings": [str(folder) for folder in recordings], "env_kwargs": kwargs}
    print(result.table())
    if output is None:
        return
    result.save(output)
    print(f"Written: {output}")
    if video:
        env = gym.make(
            "CarlaRecorded-v0", disable_env_checker=True, recording=list(recordings), render_mode="rgb_array", **kwargs
        )
        film(env, result.worst(), next(iter(drivers.values())), output.with_suffix(".webm"))
        env.close()


def _control(
    drivers: Mapping[str, Policy], recordings: Sequence[Path], kwargs: Mapping[str, Any], bar: Any
) -> list[RecordedResult]:
    """The same drives on drawn pictures, without those whose lanes bend too sharply to be drawn."""
    sequences = read_recordings(recordings)
    left_out = [sequence.name for sequence in sequences if not can_be_drawn(sequence)]
    if left_out:
        bar.write(f"Not drawn, as their lanes bend too sharply: {', '.join(left_out)}")
    if len(left_out) == len(sequences):
        return []
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw_recordings(sequences, Path(folder))
        return evaluate_recordings(drivers, [drawn], kwargs, pictures="drawn", on_episode=bar.update).results
