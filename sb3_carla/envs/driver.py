"""The scripted driver: the reference that a learned policy is compared with. It reads the map, not the camera."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.vehicle import WHEELBASE, VehicleState
from sb3_carla.envs.rewards import comfortable_speed
from sb3_carla.envs.route import LanePose, LaneRoute

if TYPE_CHECKING:
    from sb3_carla.envs.carla_lane import CarlaLaneEnv

__all__ = ["DrivenLane", "PurePursuitDriver", "pure_pursuit"]

MIN_LOOKAHEAD, LOOKAHEAD_TIME = 2.5, 0.35
"""Distance to the point that the rear axle steers to: minimum [m], and growth with the speed [s]."""
BRAKING_DISTANCE_TIME = 1.8
"""Bends slow the car down this far ahead [s of driving]."""


class DrivenLane(Protocol):
    """What the driver reads: the simulation of an environment."""

    route: LaneRoute
    lane_pose: LanePose
    target_speed: float

    @property
    def vehicle_state(self) -> VehicleState:
        """The car at the last tick."""

    @property
    def max_wheel_angle(self) -> float:
        """Wheel angle of full steering at the present speed [rad]."""

    def safe_speed(self) -> float:
        """Speed that keeps the distance to the car ahead [m/s]."""


class PurePursuitDriver:
    """
    Pure pursuit on the route's centre line, with a speed that suits the bends ahead.

    Source: Coulter, Implementation of the Pure Pursuit Path Tracking Algorithm, CMU-RI-TR-92-01.

    :param env: a ``CarlaLane-v0`` or ``CarlaRecorded-v0`` environment, wrapped or not
    """

    def __init__(self, env: gym.Env[NDArray[np.uint8], NDArray[np.float32]]) -> None:
        self._env: CarlaLaneEnv = env.unwrapped  # type: ignore[assignment]

    def act(self) -> NDArray[np.float32]:
        """
        The action for the present state.

        :return: shape (2,), float32: steering, pedal or speed, each in -1 to 1
        """
        return pure_pursuit(self._env.simulation, self._env.control.longitudinal)


def pure_pursuit(simulation: DrivenLane, longitudinal: str) -> NDArray[np.float32]:
    """
    The action of :class:`PurePursuitDriver`.

    :param simulation: route and car as they are
    :param longitudinal: what the second action is: "pedal" or "speed"
    :return: shape (2,), float32: steering, pedal or speed, each in -1 to 1
    """
    state, pose, route = simulation.vehicle_state, simulation.lane_pose, simulation.route
    lookahead = MIN_LOOKAHEAD + LOOKAHEAD_TIME * state.speed
    x, y, _ = route.position(pose.station + lookahead - 0.5 * WHEELBASE)
    rear_x = state.x - 0.5 * WHEELBASE * math.cos(state.heading)
    rear_y = state.y - 0.5 * WHEELBASE * math.sin(state.heading)
    bearing = math.atan2(y - rear_y, x - rear_x) - state.heading
    distance = max(math.hypot(x - rear_x, y - rear_y), 0.1)
    wheel_angle = math.atan2(2.0 * WHEELBASE * math.sin(bearing), distance)
    curvature = route.curvature_ahead(pose.station, 4.0 + BRAKING_DISTANCE_TIME * state.speed)
    wanted = min(comfortable_speed(curvature, simulation.target_speed), simulation.safe_speed())
    if longitudinal == "speed":
        drive = 2.0 * wanted / simulation.target_speed - 1.0
    else:
        drive = 0.5 * (wanted - state.speed) + 0.1
    return np.clip([wheel_angle / simulation.max_wheel_angle, drive], -1.0, 1.0).astype(np.float32)
