"""Episodes that begin where the car failed."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
from maps import Geometry, road_map
from test_route import route_on

from sb3_carla.envs.carla_lane import CarlaLaneEnv
from sb3_carla.envs.route import Scenarios
from sb3_carla.envs.start_curriculum import StartCurriculum

OFF_THE_LANE = np.array([0.6, 0.8], np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[CarlaLaneEnv]:
    made = gym.make("CarlaLane-v0", town=["Circuit01", "Village01"], action_repeat=4, start_curriculum=1.0)
    yield made.unwrapped
    made.close()


def fail(env: CarlaLaneEnv) -> None:
    while not env.step(OFF_THE_LANE)[2]:
        pass


def test_the_last_places_are_remembered_a_little_before_the_failure() -> None:
    route = route_on(road_map(Geometry(300.0)), 10.0, 1.75, 250.0)
    curriculum, rng = StartCurriculum(0.5), np.random.default_rng(0)
    assert curriculum.draw(rng) is None
    for station in (30.0, 110.0, 120.0, 130.0, 140.0, 10.0):
        curriculum.remember("Test", route, station, rng)
    assert len(curriculum.places) == 4, "the last ones"
    for place, station in zip(curriculum.places[:3], (120.0, 130.0, 140.0), strict=True):
        assert (place.town, place.road_id, place.lane_id) == ("Test", 1, -1)
        assert 20.0 <= station - (place.s - 10.0) <= 61.0
    assert curriculum.places[3].s == pytest.approx(10.0), "where the route began"
    drawn = [curriculum.draw(rng) for _ in range(400)]
    assert 160 < sum(place is not None for place in drawn) < 240
    assert set(drawn) == {None, *curriculum.places}


def test_without_a_curriculum_no_random_number_is_drawn() -> None:
    curriculum, rng = StartCurriculum(0.0), np.random.default_rng(0)
    curriculum.remember("Test", route_on(road_map(Geometry(300.0)), 10.0, 1.75, 250.0), 100.0, rng)
    assert curriculum.draw(rng) is None
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="start_curriculum: expected a share of the episodes, 0 to 1, got"):
        CarlaLaneEnv(start_curriculum=share)


def test_routes_from_a_place() -> None:
    scenarios = Scenarios(road_map(Geometry(300.0)), 200.0)
    route = scenarios.from_place(1, -1, 150.0)
    assert route is not None
    assert route.length == pytest.approx(120.0, abs=0.1)
    assert tuple(route.points[0, :2]) == pytest.approx((150.0, 1.75), abs=0.01)
    assert scenarios.from_place(1, -1, 250.0) is None, "50 m are too few"
    assert scenarios.from_place(7, -1, 10.0) is None, "no such road"


def test_episodes_begin_before_the_last_failures(env: CarlaLaneEnv) -> None:
    env._start_curriculum.places = []
    env.reset(seed=3, options={"town": "Village01", "scenario": 4})
    fail(env)
    (place,) = env._start_curriculum.places
    assert place.town == "Village01"
    for _ in range(3):
        _, info = env.reset()
        assert info["town"] == "Village01"
        start = env.simulation.route.waypoints[0]
        assert (start.road_id, start.lane_id) == place[1:3]
        assert start.s == pytest.approx(place.s, abs=1e-3)
        assert env.simulation.vehicle_state.speed == pytest.approx(0.0, abs=0.1)
        assert abs(info["lateral_offset_m"]) < 0.05
    _, info = env.reset(options={"town": "Circuit01"})
    assert info["town"] == "Circuit01", "who asks for a town gets it"
    _, info = env.reset(options={"scenario": 2})
    assert info["scenario"] == 2


def test_an_episode_of_the_curriculum_is_resumed(env: CarlaLaneEnv) -> None:
    env._start_curriculum.places = []
    env.reset(seed=3, options={"town": "Village01", "scenario": 4})
    fail(env)
    observation, _ = env.reset()
    for _ in range(3):
        observation = env.step(np.array([0.0, 0.3], np.float32))[0]
    so_far, start, places = env.episode_so_far, env.simulation.route.points[0].copy(), env._start_curriculum.places

    env._start_curriculum.places = []
    env.reset(seed=9)
    again, _ = env.reset(options={"resume": so_far})
    np.testing.assert_array_equal(again, observation)
    np.testing.assert_array_equal(env.simulation.route.points[0], start)
    assert env._start_curriculum.places == places
