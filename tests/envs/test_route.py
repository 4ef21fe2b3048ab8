"""Routes and scenarios on maps small enough to check by hand, and on CARLA's own where they are at hand."""

from __future__ import annotations

import math

import carla
import numpy as np
import pytest
from maps import Geometry, road_map, straight_then_bend
from paths import REAL_MAPS

from sb3_carla.envs.route import LaneRoute, Scenarios, follow_lane
from sb3_carla.errors import MapError


def route_on(carla_map: carla.Map, x: float, y: float, length: float) -> LaneRoute:
    return LaneRoute(follow_lane(carla_map.get_waypoint(carla.Location(x, y, 0.0)), length))


def test_right_lane_of_a_straight_road_is_at_positive_y() -> None:
    route = route_on(road_map(Geometry(200.0)), 10.0, 1.75, 100.0)
    assert route.length == pytest.approx(100.0, abs=0.01)
    pose = route.locate(30.0, 1.75 + 0.4, 0.1)
    assert pose.station == pytest.approx(20.0, abs=0.01)
    assert pose.lateral_offset == pytest.approx(0.4, abs=1e-3)
    assert pose.heading_error == pytest.approx(0.1, abs=1e-3)
    assert pose.half_width == pytest.approx(1.75)


def test_oncoming_lane_is_driven_the_other_way() -> None:
    route = route_on(road_map(Geometry(200.0)), 150.0, -1.75, 100.0)
    pose = route.locate(130.0, -1.75 - 0.4, math.pi)
    assert pose.station == pytest.approx(20.0, abs=0.01)
    assert pose.lateral_offset == pytest.approx(0.4, abs=1e-3)
    assert abs(pose.heading_error) < 1e-3


def test_curvature_of_a_bend_is_that_of_the_lane_and_seen_ahead() -> None:
    route = route_on(straight_then_bend(), 150.0, 1.75, 130.0)
    radius = 40.0 + 1.75  # the right lane is outside a bend to the left
    assert route.curvature_ahead(0.0, 30.0) == pytest.approx(0.0, abs=1e-4)
    assert route.curvature_ahead(40.0, 40.0) == pytest.approx(1.0 / radius, rel=0.02)


def test_bends_are_seen_at_their_place_behind_a_bend_that_stretches_the_lane() -> None:
    """A waypoint for each metre of the reference line: after a half circle of 20 m radius the outer lane is longer."""
    half_circle = Geometry(20.0 * math.pi, 1.0 / 20.0)
    carla_map = road_map(half_circle, Geometry(50.0), Geometry(10.0, -1.0 / 30.0), Geometry(50.0), lane_width=8.0)
    route = route_on(carla_map, 0.5, 4.0, 170.0)
    outside = 24.0 * math.pi + 50.0  # where the second bend begins
    assert route.length == pytest.approx(170.0, abs=2.0)
    assert route.curvature_ahead(outside - 15.0, 9.0) == pytest.approx(0.0, abs=1e-4)
    assert route.curvature_ahead(outside - 15.0, 25.0) == pytest.approx(1.0 / 26.0, rel=0.05)
    assert route.curvature_ahead(24.0 * math.pi + 6.0, 20.0) == pytest.approx(0.0, abs=1e-4)


def test_starts_lead_somewhere_and_each_comes_once() -> None:
    scenarios = Scenarios(road_map(Geometry(400.0)), 30.0)
    starts = list(scenarios.shuffled_starts(np.random.default_rng(0)))
    places = {(start.road_id, start.lane_id, start.s) for start in starts}
    assert len(places) == len(starts) > 70
    assert all(start.next(1.0) for start in starts)


def test_offsets_in_a_bend_are_radial() -> None:
    route = route_on(straight_then_bend(), 150.0, 1.75, 130.0)
    centre, angle = (200.0, -40.0), math.radians(45.0)
    for radius, offset in ((41.75, 0.0), (42.25, 0.5), (40.75, -1.0)):
        route.restart()
        x, y = centre[0] + radius * math.sin(angle), centre[1] + radius * math.cos(angle)
        pose = route.locate(x, y, -angle)
        assert pose.lateral_offset == pytest.approx(offset, abs=0.01)
        assert pose.heading_error == pytest.approx(0.0, abs=0.01)


def test_cursor_follows_forwards_and_backwards() -> None:
    route = route_on(road_map(Geometry(200.0)), 10.0, 1.75, 100.0)
    stations = [route.locate(10.0 + s, 1.75, 0.0).station for s in (5.0, 50.0, 99.5, 40.0, 0.2, -3.0, 7.0)]
    assert stations == pytest.approx([5.0, 50.0, 99.5, 40.0, 0.2, -3.0, 7.0], abs=0.01)


def test_pose_along_the_route() -> None:
    route = route_on(road_map(Geometry(200.0)), 10.0, 1.75, 100.0)
    assert route.pose(33.3) == pytest.approx((43.3, 1.75, 0.0, 0.0, 0.0), abs=1e-3)
    assert route.pose(1e9)[:3] == pytest.approx((110.0, 1.75, 0.0), abs=0.01)
    assert route.position(120.0) == pytest.approx((130.0, 1.75, 0.0), abs=0.01), "straight on"


def test_route_needs_two_waypoints() -> None:
    with pytest.raises(ValueError, match="at least 2 waypoints, got 1"):
        LaneRoute([road_map(Geometry(50.0)).get_waypoint(carla.Location(10.0, 1.75, 0.0))])


def test_scenarios_are_numbered_in_a_fixed_order_and_never_too_short() -> None:
    first, second = (Scenarios(straight_then_bend(), 150.0) for _ in range(2))
    second[5]  # asking for another one first changes nothing
    for number in range(6):
        np.testing.assert_array_equal(first[number].points, second[number].points)
        assert first[number].length >= 147.0
    assert len({first[number].points.tobytes() for number in range(6)}) == 6


def test_random_starts_depend_on_the_generator_alone() -> None:
    first, second = (Scenarios(straight_then_bend(), 150.0) for _ in range(2))
    second.draw(np.random.default_rng(7))
    drawn = [scenarios.draw(np.random.default_rng(3)).points for scenarios in (first, second)]
    np.testing.assert_array_equal(*drawn)


def test_unknown_scenario_names_the_range() -> None:
    with pytest.raises(IndexError, match=r"scenarios 0 to \d+, got 1000"):
        Scenarios(straight_then_bend(), 150.0)[1000]


def test_town_without_a_long_enough_lane() -> None:
    with pytest.raises(MapError, match="no lane that can be followed for 500 m"):
        Scenarios(road_map(Geometry(50.0)), 500.0)


@pytest.mark.parametrize("town", ["Town01", "Town02", "Town04"])
def test_real_towns_have_smooth_routes(town: str) -> None:
    path = REAL_MAPS / f"{town}.xodr"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    scenarios = Scenarios(carla.Map(town, path.read_text()), 300.0)
    for number in range(20):
        route = scenarios[number]
        steps = np.hypot(*np.diff(route.points[:, :2], axis=0).T)
        assert steps.max() < 2.0
        assert np.abs(np.diff(np.unwrap(route.headings))).max() < 0.5
