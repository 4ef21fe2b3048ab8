"""
CARLA 0.9.16's sensor messages, byte by byte (little-endian, packed).

Every payload starts with the sensor header of 48 bytes; the snapshot of the world is one of them. The layouts are those
of ``ActorDynamicState`` and its neighbours in the client library's own debug information.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import msgpack

from sb3_carla.simulator.actors import Actor, VehicleActor
from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.sensors import CameraSensor, GnssReading, ImuReading
from sb3_carla.simulator.world import World

__all__ = ["SENSOR_TYPES", "collision_event", "gnss_measurement", "image_header", "imu_measurement", "world_snapshot"]

SENSOR_TYPES = {
    "sensor.other.collision": 0,
    "sensor.camera.depth": 1,
    "sensor.other.gnss": 4,
    "sensor.other.imu": 5,
    "sensor.other.obstacle": 7,
    "sensor.camera.rgb": 13,
    "sensor.camera.semantic_segmentation": 14,
}
"""``carla::sensor::SensorRegistry`` indices."""
WORLD_OBSERVER = 17
HEADER = struct.Struct("<QQd6f")
EPISODE = struct.Struct("<QQd6fQdf3iI")
ROW = struct.Struct("<IB6f9f3f3BifBBIB24x")
IMAGE = struct.Struct("<QQd6fIIf")
ACTIVE, PENDING_KILL = 1, 3
SPEED_LIMIT_KMH = 30.0
"""CARLA's own limit for a car that has met no sign."""
GREEN = 2
DEGREES = 180.0 / math.pi
NO_CONTROL = (0.0, 0.0, 0.0, 0, 0, 0, 0, 0.0, 0, 0, 0, 0)


def _place(pose: Pose) -> tuple[float, float, float, float, float, float]:
    return pose.x, pose.y, pose.z, pose.pitch * DEGREES, pose.yaw * DEGREES, pose.roll * DEGREES


def world_snapshot(world: World, episode_id: int, clock: float) -> bytearray:
    """
    Episode state: every actor's pose, motion and control.

    Actors that went since the last step appear once more as dying, so that other clients' handles notice.

    :param world: what is described
    :param episode_id: changes with every load
    :param clock: wall clock [s]
    :return: payload without its length word
    """
    actors, destroyed = world.actors, world.just_destroyed
    size = ROW.size
    message = bytearray(EPISODE.size + size * (len(actors) + len(destroyed)))
    EPISODE.pack_into(
        message, 0, WORLD_OBSERVER, world.frame, world.time,
        0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
        episode_id, clock, world.delta, 0, 0, 0, 0,
    )  # fmt: skip
    offset = EPISODE.size
    for actor in actors.values():
        _pack_row(message, offset, actor, ACTIVE)
        offset += size
    for actor in destroyed:
        _pack_row(message, offset, actor, PENDING_KILL)
        offset += size
    return message


def _pack_row(message: bytearray, offset: int, actor: Actor, state: int) -> None:
    pose = actor.pose
    if not isinstance(actor, VehicleActor):
        ROW.pack_into(
            message, offset, actor.id, state,
            pose.x, pose.y, pose.z, pose.pitch * DEGREES, pose.yaw * DEGREES, pose.roll * DEGREES,
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, *NO_CONTROL,
        )  # fmt: skip
        return
    vehicle = actor.vehicle
    control = vehicle.control
    wx, wy, wz = vehicle.angular_velocity
    ROW.pack_into(
        message, offset, actor.id, state,
        pose.x, pose.y, pose.z, pose.pitch * DEGREES, pose.yaw * DEGREES, pose.roll * DEGREES,
        *vehicle.velocity, wx * DEGREES, wy * DEGREES, wz * DEGREES, *vehicle.acceleration,
        control.throttle, control.steer, control.brake,
        control.hand_brake, control.reverse, control.manual_gear_shift, control.gear,
        SPEED_LIMIT_KMH, GREEN, 0, 0, 0,
    )  # fmt: skip


def _header(world: World, sensor: Actor) -> bytes:
    return HEADER.pack(SENSOR_TYPES[sensor.type_id], world.frame, world.time, *_place(sensor.pose))


def image_header(world: World, sensor: CameraSensor) -> bytes:
    """
    What stands before a picture's pixels.

    :param world: for frame number and time
    :param sensor: the camera
    """
    return IMAGE.pack(
        SENSOR_TYPES[sensor.type_id], world.frame, world.time, *_place(sensor.pose),
        sensor.width, sensor.height, sensor.fov * DEGREES,
    )  # fmt: skip


def collision_event(
    world: World, sensor: Actor, self_actor: Sequence[object], other: Sequence[object], impulse: Sequence[float]
) -> bytes:
    """
    One contact.

    :param world: for frame number and time
    :param sensor: the collision sensor
    :param self_actor: the sensor's parent, as ``wire.actor_to`` writes it
    :param other: what was hit, likewise
    :param impulse: world axes [N s]
    """
    return _header(world, sensor) + _packed([self_actor, other, list(impulse)])


def obstacle_detection_event(
    world: World, sensor: Actor, self_actor: Sequence[object], other: Sequence[object], distance: float
) -> bytes:
    """
    One sighting of an obstacle sensor, like ``collision_event``.

    :param world: for frame number and time
    :param sensor: the obstacle sensor
    :param self_actor: the sensor's parent, as ``wire.actor_to`` writes it
    :param other: what is ahead, likewise
    :param distance: [m]
    """
    return _header(world, sensor) + _packed([self_actor, other, distance])


def gnss_measurement(world: World, sensor: Actor, reading: GnssReading) -> bytes:
    """``carla.GnssMeasurement``."""
    return _header(world, sensor) + _packed([reading.latitude, reading.longitude, reading.altitude])


def imu_measurement(world: World, sensor: Actor, reading: ImuReading) -> bytes:
    """``carla.IMUMeasurement``."""
    return _header(world, sensor) + _packed([list(reading.accelerometer), list(reading.gyroscope), reading.compass])


def _packed(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed
