"""Driving a fixed list of episodes, the same for a model, the scripted driver and a random policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sb3_carla.envs.driver import PurePursuitDriver
from sb3_carla.errors import ServerError

if TYPE_CHECKING:
    from sb3_carla.envs.carla_lane import CarlaLaneEnv

__all__ = [
    "FIRST_SEED",
    "Act",
    "Case",
    "Env",
    "EpisodeRecord",
    "Policy",
    "Trace",
    "cases",
    "drive",
    "model_policy",
    "random_policy",
    "run_episode",
    "scripted_policy",
]

FIRST_SEED = 1_000_000
"""Seed of the first evaluation episode, far from the small numbers that trainings use."""

Env = gym.Env[NDArray[np.uint8], NDArray[np.float32]]
Act = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Observation to action."""
Policy = Callable[[Env, "Case"], Act]
"""Called at the start of every episode, so that no episode depends on those before it."""


DRAWN_WEATHER = "random"
"""In place of a preset: the environment draws the weather (``randomize``)."""


@dataclass(frozen=True)
class Case:
    """One episode to drive."""

    town: str
    scenario: int
    seed: int
    weather: str = "ClearNoon"

    @property
    def options(self) -> dict[str, Any]:
        """For ``reset``."""
        options = {"town": self.town, "scenario": self.scenario}
        return options if self.weather == DRAWN_WEATHER else {**options, "weather": self.weather}


@dataclass(frozen=True)
class Trace:
    """
    An episode at its start and after each of its n decisions: arrays of shape (n + 1,), float64.

    :param seconds: simulated time of a decision [s]
    :param x: [m]
    :param y: [m]
    :param heading: [rad]
    :param speed: [m/s]
    :param lateral_offset: distance to the right of the lane's centre [m]
    :param heading_error: car's heading minus the lane's direction, right positive [rad]
    :param wheel_angle: wheel angle that the action asked for, right positive [rad]
    """

    seconds: float
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    heading: NDArray[np.float64]
    speed: NDArray[np.float64]
    lateral_offset: NDArray[np.float64]
    heading_error: NDArray[np.float64]
    wheel_angle: NDArray[np.float64]

    @property
    def deviations(self) -> NDArray[np.float64]:
        """Distance from the lane's centre after each decision, without the start: shape (n,) [m]."""
        return np.abs(self.lateral_offset[1:])


@dataclass
class EpisodeRecord:
    """The result of one episode. Lengths are in metres."""

    town: str
    scenario: int
    seed: int
    weather: str
    success: bool
    end_reason: str
    route_completion: float
    distance_m: float
    collisions: int
    departures: int
    episode_return: float
    decisions: int
    trace: Trace = field(repr=False, compare=False)


def cases(
    towns: Sequence[str],
    episodes: int,
    *,
    first_seed: int = FIRST_SEED,
    scenarios: Sequence[int] | None = None,
    weathers: Sequence[str] = ("ClearNoon",),
) -> list[Case]:
    """
    The fixed list: episode i is scenario ``i // len(towns)`` of town ``i % len(towns)``, with seed ``first_seed + i``.
    The list is repeated for every weather.

    :param towns: names or ``.xodr`` paths
    :param episodes: number in each weather, >= 1
    :param first_seed: seeds only the other cars, because scenarios fix start and route
    :param scenarios: numbers to drive in turn instead of 0, 1, 2, ...; repeated if there are too few
    :param weathers: presets of ``carla.WeatherParameters``
    :return: one case for each episode
    :raises ValueError: if a list is empty, or ``episodes`` is less than 1
    """
    if not towns or episodes < 1 or not weathers or (scenarios is not None and not scenarios):
        given = f"{towns}, {episodes}, {scenarios}, {weathers}"
        raise ValueError(f"expected at least one town, episode, scenario and weather, got {given}")
    rounds = [i // len(towns) for i in range(episodes)]
    numbers = rounds if scenarios is None else [scenarios[i % len(scenarios)] for i in rounds]
    return [
        Case(towns[i % len(towns)], numbers[i], first_seed + i, weather)
        for weather in weathers
        for i in range(episodes)
    ]


def model_policy(model: Any) -> Policy:
    """
    :param model: any Stable-Baselines3 algorithm
    :return: drives with its deterministic actions
    """

    def begin(env: Env, case: Case) -> Act:
        return lambda observation: np.asarray(model.predict(observation, deterministic=True)[0], np.float32)

    return begin


def scripted_policy(env: Env, case: Case) -> Act:
    """
    :param env: the environment to drive in
    :param case: unused
    :return: drives by pure pursuit on the map; does not use the camera
    """
    driver = PurePursuitDriver(env)
    return lambda observation: driver.act()


def random_policy(env: Env, case: Case) -> Act:
    """
    :param env: the environment to drive in
    :param case: seeds the actions
    :return: drives with uniform random actions
    """
    rng = np.random.default_rng(case.seed)
    space = env.action_space
    assert isinstance(space, gym.spaces.Box)
    return lambda observation: rng.uniform(space.low, space.high).astype(np.float32)


def drive(env: Env, case: Case, policy: Policy) -> Iterator[tuple[NDArray[np.uint8], float, dict[str, Any]]]:
    """
    One episode, decision by decision.

    :param env: a ``CarlaLane-v0`` environment; with a case for it, a ``CarlaRecorded-v0`` environment
    :param case: what to drive
    :param policy: the driver
    :return: yields observation, reward and info: after the reset, with reward 0, and after each decision
    :raises ServerError: if the server is lost, which says nothing about the driver
    """
    observation, info = env.reset(seed=case.seed, options=case.options)
    act = policy(env, case)
    yield observation, 0.0, info
    ended = False
    while not ended:
        observation, reward, terminated, truncated, info = env.step(act(observation))
        ended = terminated or truncated
        yield observation, float(reward), info
    if info["end_reason"] == "server_lost":
        raise ServerError(f"The server was lost in {case}; the evaluation is not complete")


def run_episode(env: Env, case: Case, policy: Policy) -> EpisodeRecord:
    """
    Drive one episode to its end.

    :param env: a ``CarlaLane-v0`` environment; with a case for it, a ``CarlaRecorded-v0`` environment
    :param case: what to drive
    :param policy: the driver
    :return: record of the episode
    :raises ServerError: if the server was lost
    """
    lane: CarlaLaneEnv = env.unwrapped  # type: ignore[assignment]
    rows: list[tuple[float, ...]] = []
    total = 0.0
    info: dict[str, Any] = {}
    for _, reward, info in drive(env, case, policy):
        car = lane.simulation.vehicle_state
        errors = (info["lateral_offset_m"], info["heading_error_rad"], info["wheel_angle_rad"])
        rows.append((car.x, car.y, car.heading, car.speed, *errors))
        total += reward
    return EpisodeRecord(
        town=case.town,
        scenario=case.scenario,
        seed=case.seed,
        weather=case.weather,
        success=bool(info["is_success"]),
        end_reason=info["end_reason"],
        route_completion=float(info["route_completion"]),
        distance_m=float(info["distance_m"]),
        collisions=int(info["end_reason"] == "collision"),
        departures=int(info["departures"]),
        episode_return=total,
        decisions=len(rows) - 1,
        trace=Trace(lane.simulation.decision_seconds, *np.array(rows).T),
    )
