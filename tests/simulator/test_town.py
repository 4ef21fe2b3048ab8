"""Towns: what is refused, where cars start, how the ground lies."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from paths import REAL_MAPS
from small_towns import Road, overpass_town, straight_town, town

from sb3_carla.errors import MapError
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.roads.built_in_towns import built_in_opendrive
from sb3_carla.simulator.town import Town


def test_spawn_points_stand_on_lanes_and_apart() -> None:
    points = straight_town().spawn_points
    assert len(points) >= 8
    assert {(round(point.y, 2), round(abs(point.yaw), 2)) for point in points} == {(1.75, 0.0), (-1.75, 3.14)}
    for index, point in enumerate(points):
        assert all(math.hypot(point.x - q.x, point.y - q.y) > 2.5 for q in points[:index])


def test_no_car_starts_in_a_junction() -> None:
    points = town(Road(), Road(x=400.0, length=60.0, junction=3)).spawn_points
    assert points
    assert max(point.x for point in points) <= 300.0


def test_level_ground_is_level() -> None:
    flat = straight_town(height=3.0)
    assert flat.is_flat
    assert flat.ground(10.0, 1.75, 3.0) == Ground(3.0)
    assert flat.ground(-500.0, 90.0, 0.0) == Ground(3.0)


def test_slope_is_that_of_the_road_in_world_axes() -> None:
    """A road towards OpenDRIVE's +y, CARLA's -y, that rises by 6 cm a metre."""
    hill = straight_town(heading=0.5 * math.pi, slope=0.06)
    assert not hill.is_flat
    for x in (-1.75, 1.75):  # against and along the reference line
        ground = hill.ground(x, -100.0, 6.0)
        assert (ground.z, ground.slope_x, ground.slope_y) == pytest.approx((6.0, 0.0, -0.06), abs=1e-3)


def test_ground_of_a_bridge_is_found_by_height() -> None:
    overpass = overpass_town()
    assert overpass.ground(150.0, 1.75, 0.3).z == pytest.approx(0.0)
    assert overpass.ground(150.0, 1.75, 8.3).z == pytest.approx(8.0)


@pytest.mark.parametrize(("declared", "encoding"), [("ISO-8859-1", "latin-1"), ("UTF-8", "utf-8-sig"), (None, "utf-8")])
def test_files_are_read_in_the_encoding_that_they_declare(
    declared: str | None, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration = '<?xml version="1.0"?>' if declared is None else f'<?xml version="1.0" encoding="{declared}"?>'
    text = built_in_opendrive("Circuit01").partition("?>")[2].replace('name="Road 1"', 'name="Straße"', 1)
    (tmp_path / "road.xodr").write_bytes((declaration + text).encode(encoding))
    assert "Straße" in Town.load(str(tmp_path / "road.xodr")).opendrive


def test_useless_maps_are_named(tmp_path: Path) -> None:
    cases = {"none.xodr": None, "text.xodr": "hello", "other.xodr": "<svg/>", "empty.xodr": "<OpenDRIVE/>"}
    for name, text in cases.items():
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        with pytest.raises(MapError, match=name.removesuffix(".xodr")):
            Town.load(str(path))
    with pytest.raises(MapError, match="Atlantis"):
        Town.load("Atlantis")
    (tmp_path / "odd.xodr").write_text('<?xml version="1.0" encoding="klingon"?><OpenDRIVE/>')
    with pytest.raises(MapError, match=r"odd\.xodr' cannot be read: unknown encoding: klingon"):
        Town.load(str(tmp_path / "odd.xodr"))


DAMAGES = [
    (
        'length="300.0" id',
        'length="1e20" id',
        "road '1': length of <road>: expected a number from 0 to 100000, got '1e20'",
    ),
    ('length="300.0">', 'length="-3">', "road '1': length of <geometry>: expected a number from 0 to 100000, got '-3'"),
    ('x="0.0"', 'x="nan"', "x of <geometry>: expected a number from -100000 to 100000, got 'nan'"),
    ('x="0.0"', "", "x of <geometry>: expected a number from -100000 to 100000, got none"),
    ('a="3.5"', 'a="3,5"', "a of <width>: expected a number from -100000 to 100000, got '3,5'"),
    ('<lane id="1"', '<lane id="one"', "id of <lane>: expected an integer of 32 bits, got 'one'"),
    ('id="1" junction', 'id="4294967296" junction', "id of <road>: expected an integer of 32 bits, got '4294967296'"),
    ("<line/>", "", "road '1' has a <geometry> without a shape, expected one of line, arc, spiral, poly3, paramPoly3"),
    ("<line/>", "<arc/>", "curvature of <arc>: expected a number from -100000 to 100000, got none"),
    ('<geometry s="0"', '<geometry s="7"', "road '1': its first <geometry> begins at 7 m, expected 0"),
    ("planView", "planview", "road '1' has no <planView>/<geometry>, expected at least one"),
    ("laneSection", "lanesection", "road '1' has no <lanes>/<laneSection>, expected at least one"),
    ("center>", "centre>", "road '1' has a <laneSection> without a <center>/<lane>, expected one"),
]
"""What stands in a map, what is put there instead, and what is said about it."""


@pytest.mark.parametrize(("old", "new", "complaint"), DAMAGES)
def test_damaged_maps_are_refused_with_the_place(old: str, new: str, complaint: str) -> None:
    text = straight_town().opendrive
    assert old in text
    with pytest.raises(MapError, match=re.escape(complaint)) as caught:
        Town.from_opendrive("Damaged", text.replace(old, new))
    assert str(caught.value).startswith("OpenDRIVE map 'Damaged': road '")


def test_map_without_bounds_is_refused_before_it_is_painted() -> None:
    endless = straight_town().opendrive.replace('a="3.5" b="0"', 'a="3.5" b="90000"')
    with pytest.raises(MapError, match=r"the lanes reach over x from .* expected no coordinate above 100000 m"):
        _ = Town.from_opendrive("Endless", endless).raster


@pytest.mark.parametrize("name", ["Town01", "Town02", "Town04"])
def test_real_towns_have_ground_under_every_spawn_point(name: str) -> None:
    path = REAL_MAPS / f"{name}.xodr"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    real = Town.load(str(path))
    assert real.name == name
    assert len(real.spawn_points) > 50
    for point in real.spawn_points:
        assert real.ground(point.x, point.y, point.z).z == pytest.approx(point.z, abs=0.02)
