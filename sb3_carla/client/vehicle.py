"""The agent's car with its sensors: how they are spawned, and the car's state in SI units and radians."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import carla

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.errors import ServerError

__all__ = [
    "MAX_WHEEL_ANGLE",
    "WHEELBASE",
    "Physics",
    "VehicleState",
    "set_role_name",
    "spawn_camera",
    "spawn_collision_sensor",
    "spawn_vehicle",
    "vehicle_state",
]

MAX_WHEEL_ANGLE = math.radians(40.0)
"""Largest wheel angle [rad]; enough for a turn of 3.5 m radius, and finer than CARLA's 70 degrees."""
VEHICLE = "vehicle.tesla.model3"
"""Blueprint of the car."""
WHEELBASE = 2.875
"""Wheelbase of the car [m]."""


@dataclass(frozen=True, slots=True)
class VehicleState:
    """Car at the last tick: position [m], heading [rad], speed in the horizontal plane [m/s]."""

    x: float
    y: float
    z: float
    heading: float
    speed: float


def spawn_vehicle(world: Any) -> Any:
    """
    Spawn the car at any free spawn point; the first reset moves it to the start of the route.

    :param world: ``carla.World``
    :return: ``carla.Vehicle``
    :raises ServerError: if no spawn point is free
    :raises RuntimeError: if the server does not answer
    """
    blueprint = world.get_blueprint_library().find(VEHICLE)
    blueprint.set_attribute("role_name", "hero")
    spawn_points = world.get_map().get_spawn_points()
    for point in spawn_points:
        try:
            vehicle = world.spawn_actor(blueprint, point)
            break
        except RuntimeError as error:  # try_spawn_actor() returns None for an occupied point and for a lost server
            if "collision" not in str(error):
                raise
    else:
        raise ServerError(f"None of the {len(spawn_points)} spawn points has room for a {VEHICLE}")
    return vehicle


def spawn_collision_sensor(world: Any, vehicle: Any, role_name: str) -> Any:
    """
    :param world: ``carla.World``
    :param vehicle: ``carla.Vehicle`` that the sensor is attached to
    :param role_name: of the sensor
    :return: ``carla.Sensor``
    """
    blueprint = world.get_blueprint_library().find("sensor.other.collision")
    set_role_name(blueprint, role_name)
    return world.spawn_actor(blueprint, carla.Transform(), attach_to=vehicle)


def spawn_camera(world: Any, vehicle: Any, mount: CameraMount, *, role_name: str, sensor_tick: float | None) -> Any:
    """
    :param world: ``carla.World``
    :param vehicle: ``carla.Vehicle`` that the camera is attached to
    :param mount: size, field of view and pose
    :param role_name: of the camera
    :param sensor_tick: simulated time between two images [s]; None: an image each tick
    :return: ``carla.Sensor``
    """
    blueprint = world.get_blueprint_library().find("sensor.camera.rgb")
    set_role_name(blueprint, role_name)
    attributes = {"image_size_x": mount.width, "image_size_y": mount.height, "fov": mount.fov}
    if sensor_tick is not None:
        attributes["sensor_tick"] = sensor_tick
    for name, value in attributes.items():
        blueprint.set_attribute(name, str(value))
    place = carla.Location(x=mount.x, y=mount.y, z=mount.z)
    pose = carla.Transform(place, carla.Rotation(pitch=mount.pitch, yaw=mount.yaw, roll=mount.roll))
    return world.spawn_actor(blueprint, pose, attach_to=vehicle)


def set_role_name(blueprint: Any, role_name: str) -> None:
    """
    Set the role name of the actors of a blueprint, if these have one.

    :param blueprint: ``carla.ActorBlueprint``
    :param role_name: to set
    """
    if blueprint.has_attribute("role_name"):
        blueprint.set_attribute("role_name", role_name)


def vehicle_state(vehicle: Any) -> VehicleState:
    """
    :param vehicle: ``carla.Vehicle``
    :return: its state at the last tick
    """
    transform, velocity = vehicle.get_transform(), vehicle.get_velocity()
    place = transform.location
    heading = math.radians(transform.rotation.yaw)
    return VehicleState(place.x, place.y, place.z, heading, math.hypot(velocity.x, velocity.y))


def _steering_scale(physics: Any) -> float:
    """
    :param physics: ``carla.VehiclePhysicsControl``
    :return: value of ``carla.VehicleControl.steer`` that turns the wheels by ``MAX_WHEEL_ANGLE``
    """
    lock: float = max(wheel.max_steer_angle for wheel in physics.wheels)  # [deg], at steer = 1
    return min(1.0, math.degrees(MAX_WHEEL_ANGLE) / max(lock, 1.0))


class Physics:
    """
    Mass and tyre friction of a car, as multiples of what it was spawned with.

    It does not keep the car: whoever keeps an actor keeps the client with its threads and sockets.

    :param vehicle: ``carla.Vehicle`` that was just spawned
    :raises RuntimeError: if the server does not answer
    """

    def __init__(self, vehicle: Any) -> None:
        physics = vehicle.get_physics_control()
        self.steering_scale = _steering_scale(physics)
        self._mass, self._friction = physics.mass, [wheel.tire_friction for wheel in physics.wheels]
        self._scales = 1.0, 1.0

    def scale(self, vehicle: Any, mass: float, friction: float) -> None:
        """
        Change the car; a car that is so already is left alone.

        :param vehicle: the same one
        :param mass: multiple of the original mass [-]
        :param friction: multiple of the original tyre friction [-]
        :raises RuntimeError: if the server does not answer
        """
        if (mass, friction) == self._scales:
            return
        physics = vehicle.get_physics_control()
        wheels = physics.wheels
        for wheel, original in zip(wheels, self._friction, strict=True):
            wheel.tire_friction = friction * original
        physics.mass, physics.wheels = mass * self._mass, wheels
        vehicle.apply_physics_control(physics)
        self._scales = mass, friction
