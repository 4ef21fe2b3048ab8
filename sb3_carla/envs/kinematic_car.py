"""
A car that follows its front wheels, for drives on recordings, where there is no server to move one.

Source: Rajamani, Vehicle Dynamics and Control, 2nd ed., ch. 2.2 (kinematic bicycle) and 4.1 (resistance). Limits and
steering curve are those of the packaged server's car, whose inputs are CARLA's. Differs: no limit of grip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sb3_carla.client.vehicle import MAX_WHEEL_ANGLE, WHEELBASE, VehicleState

__all__ = ["HALF_WIDTH", "KinematicCar"]

HALF_WIDTH = 1.082
"""Half of the car's width [m]."""
ACCELERATION, DECELERATION = 4.0, 8.0
"""With full throttle, and with full brake [m/s^2]."""
ROLLING_RESISTANCE = 0.12
"""Deceleration of the rolling wheels [m/s^2]."""
DRAG = 2.15e-4
"""Deceleration by the air for the speed's square [1/m]."""
STEERING_RATE = 1.5
"""Fastest change of the wheel angle [rad/s]."""
STEERING_CURVE = ((0.0, 1.0), (20 / 3.6, 0.9), (60 / 3.6, 0.8), (120 / 3.6, 0.7))
"""(speed [m/s], share of the wheel angle that is asked for [-]): CARLA's default ``steering_curve``."""
SUBSTEPS = 2
"""Integration steps in a tick."""


@dataclass(slots=True)
class KinematicCar:
    """
    A car in a plane; y and angles are right positive.

    :param x: of its centre [m]
    :param y: of its centre [m]
    :param heading: [rad]
    :param speed: [m/s], >= 0
    :param wheel_angle: of the front wheels [rad]
    """

    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0
    speed: float = 0.0
    wheel_angle: float = 0.0

    @property
    def state(self) -> VehicleState:
        """Position, heading and speed, as of a server's car."""
        return VehicleState(self.x, self.y, 0.0, self.heading, self.speed)

    def tick(self, steering: float, pedal: float, seconds: float) -> None:
        """
        Advance.

        :param steering: wheel angle as a share of ``MAX_WHEEL_ANGLE``, -1 (left) to 1 (right)
        :param pedal: full brake -1, full throttle 1
        :param seconds: [s], > 0
        """
        dt = seconds / SUBSTEPS
        for _ in range(SUBSTEPS):
            wanted = steering * MAX_WHEEL_ANGLE * _steering_share(self.speed)
            reach = STEERING_RATE * dt
            self.wheel_angle += max(-reach, min(reach, wanted - self.wheel_angle))
            push = self.speed + max(pedal, 0.0) * ACCELERATION * dt
            resistance = ROLLING_RESISTANCE + DRAG * self.speed**2 + max(-pedal, 0.0) * DECELERATION
            self.speed = max(push - resistance * dt, 0.0)
            # The centre is halfway between the axles: beta = atan(tan(delta) / 2).
            # Yaw rate = v cos(beta) tan(delta) / L
            side_slip = math.atan(0.5 * math.tan(self.wheel_angle))
            yaw_rate = self.speed * math.cos(side_slip) * math.tan(self.wheel_angle) / WHEELBASE
            course = self.heading + 0.5 * yaw_rate * dt + side_slip
            self.x += self.speed * math.cos(course) * dt
            self.y += self.speed * math.sin(course) * dt
            self.heading += yaw_rate * dt


def _steering_share(speed: float) -> float:
    """Share of the wheel angle at a speed, interpolated in ``STEERING_CURVE``."""
    last_speed, last_share = STEERING_CURVE[0]
    for next_speed, next_share in STEERING_CURVE[1:]:
        if speed < next_speed:
            return last_share + (next_share - last_share) * (speed - last_speed) / (next_speed - last_speed)
        last_speed, last_share = next_speed, next_share
    return last_share
