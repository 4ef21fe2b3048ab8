"""What the critics are told, against numbers worked out by hand."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
from maps import Geometry, road_map, straight_then_bend
from test_route import route_on

from sb3_carla.client.vehicle import VehicleState
from sb3_carla.envs.privileged_state import PRIVILEGED_STATE_SIZE, privileged_state
from sb3_carla.envs.route import LaneRoute, Scenarios
from sb3_carla.envs.traffic import CarAhead


def told(route: LaneRoute, x: float, y: float, heading: float, **kwargs) -> np.ndarray:
    pose = route.locate(x, y, heading)
    car = VehicleState(x=x, y=y, z=0.0, heading=heading, speed=4.0)
    given = {"car_ahead": CarAhead(), "target_speed": 8.0, "steering": 0.25, "stuck": 0.5, **kwargs}
    return privileged_state(route, pose, car, **given)


def test_on_a_straight() -> None:
    route = route_on(road_map(Geometry(200.0)), 10.0, 1.75, 150.0)
    numbers = told(route, 30.0, 1.75 + 0.4, 0.1)
    directions = [(math.atan2(-0.4, distance) - 0.1) / 0.3 for distance in (4.0, 8.0, 12.0, 20.0, 32.0)]
    assert numbers.dtype == np.float32
    assert numbers == pytest.approx([0.4, 0.1 / 0.3, *directions, 1.75, 0.5, 1.0, 0.0, 1.0, 0.25, 0.5], abs=1e-3)
    away = told(route, 30.0, 1.75, math.pi)  # with the back to the lane
    assert list(np.abs(away[1:7])) == [4.0] * 6, "bounded"


def test_in_a_bend() -> None:
    route = route_on(straight_then_bend(), 150.0, 1.75, 130.0)
    radius, (x, y, _, heading, _) = 41.75, route.pose(70.0)
    numbers = told(route, x, y, heading)
    chords = [-distance / (2.0 * radius) / 0.3 for distance in (4.0, 8.0, 12.0, 20.0, 32.0)]  # half of the arc, left
    assert numbers[:7] == pytest.approx([0.0, 0.0, *chords], abs=0.06)
    assert numbers[9] == pytest.approx(1.0), "2.5 m/s^2 allow 10 m/s"


def test_the_end_of_a_route_looks_like_any_other_place() -> None:
    """A route's end truncates the episode: what follows has a value, that of the state that is told there."""
    scenarios, longer = (Scenarios(straight_then_bend(), length) for length in (60.0, 120.0))
    compared = 0
    for number in range(3):
        route = longer[number]
        short = next(s for s in (scenarios[n] for n in range(12)) if np.allclose(s.points[0], route.points[0]))
        assert short.length == 60.0
        assert route.length == 120.0
        for station in (59.0, 60.0, 61.2):
            x, y, _, heading, _ = route.pose(station)
            assert told(short, x, y, heading) == pytest.approx(told(route, x, y, heading), abs=1e-5)
            compared += 1
    assert compared == 9


def test_where_the_lane_ends_it_is_thought_to_go_straight_on() -> None:
    route = route_on(road_map(Geometry(200.0)), 100.0, 1.75, 150.0)
    numbers = told(route, 199.5, 1.75, 0.0)
    assert numbers[:7] == pytest.approx([0.0] * 7, abs=1e-3)


def test_behind_a_car() -> None:
    route = route_on(road_map(Geometry(200.0)), 10.0, 1.75, 150.0)
    numbers = told(route, 30.0, 1.75, 0.0, car_ahead=CarAhead(8.0, 2.0))
    assert numbers[9:12] == pytest.approx([4.0 / 8.0, 0.25, 8.0 / 50.0]), "(8 - 2) m in 1.5 s"


def test_the_environment_tells_it_at_every_step() -> None:
    env = gym.make("CarlaLane-v0", action_repeat=4)
    try:
        _, info = env.reset(seed=0)
        assert info["privileged_state"].shape == (PRIVILEGED_STATE_SIZE,)
        for _ in range(5):
            _, _, _, _, info = env.step(np.array([0.1, 0.9], np.float32))
            state = info["privileged_state"]
            assert state[0] == pytest.approx(info["lateral_offset_m"], abs=1e-5)
            assert state[1] == pytest.approx(info["heading_error_rad"] / 0.3, abs=1e-5)
            assert state[8] == pytest.approx(info["speed_mps"] / 8.0, abs=1e-5)
            assert state[12] == pytest.approx(0.1)
    finally:
        env.close()
