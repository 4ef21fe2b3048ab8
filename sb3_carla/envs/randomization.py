"""
Random episodes: the argument ``randomize`` of ``CarlaLane-v0``, and what its groups draw for an episode.

An episode takes one random number of the environment's generator. Each group draws from a generator of its own, made of
this number and the group's place in :data:`GROUPS`: what one group draws does not depend on which others are on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.envs.random_look import LookPlan
from sb3_carla.envs.random_weather import draw_weather

__all__ = [
    "GROUPS",
    "OFF",
    "CameraShift",
    "Dynamics",
    "EpisodeRandomness",
    "Light",
    "Noise",
    "Randomizer",
    "group_names",
]

GROUPS = ("look", "light", "weather", "camera", "noise", "traffic", "dynamics")
"""Names of the groups. New ones come last, so that the others draw the same as before."""
MOST_CARS = 20
"""Most other cars that are drawn where the environment has none of its own."""
FREE_ROADS = 0.5
"""Share of the episodes without other cars."""


class Light(NamedTuple):
    """
    Exposure of the grey frame: ``255 (gain frame / 255)^gamma``, and a slow drift of the gain.

    :param gain: [-]
    :param gamma: [-]
    :param drift: amplitude of the gain's logarithm in the course of the episode [-]
    :param drift_period: of its sine [s]
    :param drift_phase: at the episode's start [rad]
    """

    gain: float
    gamma: float
    drift: float
    drift_period: float
    drift_phase: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Light:
        """Gain 0.65 to 1.8 and gamma 0.65 to 1.5, uniform in the logarithm."""
        return cls(
            gain=_log_uniform(rng, 0.65, 1.8),
            gamma=_log_uniform(rng, 0.65, 1.5),
            drift=float(rng.uniform(0.0, 0.2)),
            drift_period=_log_uniform(rng, 5.0, 30.0),
            drift_phase=float(rng.uniform(0.0, 2.0 * math.pi)),
        )


class Noise(NamedTuple):
    """
    What a cheap camera does to the grey frame.

    :param sigma: standard deviation of white noise [grey levels]
    :param blur: standard deviation of a Gaussian blur [px]
    :param vignette: share of the light that is missing in the corners [-]
    :param jpeg_quality: 20 to 95; 0: not compressed
    :param hidden: share of the frame's height, at its lower edge, in which the road is not seen [-]
    :param bonnet: what is there: grey level of the car's bonnet; -1: the row above, stretched along the car's axis
    :param seed: of the noise
    """

    sigma: float
    blur: float
    vignette: float
    jpeg_quality: int
    hidden: float
    bonnet: int
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Noise:
        """Noise up to 12 grey levels, 4 on average; blur up to 1 px; vignette up to 0.4; a third is compressed."""
        sigma, blur, vignette = rng.uniform(0.0, (1.0, 1.0, 0.4)).tolist()
        compressed, quality = rng.random() < 1.0 / 3.0, int(rng.integers(20, 96))
        seed = int(rng.integers(2**31))
        hidden = float(rng.uniform(0.05, 0.36)) if rng.random() < 0.6 else 0.0
        bonnet = int(rng.integers(0, 200)) if rng.random() < 0.4 else -1
        return cls(12.0 * sigma**2, blur, vignette, quality if compressed else 0, hidden, bonnet, seed)


class CameraShift(NamedTuple):
    """How the camera's mount differs from the usual one: height [m], angles and horizontal field of view [deg]."""

    height: float
    pitch: float
    yaw: float
    roll: float
    fov: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> CameraShift:
        """Height within 0.3 m, pitch 3 degrees, yaw and roll 1 degree, field of view 5 degrees."""
        limits = np.array([0.3, 3.0, 1.0, 1.0, 5.0])
        return cls(*rng.uniform(-limits, limits).tolist())

    def applied(self, mount: CameraMount) -> CameraMount:
        """
        :param mount: the usual one
        :return: that of the episode
        """
        return replace(
            mount, z=mount.z + self.height, pitch=mount.pitch + self.pitch, yaw=mount.yaw + self.yaw,
            roll=mount.roll + self.roll, fov=mount.fov + self.fov,
        )  # fmt: skip


