"""What every simulation of a car on its lane has: route, car, controls, episode, and what follows from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.vehicle import VehicleState
from sb3_carla.envs.controls import Controls
from sb3_carla.envs.episode import Episode
from sb3_carla.envs.privileged_state import privileged_state
from sb3_carla.envs.rewards import Motion
from sb3_carla.envs.route import LanePose, LaneRoute
from sb3_carla.envs.traffic import CarAhead, recommended_speed

__all__ = ["LaneDriving"]

TIME_LIMIT_FACTOR = 3.0
"""Time limit of an episode as a multiple of the time that its route takes at target speed."""


class LaneDriving:
    """
    A car on its route. Subclasses move it, and say where it is.

    :param controls: from actions to steering and pedals
    :param target_speed: speed on a free straight [m/s]
    :param action_repeat: ticks of a decision
    """

    def __init__(self, controls: Controls, *, target_speed: float, action_repeat: int) -> None:
        self.controls, self.target_speed, self._action_repeat = controls, target_speed, action_repeat
        self.episode: Episode | None = None
        """The present episode, or the one that ended last; None before the first and while one begins."""
        self.car_ahead = CarAhead()
        """The next car on the route at the last tick."""
        self.route: LaneRoute
        """The route of the present episode."""
        self.vehicle_state: VehicleState
        """The car at the last tick."""
        self.lane_pose: LanePose
        """The car relative to the route at the last tick."""

    @property
    def decision_seconds(self) -> float:
        """Simulated time of a decision [s]."""
        return self.controls.delta_seconds * self._action_repeat

    @property
    def max_wheel_angle(self) -> float:
        """Wheel angle of full steering at the present speed [rad]."""
        return self.controls.full_steering(self.vehicle_state.speed)

    def privileged_state(self) -> NDArray[np.float32]:
        """What only a critic may see, see :mod:`sb3_carla.envs.privileged_state`: shape (14,), float32."""
        assert self.episode is not None
        return privileged_state(
            self.route, self.lane_pose, self.vehicle_state, car_ahead=self.car_ahead, target_speed=self.target_speed,
            steering=self.controls.steering, stuck=self.episode.stuck,
        )  # fmt: skip

    def info(self, terms: dict[str, float]) -> dict[str, Any]:
        """
        :param terms: weighted terms of the reward by name
        :return: what the infos of all environments on a lane have
        """
        assert self.episode is not None
        return {
            "speed_mps": self.vehicle_state.speed,
            "lateral_offset_m": self.lane_pose.lateral_offset,
            "heading_error_rad": self.lane_pose.heading_error,
            "wheel_angle_rad": self.controls.wheel_angle,
            "route_completion": self.episode.route_completion,
            "distance_m": self.episode.distance,
            "reward_terms": terms,
            "privileged_state": self.privileged_state(),
        }

    def advance(self, steering: float, drive: float) -> Motion:
        """
        Hold an action for all ticks of a decision, also if the episode ends before the last of them.

        :param steering: first action, -1 (left) to 1 (right)
        :param drive: second action, -1 to 1: pedal or speed
        :return: what the reward depends on
        :raises ServerError: if there is a server, and it is lost
        """
        assert self.episode is not None
        station, steering_before = self.lane_pose.station, self.controls.steering
        for _ in range(self._action_repeat):
            self._tick(steering, drive)
        pose, speed = self.lane_pose, self.vehicle_state.speed
        return Motion(
            progress_speed=(pose.station - station) / self.decision_seconds,
            speed=speed,
            recommended_speed=recommended_speed(
                self.route, pose.station, speed=speed, target_speed=self.target_speed, gap=self.car_ahead.gap
            ),
            lateral_offset=pose.lateral_offset,
            half_width=pose.half_width,
            heading_error=pose.heading_error,
            steering_change=abs(self.controls.steering - steering_before),
            failed=self.episode.failed,
        )

    def _tick(self, steering: float, drive: float) -> None:
        """Move the car by one tick, and update the episode unless it is over."""
        raise NotImplementedError

    def _begin_episode(self, half_width: float) -> None:
        """Start the bookkeeping for the present route; ``half_width`` is the car's [m]."""
        time_limit = TIME_LIMIT_FACTOR * self.route.length / self.target_speed
        self.episode = Episode(self.route.length, time_limit, half_width, self.controls.delta_seconds)
