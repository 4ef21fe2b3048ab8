"""Car following against the model's own equations; traffic in a running town is tested with the environment."""

from __future__ import annotations

import math

import carla
import numpy as np
import pytest
from maps import Geometry, road_map

from sb3_carla.envs.route import LaneRoute, follow_lane
from sb3_carla.envs.traffic import IntelligentDriver, find_car_ahead

DRIVER = IntelligentDriver()


def test_free_road() -> None:
    assert DRIVER(0.0, 10.0, gap=math.inf, closing_speed=0.0) == pytest.approx(1.5)
    assert DRIVER(10.0, 10.0, gap=math.inf, closing_speed=0.0) == pytest.approx(0.0)


def test_equilibrium_gap_behind_a_car_of_equal_speed() -> None:
    speed = 5.0
    gap = (2.0 + 1.5 * speed) / math.sqrt(1.0 - 0.5**4)
    assert DRIVER(speed, 10.0, gap=gap, closing_speed=0.0) == pytest.approx(0.0, abs=1e-9)


def test_stops_behind_a_standing_car_without_touching_it() -> None:
    position, speed, standing = 0.0, 10.0, 60.0
    for _ in range(2000):
        speed = max(0.0, speed + 0.05 * DRIVER(speed, 10.0, gap=standing - position, closing_speed=speed))
        position += 0.05 * speed
    assert speed == pytest.approx(0.0, abs=0.05)
    assert 1.0 < standing - position < 4.0


@pytest.fixture
def route() -> LaneRoute:
    carla_map = road_map(Geometry(200.0))
    return LaneRoute(follow_lane(carla_map.get_waypoint(carla.Location(10.0, 1.75, 0.0)), 150.0))


def test_gap_to_the_next_car_on_the_route(route: LaneRoute) -> None:
    cars = np.array([[40.0, 1.75, 3.0, 0.0], [30.0, 1.75, 2.0, 0.5], [25.0, -1.75, -9.0, 0.0], [5.0, 1.75, 0.0, 0.0]])
    gap, speed = find_car_ahead(route, 0.0, cars)
    assert gap == pytest.approx(20.0 - 4.8, abs=1.0)
    assert speed == pytest.approx(2.0)


def test_a_driver_sees_as_far_on_the_inside_of_a_bend() -> None:
    """Where points of a route lie closer."""
    inside = road_map(Geometry(200.0, curvature=-1.0 / 20.0), lane_width=6.0)
    route = LaneRoute(follow_lane(inside.get_waypoint(carla.Location(0.0, 3.0, 0.0)), 80.0))
    assert np.diff(route.stations).max() < 0.9
    standing = route.points[np.searchsorted(route.stations, 36.0), :2]
    gap, _ = find_car_ahead(route, 0.0, np.array([[*standing, 0.0, 0.0]]))
    assert gap == pytest.approx(36.0 - 4.8, abs=1.0)


def test_oncoming_and_following_cars_are_not_in_the_way(route: LaneRoute) -> None:
    assert find_car_ahead(route, 20.0, np.array([[50.0, -1.75, -9.0, 0.0], [20.0, 1.75, 5.0, 0.0]])) == (math.inf, 0.0)
    assert find_car_ahead(route, 20.0, np.empty((0, 4))) == (math.inf, 0.0)


def test_following_speed_is_where_the_model_neither_brakes_nor_accelerates() -> None:
    driver = IntelligentDriver()
    speed = driver.following_speed(9.5)
    assert speed == pytest.approx(5.0)  # (9.5 - 2) / 1.5
    assert driver(speed, 1e9, gap=9.5, closing_speed=0.0) == pytest.approx(0.0, abs=1e-6)
    assert driver.following_speed(1.0) == 0.0
    assert driver.following_speed(math.inf) == math.inf
