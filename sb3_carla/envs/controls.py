"""What the two actions of CarlaLane-v0 do to the car."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from sb3_carla.client.vehicle import MAX_WHEEL_ANGLE, WHEELBASE
from sb3_carla.envs.options import ControlOptions

__all__ = ["Controls", "read_action"]

SPEED_GAIN = 0.3
"""Gain of the speed controller: pedal for each m/s that the car is too slow [s/m]."""


def read_action(action: Any, names: tuple[str, str]) -> tuple[float, float]:
    """
    :param action: shape (2,)
    :param names: names of the two numbers, for the error
    :return: the two numbers, clipped to -1..1
    :raises ValueError: if it is not two finite numbers
    """
    try:
        numbers = np.asarray(action, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (2,) or not np.isfinite(numbers).all():
        raise ValueError(f"action: expected 2 finite numbers {names}, got {action!r}")
    first, second = (min(max(value, -1.0), 1.0) for value in numbers.tolist())
    return first, second


class Controls:
    """
    From actions to steering and pedals, tick by tick.

    :param options: what the actions mean
    :param target_speed: speed that a full second action asks for if it is a speed [m/s]
    :param delta_seconds: simulated time of a tick [s]
    """

    def __init__(self, options: ControlOptions, target_speed: float, *, delta_seconds: float) -> None:
        self.delta_seconds = delta_seconds
        self._target_speed, self._asks_for_speed = target_speed, options.longitudinal == "speed"
        rate, acceleration = options.steering_rate, options.lateral_acceleration
        self._steering_step = (math.inf if rate is None else rate) * delta_seconds
        self._lateral_acceleration = math.inf if acceleration is None else acceleration
        self.restart()

    def restart(self, *, steering_gain: float = 1.0, steering_delay: int = 0) -> None:
        """
        Set the steering to straight ahead, for a new episode.

        :param steering_gain: wheel angle that comes, as a multiple of the one that is asked for [-]
        :param steering_delay: how much later it comes [ticks]
        """
        self.steering = self.wheel_angle = 0.0
        self._steering_gain = steering_gain
        self._coming = deque([0.0] * steering_delay)  # wheel angles on their way, the oldest first

    def full_steering(self, speed: float) -> float:
        """
        :param speed: of the car [m/s]
        :return: wheel angle of full steering at this speed [rad]
        """
        # Kinematic bicycle: lateral acceleration = speed^2 tan(wheel angle) / wheelbase
        return min(MAX_WHEEL_ANGLE, math.atan(WHEELBASE * self._lateral_acceleration / max(speed**2, 1e-6)))

    def act(self, steering: float, drive: float, speed: float) -> tuple[float, float]:
        """
        One tick of a decision.

        :param steering: first action, -1 (left) to 1 (right)
        :param drive: second action, -1 to 1: pedal or speed
        :param speed: of the car [m/s]
        :return: inputs of :meth:`sb3_carla.client.session.CarlaSession.steer`
        """
        low, high = self.steering - self._steering_step, self.steering + self._steering_step
        self.steering = min(max(steering, low), high)
        self.wheel_angle = self.steering * self.full_steering(speed)
        pedal = drive
        if self._asks_for_speed:
            wanted = 0.5 * (drive + 1.0) * self._target_speed
            pedal = min(max(SPEED_GAIN * (wanted - speed), -1.0), 1.0)
        self._coming.append(self._steering_gain * self.wheel_angle / MAX_WHEEL_ANGLE)
        return min(max(self._coming.popleft(), -1.0), 1.0), pedal
