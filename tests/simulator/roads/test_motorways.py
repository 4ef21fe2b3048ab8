"""Motorways, as the genuine map of the CARLA client sees them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import carla
import pytest

from sb3_carla.envs.route import straightest
from sb3_carla.errors import MapError
from sb3_carla.simulator.rendering.raster import MARGIN
from sb3_carla.simulator.roads.city_styles import MOTORWAYS
from sb3_carla.simulator.roads.motorways import MotorwayStyle, motorway_opendrive

STYLE = MotorwayStyle(lanes=3, lane_width=3.5, shoulders=(1.0, 2.5), median=4.0, loop_radius=20.0)
BEFORE, BETWEEN, AFTER, RAMP, LOOP = 1, 2, 3, 4, 5
"""Roads of the first carriageway; those of the second have 100 more."""


@cache
def parsed(style: MotorwayStyle) -> Any:
    return carla.Map("Test", motorway_opendrive("Test", 1, style))


def lane(style: MotorwayStyle, road: int, number: int) -> list[Any]:
    start = parsed(style).get_waypoint_xodr(road, -number, 0.1)
    return [start, *start.next_until_lane_end(1.0)]


def ways(style: MotorwayStyle, road: int, number: int) -> list[int]:
    """Roads behind the junction at the end of a lane, that on the route first."""
    end = lane(style, road, number)[-1]
    branches = end.next(2.0)
    driven = straightest(end, branches)
    branches = sorted(branches, key=lambda branch: branch.road_id != driven.road_id)
    return [branch.next_until_lane_end(1.0)[-1].next(2.0)[0].road_id for branch in branches]


def test_ramp_leaves_from_the_outermost_lane_and_the_route_stays() -> None:
    assert [ways(STYLE, BEFORE, number) for number in (1, 2, 3)] == [[BETWEEN], [BETWEEN], [BETWEEN, RAMP]]
    assert ways(STYLE, 101, 3) == [102, 104]


def test_lane_that_drops_leads_into_the_ramp_and_comes_back_with_it() -> None:
    style = replace(STYLE, drops=True)
    assert [ways(style, BEFORE, number) for number in (1, 2, 3)] == [[BETWEEN], [BETWEEN], [RAMP]]
    assert parsed(style).get_waypoint_xodr(BETWEEN, -3, 5.0).lane_type == carla.LaneType.Shoulder
    assert lane(style, RAMP, 1)[-1].next(60.0)[0].lane_id == -3


def test_ramp_joins_the_outermost_lane() -> None:
    assert ways(STYLE, RAMP, 1) == [AFTER]
    assert lane(STYLE, RAMP, 1)[-1].next(60.0)[0].lane_id == -3


def test_ramp_keeps_clear_of_the_carriageway() -> None:
    """Of its nearest lane by at least a lane's width, and in its middle by what the style says."""
    outermost = [w.transform.location for road in (BEFORE, BETWEEN, AFTER) for w in lane(STYLE, road, 3)]
    gaps = [min(w.transform.location.distance(place) for place in outermost) for w in lane(STYLE, RAMP, 1)[1:-1]]
    assert min(gaps) > 5.0
    assert 19.0 < max(gaps) < 36.0


def test_loop_leads_to_the_other_carriageway_with_all_its_lanes() -> None:
    for number in (1, 2, 3):
        end = lane(STYLE, LOOP, number)[-1]
        (following,) = end.next(2.0)
        assert (following.road_id, following.lane_id) == (101, -number)
        assert following.transform.location.distance(end.transform.location) < 3.0
    # The first lane's middle is half a lane outside the edge whose radius is 20 m.
    headings = [math.radians(w.transform.rotation.yaw) for w in lane(STYLE, LOOP, 1)]
    turns = [abs(math.remainder(b - a, 2.0 * math.pi)) for a, b in pairwise(headings)]
    inner = [turn for turn in turns if turn > 0.04]
    assert sorted(inner)[len(inner) // 2] == pytest.approx(1.0 / 20.0, rel=0.02), "CARLA steps along the reference line"


def test_carriageways_are_as_far_apart_as_the_median_says() -> None:
    other = [w for w in parsed(STYLE).generate_waypoints(1.0) if w.road_id > 100]
    places = [w.transform.location for w in other]
    middle = lane(STYLE, BETWEEN, 1)[5:-5]
    gaps = [min(w.transform.location.distance(place) for place in places) for w in middle]
    # Half a lane, shoulder, median, shoulder, half a lane: 1.75 + 1 + 4 + 1 + 1.75. Places are 1 m apart.
    assert all(gap == pytest.approx(9.5, abs=0.15) for gap in gaps)


@pytest.mark.parametrize("name", MOTORWAYS)
def test_raster_stays_below_a_hundred_megabytes(name: str) -> None:
    """Cells of 0.1 m with 4 bytes, and a third more for the coarser levels of the pyramid."""
    seed, style = MOTORWAYS[name]
    places = [
        w.transform.location for w in carla.Map(name, motorway_opendrive(name, seed, style)).generate_waypoints(2.0)
    ]
    edge = 2.0 * (MARGIN + 6.0)
    sides = [max(values) - min(values) + edge for values in ([p.x for p in places], [p.y for p in places])]
    assert math.prod(sides) * 400.0 * 4.0 / 3.0 < 100e6


def test_impossible_motorway_is_refused() -> None:
    with pytest.raises(MapError, match="no motorway of this style"):
        motorway_opendrive("Test", 0, replace(STYLE, legs=(50.0, 60.0)))


def test_seeds_differ() -> None:
    assert motorway_opendrive("Test", 1, STYLE) == motorway_opendrive("Test", 1, STYLE)
    assert motorway_opendrive("Test", 1, STYLE) != motorway_opendrive("Test", 2, STYLE)
