"""Shapes and sizes on the wire, without sockets."""

from __future__ import annotations

import math
import struct

import pytest

from sb3_carla.server import serializers, wire
from sb3_carla.server.registry import REGISTERED_CALLS, Response, execute
from sb3_carla.server.server import Server
from sb3_carla.server.simulation import Settings
from sb3_carla.simulator.blueprints import BLUEPRINTS
from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import VehicleControl
from sb3_carla.simulator.town import Town
from sb3_carla.simulator.world import World


def test_structures_have_the_clients_sizes() -> None:
    assert serializers.HEADER.size == 48
    assert serializers.EPISODE.size == 48 + 36
    assert serializers.ROW.size == 119
    assert serializers.IMAGE.size == 48 + 12
    assert wire.token(7, 2001) == struct.pack("<IHBB", 7, 2001, 1, 0) + bytes(16)


def test_a_snapshot_by_hand() -> None:
    world = World(Town.load("Circuit01"))
    car = world.spawn("vehicle.tesla.model3", {}, Pose(1.0, 2.0, 0.0, yaw=0.5))
    world.actors[car.id].vehicle.control = VehicleControl(throttle=0.5, steer=-0.25, gear=3)  # type: ignore[attr-defined]
    world.destroy(world.spawn("sensor.other.gnss", {}, Pose()).id)
    world.tick(0.05)
    message = serializers.world_snapshot(world, 9, 123.0)
    assert len(message) == 84 + 3 * 119
    assert struct.unpack_from("<QQd", message) == (17, 1, 0.05)
    assert struct.unpack_from("<Qdf", message, 48) == (9, 123.0, pytest.approx(0.05))
    states = [struct.unpack_from("<IB", message, 84 + i * 119) for i in range(3)]
    assert states == [(world.spectator.id, 1), (car.id, 1), (car.id + 1, 3)]
    row = 84 + 119
    x, y, _, pitch, yaw, _ = struct.unpack_from("<6f", message, row + 5)
    assert (x, y) == pytest.approx((car.pose.x, car.pose.y))
    assert (pitch, yaw) == pytest.approx((0.0, math.degrees(car.pose.yaw)))
    throttle, steer, brake = struct.unpack_from("<3f", message, row + 65)
    assert (throttle, steer, brake) == (0.5, -0.25, 0.0)
    assert struct.unpack_from("<i", message, row + 80) == (3,)


def test_transforms_go_there_and_back() -> None:
    pose = Pose(1.0, 2.0, 3.0, roll=0.1, pitch=-0.2, yaw=2.0)
    assert wire.pose_to(pose)[1] == pytest.approx([math.degrees(-0.2), math.degrees(2.0), math.degrees(0.1)])
    back = wire.pose_from(wire.pose_to(pose))
    for name in ("x", "y", "z", "roll", "pitch", "yaw"):
        assert getattr(back, name) == pytest.approx(getattr(pose, name))


def test_settings_go_there_and_back() -> None:
    for settings in (Settings(), Settings(synchronous=True, fixed_delta=0.1, max_substeps=5)):
        assert len(settings.to_wire()) == 11
        assert Settings.from_wire(settings.to_wire()) == settings
    assert Settings().delta == 0.05


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (wire.pose_from, [[0, 0, 0]], "transform: expected an array of 2 fields"),
        (wire.vector_from, [0, 0, float("inf")], "expected a finite number"),
        (wire.vector_from, [0, 2e6, 0], r"within 1e\+06, got 2000000"),
        (wire.vector_from, [0, True, 0], "expected a number, got True"),
        (wire.control_from, [0.0] * 7, "hand brake: expected a boolean"),
        (wire.actor_id_from, -1, "unsigned 32-bit"),
        (wire.description_from, [0, 7, []], "blueprint's name: expected a string, got 7"),
        (wire.description_from, [0, "x", [["a", 1]]], "attribute: expected an array of 3"),
    ],
)
def test_readers_say_what_is_wrong(read: object, value: object, message: str) -> None:
    with pytest.raises(wire.WireError, match=message):
        read(value)  # type: ignore[operator]


def test_controls_are_cut_to_their_ranges() -> None:
    control = wire.control_from([7.0, -3.0, -1.0, False, True, False, 2])
    assert (control.throttle, control.steer, control.brake) == (1.0, -1.0, 0.0)
    assert control.reverse
    assert control.gear == 2


def test_definitions_describe_every_blueprint() -> None:
    uids = set()
    for blueprint in BLUEPRINTS.values():
        uid, name, tags, attributes = wire.definition_to(blueprint)
        uids.add(uid)
        assert name == blueprint.name
        assert tags == ",".join(name.split("."))
        assert isinstance(attributes, list)
        assert all(len(attribute) == 6 and isinstance(attribute[2], str) for attribute in attributes)
    assert len(uids) == len(BLUEPRINTS)


def test_a_fault_in_a_call_becomes_an_answer(capfd: pytest.CaptureFixture[str]) -> None:
    server = Server("Circuit01", port=0)
    try:
        for name, call in REGISTERED_CALLS.items():
            error, result = execute(server.simulation, name, [object()] * 9)
            if call.response is Response.BARE:
                assert isinstance(error, str)
            else:
                assert error is None
                assert isinstance(result, list)
                assert result[0][0] in ([True, False] if call.response is Response.VOID else [0, 1])
    finally:
        server.close()
    assert "failed: TypeError" in capfd.readouterr().err
