"""The blueprint library: the actors that can be spawned, with CARLA's names and attributes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from sb3_carla.errors import SpawnError
from sb3_carla.simulator.physics.dynamics import VEHICLE_MODELS

__all__ = ["BLUEPRINTS", "Attribute", "AttributeKind", "Blueprint", "resolve"]

MAX_ATTRIBUTES = 16384
"""Most characters in the names and values of one actor's attributes together."""


class AttributeKind(IntEnum):
    """``carla.ActorAttributeType``; the numbers are those on the wire."""

    BOOL = 1
    INT = 2
    FLOAT = 3
    STRING = 4
    COLOR = 5


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of a blueprint; values are text, as in CARLA."""

    name: str
    kind: AttributeKind
    value: str
    recommended: tuple[str, ...] = ()
    modifiable: bool = True


@dataclass(frozen=True, slots=True)
class Blueprint:
    """
    One kind of actor.

    :param name: CARLA's id, e.g. ``vehicle.tesla.model3``; the parts between the dots are its tags
    :param attributes: by name
    :param half_extents: half length, half width, half height of the solid body [m], None: no body
    """

    name: str
    attributes: Mapping[str, Attribute]
    half_extents: tuple[float, float, float] | None = None

    @property
    def tags(self) -> str:
        """Comma-separated parts of the name, as CARLA sends them."""
        return ",".join(self.name.split("."))


def _const(name: str, value: str, kind: AttributeKind = AttributeKind.STRING) -> Attribute:
    return Attribute(name, kind, value, modifiable=False)


def _number(name: str, value: float) -> Attribute:
    return Attribute(name, AttributeKind.FLOAT, str(float(value)))


def _integer(name: str, value: int) -> Attribute:
    return Attribute(name, AttributeKind.INT, str(value))


def _table(attributes: Iterable[Attribute]) -> dict[str, Attribute]:
    return {attribute.name: attribute for attribute in attributes}


# id -> (object type, base type, special type, generation, colours "r,g,b"; the first colour is the default)
_VEHICLES: dict[str, tuple[str, str, str, int, tuple[str, ...]]] = {
    "vehicle.tesla.model3": ("tesla", "car", "electric", 2, ("17,37,103", "180,44,44", "137,0,0", "60,60,60")),
    "vehicle.lincoln.mkz_2020": ("lincoln", "car", "", 2, ("38,88,122", "154,154,154", "28,28,28", "92,10,10")),
    "vehicle.audi.tt": ("audi", "car", "", 1, ("44,117,0", "18,43,87", "136,0,0", "180,180,180")),
    "vehicle.audi.a2": ("audi", "car", "", 1, ("120,120,120", "33,75,140", "150,12,12")),
    "vehicle.mini.cooper_s_2021": ("mini", "car", "", 2, ("10,60,30", "180,20,20", "200,200,200")),
    "vehicle.dodge.charger_2020": ("dodge", "car", "", 2, ("134,134,134", "110,0,0", "12,12,12")),
    "vehicle.nissan.micra": ("nissan", "car", "", 1, ("170,30,30", "70,110,160", "220,220,220")),
    "vehicle.ford.mustang": ("ford", "car", "", 1, ("209,168,30", "150,0,0", "10,10,10")),
    "vehicle.mercedes.coupe_2020": ("mercedes", "car", "", 2, ("80,80,84", "140,140,140", "20,20,60")),
    "vehicle.toyota.prius": ("toyota", "car", "electric", 1, ("210,210,210", "25,60,110", "80,80,80")),
    "vehicle.jeep.wrangler_rubicon": ("jeep", "car", "", 1, ("68,84,48", "190,120,40", "40,40,40")),
    "vehicle.carlamotors.firetruck": ("carlamotors", "truck", "emergency", 2, ("178,20,20",)),
}
# id -> half extents [m]
_PROPS: dict[str, tuple[float, float, float]] = {
    "static.prop.trafficcone01": (0.25, 0.25, 0.4),
    "static.prop.streetbarrier": (0.3, 0.9, 0.5),
    "static.prop.container": (1.5, 0.8, 0.8),
    "static.prop.barrel": (0.3, 0.3, 0.45),
    "static.prop.box01": (0.3, 0.3, 0.3),
}
_ROLE = Attribute("role_name", AttributeKind.STRING, "default")
_SENSOR_TICK = _number("sensor_tick", 0.0)


def _vehicle(name: str) -> Blueprint:
    make, base, special, generation, colors = _VEHICLES.get(name, (name.split(".")[1], "car", "", 1, ("128,128,128",)))
    attributes = (
        Attribute("role_name", AttributeKind.STRING, "autopilot", ("autopilot", "scenario", "ego_vehicle")),
        Attribute("color", AttributeKind.COLOR, colors[0], colors),
        Attribute("sticky_control", AttributeKind.BOOL, "True"),
        Attribute("terramechanics", AttributeKind.BOOL, "False"),
        _const("number_of_wheels", "4", AttributeKind.INT),
        _const("object_type", make),
        _const("base_type", base),
        _const("special_type", special),
        _const("generation", str(generation), AttributeKind.INT),
        _const("has_lights", "True", AttributeKind.BOOL),
        _const("has_dynamic_doors", "False", AttributeKind.BOOL),
    )
    return Blueprint(name, _table(attributes), VEHICLE_MODELS[name].half_extents)


def _camera(name: str, *extra: Attribute) -> Blueprint:
    lens = (("circle_falloff", 5.0), ("circle_multiplier", 0.0), ("k", -1.0), ("kcube", 0.0))
    sizes = (("x_size", 0.08), ("y_size", 0.08))
    attributes = (
        _integer("image_size_x", 800),
        _integer("image_size_y", 600),
        _number("fov", 90.0),
        _SENSOR_TICK,
        Attribute("role_name", AttributeKind.STRING, "front"),
        *(_number(f"lens_{key}", value) for key, value in (*lens, *sizes)),
        *extra,
    )
    return Blueprint(name, _table(attributes))


def _gnss() -> Blueprint:
    noise = (f"noise_{axis}_{what}" for axis in ("alt", "lat", "lon") for what in ("bias", "stddev"))
    return Blueprint(
        "sensor.other.gnss", _table((_ROLE, _SENSOR_TICK, _integer("noise_seed", 0), *(_number(n, 0.0) for n in noise)))
    )


def _imu() -> Blueprint:
    accel = (f"noise_accel_stddev_{axis}" for axis in "xyz")
    gyro = (f"noise_gyro_{what}_{axis}" for what in ("stddev", "bias") for axis in "xyz")
    noise = (_number(name, 0.0) for name in (*accel, *gyro))
    return Blueprint("sensor.other.imu", _table((_ROLE, _SENSOR_TICK, _integer("noise_seed", 0), *noise)))


def _library() -> dict[str, Blueprint]:
    # No effect here; they are accepted so that scripts written for CARLA run.
    photographic = (
        Attribute("enable_postprocess_effects", AttributeKind.BOOL, "True"),
        Attribute("exposure_mode", AttributeKind.STRING, "histogram", ("manual", "histogram")),
        *(_number(n, v) for n, v in (("gamma", 2.2), ("shutter_speed", 200.0), ("iso", 100.0), ("fstop", 1.4))),
        *(_number(n, v) for n, v in (("motion_blur_intensity", 0.45), ("bloom_intensity", 0.675))),
        *(_number(n, v) for n, v in (("exposure_compensation", 0.0), ("lens_flare_intensity", 0.1))),
    )
    obstacle = (_number("distance", 5.0), _number("hit_radius", 0.5), _SENSOR_TICK)
    flags = (Attribute(n, AttributeKind.BOOL, v) for n, v in (("only_dynamics", "False"), ("debug_linetrace", "True")))
    blueprints = [
        *(_vehicle(name) for name in VEHICLE_MODELS),
        *(
            Blueprint(name, _table((_ROLE, _const("size", "small"))), half_extents)
            for name, half_extents in _PROPS.items()
        ),
        _camera("sensor.camera.rgb", *photographic),
        _camera("sensor.camera.semantic_segmentation"),
        _camera("sensor.camera.depth"),
        Blueprint("sensor.other.collision", _table((_ROLE,))),
        Blueprint("sensor.other.lane_invasion", _table((_ROLE,))),
        Blueprint("sensor.other.obstacle", _table((_ROLE, *obstacle, *flags))),
        _gnss(),
        _imu(),
    ]
    return {blueprint.name: blueprint for blueprint in blueprints}


BLUEPRINTS: Mapping[str, Blueprint] = _library()
"""Every blueprint by its CARLA id."""


def _check(attribute: Attribute, value: str) -> None:
    try:
        if attribute.kind is AttributeKind.INT:
            int(value)
        elif attribute.kind is AttributeKind.FLOAT and not math.isfinite(float(value)):
            raise ValueError
        elif attribute.kind is AttributeKind.COLOR:
            channels = [int(part) for part in value.split(",")]
            if len(channels) != 3 or not all(0 <= channel <= 255 for channel in channels):
                raise ValueError
    except ValueError:
        raise SpawnError(
            f"attribute {attribute.name!r}: expected {attribute.kind.name.lower()}, got {value!r}"
        ) from None


def resolve(name: str, attributes: Mapping[str, str]) -> tuple[Blueprint, dict[str, str]]:
    """
    Find a blueprint and complete its attributes with defaults.

    :param name: CARLA's id
    :param attributes: values by attribute name; names that the blueprint does not have are kept as they are
    :return: the blueprint, and all attributes
    :raises SpawnError: if the blueprint is unknown, a value is not of the attribute's kind, or the attributes have more
        characters than ``MAX_ATTRIBUTES``
    """
    length = sum(len(key) + len(value) for key, value in attributes.items())
    if length > MAX_ATTRIBUTES:
        raise SpawnError(f"{name}: expected attributes of at most {MAX_ATTRIBUTES} characters, got {length}")
    blueprint = BLUEPRINTS.get(name)
    if blueprint is None:
        raise SpawnError(f"unknown blueprint {name!r}; the library has {len(BLUEPRINTS)}: {', '.join(BLUEPRINTS)}")
    complete = {attribute.name: attribute.value for attribute in blueprint.attributes.values()}
    for key, value in attributes.items():
        attribute = blueprint.attributes.get(key)
        if attribute is not None:
            _check(attribute, value)
        complete[key] = value
    return blueprint, complete
