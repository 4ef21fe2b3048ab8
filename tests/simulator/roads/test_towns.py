"""Every built-in town, as the genuine map of the CARLA client sees it."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import cache
from typing import Any

import carla
import pytest

from sb3_carla.envs.route import Scenarios, straightest
from sb3_carla.envs.towns import HELD_OUT_TOWNS, TRAINING_TOWNS, expand_towns
from sb3_carla.errors import MapError
from sb3_carla.simulator.roads.built_in_towns import BUILT_IN_TOWNS, built_in_opendrive
from sb3_carla.simulator.roads.circuits import CircuitStyle, circuit_opendrive
from sb3_carla.simulator.roads.city_styles import CITIES, MOTORWAYS
from sb3_carla.simulator.roads.opendrive import CrossSection, Marking
from sb3_carla.simulator.roads.random_villages import random_village_style
from sb3_carla.simulator.roads.reference_line import ReferenceLine, Segment, pose_along
from sb3_carla.simulator.roads.villages import VillageStyle, village_opendrive

PLAIN_TOWNS = [name for name in BUILT_IN_TOWNS if name not in CITIES and name not in MOTORWAYS]
"""Towns whose streets all have the same lanes."""
CIRCUITS = [name for name in BUILT_IN_TOWNS if name.startswith("Circuit")]
VILLAGES = [name for name in BUILT_IN_TOWNS if name.startswith("Village")]
HILLY = {"Circuit04": 0.045, "Circuit08": 0.04, "Village50": 0.045, "Village51": 0.03}
"""Steepest slope of the towns that are not flat."""
LANES = {"Circuit03": 2, "Circuit05": 2, "Circuit07": 2, "Circuit09": 3, "Village02": 2, "Village07": 2, "Village09": 2}
LANES |= {f"Village{number}": 2 for number in (11, 19, 22, 23, 24, 26, 29, 31, 32)}
LANES |= {f"Village{number}": 3 if number < 39 else 4 for number in range(34, 42)} | {"Village42": 3, "Village43": 4}
"""A direction, of the towns that have more than one."""
TIGHT = {
    "Circuit09": (8.0, 0.3), "Village04": (5.0, 0.3), "Village05": (6.0, 0.21), "Village06": (7.0, 0.21),
    "Village07": (6.65, 0.25), "Village08": (5.5, 0.26), "Village09": (7.6, 0.21), "Village42": (6.65, 0.35),
    "Village43": (5.75, 0.5),
}  # fmt: skip
TIGHT |= {
    f"Village{number}": (random_village_style(300 + number).corner_radius - 0.25, 0.26) for number in range(10, 34)
}
TIGHT |= {
    f"Village{number}": (random_village_style(300 + number).corner_radius - 0.25, 0.5) for number in range(34, 42)
}
TIGHT |= {name: (style.corner_radius - 0.45, 0.5) for name, (_, style) in CITIES.items()}
TIGHT |= dict.fromkeys(MOTORWAYS, (8.0, 0.6))
"""Least radius [m], and how much a step of 1 m may differ from that, of the towns with tight corners or wide roads."""
FINGERPRINTS = {
    "Circuit01": "afae6d615b46f558",
    "Circuit02": "8aaf5f7ca3c58e39",
    "Circuit03": "36d207a4929f6db6",
    "Circuit04": "e5ecf90617801e56",
    "Circuit05": "4a9c318b2bc632a1",
    "Circuit09": "a8eb0b8175eb0943",
    "Village01": "aa219fb70d42b473",
    "Village02": "179b2d1e1a03f047",
    "Village04": "74706b7e2714fe05",
    "Village05": "0badc11090bddec5",
    "Village06": "0ed1ee3b349db374",
    "Village07": "c0a5a20580a42a55",
    "Village10": "0ae5cfd0b676c4f1",
    "Village11": "127ac87d3672f3ac",
    "Village12": "9ca89cddef026684",
    "Village13": "42981fe919460dcb",
    "Village14": "51dd375f36876494",
    "Village15": "f43256f4b64f78b4",
    "Village16": "50baddb19d9b615b",
    "Village17": "ae03933492dbad13",
    "Village18": "7a1340fe8066797b",
    "Village19": "dff93076559be306",
    "Village20": "a911127a2d587fac",
    "Village21": "d8aa61772a859b36",
    "Village22": "1fa2db294e1e0c7d",
    "Village23": "0e5e764d17b43312",
    "Village24": "4b24e0918122d639",
    "Village25": "b6b85101a59544c4",
    "Village26": "2f6a606b520e4f74",
    "Village27": "9d411a77a5eb3a8c",
    "Village28": "24bcc0cbcc8d28c9",
    "Village29": "1ca6a9e74f64e1c5",
    "Village30": "3e437ef13e5dec0f",
    "Village31": "9d16a4ceabb8a0f5",
    "Village32": "d4dc299006a044c9",
    "Village33": "4dc46734169dddb9",
    "Village34": "39e796ade1e22c93",
    "Village35": "313c1976f272bd00",
    "Village36": "01f88d7a3c54be73",
    "Village37": "28f6ef1612b5bd83",
    "Village38": "fab62e4f14dc9eb5",
    "Village39": "e4602448c167d699",
    "Village40": "0a48f8a7fd49e078",
    "Village41": "60b4f6f56dd48afd",
    "Village44": "262525b3fa121a0b",
    "Village45": "f512845da4e024fe",
    "Village46": "6d0528c8346245b7",
    "Village47": "df806be16974716a",
    "Village48": "b24e36d931cefca5",
    "Village49": "97b78110ddbf0548",
    "Village50": "4bde534387d939a3",
    "Village51": "44dd62b8d689f566",
    "Motorway01": "aef1ab12e82c42a1",
    "Motorway02": "419eb11c8cb85097",
    "Motorway03": "dc1d3940e3580252",
    "Motorway04": "dbc175c5ee08da1a",
    "Circuit06": "516f85e2a07ec570",
    "Circuit07": "fa0010d670ec27db",
    "Circuit08": "24e64caa4c064f31",
    "Village03": "717457d1923ccd38",
    "Village08": "dc9fcdc51e7349ae",
    "Village09": "64a4fde7923ddc94",
    "Village42": "1a5db258fddccb39",
    "Village43": "235ab26ba8b69b77",
    "Village52": "ba6ec8706569514e",
    "Village53": "7acb2bc0c8e990c7",
    "Motorway05": "1f6f874ddfe2e5bb",
}
"""First digits of the SHA-256 of each town: results are comparable only as long as the towns stay as they are."""

PLAIN = CrossSection(1, 3.5, 0.0, Marking("broken"), Marking("broken"), Marking("solid"))


@cache
def load(name: str) -> Any:
    return carla.Map(name, built_in_opendrive(name))


@cache
def lane_starts(name: str) -> list[Any]:
    """First waypoint of every lane, of roads and of ways through junctions."""
    return sorted((start for start, _ in load(name).get_topology()), key=lambda w: (w.road_id, w.lane_id))


def fingerprint(name: str) -> str:
    return hashlib.sha256(built_in_opendrive(name).encode()).hexdigest()[:16]


def heading_change(a: Any, b: Any) -> float:
    degrees = b.transform.rotation.yaw - a.transform.rotation.yaw
    return abs(math.radians((degrees + 180.0) % 360.0 - 180.0))


def test_splits_are_disjoint_and_both_have_junctions() -> None:
    assert sorted(TRAINING_TOWNS + HELD_OUT_TOWNS) == list(BUILT_IN_TOWNS)
    assert len(set(BUILT_IN_TOWNS)) == len(BUILT_IN_TOWNS)
    for split in (TRAINING_TOWNS, HELD_OUT_TOWNS):
        assert any(waypoint.is_junction for name in split for waypoint in lane_starts(name))
        assert any(name in HILLY for name in split)
        assert {LANES.get(name, 1) for name in split} == {1, 2, 3, 4}


def test_towns_are_what_they_were() -> None:
    assert {name: fingerprint(name) for name in BUILT_IN_TOWNS} == FINGERPRINTS


@pytest.mark.long
def test_another_process_makes_the_same_towns() -> None:
    script = (
        "import hashlib; from sb3_carla.simulator.roads.built_in_towns import built_in_opendrive as b;"
        "from sb3_carla.simulator.roads.built_in_towns import BUILT_IN_TOWNS as t;"
        "print(*(hashlib.sha256(b(n).encode()).hexdigest()[:16] for n in t))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.split() == [fingerprint(name) for name in BUILT_IN_TOWNS]


def test_unknown_town_is_answered_with_the_known_ones() -> None:
    with pytest.raises(MapError, match=r"'Circuit99'; available: Circuit01, .*Village03"):
        built_in_opendrive("Circuit99")


@pytest.mark.parametrize("name", BUILT_IN_TOWNS)
def test_no_lane_ends_or_jumps(name: str) -> None:
    """From every start of a lane, 1.5 km along the straightest way; what was driven before is not driven again."""
    radius, stretch = TIGHT.get(name, (8.0, 0.2))
    seen: set[tuple[int, int, int]] = set()
    for start in lane_starts(name):
        waypoint = start
        for _ in range(1500):
            candidates = waypoint.next(1.0)
            assert candidates, f"lane {waypoint.lane_id} of road {waypoint.road_id} ends at {waypoint.s:.1f} m"
            following = straightest(waypoint, candidates)
            step = waypoint.transform.location.distance(following.transform.location)
            turn = heading_change(waypoint, following)
            where = f"road {waypoint.road_id}, lane {waypoint.lane_id}, {waypoint.s:.1f} m"
            # CARLA steps along the reference line: outer lanes go further in a bend, inner ones less.
            assert 1.0 - stretch < step < 1.0 + stretch, where
            assert turn < min(0.2, 1.05 * step / radius), where
            waypoint = following
            # Lanes lead on without a choice but at junctions, where the choice is always the same.
            place = (waypoint.road_id, waypoint.lane_id, round(waypoint.s))
            if place in seen:
                break
            seen.add(place)


@pytest.mark.parametrize("name", CIRCUITS)
def test_circuit_comes_back_to_its_start(name: str) -> None:
    lengths = []
    for start in lane_starts(name):
        if start.road_id != 1:
            continue
        waypoint, driven = start, 0.0
        while driven < 100.0 or waypoint.transform.location.distance(start.transform.location) > 1.2:
            (following,) = waypoint.next(1.0)
            driven += waypoint.transform.location.distance(following.transform.location)
            waypoint = following
            assert driven < 1500.0
        assert heading_change(start, waypoint) < 0.15
        lengths.append(driven)
    assert len(lengths) == 2 * LANES.get(name, 1)
    assert 500.0 < min(lengths) <= max(lengths) < 1250.0


@pytest.mark.parametrize("name", PLAIN_TOWNS)
def test_lanes_in_both_directions(name: str) -> None:
    lanes = {waypoint.lane_id for waypoint in lane_starts(name) if not waypoint.is_junction}
    count = LANES.get(name, 1)
    assert lanes == {*range(-count, 0), *range(1, count + 1)}
    for waypoint in lane_starts(name):
        if not waypoint.is_junction:
            opposite = waypoint
            while opposite.lane_id * waypoint.lane_id > 0:
                opposite = opposite.get_left_lane()
            assert opposite.lane_id == (1 if waypoint.lane_id < 0 else -1)
            if abs(waypoint.lane_id) < count:
                assert _right_kind(waypoint) == "Driving"


@pytest.mark.parametrize("name", BUILT_IN_TOWNS)
def test_extent_and_height(name: str) -> None:
    waypoints = load(name).generate_waypoints(2.0)
    places = [waypoint.transform.location for waypoint in waypoints]
    for axis in ("x", "y") if name not in MOTORWAYS else ():
        values = [getattr(place, axis) for place in places]
        assert max(values) - min(values) < 360.0 + 50.0 * max(0, LANES.get(name, 1) - 2)
    slopes = [abs(math.tan(math.radians(waypoint.transform.rotation.pitch))) for waypoint in waypoints]
    if name in HILLY:
        assert 0.9 * HILLY[name] < max(slopes) < 0.05
        assert 1.9 < max(place.z for place in places) - min(place.z for place in places) < 15.0
    else:
        assert max(slopes) < 1e-6
        assert max(abs(place.z) for place in places) < 1e-6


def _right_kind(waypoint: Any) -> str:
    lane = waypoint.get_right_lane()
    return "None" if lane is None else str(lane.lane_type)


def test_markings_are_varied() -> None:
    starts = [waypoint for name in PLAIN_TOWNS for waypoint in lane_starts(name) if not waypoint.is_junction]
    centres = {(str(w.left_lane_marking.type), str(w.left_lane_marking.color)) for w in starts if abs(w.lane_id) == 1}
    assert centres == {("Broken", "White"), ("Solid", "White"), ("Broken", "Yellow"), ("Solid", "Yellow")}
    assert {_right_kind(w) for w in starts} == {"Driving", "Shoulder", "Sidewalk", "None"}
    separators = {str(w.right_lane_marking.type) for w in starts if _right_kind(w) == "Driving"}
    edges = {str(w.right_lane_marking.type) for w in starts if _right_kind(w) != "Driving"}
    assert (separators, edges) == ({"Broken"}, {"Solid", "NONE"})


def test_widths_are_varied() -> None:
    starts = [waypoint for name in BUILT_IN_TOWNS for waypoint in lane_starts(name)]
    widths = {round(waypoint.lane_width, 2) for waypoint in starts}
    assert min(widths) == 2.8
    assert max(widths) == 4.0
    assert len(widths) >= 8
    markings = {round(waypoint.left_lane_marking.width, 2) for waypoint in starts if not waypoint.is_junction}
    assert min(markings) == 0.12
    assert max(markings) == 0.2


def test_styles_of_the_splits_differ() -> None:
    def widths(split: tuple[str, ...]) -> set[float]:
        return {round(waypoint.lane_width, 2) for name in split for waypoint in lane_starts(name)}

    training, held_out = widths(TRAINING_TOWNS), widths(HELD_OUT_TOWNS)
    assert training != held_out
    assert min(training) < min(held_out) <= max(held_out) < max(training)


@pytest.mark.parametrize("name", VILLAGES)
def test_village_has_crossings_with_every_way_through(name: str) -> None:
    root = ET.fromstring(built_in_opendrive(name))
    streets = {road.get("id") for road in root.iter("road") if road.get("junction") == "-1"}
    arms: dict[str, set[str]] = {}
    for road in root.iter("road"):
        for link in (road.find("link/predecessor"), road.find("link/successor")):
            assert link is not None
            if link.get("elementType") == "junction":
                arms.setdefault(str(link.get("elementId")), set()).add(str(road.get("id")))
    sizes = sorted(len(members) for members in arms.values())
    assert set(sizes) <= {3, 4}
    assert 3 in sizes
    for junction in root.iter("junction"):
        members = arms[str(junction.get("id"))]
        assert members <= streets
        ways = {
            (connection.get("incomingRoad"), _leads_to(root, str(connection.get("connectingRoad"))))
            for connection in junction.iter("connection")
        }
        assert ways == {(a, b) for a in members for b in members if a != b}


def _leads_to(root: ET.Element, road: str) -> str | None:
    link = root.find(f"road[@id='{road}']/link/successor")
    assert link is not None
    return link.get("elementId")


@pytest.mark.parametrize("name", VILLAGES)
def test_where_nothing_leads_straight_on_the_route_turns_right(name: str) -> None:
    """Whichever of the two turns is the lesser one by a few degrees."""
    turned = 0
    for end in _lane_ends(name):
        branches = end.next(2.0)
        turns = [_turn(end, branch) for branch in branches]
        if len(branches) > 1 and min(map(abs, turns)) > 45.0:
            assert _turn(end, straightest(end, branches)) == max(turns) > 0.0
            turned += 1
    assert turned or name in LANES or name in CITIES, "streets of two lanes have one for each turn"


def _turn(end: Any, branch: Any) -> float:
    """Change of heading over a way through a junction, right positive [deg]."""
    degrees = branch.next_until_lane_end(1.0)[-1].transform.rotation.yaw - end.transform.rotation.yaw
    return float((degrees + 180.0) % 360.0 - 180.0)


@pytest.mark.parametrize("split", [TRAINING_TOWNS, HELD_OUT_TOWNS])
def test_split_has_town_with_a_four_way_crossing(split: tuple[str, ...]) -> None:
    exits = [len(w.next(2.0)) for name in split if name in VILLAGES for w in _lane_ends(name)]
    assert max(exits) == 3


def _lane_ends(name: str) -> list[Any]:
    return [w.next_until_lane_end(1.0)[-1] for w in lane_starts(name) if not w.is_junction]


@pytest.mark.parametrize("name", BUILT_IN_TOWNS)
def test_town_has_scenarios(name: str) -> None:
    scenarios = Scenarios(load(name), 300.0)
    assert all(299.0 < scenarios[number].length < 303.0 for number in range(20))


def test_carla_draws_clothoids_where_we_do() -> None:
    """Middles of lanes in CARLA's map, against our own integration of the same reference lines."""
    root = ET.fromstring(built_in_opendrive("Circuit02"))
    checked = 0
    for geometry in root.iterfind("road[@id='3']/planView/geometry"):
        values = {key: float(value) for key, value in geometry.attrib.items()}
        shape = geometry[0].attrib
        curvature = float(shape.get("curvature", "0"))
        start, end = float(shape.get("curvStart", curvature)), float(shape.get("curvEnd", curvature))
        segment = Segment(values["length"], start, end)
        for share in (0.1, 0.5, 0.9):
            along = share * segment.length
            x, y, heading = pose_along((values["x"], values["y"], values["hdg"]), segment, along)
            waypoint = load("Circuit02").get_waypoint_xodr(3, -1, values["s"] + along)
            place = waypoint.transform.location
            # 1.5 m to the right of the reference line, and CARLA's y axis points the other way.
            expected = (x + 1.5 * math.sin(heading), -(y - 1.5 * math.cos(heading)))
            assert (place.x, place.y) == pytest.approx(expected, abs=2e-3)
            checked += 1
    assert checked == 15


def test_line_of_a_road_ends_where_the_next_begins() -> None:
    roads = ET.fromstring(built_in_opendrive("Circuit05")).findall("road")
    for road, following in zip(roads, roads[1:] + roads[:1], strict=True):
        last = road.findall("planView/geometry")[-1].attrib
        first = following.findall("planView/geometry")[0].attrib
        line = ReferenceLine(float(last["x"]), float(last["y"]), float(last["hdg"]), (Segment(float(last["length"])),))
        _, x, y, heading = line.starts()[-1]
        assert (x, y) == pytest.approx((float(first["x"]), float(first["y"])), abs=1e-6)
        assert math.remainder(heading - float(first["hdg"]), 2.0 * math.pi) == pytest.approx(0.0, abs=1e-6)


def test_seeds_differ() -> None:
    style = CircuitStyle(PLAIN)
    assert circuit_opendrive("Test", 1, style) == circuit_opendrive("Test", 1, style)
    assert circuit_opendrive("Test", 1, style) != circuit_opendrive("Test", 2, style)


def test_impossible_circuit_is_refused() -> None:
    with pytest.raises(MapError, match="no circuit of this style"):
        circuit_opendrive("Test", 0, CircuitStyle(PLAIN, length=(5000.0, 6000.0), turning=20.0))


