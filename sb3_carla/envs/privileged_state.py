"""What the simulator knows about the car and its lane. For critics, which only training needs; never for the policy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.vehicle import VehicleState
from sb3_carla.envs.route import LanePose, LaneRoute, wrap_angle
from sb3_carla.envs.traffic import CarAhead, recommended_speed

__all__ = ["PRIVILEGED_STATE_SIZE", "privileged_state"]

LOOK_AHEAD = (4.0, 8.0, 12.0, 20.0, 32.0)
"""Distances along the lane to the points whose directions are part of the state [m]."""
ANGLE_UNIT, GAP_UNIT = 0.3, 50.0
"""Units of angles [rad] and of the gap to the car ahead [m]."""
BOUND = 4.0
"""Every number is clipped to -BOUND..BOUND, in its unit."""
PRIVILEGED_STATE_SIZE = 9 + len(LOOK_AHEAD)
"""Length of the state."""


def privileged_state(
    route: LaneRoute,
    pose: LanePose,
    car: VehicleState,
    *,
    car_ahead: CarAhead,
    target_speed: float,
    steering: float,
    stuck: float,
) -> NDArray[np.float32]:
    """
    The state that reward and end of the episode depend on, in numbers of about unit size.

    | index | number | unit |
    | --- | --- | --- |
    | 0 | lateral offset, right positive | 1 m |
    | 1 | heading error, right positive | 0.3 rad |
    | 2 to 6 | directions from the car to the lane's centre 4, 8, 12, 20 and 32 m ahead, right positive | 0.3 rad |
    | 7 | half of the lane's width | 1 m |
    | 8 | speed | target speed |
    | 9 | recommended speed | target speed |
    | 10 | speed of the car ahead, 0 if the road is free | target speed |
    | 11 | gap to the car ahead, 1 if the road is free | 50 m |
    | 12 | last steering action | 1 |
    | 13 | time without progress, as a share of that after which the car is stuck | 1 |

    :param route: of the car
    :param pose: the car relative to its route
    :param car: its position, heading and speed
    :param car_ahead: the next car on the route
    :param target_speed: speed on a free straight [m/s]
    :param steering: last steering action [-]
    :param stuck: share of the time after which the car counts as stuck [-]
    :return: shape (PRIVILEGED_STATE_SIZE,), float32
    """
    angles = [pose.heading_error]
    for distance in LOOK_AHEAD:
        x, y, _ = route.position(pose.station + distance)
        angles.append(wrap_angle(math.atan2(y - car.y, x - car.x) - car.heading))
    comfortable = recommended_speed(route, pose.station, speed=car.speed, target_speed=target_speed, gap=car_ahead.gap)
    speeds = (car.speed, comfortable, car_ahead.speed)
    numbers = [
        pose.lateral_offset,
        *(angle / ANGLE_UNIT for angle in angles),
        pose.half_width,
        *(speed / target_speed for speed in speeds),
        min(car_ahead.gap / GAP_UNIT, 1.0),
        steering,
        stuck,
    ]
    return np.array(numbers, np.float32).clip(-BOUND, BOUND)
