"""What the simulator knows of the car and its lane, in numbers: for critics, which only train, never for the policy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.vehicle import VehicleState
from sb3_carla.envs.route import LanePose, LaneRoute, wrap_angle
from sb3_carla.envs.traffic import recommended_speed

__all__ = ["PRIVILEGED_STATE_SIZE", "privileged_state"]

LOOK_AHEAD = (4.0, 8.0, 12.0, 20.0, 32.0)
"""Distances of the points of the lane whose directions are told [m]."""
ANGLE, GAP = 0.3, 50.0
"""Units of angles [rad] and of the gap to the next car [m]."""
BOUND = 4.0
"""Every number is clipped to plus and minus this many units."""
PRIVILEGED_STATE_SIZE = 9 + len(LOOK_AHEAD)
"""How many numbers there are."""


def privileged_state(
    route: LaneRoute,
    pose: LanePose,
    car: VehicleState,
    *,
    gap: tuple[float, float],
    target_speed: float,
    steering: float,
    stuck: float,
) -> NDArray[np.float32]:
    """
    The state that the reward and the episode's end follow from, in about unit size.

    :param route: that the car is to follow
    :param pose: of the car on it
    :param car: its position, heading and speed
    :param gap: to the car in front [m], infinite with nobody there, and its speed [m/s]
    :param target_speed: on a free straight, and unit of the speeds [m/s]
    :param steering: last steering action [-]
    :param stuck: share of the time that has passed in which a car counts as stuck [-]
    :return: shape (PRIVILEGED_STATE_SIZE,), float32: lateral offset [m], heading error and directions from the car to
        the lane's centre ``LOOK_AHEAD`` further on [0.3 rad], half of the lane's width [m], speed, recommended speed,
        speed of the car in front [target speed], gap to it [50 m, at most 1], steering, stuck
    """
    angles = [pose.heading_error]
    for distance in LOOK_AHEAD:
        x, y, _ = route.position(pose.station + distance)
        angles.append(wrap_angle(math.atan2(y - car.y, x - car.x) - car.heading))
    comfortable = recommended_speed(route, pose.station, car.speed, target_speed, gap[0])
    speeds = (car.speed, comfortable, gap[1])
    numbers = [
        pose.lateral_offset,
        *(angle / ANGLE for angle in angles),
        pose.half_width,
        *(speed / target_speed for speed in speeds),
        min(gap[0] / GAP, 1.0),
        steering,
        stuck,
    ]
    return np.array(numbers, np.float32).clip(-BOUND, BOUND)
