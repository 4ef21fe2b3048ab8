"""Actors of a world: vehicles, props and the spectator; sensors are in ``sb3_carla.simulator.sensors``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import carla

from sb3_carla.simulator.blueprints import Blueprint
from sb3_carla.simulator.geometry import Pose, follow, relative_pose
from sb3_carla.simulator.physics.dynamics import VEHICLE_MODELS, Ground, Vehicle, VehicleControl
from sb3_carla.simulator.rendering.mesh import Mesh
from sb3_carla.simulator.scenery.vehicles import car, truck

__all__ = ["AckermannControl", "Actor", "Prop", "VehicleActor"]

Vector = tuple[float, float, float]
ZERO: Vector = (0.0, 0.0, 0.0)

_LABEL = carla.CityObjectLabel
TAG_CAR, TAG_TRUCK, TAG_STATIC = (int(label) for label in (_LABEL.Car, _LABEL.Truck, _LABEL.Static))
ACKERMANN_ACCELERATION = 3.0
"""Acceleration of the Ackermann controller if the command gives none [m/s^2]."""
ACKERMANN_GAIN = 2.0
"""Acceleration of the Ackermann controller per unit of speed error [1/s]."""


@functools.lru_cache(maxsize=256)
def _model(half_extents: Vector, color: tuple[int, int, int], tag: int) -> Mesh:
    return truck(half_extents, color) if tag == TAG_TRUCK else car(half_extents, color)


class Actor:
    """
    Something with an id and a pose: the spectator; base class of props, vehicles and sensors.

    :param actor_id: unique in the server's lifetime
    :param type_id: id of the blueprint
    :param attributes: all attributes of the blueprint, values as text
    :param pose: world pose; with a parent, pose in the parent's axes
    :param parent: actor that this one is attached to
    """

    def __init__(
        self, actor_id: int, type_id: str, attributes: dict[str, str], pose: Pose, parent: Actor | None = None
    ) -> None:
        self.id = actor_id
        self.type_id = type_id
        self.attributes = attributes
        self.parent = parent
        self.relative = pose
        self.collisions_enabled = True
        self.half_extents: Vector = (0.0, 0.0, 0.0)
        self.tag = TAG_STATIC
        red, green, blue = (int(part) for part in attributes.get("color", "128,128,128").split(","))
        self.color = (blue, green, red)
        self._pose = pose if parent is None else follow(parent.pose, pose)

    @property
    def model(self) -> Mesh | None:
        """What it looks like; None: a box."""
        return None

    @property
    def pose(self) -> Pose:
        """World pose."""
        return self._pose

    @property
    def root(self) -> Actor:
        """The actor at the end of the chain of parents; the actor itself if it has none."""
        actor = self
        while actor.parent is not None:
            actor = actor.parent
        return actor

    @property
    def velocity(self) -> Vector:
        """World axes [m/s]."""
        return ZERO

    @property
    def angular_velocity(self) -> Vector:
        """World axes [rad/s]."""
        return ZERO

    @property
    def acceleration(self) -> Vector:
        """World axes [m/s^2]."""
        return ZERO

    @property
    def inverse_mass(self) -> float:
        """[1/kg]; zero for a body that cannot be moved."""
        return 0.0

    def push(self, shift: tuple[float, float], velocity_change: tuple[float, float]) -> None:
        """
        Take the effect of a contact; only vehicles move.

        :param shift: world axes x, y [m]
        :param velocity_change: world axes x, y [m/s]
        """

    def update_pose(self) -> None:
        """Follow the parent, if there is one."""
        if self.parent is not None:
            self._pose = follow(self.parent.pose, self.relative)

    def teleport(self, pose: Pose) -> None:
        """
        Put the actor somewhere else; an attached one keeps its new pose relative to the parent.

        :param pose: world pose
        """
        self.relative = pose if self.parent is None else relative_pose(self.parent.pose, pose)
        self._pose = pose

    def detach(self) -> None:
        """Lose the parent and stay here."""
        self.parent, self.relative = None, self._pose


class Prop(Actor):
    """A solid box that does not move."""

    def __init__(
        self, actor_id: int, blueprint: Blueprint, attributes: dict[str, str], pose: Pose, parent: Actor | None = None
    ) -> None:
        super().__init__(actor_id, blueprint.name, attributes, pose, parent)
        if blueprint.half_extents is not None:
            self.half_extents = blueprint.half_extents


@dataclass(slots=True)
class AckermannControl:
    """
    ``carla.VehicleAckermannControl``.

    :param steer: angle of the front wheels [rad]
    :param steer_speed: rate of that angle [rad/s], 0: as fast as the steering allows
    :param speed: [m/s], negative backwards
    :param acceleration: [m/s^2], 0: ``ACKERMANN_ACCELERATION``
    :param jerk: [m/s^3], not used
    """

    steer: float = 0.0
    steer_speed: float = 0.0
    speed: float = 0.0
    acceleration: float = 0.0
    jerk: float = 0.0


class VehicleActor(Actor):
    """A car in the world: its dynamics, and what CARLA's clients can switch on and off."""

    def __init__(self, actor_id: int, blueprint: Blueprint, attributes: dict[str, str], pose: Pose) -> None:
        super().__init__(actor_id, blueprint.name, attributes, pose)
        self.vehicle = Vehicle(VEHICLE_MODELS[blueprint.name], pose)
        self.half_extents = self.vehicle.parameters.half_extents
        self.tag = TAG_TRUCK if attributes.get("base_type") == "truck" else TAG_CAR
        self.light_state = 0
        self.ackermann: AckermannControl | None = None

    @property
    def model(self) -> Mesh | None:
        """What it looks like."""
        return _model(self.half_extents, self.color, self.tag)

    @property
    def pose(self) -> Pose:
        """World pose of the body's centre at ground level."""
        return self.vehicle.pose

    @property
    def velocity(self) -> Vector:
        """World axes [m/s]."""
        return self.vehicle.velocity

    @property
    def angular_velocity(self) -> Vector:
        """World axes [rad/s]."""
        return self.vehicle.angular_velocity

    @property
    def acceleration(self) -> Vector:
        """World axes [m/s^2]."""
        return self.vehicle.acceleration

    @property
    def inverse_mass(self) -> float:
        """[1/kg]; zero without physics."""
        return 1.0 / self.vehicle.parameters.mass if self.vehicle.physics_enabled else 0.0

    def teleport(self, pose: Pose) -> None:
        """Put the car somewhere else; its velocity is kept."""
        self.vehicle.teleport(pose)

    def push(self, shift: tuple[float, float], velocity_change: tuple[float, float]) -> None:
        """
        Take the effect of a contact.

        :param shift: world axes x, y [m]
        :param velocity_change: world axes x, y [m/s]
        """
        self.pose.x += shift[0]
        self.pose.y += shift[1]
        vx, vy, vz = self.velocity
        self.vehicle.set_velocity(vx + velocity_change[0], vy + velocity_change[1], vz)

    def apply_control(self, control: VehicleControl) -> None:
        """Set pedals and steering; ends an Ackermann command."""
        self.ackermann = None
        self.vehicle.control = control

    def advance(self, dt: float, ground: Callable[[float, float, float], Ground]) -> None:
        """
        One simulation step.

        :param dt: [s]
        :param ground: road plane at a world position
        """
        if self.ackermann is not None:
            self._follow_ackermann(self.ackermann, dt)
        self.vehicle.step(dt, ground)

    def _follow_ackermann(self, target: AckermannControl, dt: float) -> None:
        """Proportional speed control, from the wanted acceleration to a share of the engine's or the brakes' limit."""
        vehicle = self.vehicle
        parameters, previous = vehicle.parameters, vehicle.control.steer
        steer = max(-1.0, min(1.0, target.steer / parameters.max_wheel_angle))
        if target.steer_speed > 0.0:
            reach = target.steer_speed * dt / parameters.max_wheel_angle
            steer = previous + max(-reach, min(reach, steer - previous))
        limit = abs(target.acceleration) if target.acceleration != 0.0 else ACKERMANN_ACCELERATION
        reverse = target.speed < 0.0
        forward = -vehicle.speed if reverse else vehicle.speed
        wanted = max(-limit, min(limit, ACKERMANN_GAIN * (abs(target.speed) - forward)))
        if target.speed == 0.0 and abs(vehicle.speed) < 0.1:
            wanted = -parameters.max_deceleration
        vehicle.control = VehicleControl(
            throttle=max(0.0, min(1.0, wanted / parameters.max_acceleration)),
            brake=max(0.0, min(1.0, -wanted / parameters.max_deceleration)),
            steer=steer,
            reverse=reverse,
        )
