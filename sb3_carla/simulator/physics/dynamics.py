"""
Vehicle dynamics: a bicycle model with actuator limits, a power-limited engine and a friction circle.

Sources: Rajamani, Vehicle Dynamics and Control, 2nd ed., ch. 2.2 (kinematic bicycle) and 4.1 (longitudinal forces);
the inputs, the steering curve and the sign conventions are CARLA's (``carla.VehicleControl``,
``carla.VehiclePhysicsControl``). Deviations from CARLA's PhysX vehicle:

1. No wheels, suspension or tyre slip: the car follows its front wheels until the tyres' friction is used up. Then its
   path widens (understeer); it never spins.
2. No gears: the acceleration is limited by a maximum and by power / (mass * speed).
3. The body lies on the road plane: pitch and roll are those of the road.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from sb3_carla.simulator.geometry import Pose, wrap_angle

__all__ = ["VEHICLE_MODELS", "Ground", "Vehicle", "VehicleControl", "VehicleParameters"]

GRAVITY = 9.81
"""[m/s^2]"""
AIR_DENSITY = 1.204
"""At 20 degrees Celsius and sea level [kg/m^3]."""
MAX_SUBSTEP = 0.025
"""Longest integration step [s]; at 30 m/s and full grip the midpoint rule errs by less than 1 mm a step."""
MIN_CORNERING_SQUARED = 0.04
"""A fifth of the grip, squared, is left for cornering under full braking or acceleration [-]."""
AIRBORNE = 0.3
"""A car higher than this above the road falls freely; a lower one is put on the road [m]."""
STEERING_CURVE = ((0.0, 1.0), (20 / 3.6, 0.9), (60 / 3.6, 0.8), (120 / 3.6, 0.7))
"""(speed [m/s], share of the greatest wheel angle [-]): CARLA's default ``steering_curve``."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Road plane under a point: its height is ``z + slope_x * dx + slope_y * dy``, in world axes [m, -, -]."""

    z: float
    slope_x: float = 0.0
    slope_y: float = 0.0


@dataclass(slots=True)
class VehicleControl:
    """Driver's inputs, with the names, ranges and defaults of ``carla.VehicleControl``."""

    throttle: float = 0.0
    steer: float = 0.0
    brake: float = 0.0
    hand_brake: bool = False
    reverse: bool = False
    manual_gear_shift: bool = False
    gear: int = 0


@dataclass(frozen=True, slots=True)
class VehicleParameters:
    """
    Parameters of a vehicle model. The defaults are those of a mid-size saloon.

    :param mass: [kg]
    :param half_extents: half length, half width, half height of the body [m]
    :param wheelbase: distance between the axles [m]
    :param rear_axle: distance from the centre back to the rear axle [m]
    :param max_wheel_angle: greatest angle of the front wheels [rad]; 70 degrees in CARLA's vehicles
    :param steering_rate: fastest change of the wheel angle [rad/s]
    :param friction: tyre-road coefficient [-]
    :param max_acceleration: with full throttle from standstill [m/s^2]
    :param power: at the wheels [W]
    :param max_deceleration: with full brake [m/s^2]
    :param hand_brake_deceleration: with the hand brake alone [m/s^2]
    :param drag_area: drag coefficient times frontal area [m^2]
    :param rolling_resistance: coefficient [-]
    """

    mass: float = 1845.0
    half_extents: tuple[float, float, float] = (2.396, 1.082, 0.744)
    wheelbase: float = 2.875
    rear_axle: float = 1.4375
    max_wheel_angle: float = math.radians(70.0)
    steering_rate: float = 1.5
    friction: float = 0.9
    max_acceleration: float = 4.0
    power: float = 150e3
    max_deceleration: float = 8.0
    hand_brake_deceleration: float = 5.0
    drag_area: float = 0.66
    rolling_resistance: float = 0.012


