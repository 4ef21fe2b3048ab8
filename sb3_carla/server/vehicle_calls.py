"""Remote calls about vehicles: driving them, reading their state, and calls about things that are not simulated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from sb3_carla.errors import CallError
from sb3_carla.server.registry import Response, remote_call
from sb3_carla.server.simulation import Simulation
from sb3_carla.server.wire import WireError, ackermann_from, control_from, flag_from, number_from, sequence_from
from sb3_carla.simulator.actors import VehicleActor

__all__ = [
    "apply_ackermann",
    "apply_control",
    "apply_physics_control",
    "not_simulated",
    "set_autopilot",
    "set_light_state",
]

WHEELS = 4
WHEEL_RADIUS = 0.35
"""[m]"""
MAX_RPM = 6000.0
FINAL_RATIO = 10.0
"""Turns of the engine for one turn of the wheels [-]."""


@remote_call("apply_control_to_vehicle", Response.VOID)
def apply_control(simulation: Simulation, actor_id: object, control: object) -> None:
    """``vehicle.apply_control``."""
    simulation.vehicle(actor_id).apply_control(control_from(control))


@remote_call("apply_ackermann_control_to_vehicle", Response.VOID)
def apply_ackermann(simulation: Simulation, actor_id: object, control: object) -> None:
    """``vehicle.apply_ackermann_control``."""
    simulation.vehicle(actor_id).ackermann = ackermann_from(control)


@remote_call("set_actor_autopilot", Response.VOID)
def set_autopilot(simulation: Simulation, actor_id: object, enabled: object, port: object = 0) -> None:
    """
    ``vehicle.set_autopilot``; only switching it off is possible.

    :raises CallError: if it is switched on
    """
    if flag_from(enabled, "autopilot"):
        raise CallError("this server has no traffic manager and no autopilot: apply controls, or move the vehicle")


@remote_call("set_vehicle_light_state", Response.VOID)
def set_light_state(simulation: Simulation, actor_id: object, state: object) -> None:
    """``vehicle.set_light_state``: stored and returned; the lamps give no light."""
    # ``VehicleLightState`` is an array of one number in the call, a bare number in a batch.
    value = state if isinstance(state, int) else sequence_from(state, 1, "light state")[0]
    if not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise CallError(f"light state: expected an unsigned 32-bit integer, got {value!r}")
    simulation.vehicle(actor_id).light_state = value


@remote_call("get_vehicle_light_state")
def get_light_state(simulation: Simulation, actor_id: object) -> list[int]:
    """``vehicle.get_light_state``."""
    return [simulation.vehicle(actor_id).light_state]


@remote_call("get_vehicle_light_states")
def get_light_states(simulation: Simulation) -> list[object]:
    """``world.get_vehicles_light_states``."""
    actors = simulation.world.actors.values()
    return [[actor.id, actor.light_state] for actor in actors if isinstance(actor, VehicleActor)]


@remote_call("get_wheel_steer_angle")
def get_wheel_steer_angle(simulation: Simulation, actor_id: object, wheel: object) -> float:
    """``vehicle.get_wheel_steer_angle`` [deg]; wheels 0 and 1 are the front ones."""
    return math.degrees(simulation.vehicle(actor_id).vehicle.wheel_angle) if wheel in (0, 1) else 0.0


@remote_call("get_physics_control")
def get_physics_control(simulation: Simulation, actor_id: object) -> list[object]:
    """
    ``vehicle.get_physics_control``: parameters of the model; those that it does not have are CARLA's usual values.

    ``rpc::VehiclePhysicsControl`` has 17 fields: torque curve [rpm, N m], max rpm, moment of inertia, three damping
    rates; automatic gearbox, switch time, clutch strength, final ratio, gears; mass, drag, centre of mass, steering
    curve [km/h, -], wheels, sweep collision. ``rpc::WheelPhysicsControl``: friction, damping, greatest angle [deg],
    radius, brake and hand brake torque, lateral stiffness load and value, longitudinal stiffness, position.
    """
    actor = simulation.vehicle(actor_id)
    parameters = actor.vehicle.parameters
    pose = actor.pose
    cos_yaw, sin_yaw = math.cos(pose.yaw), math.sin(pose.yaw)
    wheels: list[object] = []
    for index in range(WHEELS):
        front = index < 2
        along = parameters.wheelbase - parameters.rear_axle if front else -parameters.rear_axle
        across = (1.0 if index % 2 else -1.0) * 0.85 * parameters.half_extents[1]
        place = (pose.x + cos_yaw * along - sin_yaw * across, pose.y + sin_yaw * along + cos_yaw * across)
        lock = math.degrees(parameters.max_wheel_angle) if front else 0.0
        # Unreal's lengths are centimetres.
        position = [100.0 * place[0], 100.0 * place[1], 100.0 * (pose.z + WHEEL_RADIUS)]
        grip, brakes = [parameters.friction, 0.25], [1500.0, 0.0 if front else 3000.0]
        wheels.append([*grip, lock, 100.0 * WHEEL_RADIUS, *brakes, 2.0, 17.0, 1000.0, position])
    torque = parameters.max_acceleration * parameters.mass * WHEEL_RADIUS / FINAL_RATIO
    engine: list[object] = [[[0.0, torque], [MAX_RPM, torque]], MAX_RPM, 1.0, 0.15, 2.0, 0.35]
    gears: list[object] = [True, 0.5, 10.0, 4.0, [[2.5, 0.65, 0.5]]]
    curve = [[0.0, 1.0], [20.0, 0.9], [60.0, 0.8], [120.0, 0.7]]
    body: list[object] = [parameters.mass, 0.3, [0.0, 0.0, 0.0], curve, wheels, False]
    return engine + gears + body


@remote_call("apply_physics_control", Response.VOID)
def apply_physics_control(simulation: Simulation, actor_id: object, control: object) -> None:
    """
    ``vehicle.apply_physics_control``: mass, greatest torque, the wheels' friction and greatest angle.

    The other parameters have no effect here. Fields: see ``get_physics_control``.

    :raises WireError: if one of the four is out of range
    """
    vehicle = simulation.vehicle(actor_id).vehicle
    fields = sequence_from(control, 17, "physics control")
    mass = _within(fields[11], "mass", 1.0, 1e6)
    points = [sequence_from(point, 2, "torque curve") for point in sequence_from(fields[0], 1, "torque curve")]
    torque = max(_within(point[1], "torque", 0.0, 1e6) for point in points)
    wheels = [sequence_from(wheel, 3, "wheel") for wheel in sequence_from(fields[15], 1, "wheels")]
    vehicle.parameters = replace(
        vehicle.parameters,
        mass=mass,
        max_acceleration=torque * FINAL_RATIO / (mass * WHEEL_RADIUS),
        friction=sum(_within(wheel[0], "tire_friction", 0.0, 100.0) for wheel in wheels) / len(wheels),
        max_wheel_angle=math.radians(max(_within(wheel[2], "max_steer_angle", 0.0, 89.0) for wheel in wheels)),
    )


def _within(value: object, what: str, low: float, high: float) -> float:
    number = number_from(value, what)
    if not low <= number <= high:
        raise WireError(f"{what}: expected {low:g} to {high:g}, got {number!r}")
    return number


@remote_call("get_telemetry_data")
def get_telemetry_data(simulation: Simulation, actor_id: object) -> list[object]:
    """
    ``vehicle.get_telemetry_data``: speed, steer, throttle, brake, rpm, gear, drag, wheels.

    A wheel has eleven numbers; only friction [-] and angular velocity [rad/s] are modelled.
    """
    vehicle = simulation.vehicle(actor_id).vehicle
    control, friction = vehicle.control, vehicle.parameters.friction
    wheel = [friction, 0.0, 0.0, vehicle.speed / WHEEL_RADIUS, *([0.0] * 7)]
    gear = -1 if control.reverse else 1
    rpm = min(MAX_RPM, abs(vehicle.speed) / WHEEL_RADIUS * FINAL_RATIO * 60.0 / (2.0 * math.pi))
    figures = [vehicle.speed, control.steer, control.throttle, control.brake, rpm, gear, 0.3]
    return [*figures, [wheel] * WHEELS]


def _not_simulated(*names: str) -> Callable[..., None]:
    """Register calls about doors, walkers, torques and other things that do not exist here; they fail."""

    def refuse(simulation: Simulation, *arguments: object) -> None:
        """
        Refuse the call.

        :raises CallError: always
        """
        raise CallError("not simulated by this server: no walkers, doors, traffic lights, torques, other physics")

    for name in names:
        remote_call(name, Response.VOID)(refuse)
    return refuse


not_simulated = _not_simulated(
    "add_actor_impulse_at_location",
    "add_actor_force_at_location",
    "add_actor_angular_impulse",
    "add_actor_torque",
    "apply_control_to_walker",
    "set_walker_state",
    "open_vehicle_door",
    "close_vehicle_door",
    "set_wheel_steer_direction",
    "set_traffic_light_state",
    "enable_carsim",
    "enable_chrono_physics",
    "restore_physx_physics",
    "apply_ackermann_controller_settings",
)