def test_village_with_a_dead_end_is_refused() -> None:
    with pytest.raises(MapError, match="place 0 is a dead end: expected no street or at least 2, got 1"):
        village_opendrive("Test", 0, VillageStyle(PLAIN, missing=((0, 1),)))


def test_village_without_a_junction_is_refused() -> None:
    with pytest.raises(MapError, match="at least 3 streets meet"):
        village_opendrive("Test", 0, VillageStyle(PLAIN, columns=2, rows=2))


def test_no_two_drawn_villages_are_alike() -> None:
    styles = [random_village_style(seed) for seed in range(200)]
    assert len(set(styles)) == 200
    assert styles == [random_village_style(seed) for seed in range(200)]
    assert 0.3 < sum(style.section.lanes == 2 for style in styles) / 200 < 0.5
    assert {style.columns for style in styles if style.section.lanes == 2} == {3}


@pytest.mark.long
def test_every_style_drawn_can_be_built() -> None:
    """And what is left out never makes a dead end (which ``village_opendrive`` refuses)."""
    assert all(village_opendrive("Test", seed, random_village_style(seed)) for seed in range(40))
    for lanes in (3, 4):
        assert all(village_opendrive("Test", seed, random_village_style(seed, lanes)) for seed in range(40))


def test_sets_of_towns() -> None:
    assert expand_towns("Village01") == ["Village01"]
    assert expand_towns("training") == list(TRAINING_TOWNS)
    assert expand_towns(["Village01", "training"]) == ["Village01", *TRAINING_TOWNS]
    assert expand_towns(["held-out", "a.xodr"]) == [*HELD_OUT_TOWNS, "a.xodr"]


def test_names_as_carla_gives_them() -> None:
    given = [
        "Carla/Maps/Town01",
        "/Game/Carla/Maps/Town10HD_Opt",
        "/Game/my_package/Maps/Town/Town",
        "Maps/Town01.xodr",
    ]
    assert expand_towns(given) == ["Town01", "Town10HD_Opt", "Town", "Maps/Town01.xodr"]