@dataclass(slots=True)
class Vehicle:
    """
    One car: pose, motion, and the driver's current inputs.

    The pose is that of the body's centre at ground level, as in CARLA. ``speed`` is along the car, negative
    backwards [m/s]. ``wheel_angle`` is the present angle of the front wheels, right positive [rad].
    """

    parameters: VehicleParameters
    pose: Pose
    control: VehicleControl = field(default_factory=VehicleControl)
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    angular_velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)
    acceleration: tuple[float, float, float] = (0.0, 0.0, 0.0)
    speed: float = 0.0
    wheel_angle: float = 0.0
    physics_enabled: bool = True
    gravity_enabled: bool = True
    constant_velocity: tuple[float, float, float] | None = None
    """Velocity in the car's own axes [m/s] that replaces the engine's (``enable_constant_velocity``), or None."""
    _lateral_speed: float = 0.0
    """Sliding to the right of the car [m/s], caused by collisions or ``set_velocity``; friction brakes it."""

    def teleport(self, pose: Pose) -> None:
        """Put the car somewhere else; its velocity is kept, as in CARLA."""
        self.pose = pose
        self.set_velocity(*self.velocity)

    def set_velocity(self, vx: float, vy: float, vz: float) -> None:
        """
        Set the motion of the body's centre.

        :param vx: world x [m/s]
        :param vy: world y [m/s]
        :param vz: world z [m/s]
        """
        cos_yaw, sin_yaw = math.cos(self.pose.yaw), math.sin(self.pose.yaw)
        cos_pitch = max(math.cos(self.pose.pitch), 1e-3)
        self.speed = (vx * cos_yaw + vy * sin_yaw) / cos_pitch
        self._lateral_speed = -vx * sin_yaw + vy * cos_yaw
        self.velocity = (vx, vy, vz)

    def step(self, dt: float, ground: Callable[[float, float, float], Ground]) -> None:
        """
        Advance by one simulation step.

        :param dt: duration [s], > 0
        :param ground: road plane at a world position
        """
        if not self.physics_enabled:
            return
        before = self.velocity
        substeps = max(1, math.ceil(dt / MAX_SUBSTEP - 1e-9))
        for _ in range(substeps):
            self._substep(dt / substeps)
        self._settle(ground, dt)
        vx, vy, vz = self.velocity
        self.acceleration = ((vx - before[0]) / dt, (vy - before[1]) / dt, (vz - before[2]) / dt)

    def _substep(self, dt: float) -> None:
        parameters, pose = self.parameters, self.pose
        self._turn_wheels(dt)
        grip = parameters.friction * GRAVITY
        if self.constant_velocity is None:
            longitudinal = self._drive(dt, grip)
        else:
            longitudinal = 0.0
            self.speed, self._lateral_speed = self.constant_velocity[0], self.constant_velocity[1]
        # Friction circle, a_x^2 + a_y^2 <= (mu g)^2: the grip used for driving or braking is missing for cornering.
        cornering = math.sqrt(max(grip * grip - longitudinal * longitudinal, MIN_CORNERING_SQUARED * grip * grip))
        # Curvature of the rear axle's path, tan(delta) / L, limited so that v^2 * curvature does not exceed the grip.
        curvature = math.tan(self.wheel_angle) / parameters.wheelbase
        limit = cornering / max(self.speed * self.speed, 1e-6)
        curvature = max(-limit, min(limit, curvature))
        # Kinematic bicycle at the body's centre (Rajamani, table 2.1): beta = atan(l_r tan(delta) / L), yaw rate =
        # v cos(beta) tan(delta) / L, velocity along yaw + beta. Midpoint rule: the yaw after half the step.
        side_slip = math.atan(parameters.rear_axle * curvature)
        yaw_rate = self.speed * math.cos(side_slip) * curvature
        heading = pose.yaw + 0.5 * yaw_rate * dt
        along, across = self.speed * math.cos(pose.pitch), self._lateral_speed
        vx = along * math.cos(heading + side_slip) - across * math.sin(heading)
        vy = along * math.sin(heading + side_slip) + across * math.cos(heading)
        pose.x += vx * dt
        pose.y += vy * dt
        pose.yaw = wrap_angle(pose.yaw + yaw_rate * dt)
        if self.constant_velocity is None:
            self._lateral_speed = math.copysign(max(abs(self._lateral_speed) - grip * dt, 0.0), self._lateral_speed)
        self.velocity = (vx, vy, self.velocity[2])
        self.angular_velocity = (0.0, 0.0, yaw_rate)

    def _turn_wheels(self, dt: float) -> None:
        """Turn the front wheels towards the wanted angle, at the steering's rate."""
        steer = max(-1.0, min(1.0, self.control.steer))
        wanted = steer * steering_share(abs(self.speed)) * self.parameters.max_wheel_angle
        reach = self.parameters.steering_rate * dt
        self.wheel_angle += max(-reach, min(reach, wanted - self.wheel_angle))

    def _drive(self, dt: float, grip: float) -> float:
        """Update the speed; returns the tyres' longitudinal acceleration [m/s^2]."""
        control, parameters, speed = self.control, self.parameters, self.speed
        throttle = max(0.0, min(1.0, control.throttle))
        reverse = control.reverse or control.gear < 0
        # Accelerations [m/s^2]: power limits the engine's to P / (m v) (Rajamani, ch. 4.1).
        engine = min(parameters.max_acceleration, parameters.power / (parameters.mass * max(abs(speed), 0.1)))
        tyres = throttle * engine * (-1.0 if reverse else 1.0)
        pull = -GRAVITY * math.sin(self.pose.pitch) if self.gravity_enabled else 0.0
        free = speed + (tyres + pull) * dt
        brake = max(0.0, min(1.0, control.brake)) * parameters.max_deceleration
        if control.hand_brake:
            brake += parameters.hand_brake_deceleration
        brake = min(brake, grip)
        # 1/2 rho C_d A v^2 / m
        drag = 0.5 * AIR_DENSITY * parameters.drag_area * speed * speed / parameters.mass
        resistance = brake + drag + parameters.rolling_resistance * GRAVITY
        # Brakes, drag and rolling resistance stop the car; they never push it backwards.
        self.speed = math.copysign(max(abs(free) - resistance * dt, 0.0), free)
        return min(max(abs(tyres), brake), grip)

    def _settle(self, ground: Callable[[float, float, float], Ground], dt: float) -> None:
        """Put the body on the road plane, or let it fall towards it."""
        pose = self.pose
        plane = ground(pose.x, pose.y, pose.z)
        cos_yaw, sin_yaw = math.cos(pose.yaw), math.sin(pose.yaw)
        fall = self.velocity[2] - GRAVITY * dt
        airborne = pose.z > plane.z + AIRBORNE and pose.z + fall * dt > plane.z
        if airborne:
            rise = fall if self.gravity_enabled else self.velocity[2]
            pose.z += rise * dt
        else:
            # The plane's slopes along the car and to its right give pitch (nose up) and roll (right side down).
            rise = self.velocity[0] * plane.slope_x + self.velocity[1] * plane.slope_y
            pose.z = plane.z
            pose.pitch = math.atan(plane.slope_x * cos_yaw + plane.slope_y * sin_yaw)
            pose.roll = math.atan(plane.slope_x * sin_yaw - plane.slope_y * cos_yaw)
        self.velocity = (self.velocity[0], self.velocity[1], rise)


