"""Textures, map layers and physics parameters, as the genuine client sends them."""

from __future__ import annotations

from typing import Any

import carla
import pytest
from harness import RawClient, ServerProcess, spawn_car

from sb3_carla.server.look_calls import apply_color_texture, load_map_layer, unload_map_layer
from sb3_carla.server.simulation import Simulation
from sb3_carla.server.streams import Streams
from sb3_carla.simulator.rendering.look import OBJECTS, Look


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation("Circuit01", Streams(), 0)


def test_texture_becomes_colour_and_contrast(simulation: Simulation) -> None:
    half = [[30, 20, 10, 255], [50, 40, 30, 255]]  # red, green, blue, alpha; grey levels 20 apart
    apply_color_texture(simulation, ["Road", "Tram"], 2, [2, 1, half])
    apply_color_texture(simulation, ["Sidewalk"], 0, [2, 1, half])  # a normal map: no colour
    assert simulation.world.look == Look({"Road": (20.0, 30.0, 40.0)}, {"Road": pytest.approx(10.0)})
    apply_color_texture(simulation, ["Road"], 2, [2, 1, [[0, 0, 0, 0], [255, 255, 255, 0]]])
    assert simulation.world.look == Look({"Road": (127.5, 127.5, 127.5)}, {"Road": 60.0})  # not 127.5


def test_layers_are_hidden_and_shown_and_a_load_shows_all(simulation: Simulation) -> None:
    unload_map_layer(simulation, 1 | 256)
    load_map_layer(simulation, 1 | 4)
    assert simulation.world.hidden_layers == 256
    simulation.load("Circuit01", reset_settings=False)
    assert (simulation.world.hidden_layers, simulation.world.look) == (0, Look())


def test_equal_looks_are_one_key() -> None:
    first = Look().painted(["Road"], (1.0, 2.0, 3.0), 4.0).painted(["Sky"], (5.0, 6.0, 7.0), 0.0)
    second = Look().painted(["Sky"], (5.0, 6.0, 7.0), 0.0).painted(["Road"], (1.0, 2.0, 3.0), 4.0)
    assert len({first: 0, second: 1}) == 1
    assert Look() != first


def test_the_client_paints_and_hides(client: Any, world: Any) -> None:
    assert world.get_names_of_all_objects() == list(OBJECTS)
    texture, bright = carla.TextureColor(3, 2), carla.TextureFloatColor(1, 1)
    texture.set(2, 1, carla.Color(255, 0, 0, 255))
    bright.set(0, 0, carla.FloatColor(0.5, 0.5, 0.5, 1.0))
    world.apply_color_texture_to_object("Road", carla.MaterialParameter.Diffuse, texture)
    world.apply_color_texture_to_objects(["Road", "Sky"], carla.MaterialParameter.Diffuse, texture)
    world.apply_textures_to_object("Walls", texture, bright, bright, bright)
    world.apply_float_color_texture_to_objects(["Walls"], carla.MaterialParameter.Normal, bright)
    world.unload_map_layer(carla.MapLayer.All)
    world.load_map_layer(carla.MapLayer.Buildings)
    client.load_world("Circuit01", True, carla.MapLayer.NONE)
    client.reload_world()


@pytest.mark.parametrize(
    "texture",
    [
        [], [2, 2, [[0, 0, 0, 0]]], [1, 1, [[0, 0, 0]]], [1, 1, ["abcd"]], [1, 1, 7], [0, 0, []], [-1, -1, [[0] * 4]],
        [True, 1, [[0] * 4]], [1, 1, [[float("nan")] * 4]], [1, 1, [[{}] * 4]],
    ],
)  # fmt: skip
def test_damaged_textures_are_refused(server: ServerProcess, texture: object) -> None:
    raw = RawClient(server.port)
    error, result = raw.call("apply_color_texture_to_objects", ["Road"], 2, texture)
    assert error is None
    assert result[0][0] is True
    assert "texture" in result[0][1][0]
    for layers in (-1, 1 << 16, True, None):
        assert "map layers: expected bits" in raw.call("unload_map_layer", layers)[1][0][1][0]
    raw.close()


def test_mass_friction_and_steering_lock_are_set(world: Any) -> None:
    car = spawn_car(world)
    world.tick()
    before, changed = car.get_physics_control(), car.get_physics_control()
    car.apply_physics_control(before)
    after = car.get_physics_control()
    assert after.mass == before.mass
    assert after.torque_curve[0].y == pytest.approx(before.torque_curve[0].y)
    changed.mass = 2.0 * before.mass
    wheels = changed.wheels
    for wheel in wheels:
        wheel.tire_friction = 0.25
        wheel.max_steer_angle = 0.5 * wheel.max_steer_angle
    changed.wheels = wheels
    car.apply_physics_control(changed)
    after = car.get_physics_control()
    assert after.mass == 2.0 * before.mass
    assert [wheel.tire_friction for wheel in after.wheels] == pytest.approx([0.25] * 4)
    assert [wheel.max_steer_angle for wheel in after.wheels] == pytest.approx([35.0, 35.0, 0.0, 0.0], abs=1e-4)
    car.apply_control(carla.VehicleControl(throttle=1.0))
    for _ in range(20):
        world.tick()
    assert car.get_velocity().length() == pytest.approx(0.5 * 4.0, abs=0.3)  # half of 4 m/s^2, less the resistance
    changed.mass = 0.0
    car.apply_physics_control(changed)  # refused: the call is asynchronous, so nobody hears of it
    assert car.get_physics_control().mass == 2.0 * before.mass
