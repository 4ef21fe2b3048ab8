"""
CARLA 0.9.16's sensor messages as bytes, packed and little-endian, without padding.

Every message starts with the 48-byte sensor header; the world snapshot is one of these messages. Source: LibCarla
0.9.16 (``sensor/s11n/*Serializer.h``, ``sensor/data/ActorDynamicState.h``), fields as in the debug information of the
client library.
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
"""Indices in LibCarla's ``sensor::SensorRegistry``."""
WORLD_OBSERVER = 17
"""Index of the world snapshot."""
HEADER = struct.Struct("<QQd6f")
"""
``SensorHeaderSerializer::Header``, 48 bytes. Offset, type, field:

    0   u64     sensor type
    8   u64     frame
    16  f64     simulation time [s]
    24  6 f32   sensor's location x, y, z [m], rotation pitch, yaw, roll [deg]
"""
EPISODE = struct.Struct("<QQd6fQdf3iI")
"""
``EpisodeStateSerializer::Header`` after the sensor header, 84 bytes; rows of ``ROW`` follow to the end of the message:

    48  u64     episode id
    56  f64     wall clock [s]
    64  f32     duration of the step [s]
    68  3 i32   map origin of large maps, 0
    80  u32     bit 0: the map has changed, bit 1: lights are pending
"""
ROW = struct.Struct("<IB6f9f3f3BifBBIB24x")
"""
``ActorDynamicState``, 119 bytes:

    0   u32     actor id
    4   u8      ``rpc::ActorState``
    5   6 f32   location x, y, z [m], rotation pitch, yaw, roll [deg]
    29  3 f32   velocity [m/s]
    41  3 f32   angular velocity [deg/s]
    53  3 f32   acceleration [m/s^2]
    65  54      union by kind of actor, for vehicles ``VehicleData``; the last 24 bytes of it are not used:
    65  3 f32   throttle, steer, brake
    77  3 u8    hand brake, reverse, manual gear shift
    80  i32     gear
    84  f32     speed limit [km/h]
    88  u8      ``rpc::TrafficLightState``
    89  u8      whether a traffic light is near
    90  u32     its actor id
    94  u8      ``rpc::VehicleFailureState``
"""
IMAGE = struct.Struct("<QQd6fIIf")
"""
``ImageSerializer::ImageHeader`` after the sensor header, 60 bytes; width * height * 4 bytes BGRA follow, top row first:

    48  u32     width [px]
    52  u32     height [px]
    56  f32     horizontal field of view [deg]
"""
ACTIVE, PENDING_KILL = 1, 3
"""``rpc::ActorState``."""
SPEED_LIMIT_KMH = 30.0
"""CARLA's limit for a vehicle that has passed no sign."""
GREEN = 2
"""``rpc::TrafficLightState::Green``."""
DEGREES = 180.0 / math.pi
"""Degrees per radian."""
# ``VehicleData`` of an actor that is not a vehicle.
NO_CONTROL = (0.0, 0.0, 0.0, 0, 0, 0, 0, 0.0, 0, 0, 0, 0)


def _transform(pose: Pose) -> tuple[float, float, float, float, float, float]:
    """x, y, z [m], pitch, yaw, roll [deg], as ``carla.Transform`` has them."""
    return pose.x, pose.y, pose.z, pose.pitch * DEGREES, pose.yaw * DEGREES, pose.roll * DEGREES


def world_snapshot(world: World, episode_id: int, clock: float) -> bytearray:
    """
    ``carla.WorldSnapshot``: pose, motion and control of every actor.

    Actors destroyed since the last step appear once more as "pending kill", which tells other clients' handles.

    :param world: the world
    :param episode_id: a new one after every load
    :param clock: wall clock [s]
    :return: message without its length word
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
    return HEADER.pack(SENSOR_TYPES[sensor.type_id], world.frame, world.time, *_transform(sensor.pose))


def image_header(world: World, sensor: CameraSensor) -> bytes:
    """
    ``carla.Image`` without its pixels.

    :param world: for frame number and time
    :param sensor: the camera
    """
    return IMAGE.pack(
        SENSOR_TYPES[sensor.type_id], world.frame, world.time, *_transform(sensor.pose),
        sensor.width, sensor.height, sensor.fov * DEGREES,
    )  # fmt: skip


def collision_event(
    world: World, sensor: Actor, self_actor: Sequence[object], other: Sequence[object], impulse: Sequence[float]
) -> bytes:
    """
    ``carla.CollisionEvent``: header, then msgpack ``[actor, other actor, [x, y, z]]``.

    :param world: for frame number and time
    :param sensor: the collision sensor
    :param self_actor: the sensor's parent, from ``wire.actor_to``
    :param other: the actor that was hit, from ``wire.actor_to``
    :param impulse: world axes [N s]
    """
    return _header(world, sensor) + _packed([self_actor, other, list(impulse)])


def obstacle_detection_event(
    world: World, sensor: Actor, self_actor: Sequence[object], other: Sequence[object], distance: float
) -> bytes:
    """
    ``carla.ObstacleDetectionEvent``: header, then msgpack ``[actor, other actor, distance]``.

    :param world: for frame number and time
    :param sensor: the obstacle sensor
    :param self_actor: the sensor's parent, from ``wire.actor_to``
    :param other: the actor ahead, from ``wire.actor_to``
    :param distance: [m]
    """
    return _header(world, sensor) + _packed([self_actor, other, distance])


def gnss_measurement(world: World, sensor: Actor, reading: GnssReading) -> bytes:
    """``carla.GnssMeasurement``: header, then msgpack ``[latitude, longitude, altitude]`` [deg, deg, m]."""
    return _header(world, sensor) + _packed([reading.latitude, reading.longitude, reading.altitude])


def imu_measurement(world: World, sensor: Actor, reading: ImuReading) -> bytes:
    """``carla.IMUMeasurement``: header, then msgpack ``[accelerometer, gyroscope, compass]`` [m/s^2, rad/s, rad]."""
    return _header(world, sensor) + _packed([list(reading.accelerometer), list(reading.gyroscope), reading.compass])


def _packed(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed
