"""The town's picture from above: what lies where, to the centimetre."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from small_towns import Road, overpass_town, straight_town, town

from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering.ground_polygons import DASH, PERIOD, ROAD_LINES, ROADS, SIDEWALKS, TERRAIN
from sb3_carla.simulator.rendering.ground_shading import NEUTRAL
from sb3_carla.simulator.rendering.overpasses import LOWER, UPPER, camera_road
from sb3_carla.simulator.rendering.raster import LEVELS, Raster
from sb3_carla.simulator.town import Town


@pytest.fixture(scope="module")
def straight() -> Town:
    return straight_town()


@pytest.fixture(scope="module")
def overpass() -> Town:
    return overpass_town()


def label(raster: Raster, x: float, y: float) -> int:
    return int(raster.labels[int((y - raster.origin[1]) / raster.cell), int((x - raster.origin[0]) / raster.cell)])


def painted_width(raster: Raster, x: float, y: float) -> float:
    """Width of a white line [m]: the share of white paint, summed up across it."""
    rows = slice(int((y - 0.6 - raster.origin[1]) / raster.cell), int((y + 0.6 - raster.origin[1]) / raster.cell))
    third = raster.pyramid[0][rows, int((x - raster.origin[0]) / raster.cell), 2].astype(float)
    return float(np.maximum(third - NEUTRAL, 0.0).sum() / (255.0 - NEUTRAL) * raster.cell)


def test_lanes_edges_and_verge_lie_where_the_map_says(straight: Town) -> None:
    raster = straight.raster
    for x in (3.0, 100.0, 297.0):
        assert [label(raster, x, y) for y in (-6.0, -3.5, -1.75, 1.75, 3.5, 6.0)] == [
            TERRAIN, ROAD_LINES, ROADS, ROADS, ROAD_LINES, TERRAIN,
        ]  # fmt: skip
    assert label(raster, -1.0, 1.75) == label(raster, 301.0, 1.75) == TERRAIN


def test_broken_line_on_the_reference_line_has_its_dashes_and_is_painted_once(straight: Town) -> None:
    raster = straight.raster
    line = [label(raster, x, 0.0) == ROAD_LINES for x in np.arange(0.05, 299.9, 0.1)]
    assert np.mean(line) == pytest.approx(DASH / PERIOD, abs=0.02)
    assert label(raster, 10 * PERIOD + 0.5 * DASH, 0.0) == ROAD_LINES
    assert label(raster, 10 * PERIOD + DASH + 1.0, 0.0) == ROADS
    assert painted_width(raster, 10 * PERIOD + 0.5 * DASH, 0.0) == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(("stated", "expected"), [('width="0.2"', 0.2), ('width="0.15"', 0.15), ("", 0.15)])
def test_markings_are_as_wide_as_stated(stated: str, expected: float) -> None:
    raster = straight_town(centre="solid", width=stated).raster
    widths = [painted_width(raster, x, 0.0) for x in np.linspace(20.0, 280.0, 40)]
    assert np.mean(widths) == pytest.approx(expected, abs=0.035)


def test_double_line_is_two_lines_with_a_gap() -> None:
    raster = straight_town(centre="solid solid", width='width="0.3"').raster
    assert [label(raster, 100.0, y) for y in (-0.3, 0.0, 0.3)] == [ROAD_LINES, ROADS, ROAD_LINES]


def test_pavement_and_shoulder_are_there_though_no_car_may_drive_on_them() -> None:
    raster = straight_town(outer=("shoulder", "sidewalk", "none")).raster
    assert [label(raster, 100.0, 3.5 + d) for d in (1.0, 3.0, 5.0)] == [ROADS, SIDEWALKS, TERRAIN]
    assert [label(raster, 100.0, -3.5 - d) for d in (1.0, 3.0, 5.0)] == [ROADS, SIDEWALKS, TERRAIN]


def test_left_hand_traffic_is_painted_the_same_way() -> None:
    towns = [straight_town(rule=rule, edge="solid") for rule in ("RHT", "LHT")]
    right, left = (Raster(town.map, town._root, seed=0) for town in towns)  # the same wear
    np.testing.assert_array_equal(right.labels, left.labels)


def test_connecting_roads_do_not_paint_their_edges_across_each_other() -> None:
    through = Road(junction=7)
    other = Road(x=150.0, y=-20.0, heading=0.5 * np.pi, length=40.0, junction=7)
    raster = town(through, other, Road(x=300.0, length=50.0)).raster
    assert label(raster, 153.5, 1.75) == ROADS
    assert label(raster, 151.75, 3.5) == ROADS
    assert label(raster, 140.0, 3.5) == ROAD_LINES


def test_pyramid_halves_and_keeps_the_mean(straight: Town) -> None:
    levels = straight.raster.pyramid
    assert len(levels) == LEVELS
    for finer, coarser in pairwise(levels):
        assert coarser.shape == (finer.shape[0] // 2, finer.shape[1] // 2, 4)
        assert coarser.mean() == pytest.approx(finer.mean(), abs=0.6)


def test_same_map_same_picture_bit_for_bit(straight: Town) -> None:
    np.testing.assert_array_equal(straight_town().raster.pyramid[0], straight.raster.pyramid[0])


def test_raster_holds_shares_of_materials(straight: Town) -> None:
    """Road, stone, white above NEUTRAL, yellow: what is missing is verge."""
    raster = straight.raster
    shares = raster.pyramid[0].astype(float)
    verge, road, line = (shares[raster.labels == label] for label in (TERRAIN, ROADS, ROAD_LINES))
    np.testing.assert_array_equal(np.median(verge, axis=0), (0.0, 0.0, NEUTRAL, 0.0))
    assert road[:, 0].mean() > 0.9 * 255.0
    assert line[:, 2].mean() > NEUTRAL + 0.6 * (255.0 - NEUTRAL)
    white = np.maximum(shares[..., 2] - NEUTRAL, 0.0) * (255.0 / (255.0 - NEUTRAL))
    assert (shares[..., 0] + shares[..., 1] + shares[..., 3] + white).max() < 258.0  # rounded four times


def test_flat_town_has_no_overpasses(straight: Town) -> None:
    assert straight.raster.overpasses == []


def test_either_road_of_an_overpass_keeps_its_markings(overpass: Town) -> None:
    raster = overpass.raster
    assert len(raster.overpasses) == 1
    raster.select_roads(130.0, 1.75, 0.0, Ground(0.0))
    assert all(label(raster, x, 3.5) == ROAD_LINES for x in np.arange(131.0, 169.0, 0.5))
    raster.select_roads(151.75, -20.0, 0.5 * np.pi, Ground(8.0))
    assert all(label(raster, 153.5, y) == ROAD_LINES for y in np.arange(-19.0, 19.0, 0.5))
    assert label(raster, 140.0, 3.5) == ROAD_LINES  # the lower road goes on beneath
    assert label(raster, 150.0 - 1.75, 3.5) == ROADS


def test_road_at_an_overpass_is_the_one_that_leads_there(overpass: Town) -> None:
    place = overpass.raster.overpasses[0]
    for distance in (2.0, 20.0, 60.0, 120.0):
        assert camera_road(place, overpass.map, 150.0 - distance, 1.75, 0.0, Ground(0.0)) == LOWER
        assert camera_road(place, overpass.map, 151.75, distance, -0.5 * np.pi, Ground(8.0)) == UPPER
    assert camera_road(place, overpass.map, 151.75, 200.0, -0.5 * np.pi, Ground(8.0)) == LOWER, "too far away to matter"


def test_ramp_that_still_has_to_climb_leads_over_the_bridge() -> None:
    ramp = town(Road(height=0.0, slope=0.05), Road(x=200.0, y=-150.0, heading=0.5 * np.pi))
    place = ramp.raster.overpasses[0]  # the ramp is 10 m high there
    assert camera_road(place, ramp.map, 100.0, 1.75, 0.0, Ground(5.0, slope_x=0.05)) == UPPER
    assert camera_road(place, ramp.map, 201.75, -100.0, 0.5 * np.pi, Ground(0.0)) == LOWER
