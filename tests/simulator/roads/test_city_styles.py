"""Villages whose streets are of several kinds: medians, lanes that end, sidewalks, worn lines, hills."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import cache
from typing import Any

import carla
import pytest

from sb3_carla.simulator.roads.built_in_towns import built_in_opendrive
from sb3_carla.simulator.roads.city_styles import CITIES
from sb3_carla.simulator.roads.opendrive import CrossSection, Marking
from sb3_carla.simulator.roads.villages import VillageStyle, village_opendrive

NARROW = CrossSection(1, 3.0, 0.5, Marking("broken"), Marking("broken"), Marking("solid"), sidewalk=2.0)
WIDE = CrossSection(2, 3.5, 0.0, Marking("solid"), Marking("broken"), Marking("solid"), sidewalk=3.0, median=4.0)
MIXED = VillageStyle(
    NARROW, main_section=WIDE, main_rows=(1,), main_columns=(1,), spacing=120.0, bow=4.0, corner_radius=7.0
)
"""The main row and column cross in the middle; at their ends they meet the narrow streets around them."""


@cache
def parsed(style: VillageStyle) -> Any:
    return carla.Map("Test", village_opendrive("Test", 1, style))


def streets(text: str) -> list[ET.Element]:
    return [road for road in ET.fromstring(text).iter("road") if road.get("junction") == "-1"]


def kinds(road: ET.Element) -> list[tuple[int, str]]:
    """Ids and types of the lanes on the right side."""
    lanes = [
        (int(lane.get("id", "0")), str(lane.get("type"))) for lane in road.iterfind("lanes/laneSection/right/lane")
    ]
    return sorted(lanes, reverse=True)


def starts(carla_map: Any, junction: bool) -> list[Any]:
    return [start for start, _ in carla_map.get_topology() if start.is_junction == junction]


def test_lanes_of_a_street_with_median_parking_and_sidewalk() -> None:
    section = replace(WIDE, parking=2.2, shoulder=0.3)
    assert [(lane.id, lane.kind, lane.width) for lane in section.build(True, False) if lane.id < 0] == [
        (-1, "median", 2.0),
        (-2, "driving", 3.5),
        (-3, "driving", 3.5),
        (-4, "parking", 2.2),
        (-5, "shoulder", 0.3),
        (-6, "sidewalk", 3.0),
    ]
    assert section.half_width == pytest.approx(2.0 + 7.0 + 2.2 + 0.3 + 3.0)
    assert (section.reference_marking.kind, section.build(True, True)[0].marking.kind) == ("none", "solid")


def test_main_row_and_column_have_their_own_lanes() -> None:
    found = [kinds(road) for road in streets(village_opendrive("Test", 1, MIXED))]
    wide = [(-1, "median"), (-2, "driving"), (-3, "driving"), (-4, "sidewalk")]
    narrow = [(-1, "driving"), (-2, "shoulder"), (-3, "sidewalk")]
    # Places 1, 3, 4, 5 and 7 are junctions: four wide streets from the middle, four narrow ones round the corners.
    assert sorted(map(str, found)) == sorted(map(str, [wide] * 4 + [narrow] * 4))


def test_where_a_wide_street_ends_its_outer_lane_turns_right() -> None:
    """Lane 1 turns left into the narrow street's only lane, lane 2 right into it: each has one way."""
    carla_map = parsed(MIXED)
    checked = 0
    for start in starts(carla_map, junction=False):
        end = start.next_until_lane_end(1.0)[-1]
        ways = end.next(2.0)
        junction = ways[0].get_junction()
        arms = {w.road_id for pair in junction.get_waypoints(carla.LaneType.Driving) for w in pair}
        assert arms
        if abs(start.lane_id) < 2 or len(ways) > 1:
            continue
        last = ways[0].next_until_lane_end(0.5)[-1]
        turn = (last.transform.rotation.yaw - end.transform.rotation.yaw + 180.0) % 360.0 - 180.0
        if abs(turn) > 45.0:
            assert (turn > 0.0) == (abs(start.lane_id) == 3)
            assert last.lane_width == pytest.approx(3.0, abs=0.05)
            checked += 1
    assert checked >= 8  # both lanes of the four ends


def test_lane_width_changes_within_the_junction_without_a_step() -> None:
    for start in starts(parsed(MIXED), junction=True):
        before, after = start.previous(1.0)[0], start.next_until_lane_end(0.5)[-1].next(1.0)[0]
        assert start.next(0.1)[0].lane_width == pytest.approx(before.lane_width, abs=0.02)
        assert after.previous(1.1)[0].lane_width == pytest.approx(after.lane_width, abs=0.1)


@pytest.mark.parametrize(("share", "with_sidewalk"), [(0.0, 0), (1.0, 8)])
def test_sidewalks_leave_the_lanes_for_traffic_as_they_are(share: float, with_sidewalk: int) -> None:
    def driven(style: VillageStyle) -> list[tuple[float, ...]]:
        places = [w.transform.location for w in parsed(style).generate_waypoints(5.0)]
        return sorted((place.x, place.y) for place in places)

    style = replace(MIXED, sidewalk_share=share)
    roads = streets(village_opendrive("Test", 1, style))
    assert sum("sidewalk" in dict(map(reversed, kinds(road))) for road in roads) == with_sidewalk
    assert driven(style) == driven(replace(MIXED, sidewalk_share=0.5))


def test_sidewalk_of_one_street_ends_in_a_point() -> None:
    """Right turns between a street with a sidewalk of 2 m and one without."""
    style = replace(MIXED, main_section=None, sidewalk_share=0.5)
    ends = set()
    for lane in ET.fromstring(village_opendrive("Test", 1, style)).iter("lane"):
        width = lane.find("width")
        if lane.get("type") == "sidewalk" and width is not None and float(width.get("c", "0")):
            a, c, d = (float(width.get(name, "0")) for name in "acd")
            # The cubic is flat at L = -2 c / (3 d), the end of the road.
            length = -2.0 * c / (3.0 * d)
            ends.add((round(a, 3), abs(round(a + c * length**2 + d * length**3, 3))))
    assert ends == {(2.0, 0.0), (0.0, 2.0)}


def test_worn_streets_have_no_edge_lines_and_half_of_them_no_line() -> None:
    marks = [
        (
            road.findall(".//center/lane/roadMark")[0].get("type"),
            road.findall(".//lane[@id='-1']/roadMark")[0].get("type"),
        )
        for road in streets(village_opendrive("Test", 1, VillageStyle(NARROW, worn_share=1.0, spacing=120.0)))
    ]
    assert set(marks) == {("broken", "none"), ("none", "none")}


def test_hills_are_level_at_junctions_and_as_steep_as_wanted() -> None:
    carla_map = parsed(replace(MIXED, slope=0.04))
    heights = [w.transform.location.z for w in carla_map.generate_waypoints(1.0)]
    assert min(heights) < -0.5 < 0.5 < max(heights)
    assert all(abs(w.transform.location.z) < 1e-3 for w in starts(carla_map, junction=True))
    pitches = [abs(math.remainder(w.transform.rotation.pitch, 360.0)) for w in carla_map.generate_waypoints(1.0)]
    # atan(0.04) = 2.29 deg
    assert max(pitches) == pytest.approx(2.29, abs=0.03)


@pytest.mark.parametrize(("name", "least"), [("Village47", 40.0), ("Village48", 50.0), ("Village53", 50.0)])
def test_wide_crossings_have_no_line_for_long(name: str, least: float) -> None:
    carla_map = carla.Map(name, built_in_opendrive(name))
    lengths = []
    for start in starts(carla_map, junction=True):
        lane = start.next_until_lane_end(1.0)
        assert {str(w.left_lane_marking.type) for w in lane} == {"NONE"}
        lengths.append(float(len(lane)))
    assert least < max(lengths) < 60.0


def test_cities_have_what_the_plain_villages_lack() -> None:
    sections = [s for _, style in CITIES.values() for s in (style.section, style.main_section) if s is not None]
    assert any(section.median for section in sections)
    assert any(section.parking for section in sections)
    assert {section.lanes for section in sections} == {1, 2, 3, 4}
    assert "solid solid" in {section.centre.kind for section in sections}
    assert all(section.sidewalk for section in sections)