class Dynamics(NamedTuple):
    """
    How the car differs from the usual one.

    :param mass: multiple of its mass [-]
    :param friction: multiple of its tyres' friction [-]
    :param steering_gain: multiple of the steering that is asked for [-]
    :param steering_delay: of the steering [ticks]
    """

    mass: float = 1.0
    friction: float = 1.0
    steering_gain: float = 1.0
    steering_delay: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Dynamics:
        """Mass 0.8 to 1.3, friction 0.6 to 1.2, steering gain 0.8 to 1.2, delay 0 to 2 ticks."""
        mass, friction, gain = rng.uniform((0.8, 0.6, 0.8), (1.3, 1.2, 1.2)).tolist()
        return cls(mass, friction, gain, int(rng.integers(3)))


@dataclass(frozen=True)
class EpisodeRandomness:
    """
    What the groups have drawn for an episode; None for a group that is off.

    :param look: colours and contrasts of the town's objects, and its hidden layers
    :param light: exposure of the frame
    :param weather: parameters of ``carla.WeatherParameters``
    :param camera: shift of the camera's mount
    :param noise: noise of the frame
    :param cars: number of other cars
    :param dynamics: of the agent's car
    """

    look: LookPlan | None = None
    light: Light | None = None
    weather: Mapping[str, float] | None = None
    camera: CameraShift | None = None
    noise: Noise | None = None
    cars: int | None = None
    dynamics: Dynamics | None = None

    def mount(self, usual: CameraMount) -> CameraMount:
        """
        :param usual: the camera's mount without ``camera``
        :return: that of the episode
        """
        return usual if self.camera is None else self.camera.applied(usual)

    def values(self) -> dict[str, float | int | str]:
        """All that was drawn, as ``group/name``: plain numbers and texts."""
        named: dict[str, Mapping[str, Any]] = {
            "look": {} if self.look is None else self.look.values(),
            "weather": self.weather or {},
            "traffic": {} if self.cars is None else {"cars": self.cars},
        }
        for group in ("light", "camera", "noise", "dynamics"):
            drawn = getattr(self, group)
            named[group] = {} if drawn is None else drawn._asdict()
        return {f"{group}/{name}": value for group in GROUPS for name, value in named[group].items()}


OFF = EpisodeRandomness()
"""Nothing is drawn."""


class Randomizer:
    """
    Draws what is random in an episode.

    :param groups: the argument ``randomize``: names of groups, "all", or None for none
    :param n_npcs: number of other cars without ``traffic``; the greatest with it, unless it is 0
    :raises ValueError: if a group is unknown
    """

    def __init__(self, groups: str | Sequence[str] | None, n_npcs: int) -> None:
        self.groups = group_names(groups)
        self._most_cars = n_npcs if n_npcs > 0 else MOST_CARS
        self._draws: dict[str, Callable[[np.random.Generator], object]] = {
            "look": LookPlan.draw, "light": Light.draw, "weather": draw_weather, "camera": CameraShift.draw,
            "noise": Noise.draw, "traffic": self._draw_cars, "dynamics": Dynamics.draw,
        }  # fmt: skip

    def draw(self, rng: np.random.Generator) -> EpisodeRandomness:
        """
        :param rng: gives one number, or none if no group is on
        :return: what the episode begins with
        """
        if not self.groups:
            return OFF
        seed = int(rng.integers(2**63))
        generators = {name: np.random.default_rng([seed, GROUPS.index(name)]) for name in self.groups}
        drawn: dict[str, Any] = {
            "cars" if name == "traffic" else name: self._draws[name](generator)
            for name, generator in generators.items()
        }
        return EpisodeRandomness(**drawn)

    def _draw_cars(self, rng: np.random.Generator) -> int:
        free, number = rng.random() < FREE_ROADS, int(rng.integers(1, self._most_cars + 1))
        return 0 if free else number


def group_names(groups: str | Sequence[str] | None) -> tuple[str, ...]:
    """
    :param groups: the argument ``randomize``
    :return: the groups that are on, in the order of :data:`GROUPS`
    :raises ValueError: if it is neither names of groups, "all" nor None
    """
    names = [groups] if isinstance(groups, str) else [] if groups is None else groups
    if not isinstance(names, Sequence) or not all(name == "all" or name in GROUPS for name in names):
        raise ValueError(f"randomize: expected groups of {', '.join(GROUPS)}, or 'all', got {groups!r}")
    return tuple(name for name in GROUPS if name in names or "all" in names)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))