def steering_share(speed: float) -> float:
    """
    Share of the greatest wheel angle available at a speed, interpolated in ``STEERING_CURVE``.

    :param speed: [m/s], >= 0
    :return: share [-], in (0, 1]
    """
    last_speed, last_share = STEERING_CURVE[0]
    for next_speed, next_share in STEERING_CURVE[1:]:
        if speed < next_speed:
            part = (speed - last_speed) / (next_speed - last_speed)
            return last_share + part * (next_share - last_share)
        last_speed, last_share = next_speed, next_share
    return last_share


def _car(length: float, width: float, height: float, mass: float, wheelbase: float, power: float) -> VehicleParameters:
    return VehicleParameters(
        mass=mass,
        half_extents=(0.5 * length, 0.5 * width, 0.5 * height),
        wheelbase=wheelbase,
        rear_axle=0.5 * wheelbase,
        power=power,
    )


VEHICLE_MODELS: dict[str, VehicleParameters] = {
    "vehicle.tesla.model3": VehicleParameters(),
    "vehicle.lincoln.mkz_2020": _car(4.89, 2.11, 1.52, 1700.0, 2.85, 140e3),
    "vehicle.audi.tt": _car(4.18, 1.99, 1.39, 1355.0, 2.50, 170e3),
    "vehicle.audi.a2": _car(3.71, 1.79, 1.55, 1000.0, 2.40, 55e3),
    "vehicle.mini.cooper_s_2021": _car(4.55, 2.10, 1.77, 1240.0, 2.57, 140e3),
    "vehicle.dodge.charger_2020": _car(5.01, 1.88, 1.54, 1900.0, 3.05, 220e3),
    "vehicle.nissan.micra": _car(3.63, 1.85, 1.50, 970.0, 2.45, 60e3),
    "vehicle.ford.mustang": _car(4.72, 1.89, 1.30, 1700.0, 2.72, 220e3),
    "vehicle.mercedes.coupe_2020": _car(4.67, 2.12, 1.44, 1600.0, 2.84, 180e3),
    "vehicle.toyota.prius": _car(4.51, 2.01, 1.52, 1400.0, 2.70, 90e3),
    "vehicle.jeep.wrangler_rubicon": _car(3.87, 1.91, 1.88, 1700.0, 2.42, 150e3),
    "vehicle.carlamotors.firetruck": VehicleParameters(
        mass=15000.0,
        half_extents=(4.23, 1.45, 1.91),
        wheelbase=4.6,
        rear_axle=2.3,
        max_acceleration=1.8,
        power=250e3,
        max_deceleration=6.0,
        drag_area=5.0,
    ),
}
