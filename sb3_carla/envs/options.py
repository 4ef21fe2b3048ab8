"""The two arguments of ``CarlaLane-v0`` that are mappings of options: ``control`` and ``server``."""

from __future__ import annotations

from dataclasses import dataclass

from sb3_carla.checks import check_limits, check_whole

__all__ = ["ControlOptions", "ServerOptions"]


@dataclass(frozen=True)
class ControlOptions:
    """
    What the two actions do to the car: the argument ``control``.

    :param longitudinal: what the second action is: "pedal" (throttle and brake) or "speed"
    :param lateral_acceleration: what full steering makes at speed [m/s^2]; None: the wheels' limit at any speed
    :param steering_rate: fastest change of the steering action [full actions/s]; None: at once
    :raises ValueError: if one is something else
    """

    longitudinal: str = "pedal"
    lateral_acceleration: float | None = None
    steering_rate: float | None = None

    def __post_init__(self) -> None:
        if self.longitudinal not in ("pedal", "speed"):
            raise ValueError(f"control.longitudinal: expected 'pedal' or 'speed', got {self.longitudinal!r}")
        check_limits(**{
            "control.lateral_acceleration": self.lateral_acceleration,
            "control.steering_rate": self.steering_rate,
        })  # fmt: skip


@dataclass(frozen=True)
class ServerOptions:
    """
    How the environment keeps a server of its own: the argument ``server``.

    :param command: starts the server; ``{port}`` stands for its port. None: the packaged server
    :param max_episodes: the server is replaced after this many episodes; None: never for this reason
    :param max_memory: the server is replaced before an episode if it takes more memory [GB]; None: likewise
    :raises ValueError: if one is something else
    """

    command: str | None = None
    max_episodes: int | None = None
    max_memory: float | None = None

    def __post_init__(self) -> None:
        if self.command is not None and not (isinstance(self.command, str) and "{port}" in self.command):
            raise ValueError(f"server.command: expected a command with {{port}} in it, got {self.command!r}")
        if self.max_episodes is not None:
            check_whole("server.max_episodes", self.max_episodes, 1)
        check_limits(**{"server.max_memory": self.max_memory})
