"""What an episode begins with: its town, start, route and weather, chosen by ``reset``'s options or drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from sb3_carla.envs import arguments
from sb3_carla.envs.randomization import OFF, EpisodeRandomness, Randomizer
from sb3_carla.envs.start_curriculum import StartCurriculum, StartPlace

__all__ = ["EpisodeSetup", "EpisodeSetups", "Weather"]

Weather = str | Mapping[str, float]

OPTIONS = ("town", "scenario", "weather")


class EpisodeSetup(NamedTuple):
    """
    What an episode begins with.

    :param town: name, or path of an OpenDRIVE file
    :param scenario: number of the start and the route; None: random ones
    :param weather: preset of ``carla.WeatherParameters``, or a mapping of its parameters
    :param start_place: where the start curriculum begins the episode; None: it does not
    :param randomness: what the groups of ``randomize`` have drawn
    """

    town: str
    scenario: int | None
    weather: Weather
    start_place: StartPlace | None = None
    randomness: EpisodeRandomness = OFF


class EpisodeSetups:
    """
    The setups that an environment chooses from.

    :param town: argument of :class:`sb3_carla.envs.carla_lane.CarlaLaneEnv`
    :param weather: likewise
    :param scenario: likewise
    :param start_curriculum: places where earlier episodes failed
    :param randomizer: draws what is random in an episode
    :raises ValueError: if an argument is not what it may be
    """

    def __init__(
        self,
        town: Any,
        weather: Any,
        *,
        scenario: int | None,
        start_curriculum: StartCurriculum,
        randomizer: Randomizer,
    ) -> None:
        self._towns = arguments.town_names(town)
        self._weathers = arguments.weather_choices(weather)
        arguments.check_scenario(scenario)
        self._scenario = scenario
        self._start_curriculum, self._randomizer = start_curriculum, randomizer

    def draw(self, options: Mapping[str, Any], rng: np.random.Generator) -> EpisodeSetup:
        """
        :param options: of ``reset``: ``town``, ``scenario`` and ``weather`` of this episode, all optional
        :param rng: for what the options leave open
        :return: what the episode begins with
        :raises ValueError: if an option is unknown, or not what it may be
        """
        unknown = sorted(options.keys() - set(OPTIONS))
        if unknown:
            raise ValueError(f"reset: unknown options {unknown}, expected {', '.join(OPTIONS)} or resume")
        town, weather = options.get("town"), options.get("weather")
        scenario = options.get("scenario", self._scenario)
        arguments.check_scenario(scenario)
        place = self._start_curriculum.draw(rng) if town is None and scenario is None else None
        if place is not None:
            town = place.town
        else:
            town = _choice(self._towns if town is None else arguments.town_names(town), rng)
        asked_for = weather is not None
        weather = _choice(arguments.weather_choices(weather) if asked_for else self._weathers, rng)
        randomness = self._randomizer.draw(rng)
        if asked_for:
            randomness = replace(randomness, weather=None)
        elif randomness.weather is not None:
            weather = randomness.weather
        return EpisodeSetup(town, scenario, weather, place, randomness)


def _choice(choices: Sequence[Any], rng: np.random.Generator) -> Any:
    """One of the choices; a single one takes no random number."""
    return choices[int(rng.integers(len(choices)))] if len(choices) > 1 else choices[0]
