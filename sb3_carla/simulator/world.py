"""The world: actors in a town, weather, and the simulation clock."""

from __future__ import annotations

import math
from collections.abc import Mapping

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.errors import SpawnError
from sb3_carla.simulator.actors import Actor, Prop, VehicleActor
from sb3_carla.simulator.blueprints import resolve
from sb3_carla.simulator.geometry import Pose, follow
from sb3_carla.simulator.physics.collision import boxes_overlap
from sb3_carla.simulator.physics.contacts import Collision, resolve_contact, resolve_contacts
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.physics.rays import Vector, ray_to_box, ray_to_ground
from sb3_carla.simulator.rendering.bodies import Body
from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.look import Look
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.sensors import (
    CameraSensor,
    GnssReading,
    GnssSensor,
    ImuReading,
    ImuSensor,
    ObstacleSensor,
    Sensor,
)
from sb3_carla.simulator.town import Town

__all__ = ["World"]

MAX_ACTORS = 4096
CHASE_MARGIN = 0.5
"""A camera that is farther than this outside the body of its own car sees the car [m]."""
_SENSORS: dict[str, type[Sensor]] = {
    "sensor.other.gnss": GnssSensor,
    "sensor.other.imu": ImuSensor,
    "sensor.other.obstacle": ObstacleSensor,
}


