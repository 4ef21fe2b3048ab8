"""
CARLA 0.9.16's values in remote calls: reading and writing LibCarla's ``rpc`` structures in msgpack.

A structure is an array of its fields in C++ declaration order, an enumeration is its number. Angles are degrees on the
wire and radians everywhere else. Readers (``..._from``) check shape, type and range and raise ``WireError``: nothing
from the network is trusted.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sb3_carla.errors import ServerError
from sb3_carla.simulator.actors import AckermannControl, Actor
from sb3_carla.simulator.blueprints import BLUEPRINTS, AttributeKind, Blueprint
from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import VehicleControl
from sb3_carla.simulator.rendering.look import LAYERS
from sb3_carla.simulator.sensors import Sensor

__all__ = [
    "Description",
    "WireError",
    "ackermann_from",
    "actor_id_from",
    "actor_to",
    "bounding_box_to",
    "control_from",
    "definition_to",
    "description_from",
    "flag_from",
    "layers_from",
    "number_from",
    "option_from",
    "option_to",
    "pose_from",
    "pose_to",
    "sequence_from",
    "text_from",
    "token",
    "vector_from",
]

Vector = tuple[float, float, float]
Description = tuple[str, dict[str, str]]
"""Id of a blueprint, and attributes by name."""
T = TypeVar("T")

MAX_COORDINATE = 1e6
"""Greatest magnitude of a position or velocity that is accepted [m, m/s]: more is a mistake, and breaks float32."""
STREAM_TOKEN = struct.Struct("<IHBB16x")
"""
LibCarla's ``streaming::detail::token_data``, 24 bytes, little-endian:

    0   u32     stream id
    4   u16     port
    6   u8      protocol, 1: TCP
    7   u8      kind of address, 0: the host that the client is connected to, 1: IPv4, 2: IPv6
    8   16      address, zeros for kind 0
"""
_UIDS = {name: number for number, name in enumerate((*BLUEPRINTS, "spectator"), start=1)}


class WireError(ServerError, ValueError):
    """A value from the network has the wrong shape, type or range."""


def sequence_from(value: object, length: int, what: str) -> Sequence[Any]:
    """An array of at least ``length`` fields; a newer client may append more."""
    if not isinstance(value, list) or len(value) < length:
        raise WireError(f"{what}: expected an array of {length} fields, got {_shown(value)}")
    return value


def number_from(value: object, what: str, limit: float = math.inf) -> float:
    """A finite number of magnitude up to ``limit``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WireError(f"{what}: expected a number, got {_shown(value)}")
    if not math.isfinite(value) or abs(value) > limit:
        raise WireError(f"{what}: expected a finite number within {limit:g}, got {value!r}")
    return float(value)


def actor_id_from(value: object) -> int:
    """Id of an actor."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise WireError(f"actor id: expected an unsigned 32-bit integer, got {_shown(value)}")
    return value


def flag_from(value: object, what: str) -> bool:
    """A boolean."""
    if not isinstance(value, bool):
        raise WireError(f"{what}: expected a boolean, got {_shown(value)}")
    return value


def layers_from(value: object) -> int:
    """``carla.MapLayer``: bits."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LAYERS:
        raise WireError(f"map layers: expected bits within {LAYERS:#x}, got {_shown(value)}")
    return value


