"""The scripted driver: the reference that a learned policy is compared with. It reads the map, not the camera."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.vehicle import WHEELBASE
from sb3_carla.envs.rewards import comfortable_speed

if TYPE_CHECKING:
    from sb3_carla.envs.carla_lane import CarlaLaneEnv

__all__ = ["PurePursuitDriver"]

MIN_LOOKAHEAD, LOOKAHEAD_TIME = 2.5, 0.35
"""Distance to the point that the rear axle steers to: minimum [m], and growth with the speed [s]."""
BRAKING_DISTANCE_TIME = 1.8
"""Bends slow the car down this far ahead [s of driving]."""


class PurePursuitDriver:
    """
    Pure pursuit on the route's centre line, with a speed that suits the bends ahead.

    Source: Coulter, Implementation of the Pure Pursuit Path Tracking Algorithm, CMU-RI-TR-92-01.

    :param env: a ``CarlaLane-v0`` environment, wrapped or not
    """

    def __init__(self, env: gym.Env[NDArray[np.uint8], NDArray[np.float32]]) -> None:
        self._env: CarlaLaneEnv = env.unwrapped  # type: ignore[assignment]

    def act(self) -> NDArray[np.float32]:
        """
        The action for the present state.

        :return: shape (2,), float32: steering, pedal or speed, each in -1 to 1
        """
        env, simulation = self._env, self._env.simulation
        state, pose, route = simulation.vehicle_state, simulation.lane_pose, simulation.route
        lookahead = MIN_LOOKAHEAD + LOOKAHEAD_TIME * state.speed
        x, y, _ = route.position(pose.station + lookahead - 0.5 * WHEELBASE)
        rear_x = state.x - 0.5 * WHEELBASE * math.cos(state.heading)
        rear_y = state.y - 0.5 * WHEELBASE * math.sin(state.heading)
        bearing = math.atan2(y - rear_y, x - rear_x) - state.heading
        distance = max(math.hypot(x - rear_x, y - rear_y), 0.1)
        wheel_angle = math.atan2(2.0 * WHEELBASE * math.sin(bearing), distance)
        curvature = route.curvature_ahead(pose.station, 4.0 + BRAKING_DISTANCE_TIME * state.speed)
        wanted = min(comfortable_speed(curvature, env.target_speed), simulation.safe_speed())
        if env.control.longitudinal == "speed":
            drive = 2.0 * wanted / env.target_speed - 1.0
        else:
            drive = 0.5 * (wanted - state.speed) + 0.1
        return np.clip([wheel_angle / simulation.max_wheel_angle, drive], -1.0, 1.0).astype(np.float32)
