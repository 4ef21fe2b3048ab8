"""Random episodes: what is drawn, that it is repeatable, and that each group has its effect in the environment."""

from __future__ import annotations

import math
import os
import signal
import time
import types
from collections.abc import Iterator, Sequence
from typing import Any

import carla
import numpy as np
import pytest

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.envs import random_look
from sb3_carla.envs.carla_lane import CarlaLaneEnv
from sb3_carla.envs.controls import Controls
from sb3_carla.envs.options import ControlOptions
from sb3_carla.envs.random_look import LookPlan, TownPainter, kind_of
from sb3_carla.envs.randomization import GROUPS, CameraShift, Dynamics, EpisodeRandomness, Randomizer, group_names

AHEAD = np.array([0.0, 0.5], np.float32)
CARLA_RANGES = {
    "sun_altitude_angle": (-90.0, 90.0), "sun_azimuth_angle": (0.0, 360.0), "fog_distance": (0.0, 60.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def env() -> Iterator[CarlaLaneEnv]:
    with CarlaLaneEnv(randomize="all", action_repeat=4, route_length=60.0, town=["Circuit01", "Village01"]) as made:
        yield made


def draws(group: str, count: int = 300, n_npcs: int = 0) -> dict[str, np.ndarray]:
    """What a group draws: values of many episodes by name."""
    randomizer, rng = Randomizer(group, n_npcs), np.random.default_rng(0)
    episodes = [randomizer.draw(rng).values() for _ in range(count)]
    return {name: np.array([episode[name] for episode in episodes]) for name in episodes[0]}


def fix(env: CarlaLaneEnv, monkeypatch: pytest.MonkeyPatch, **drawn: Any) -> None:
    """Have the next episodes begin with these draws."""
    monkeypatch.setattr(env._setups._randomizer, "draw", lambda rng: EpisodeRandomness(**drawn))


# --- the argument --------------------------------------------------------------------------------------------------


def test_groups_are_named() -> None:
    assert group_names(None) == group_names(()) == ()
    assert group_names("all") == group_names(["all", "look"]) == GROUPS
    assert group_names(["noise", "look"]) == ("look", "noise")
    for wrong in ("tea", ["look", "tea"], 7, [["look"]]):
        with pytest.raises(ValueError, match=r"randomize: expected groups of look, light, .*, or 'all', got"):
            CarlaLaneEnv(randomize=wrong)


def test_a_group_draws_the_same_whatever_else_is_on() -> None:
    every = Randomizer("all", 0).draw(np.random.default_rng(5)).values()
    for group in GROUPS:
        alone = Randomizer([group], 0).draw(np.random.default_rng(5)).values()
        assert alone
        assert alone == {name: value for name, value in every.items() if name.startswith(f"{group}/")}


def test_without_groups_no_random_number_is_drawn() -> None:
    rng = np.random.default_rng(0)
    assert Randomizer((), 0).draw(rng).values() == {}
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


# --- what is drawn -------------------------------------------------------------------------------------------------


def test_weather_is_within_carlas_ranges_and_goes_together() -> None:
    found = draws("weather", 1000)
    names = {name.partition("/")[2] for name in found}
    assert names <= set(dir(carla.WeatherParameters))
    for name in names:
        low, high = CARLA_RANGES.get(name, (0.0, 100.0))
        values = found[f"weather/{name}"]
        assert low <= values.min() <= values.max() <= high, name
    sun, rain = found["weather/sun_altitude_angle"], found["weather/precipitation"]
    assert np.mean(sun > 10.0) == pytest.approx(0.66, abs=0.05)
    assert np.mean(sun < -6.0) == pytest.approx(0.18, abs=0.05)
    assert np.mean(rain > 0.0) == pytest.approx(0.2, abs=0.05)
    assert found["weather/wetness"][rain > 0.0].min() > 30.0
    assert np.mean(found["weather/cloudiness"] < 30.0) > 0.3


def test_camera_and_dynamics_stay_within_their_limits() -> None:
    for group, limits in {
        "camera": {"height": (-0.3, 0.3), "pitch": (-3, 3), "yaw": (-1, 1), "roll": (-1, 1), "fov": (-5, 5)},
        "dynamics": {"mass": (0.8, 1.3), "friction": (0.6, 1.2), "steering_gain": (0.8, 1.2), "steering_delay": (0, 2)},
    }.items():
        for name, values in draws(group).items():
            low, high = limits[name.partition("/")[2]]
            assert low <= values.min() < values.max() <= high, name


@pytest.mark.parametrize(("n_npcs", "most"), [(0, 20), (3, 3)])
def test_half_of_the_episodes_have_no_other_cars(n_npcs: int, most: int) -> None:
    cars = draws("traffic", n_npcs=n_npcs)["traffic/cars"]
    assert set(cars) == set(range(most + 1))
    assert np.mean(cars == 0) == pytest.approx(0.5, abs=0.08)


def test_no_contrast_has_a_fixed_sign() -> None:
    found = draws("look", 400)
    road = found["look/road"]
    for kind in ("verge", "sidewalk", "buildings", "walls"):
        assert 0.25 < np.mean(found[f"look/{kind}"] > road) < 0.75, kind
    for paint in ("white_paint", "yellow_paint"):
        assert np.abs(found[f"look/{paint}"] - road).min() > 14.5
        assert 0.0 < np.mean(found[f"look/{paint}"] < road) < 0.4
    assert np.corrcoef(road, found["look/verge"])[0, 1] == pytest.approx(0.0, abs=0.15)
    layers = found["look/hidden_layers"]
    for name in random_look.LAYERS:
        assert np.mean(layers & int(getattr(carla.MapLayer, name)) > 0) == pytest.approx(0.25, abs=0.08), name


def test_textures_have_the_mean_and_the_contrast_that_was_drawn() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        plan = LookPlan.draw(rng)
        assert set(plan.paints) == set(random_look.KINDS)
        for kind, (color, contrast) in plan.paints.items():
            pixels = plan.texture(kind).astype(float)
            assert pixels.shape == (16, 16, 3)
            if all(3.0 * contrast < part < 255.0 - 3.0 * contrast for part in color):  # nothing to clip
                np.testing.assert_allclose(pixels.mean(axis=(0, 1)), color, atol=1.0)
                assert (pixels @ random_look.GREY).std() == pytest.approx(contrast, rel=0.1, abs=0.5)


def test_objects_are_known_by_carlas_names_and_ours() -> None:
    names = {
        "Road": "road", "Road_Road_Town01_12": "road", "Road_Sidewalk_Town10HD_3": "sidewalk", "Sky": "sky",
        "RoadLines_White": "white_paint", "RoadLines_Yellow": "yellow_paint", "Road_Marking_Town01_1": "white_paint",
        "Road_Grass_Town10HD_1": "verge", "Terrain": "verge", "BP_Apartment02_Walls_0": "buildings", "Walls": "walls",
        "Buildings": "buildings", "Vegetation": "vegetation", "SM_Tree_09": "vegetation", "BP_Bin": None,
    }  # fmt: skip
    assert {name: kind_of(name) for name in names} == names


# --- one seed, one episode -----------------------------------------------------------------------------------------


def drive(env: CarlaLaneEnv, steps: int = 6) -> tuple[list[np.ndarray], dict[str, Any]]:
    observation, info = env.reset()
    return [observation, *(env.step(AHEAD)[0] for _ in range(steps))], info["randomized"]


def test_one_seed_gives_the_same_episodes_whatever_was_driven_before(env: CarlaLaneEnv) -> None:
    env.reset(seed=3)
    first = [drive(env) for _ in range(3)]
    assert len({str(drawn) for _, drawn in first}) == 3
    env.reset(seed=8)
    env.reset(seed=3)
    for (seen, drawn), (again, drawn_again) in zip(first, (drive(env) for _ in range(3)), strict=True):
        assert drawn == drawn_again
        np.testing.assert_array_equal(seen, again)


def test_infos_say_what_was_drawn(env: CarlaLaneEnv) -> None:
    _, info = env.reset(seed=4)
    drawn, ended = info["randomized"], False
    assert {name.partition("/")[0] for name in drawn} == set(GROUPS)
    assert all(type(value) in (float, int, str) for value in drawn.values())
    while not ended:
        *_, terminated, truncated, info = env.step(np.array([0.9, 0.8]))
        ended = terminated or truncated
        assert ("randomized" in info) is ended
    assert info["randomized"] == drawn


def test_the_weather_that_is_asked_for_comes(env: CarlaLaneEnv) -> None:
    _, info = env.reset(seed=4, options={"weather": "HardRainNoon"})
    assert env._session.world.get_weather() == carla.WeatherParameters.HardRainNoon
    assert not any(name.startswith("weather/") for name in info["randomized"])
    _, info = env.reset(seed=4)
    altitude = env._session.world.get_weather().sun_altitude_angle
    assert altitude == pytest.approx(info["randomized"]["weather/sun_altitude_angle"], abs=1e-3)


def test_an_episode_is_resumed_and_begun_again_on_another_server(env: CarlaLaneEnv) -> None:
    env.reset(seed=6)
    _, drawn = env.reset()
    for _ in range(3):
        observation = env.step(AHEAD)[0]
    so_far = env.episode_so_far
    env.reset(seed=9)
    server = env._connection.supervisor.server  # type: ignore[union-attr]
    os.kill(server.pid, signal.SIGKILL)
    while server.alive:
        time.sleep(0.01)
    again, _ = env.reset(options={"resume": so_far})
    np.testing.assert_array_equal(again, observation)
    assert env.reset(options={"resume": {**so_far, "actions": []}})[1]["randomized"] == drawn["randomized"]


# --- effects -------------------------------------------------------------------------------------------------------


def first_frame(env: CarlaLaneEnv) -> np.ndarray:
    return env.reset(seed=0, options={"town": "Circuit01", "scenario": 0})[0][-1].astype(int)


@pytest.mark.parametrize("packaged", [True, False])
def test_the_camera_is_mounted_as_drawn(monkeypatch: pytest.MonkeyPatch, packaged: bool) -> None:
    """Its pictures still come with every decision, and the camera behind the car is left alone."""
    with CarlaLaneEnv(randomize="camera", action_repeat=3, render_mode="rgb_array", route_length=60.0) as env:
        fix(env, monkeypatch)
        usual = first_frame(env)
        assert env.render() is not None
        if not packaged:
            env._session._packaged = False
        for shift in (CameraShift(0.3, 0, 0, 0, 0), CameraShift(0, 3, 1, 1, 5), CameraShift(0, 3, 1, 1, 5)):
            fix(env, monkeypatch, camera=shift)
            assert np.abs(first_frame(env) - usual).mean() > 1.0
            for _ in range(4):
                env.step(AHEAD)
            assert env.render() is not None
            cameras = env._session.world.get_actors().filter("sensor.camera.rgb")
            assert len(cameras) == 2
        (fov,) = {camera.attributes["fov"] for camera in cameras if camera.attributes["image_size_x"] == "84"}
        assert float(fov) == 95.0
        fix(env, monkeypatch)
        np.testing.assert_array_equal(first_frame(env), usual)


def test_a_shifted_mount() -> None:
    assert CameraShift(0.1, 1.0, 2.0, 3.0, 4.0).applied(CameraMount(8, 8)) == CameraMount(
        8, 8, fov=94.0, z=2.1, pitch=-14.0, yaw=2.0, roll=3.0
    )


def curve(env: CarlaLaneEnv) -> tuple[float, float]:
    """Path's curvature in a sharp bend [1/m], and how fast the car is after four seconds of full throttle [m/s]."""
    first_frame(env)
    for _ in range(20):
        env.simulation.advance(0.0, 1.0)
    before = env.simulation.vehicle_state
    env.simulation.advance(1.0, 0.2)
    for _ in range(2):  # one more, and it hits what stands beside the road
        env.simulation.advance(1.0, 0.2)
    after = env.simulation.vehicle_state
    turned = (after.heading - before.heading + math.pi) % (2.0 * math.pi) - math.pi
    return turned, before.speed


def test_mass_and_friction_change_how_the_car_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    with CarlaLaneEnv(randomize="dynamics", action_repeat=4) as env:
        fix(env, monkeypatch)
        turn, speed = curve(env)
        fix(env, monkeypatch, dynamics=Dynamics(friction=0.5))
        slippery_turn, same_speed = curve(env)
        assert slippery_turn == pytest.approx(0.5 * turn, rel=0.15)  # at the limit of grip, a = mu g
        assert same_speed == pytest.approx(speed)
        fix(env, monkeypatch, dynamics=Dynamics(mass=1.3))
        assert curve(env)[1] == pytest.approx(speed / 1.3, rel=0.1)
        fix(env, monkeypatch)
        assert curve(env) == pytest.approx((turn, speed))


def test_steering_comes_late_and_with_another_gain() -> None:
    controls = Controls(ControlOptions(), 8.0, delta_seconds=0.05)
    controls.restart(steering_gain=0.5, steering_delay=2)
    assert [controls.act(0.8, 0.0, 1.0)[0] for _ in range(4)] == pytest.approx([0.0, 0.0, 0.4, 0.4])
    assert controls.steering == 0.8  # what was asked for
    controls.restart(steering_gain=1.2)
    assert [controls.act(steering, 0.0, 1.0)[0] for steering in (0.5, -1.0)] == pytest.approx([0.6, -1.0])


def test_cars_come_and_go_and_none_stands_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with CarlaLaneEnv(randomize="traffic", action_repeat=4, town="Circuit01") as env:
        seen = {}
        for cars in (0, 3, 20, 2, 0, 20, 200):
            fix(env, monkeypatch, cars=cars)
            _, info = env.reset(seed=1)
            env.step(AHEAD)
            vehicles = env._session.world.get_actors().filter("vehicle.*")
            places = env.simulation.traffic.positions  # type: ignore[union-attr]
            assert len(vehicles) == len(places) + 1
            assert len(places) == cars or 20 < len(places) < cars == 200, "as many as there is room for"
            assert max(car.get_location().z for car in vehicles) < 5.0
            assert seen.setdefault(cars, places.tolist()) == places.tolist()
            assert info["randomized"] == {"traffic/cars": cars}


def test_a_town_is_painted_through_carlas_api() -> None:
    with CarlaLaneEnv(randomize="look", town="Circuit01") as env:
        env.reset(seed=0)
        painter, world = TownPainter(), Recorder()
        plan = LookPlan.draw(np.random.default_rng(0))
        for hidden in (1, 1 | 4, 4):
            painter.apply(types.SimpleNamespace(world=world), plan._replace(hidden_layers=hidden))  # type: ignore[arg-type]
        assert [names for names, _ in world.painted[:2]] == [["Road_1", "Road_2"], ["Terrain"]]
        assert world.painted[0][1].get(3, 5).r == plan.texture("road")[5, 3, 2]
        # At first any layer may be hidden: all others are shown, and the one is hidden.
        assert world.layers == [random_look.ALL_LAYERS & ~1, -1, -4, 1]
        painter.leave(types.SimpleNamespace(world=world))  # type: ignore[arg-type]
        assert world.layers[-1] == 4


class Recorder:
    """Stands for Unreal's world, of which the test wants to see the calls."""

    def __init__(self) -> None:
        self.painted: list[tuple[list[str], Any]] = []
        self.layers: list[int] = []

    def get_names_of_all_objects(self) -> Sequence[str]:
        return ["Road_1", "Terrain", "BP_Bin", "Road_2"]

    def apply_color_texture_to_objects(self, names: list[str], parameter: Any, texture: Any) -> None:
        assert parameter == carla.MaterialParameter.Diffuse
        self.painted.append((names, texture))

    def load_map_layer(self, layers: Any) -> None:
        self.layers.append(int(layers))

    def unload_map_layer(self, layers: Any) -> None:
        self.layers.append(-int(layers))
