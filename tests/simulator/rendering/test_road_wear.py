"""Wear lies on the lanes; stop lines and crosswalks lie before junctions."""

from __future__ import annotations

import carla
import numpy as np
import pytest
from small_towns import Road, straight_town, town

from sb3_carla.simulator.rendering.ground_polygons import MARKING_ORDER, MATERIALS, GroundPolygon, Surface
from sb3_carla.simulator.rendering.lane_strips import lane_strips
from sb3_carla.simulator.rendering.road_wear import CROSSWALK, STOP_LINE, road_wear
from sb3_carla.simulator.town import Town

JUNCTION = (Road(length=100.0), Road(x=100.0, length=20.0, junction=7), Road(x=120.0, length=100.0))
"""A road through a junction from x = 100 to 120 m."""


def wear(place: Town, seed: int) -> list[GroundPolygon]:
    return road_wear(lane_strips(place.map, place._root), seed)


def white(polygons: list[GroundPolygon]) -> list[np.ndarray]:
    return [polygon.outline for polygon in polygons if polygon.surface is Surface.WHITE]


@pytest.mark.parametrize("seed", range(4))
def test_wear_stays_on_its_lanes(seed: int) -> None:
    polygons = wear(straight_town(), seed)
    kinds = {polygon.surface for polygon in polygons}
    assert kinds & {Surface.TRACK, Surface.PATCH, Surface.TAR, Surface.IRON}
    assert not {Surface.WHITE, Surface.GUTTER} & kinds, "no junction, no pavement"
    for polygon in polygons:
        x, y = polygon.outline.T
        # Paint that is gone is as wide as the line, half of it outside the lane; a manhole may touch the line.
        assert np.abs(y).max() <= 3.5 + 0.16
        assert x.min() >= -0.01
        assert x.max() <= 300.01
        assert MATERIALS[polygon.surface][0][0] > 190, "mostly asphalt"


def test_tyre_tracks_are_a_cars_track_apart() -> None:
    found = set()
    for seed in range(6):
        for polygon in wear(straight_town(), seed):
            y = np.abs(polygon.outline[:, 1])
            if polygon.surface is Surface.TRACK and np.ptp(polygon.outline[:, 0]) == pytest.approx(10.0, abs=0.01):
                assert np.ptp(y) == pytest.approx(0.5, abs=0.01)
                found.add(round(float(y.mean()), 2))
    assert sorted(found) == [1.75 - 0.8, 1.75 + 0.8]


def test_gutters_lie_on_the_road_along_the_pavement() -> None:
    polygons = wear(straight_town(outer=("sidewalk",)), 1)
    gutters = [polygon.outline for polygon in polygons if polygon.surface is Surface.GUTTER]
    assert {float(np.sign(outline[:, 1].mean())) for outline in gutters} == {-1.0, 1.0}
    for outline in gutters:
        across = np.abs(outline[:, 1])
        assert (across.min(), across.max()) == pytest.approx((3.5 - 0.25, 3.5), abs=1e-3)


def test_stop_lines_and_crosswalks_lie_before_a_junction() -> None:
    """Towards +x the lane at y = 0 to 3.5 m meets the junction at x = 100 m, towards -x that at y < 0 at 120 m."""
    place = town(*JUNCTION)
    found = {"lines": 0, "walks": 0}
    for seed in range(12):
        for outline in white(wear(place, seed)):
            x, y = outline.T
            before = min(abs(100.0 - x.mean()), abs(x.mean() - 120.0))
            if before < 2.0:  # a stop line
                found["lines"] += 1
                enters = x.mean() < 110.0
                assert np.sign(y.mean()) == (1.0 if enters else -1.0), "in the lane that leads into the junction"
                near, far = (100.0 - x.max(), 100.0 - x.min()) if enters else (x.min() - 120.0, x.max() - 120.0)
                assert (near, far) == pytest.approx(STOP_LINE, abs=0.01)
                assert (np.abs(y).min(), np.abs(y).max()) == pytest.approx((0.15, 3.35), abs=0.01)
            else:
                found["walks"] += 1
                assert before == pytest.approx(0.5 * sum(CROSSWALK), abs=0.01)
                assert np.abs(y).max() <= 3.51
    # Two arms with one lane into the junction each; bars of crosswalks come in sixes.
    assert found["lines"] % 2 == 0
    assert 8 <= found["lines"] <= 24
    assert found["walks"] > 20


def test_stop_lines_of_a_village_lead_into_junctions() -> None:
    place = Town.load("Village01")
    for seed in range(3):
        outlines = white(wear(place, seed))
        checked = 0
        for outline in outlines:
            x, y = (float(value) for value in outline.mean(axis=0))
            waypoint = place.map.get_waypoint(carla.Location(x, y, 0.0), project_to_road=False)
            assert waypoint is not None, "it lies on a road"
            extent = np.ptp(outline, axis=0)
            if extent.max() > 2.0 and extent.min() < 0.6:  # a stop line across an axis-parallel street
                checked += 1
                # Whoever crosses it comes to the junction within its distance, 1.4 m.
                assert waypoint.is_junction or any(ahead.is_junction for ahead in waypoint.next(2.0))
        assert checked > 0 or not outlines


def test_wear_is_painted_after_the_lanes_and_depends_on_the_seed() -> None:
    first, again, other = (wear(straight_town(), seed) for seed in (1, 1, 2))
    assert len(first) == len(again)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.outline, two.outline)
    assert len(first) != len(other) or any(
        not np.array_equal(one.outline, two.outline) for one, two in zip(first, other, strict=True)
    )
    gone = [polygon for polygon in first if polygon.surface is Surface.ASPHALT]
    assert all(polygon.order == MARKING_ORDER for polygon in gone)
