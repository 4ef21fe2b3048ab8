"""Towns: what is refused, where cars start, how the ground lies."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from painted import Road, crossing_town, straight_town, town

from sb3_carla.errors import MapError
from sb3_carla.simulator.dynamics import Ground
from sb3_carla.simulator.town import Town

REAL_MAPS = Path(__file__).resolve().parents[3] / "shared" / "maps"


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
    crossing = crossing_town()
    assert crossing.ground(150.0, 1.75, 0.3).z == pytest.approx(0.0)
    assert crossing.ground(150.0, 1.75, 8.3).z == pytest.approx(8.0)


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