def text_from(value: object, what: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise WireError(f"{what}: expected a string, got {_shown(value)}")
    return value


def option_from(value: object, read: Callable[[object], T]) -> T | None:
    """``optional<T>``: ``[false]`` or ``[true, value]``."""
    fields = sequence_from(value, 1, "optional")
    if not flag_from(fields[0], "optional"):
        return None
    return read(sequence_from(value, 2, "optional")[1])


def option_to(value: object | None) -> list[object]:
    """``optional<T>``, see ``option_from``."""
    return [False] if value is None else [True, value]


def vector_from(value: object, what: str = "vector", limit: float = MAX_COORDINATE) -> Vector:
    """``Vector3D`` or ``Location``: x, y, z."""
    x, y, z = sequence_from(value, 3, what)[:3]
    return number_from(x, what, limit), number_from(y, what, limit), number_from(z, what, limit)


def pose_from(value: object) -> Pose:
    """``Transform``: location [m], then pitch, yaw, roll [deg]."""
    location, rotation = sequence_from(value, 2, "transform")[:2]
    x, y, z = vector_from(location, "location")
    pitch, yaw, roll = (math.radians(angle) for angle in vector_from(rotation, "rotation"))
    return Pose(x, y, z, roll, pitch, yaw)


def pose_to(pose: Pose) -> list[list[float]]:
    """``Transform``, see ``pose_from``."""
    degrees = [math.degrees(pose.pitch), math.degrees(pose.yaw), math.degrees(pose.roll)]
    return [[pose.x, pose.y, pose.z], degrees]


def control_from(value: object) -> VehicleControl:
    """``VehicleControl``; pedals and steering are clipped to their ranges, as in CARLA."""
    throttle, steer, brake, hand_brake, reverse, manual, gear = sequence_from(value, 7, "vehicle control")[:7]
    return VehicleControl(
        throttle=min(1.0, max(0.0, number_from(throttle, "throttle"))),
        steer=min(1.0, max(-1.0, number_from(steer, "steer"))),
        brake=min(1.0, max(0.0, number_from(brake, "brake"))),
        hand_brake=flag_from(hand_brake, "hand brake"),
        reverse=flag_from(reverse, "reverse"),
        manual_gear_shift=flag_from(manual, "manual gear shift"),
        gear=int(number_from(gear, "gear", 100.0)),
    )


def ackermann_from(value: object) -> AckermannControl:
    """``VehicleAckermannControl``; its angles are radians on the wire too."""
    fields = sequence_from(value, 5, "ackermann control")[:5]
    names = ("steer", "steer speed", "speed", "acceleration", "jerk")
    return AckermannControl(*(number_from(field, name, 1e4) for field, name in zip(fields, names, strict=True)))


def description_from(value: object) -> Description:
    """``ActorDescription``: uid, id of the blueprint, attributes as ``[name, kind, value]``."""
    _, name, attributes = sequence_from(value, 3, "actor description")[:3]
    table: dict[str, str] = {}
    for attribute in sequence_from(attributes, 0, "attributes"):
        key, _, text = sequence_from(attribute, 3, "attribute")[:3]
        table[text_from(key, "attribute's name")] = text_from(text, "attribute's value")
    return text_from(name, "blueprint's name"), table


def definition_to(blueprint: Blueprint) -> list[object]:
    """``ActorDefinition``: uid, id, tags, attributes."""
    # ``ActorAttribute``: id, type, value, recommended values, is modifiable, restrict to recommended.
    attributes = [
        [item.name, int(item.kind), item.value, list(item.recommended), item.modifiable, False]
        for item in blueprint.attributes.values()
    ]
    return [_UIDS[blueprint.name], blueprint.name, blueprint.tags, attributes]


def bounding_box_to(actor: Actor) -> list[object]:
    """``BoundingBox`` in the actor's axes: centre, half sizes [m], rotation [deg], actor id."""
    length, width, height = actor.half_extents
    return [[0.0, 0.0, height], [length, width, height], [0.0, 0.0, 0.0], actor.id]


def actor_to(actor: Actor, stream_port: int) -> list[object]:
    """
    ``Actor``: id, parent's id, description, bounding box, semantic tags, stream token.

    The token is empty if the actor has no stream. The lane-invasion sensor must have none: the client computes it.
    Parts of the scenery have no blueprint: their uid is 0.
    """
    kinds = _kinds(actor.type_id)
    attributes = [[name, kinds.get(name, AttributeKind.STRING), value] for name, value in actor.attributes.items()]
    streams = isinstance(actor, Sensor) and actor.type_id != "sensor.other.lane_invasion"
    return [
        actor.id,
        0 if actor.parent is None else actor.parent.id,
        [_UIDS.get(actor.type_id, 0), actor.type_id, attributes],
        bounding_box_to(actor),
        bytes([actor.tag]),
        token(actor.id, stream_port) if streams else b"",
    ]


def token(stream_id: int, port: int) -> bytes:
    """Stream token: TCP, on the host that the client is connected to."""
    return STREAM_TOKEN.pack(stream_id, port, 1, 0)


def _kinds(type_id: str) -> Mapping[str, int]:
    blueprint = BLUEPRINTS.get(type_id)
    return {} if blueprint is None else {item.name: int(item.kind) for item in blueprint.attributes.values()}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