class World:
    """
    Actors, weather and clock in one town. Deterministic: equal calls give equal numbers, bit for bit.

    :param town: the town
    :param seed: of the sensors' noise
    :param first_id: id of the first actor, the spectator; ids are never used again
    :param frame: number of the last finished simulation step
    """

    def __init__(self, town: Town, seed: int = 0, *, first_id: int = 10, frame: int = 0) -> None:
        self.town = town
        self.seed = seed
        self.frame = frame
        self.time = 0.0
        self.delta = 0.0
        self.weather = Weather()
        self.look = Look()
        """What clients have painted the objects with."""
        self.hidden_layers = 0
        """Bits of ``carla.MapLayer``: layers that clients have hidden."""
        self.actors: dict[int, Actor] = {}
        self.just_destroyed: list[Actor] = []
        """Actors destroyed between the last two steps."""
        self.next_id = first_id
        self._destroyed: list[Actor] = []
        self._vehicles: list[VehicleActor] = []
        self._bodies: list[Actor] = []  # solid: vehicles and props
        self._attached: list[Actor] = []
        self._new_sensors: list[Sensor] = []
        start = town.spawn_points[0] if town.spawn_points else Pose()
        self.spectator = Actor(
            self._take_id(), "spectator", {"role_name": "spectator"}, Pose(start.x, start.y, start.z + 10.0)
        )
        self.actors[self.spectator.id] = self.spectator

    def _take_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def spawn(self, blueprint_id: str, attributes: Mapping[str, str], pose: Pose, parent_id: int = 0) -> Actor:
        """
        Put a new actor into the world.

        :param blueprint_id: CARLA's id
        :param attributes: values that differ from the blueprint's
        :param pose: world pose; with a parent, pose in the parent's axes
        :param parent_id: actor to attach it to, 0: none
        :return: the actor
        :raises SpawnError: if the blueprint or the parent is unknown, a value is wrong, or another body or
            the scenery is there
        """
        if len(self.actors) >= MAX_ACTORS:
            raise SpawnError(f"cannot spawn {blueprint_id}: there are {MAX_ACTORS} actors already")
        blueprint, complete = resolve(blueprint_id, attributes)
        parent = self.actors.get(parent_id) if parent_id else None
        if parent_id and parent is None:
            raise SpawnError(f"cannot attach {blueprint_id} to actor {parent_id}: there is no such actor")
        pose = Pose(pose.x, pose.y, pose.z, pose.roll, pose.pitch, pose.yaw)
        actor: Actor
        if blueprint_id.startswith("vehicle."):
            if parent is not None:
                raise SpawnError(
                    f"cannot attach {blueprint_id} to actor {parent_id}: only sensors and props can be attached"
                )
            actor = VehicleActor(self.next_id, blueprint, complete, pose)
        elif blueprint_id.startswith("static."):
            actor = Prop(self.next_id, blueprint, complete, pose, parent)
        else:
            kind = CameraSensor if blueprint_id.startswith("sensor.camera.") else _SENSORS.get(blueprint_id, Sensor)
            actor = kind(self.next_id, blueprint_id, complete, pose, parent)
        self._enter(actor)
        return actor

    def _enter(self, actor: Actor) -> None:
        if actor.half_extents[0] > 0.0:
            for body in self._bodies:
                if body is not actor.root and boxes_overlap(
                    actor.pose, actor.half_extents, body.pose, body.half_extents
                ):
                    raise SpawnError(
                        f"Spawn failed because of collision at spawn position: {actor.type_id} would touch "
                        f"actor {body.id} ({body.type_id})"
                    )
            if actor.parent is None:
                for obstacle in self.town.obstacles.touching(actor.pose, actor.half_extents):
                    raise SpawnError(
                        f"Spawn failed because of collision at spawn position: {actor.type_id} would touch "
                        f"the scenery ({obstacle.type_id})"
                    )
            self._bodies.append(actor)
        if isinstance(actor, VehicleActor):
            self._vehicles.append(actor)
        if isinstance(actor, Sensor):
            actor.reseed(self.seed)
            self._new_sensors.append(actor)
        if actor.parent is not None:
            self._attached.append(actor)
        self.actors[self._take_id()] = actor

    def destroy(self, actor_id: int) -> bool:
        """
        Remove an actor; actors that are attached to it stay where they are, as in CARLA.

        :param actor_id: its id
        :return: False if there is no such actor, or if it is the spectator
        """
        if actor_id not in self.actors or actor_id == self.spectator.id:
            return False
        actor = self.actors.pop(actor_id)
        for child in [child for child in self._attached if child.parent is actor]:
            child.detach()
            self._attached.remove(child)
        for group in (self._vehicles, self._bodies, self._attached):
            if actor in group:
                group.remove(actor)  # type: ignore[arg-type]
        self._destroyed.append(actor)
        return True

    def tick(self, dt: float) -> list[Collision[Actor]]:
        """
        One simulation step.

        :param dt: duration [s], > 0
        :return: two entries for each pair of bodies in contact, one for each body; one for a contact with the scenery
        :raises ValueError: if the duration is not positive
        """
        if not dt > 0.0:
            raise ValueError(f"a simulation step needs a positive duration, got {dt} s")
        self.frame += 1
        self.time += dt
        self.delta = dt
        self.just_destroyed, self._destroyed = self._destroyed, []
        ground = self.town.ground
        for vehicle in self._vehicles:
            vehicle.advance(dt, ground)
        collisions: list[Collision[Actor]] = []
        if len(self._bodies) > 1:
            collisions = resolve_contacts([body for body in self._bodies if body.collisions_enabled])
        obstacles = self.town.obstacles
        for vehicle in self._vehicles:
            if vehicle.collisions_enabled and vehicle.inverse_mass > 0.0:
                for obstacle in obstacles.touching(vehicle.pose, vehicle.half_extents):
                    collisions.append(resolve_contact(vehicle, obstacle)[0])
        for actor in self._attached:
            actor.update_pose()
        for sensor in self._new_sensors:
            sensor.begin(self.time)
        self._new_sensors.clear()
        return collisions

    def render(self, sensor: Actor) -> NDArray[np.uint8]:
        """
        Present picture of a camera.

        :param sensor: a ``sensor.camera.*`` actor
        :return: shape (height, width, 4), uint8 BGRA
        :raises TypeError: if the actor is not a camera
        """
        if not isinstance(sensor, CameraSensor):
            raise TypeError(f"expected a camera, got {sensor.type_id} (actor {sensor.id})")
        camera: Camera = sensor.camera
        root, pose = sensor.root, sensor.pose
        ground = self._plane_under(pose, root.pose)
        bodies, hidden = self._bodies_seen_by(sensor), self.hidden_layers
        if sensor.kind == "rgb":
            return camera.render(self.town, pose, ground, self.weather, bodies, look=self.look, hidden_layers=hidden)
        if sensor.kind == "depth":
            return camera.render_depth(self.town, pose, ground, bodies, hidden_layers=hidden)
        return camera.render_semantic(self.town, pose, ground, bodies, hidden_layers=hidden)

    def _plane_under(self, pose: Pose, root: Pose) -> Ground:
        """Road plane on which a sensor's car stands, its height taken at the sensor's x and y."""
        plane = self.town.ground(root.x, root.y, root.z)
        rise = plane.slope_x * (pose.x - root.x) + plane.slope_y * (pose.y - root.y)
        return Ground(plane.z + rise, plane.slope_x, plane.slope_y) if rise else plane

    def _bodies_seen_by(self, sensor: CameraSensor) -> list[Body]:
        """Every solid body except the car that the camera is inside of."""
        root = sensor.root
        bodies = []
        for body in self._bodies:
            if body is root and not _is_outside(sensor, body):
                continue
            centre = follow(body.pose, Pose(z=body.half_extents[2]))
            bodies.append(Body(centre, body.half_extents, body.color, body.tag, body.model))
        return bodies

    def gnss(self, sensor: GnssSensor) -> GnssReading:
        """Measurement of a GNSS sensor."""
        return sensor.read(self.town.map.transform_to_geolocation)

    def imu(self, sensor: ImuSensor) -> ImuReading:
        """Measurement of an IMU."""
        return sensor.read()

    def obstacle(self, sensor: ObstacleSensor) -> tuple[Actor, float] | None:
        """
        Detection of an obstacle sensor.

        :param sensor: the sensor
        :return: the nearest body ahead and its distance [m], None if there is none within the sensor's range
        """
        pose = sensor.pose
        origin = (pose.x, pose.y, pose.z)
        level = math.cos(pose.pitch)
        direction = (level * math.cos(pose.yaw), level * math.sin(pose.yaw), math.sin(pose.pitch))
        nearest: tuple[Actor, float] | None = None
        for body in self._bodies:
            if not sensor.sees(body):
                continue
            distance = ray_to_box(origin, direction, body.pose, body.half_extents, sensor.radius)
            if distance is not None and distance <= (sensor.distance if nearest is None else nearest[1]):
                nearest = (body, distance)
        if sensor.only_dynamics:
            return nearest
        limit = sensor.distance if nearest is None else nearest[1]
        for distance, obstacle in self.town.obstacles.along(origin, direction, limit, sensor.radius)[:1]:
            nearest = (obstacle, distance)
        return nearest

    def cast_ray(self, origin: Vector, direction: Vector, reach: float) -> list[tuple[Vector, int]]:
        """
        Points in which a ray meets the road, the actors' boxes and the scenery.

        :param origin: world position [m]
        :param direction: unit vector
        :param reach: length of the ray [m]
        :return: points and their ``carla.CityObjectLabel``, nearest first
        """
        hits = [(ray_to_ground(origin, direction, self.town.ground), int(carla.CityObjectLabel.Roads))]
        hits += [(ray_to_box(origin, direction, body.pose, body.half_extents), body.tag) for body in self._bodies]
        hits += [(distance, obstacle.tag) for distance, obstacle in self.town.obstacles.along(origin, direction, reach)]
        found = sorted((distance, tag) for distance, tag in hits if distance is not None and distance <= reach)
        ox, oy, oz = origin
        dx, dy, dz = direction
        return [((ox + d * dx, oy + d * dy, oz + d * dz), tag) for d, tag in found]


def _is_outside(sensor: CameraSensor, body: Actor) -> bool:
    """Whether a camera is beside, in front of or behind the body of the car that it is attached to."""
    length, width, _ = body.half_extents
    if sensor.parent is not body:
        return False
    return abs(sensor.relative.x) > length + CHASE_MARGIN or abs(sensor.relative.y) > width + CHASE_MARGIN
