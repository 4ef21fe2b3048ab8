"""The picture against projections worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sb3_carla.errors import MapError
from sb3_carla.simulator.camera import Camera
from sb3_carla.simulator.dynamics import Ground
from sb3_carla.simulator.geometry import Pose, compose
from sb3_carla.simulator.raster import LOWER, ROAD_LINE, ROADS, TERRAIN, UPPER
from sb3_carla.simulator.scene import Box
from sb3_carla.simulator.town import Town
from sb3_carla.simulator.weather import Weather

REAL_MAPS = Path(__file__).resolve().parents[3] / "shared" / "maps"
FLAT = Ground(0.0)
CLEAR = Weather()
HEIGHT = 2.0
CAR, SKY = 14, 11


def lane(number: int, width: float = 3.5) -> str:
    return (
        f'<lane id="{number}" type="driving" level="false"><width sOffset="0" a="{width}" b="0" c="0" d="0"/>'
        '<roadMark sOffset="0" type="solid" weight="standard" color="white" width="0.2" laneChange="none"/></lane>'
    )


def road(number: int, x: float, y: float, heading: float, length: float, height: float = 0.0) -> str:
    return (
        f'<road name="" length="{length}" id="{number}" junction="-1"><link/><planView>'
        f'<geometry s="0" x="{x}" y="{y}" hdg="{heading}" length="{length}"><line/></geometry></planView>'
        f'<elevationProfile><elevation s="0" a="{height}" b="0" c="0" d="0"/></elevationProfile><lateralProfile/>'
        f'<lanes><laneSection s="0"><left>{lane(1)}</left><center><lane id="0" type="none" level="false">'
        '<roadMark sOffset="0" type="broken" weight="standard" color="white" width="0.2" laneChange="both"/></lane>'
        f"</center><right>{lane(-1)}</right></laneSection></lanes></road>"
    )


def town(*roads: str) -> Town:
    header = '<header revMajor="1" revMinor="4" name="" version="1" north="0" south="0" east="0" west="0"/>'
    return Town.from_opendrive("Test", f'<?xml version="1.0"?><OpenDRIVE>{header}{"".join(roads)}</OpenDRIVE>')


@pytest.fixture(scope="module")
def straight() -> Town:
    return town(road(1, 0.0, 0.0, 0.0, 300.0))


@pytest.fixture(scope="module")
def crossing() -> Town:
    """A road along x at height 0, and one along y that crosses it 8 m above, at (150, 0)."""
    return town(road(1, 0.0, 0.0, 0.0, 300.0), road(2, 150.0, -150.0, math.pi / 2.0, 300.0, height=8.0))


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera(84, 84, math.pi / 2.0)


def labels(camera: Camera, town: Town, pose: Pose, boxes: tuple[Box, ...] = ()) -> NDArray[np.uint8]:
    return camera.render_semantic(town, pose, FLAT, boxes)[:, :, 2]


def row_of(distance: float, focal: float = 42.0) -> float:
    """Row where a level camera sees the ground that far ahead: 41.5 is the horizon."""
    return 41.5 + focal * HEIGHT / distance


def column_of(right: float, distance: float, focal: float = 42.0) -> float:
    return 41.5 + focal * right / distance


ON_LANE = Pose(x=50.0, y=1.75, z=HEIGHT)  # the middle of the right lane: OpenDRIVE's -y is CARLA's +y


def test_horizon_and_markings_are_where_the_pinhole_model_puts_them(camera: Camera, straight: Town) -> None:
    seen = labels(camera, straight, ON_LANE)
    assert (seen[:41] == SKY).all()
    row = 62  # ground at 42 * 2 / (62 - 41.5) = 4.1 m
    distance = 42.0 * HEIGHT / (row - 41.5)
    lines = np.flatnonzero(seen[row] == ROAD_LINE)
    assert abs(lines.max() - column_of(1.75, distance)) <= 1.5
    assert seen[row, 41] == ROADS
    assert seen[row, 83] == TERRAIN


def test_depth_of_the_ground_follows_from_its_row(camera: Camera, straight: Town) -> None:
    image = camera.render_depth(straight, ON_LANE, FLAT).astype(np.float64)
    depth = (image[:, :, 2] + 256.0 * image[:, :, 1] + 65536.0 * image[:, :, 0]) / (2**24 - 1) * 1000.0
    for row in (45, 60, 83):
        np.testing.assert_allclose(depth[row], 42.0 * HEIGHT / (row - 41.5), rtol=1e-3)
    np.testing.assert_allclose(depth[:41], 1000.0)


def test_box_covers_the_rectangle_that_its_corners_project_to(camera: Camera, straight: Town) -> None:
    box = Box(Pose(x=50.0 + 10.0 + 2.0, y=1.75, z=1.0), (2.0, 1.0, 1.0))  # its back is 10 m ahead
    rows, columns = np.nonzero(labels(camera, straight, ON_LANE, (box,)) == CAR)
    assert abs(columns.min() - column_of(-1.0, 10.0)) <= 1.0
    assert abs(columns.max() - column_of(1.0, 10.0)) <= 1.0
    assert abs(rows.max() - row_of(10.0)) <= 1.0
    assert abs(rows.min() - 41.5) <= 1.0  # as high as the camera


def test_nearer_box_hides_the_farther_one_whatever_their_order(camera: Camera, straight: Town) -> None:
    near = Box(Pose(x=60.0, y=1.75, z=1.0), (1.0, 1.0, 1.0), tag=14)
    far = Box(Pose(x=75.0, y=1.75, z=1.0), (1.0, 3.0, 2.0), tag=15)
    first, second = labels(camera, straight, ON_LANE, (near, far)), labels(camera, straight, ON_LANE, (far, near))
    np.testing.assert_array_equal(first, second)
    assert first[44, 41] == 14
    assert 15 in first


def test_depth_of_a_box_is_that_of_its_back(camera: Camera, straight: Town) -> None:
    box = Box(Pose(x=62.0, y=1.75, z=1.0), (2.0, 1.0, 1.0))
    image = camera.render_depth(straight, ON_LANE, FLAT, (box,)).astype(np.float64)
    depth = (image[44, 41, 2] + 256.0 * image[44, 41, 1] + 65536.0 * image[44, 41, 0]) / (2**24 - 1) * 1000.0
    assert depth == pytest.approx(10.0, abs=0.01)


@pytest.mark.parametrize("offset", [-1.0, 0.0, 0.5, 3.0])
def test_box_around_or_behind_the_camera_does_no_harm(camera: Camera, straight: Town, offset: float) -> None:
    box = Box(Pose(x=50.0 + offset, y=1.75, z=1.0), (2.0, 1.0, 1.5))
    camera.render(straight, ON_LANE, FLAT, CLEAR, (box,))
    assert (labels(camera, straight, Pose(x=58.0, y=1.75, z=HEIGHT), (box,)) != CAR).all()


def test_pictures_depend_on_the_arguments_alone(straight: Town) -> None:
    one, other = Camera(84, 84, math.pi / 2.0), Camera(84, 84, math.pi / 2.0)
    for shift in np.linspace(0.0, 0.002, 7):  # other heights and tilts pass through the cache
        other.render(straight, Pose(x=10.0, z=HEIGHT + shift, pitch=shift), FLAT, Weather.preset("HardRainNoon"))
    np.testing.assert_array_equal(
        one.render(straight, ON_LANE, FLAT, CLEAR), other.render(straight, ON_LANE, FLAT, CLEAR)
    )


def test_edge_of_the_road_is_plain_in_grey(camera: Camera, straight: Town) -> None:
    image = camera.render(straight, ON_LANE, FLAT, CLEAR)[:, :, :3].mean(axis=2)
    seen = labels(camera, straight, ON_LANE)
    near = np.arange(84)[:, None] > 50
    means = [image[near & (seen == label)].mean() for label in (ROAD_LINE, ROADS, TERRAIN)]
    assert means[0] > means[1] + 60.0
    assert means[1] > means[2] + 20.0


def test_far_broken_marking_does_not_flicker(camera: Camera, straight: Town) -> None:
    column = round(column_of(-1.75, 30.0))
    row = round(row_of(30.0))
    shades = [
        camera.render(straight, Pose(x=50.0 + 0.1 * k, y=1.75, z=HEIGHT), FLAT, CLEAR)[row, column, :3].mean()
        for k in range(90)  # one period of the dashes
    ]
    steps = np.abs(np.diff(shades))
    assert steps.max() < 12.0


def test_road_on_a_slope_looks_like_a_level_one(camera: Camera) -> None:
    slope = 0.06
    mount = Pose(x=1.2, z=2.0, pitch=-0.25)
    level_town = town(road(1, 0.0, 0.0, 0.0, 300.0))
    level = camera.render(level_town, compose(Pose(x=50.0, y=1.75), mount), FLAT, CLEAR)
    ground = Ground(3.0, slope_x=slope)
    car = Pose(x=50.0, y=1.75, z=3.0, pitch=math.atan(slope))
    tilted = camera.render(level_town, compose(car, mount), Ground(3.0 + slope * 1.2, slope_x=slope), CLEAR)
    assert ground.z == 3.0
    assert np.abs(level.astype(int) - tilted.astype(int)).mean() < 4.0


@pytest.mark.parametrize(("height", "layer"), [(0.0, LOWER), (8.0, UPPER)])
def test_roads_above_each_other_are_told_apart(crossing: Town, height: float, layer: int) -> None:
    ground = Ground(height)
    assert crossing.raster.layer(130.0, 1.75, ground) == layer
    overhead = Camera(101, 101, math.pi / 2.0)
    above = Pose(x=150.0, y=0.0, z=height + 10.0, pitch=-math.pi / 2.0)
    seen = overhead.render_semantic(crossing, above, ground)[:, :, 2]
    # 20 m by 20 m around the crossing, +x up and +y right: this road's edge, 3.5 m from its middle, is not interrupted.
    edge = 50 + round(3.5 / 20.0 * 101)
    strip = seen[100 - edge - 2 : 100 - edge + 3].T if height else seen[:, edge - 2 : edge + 3]
    assert (strip == ROAD_LINE).any(axis=1).mean() > 0.98


def test_weather_changes_the_picture(camera: Camera, straight: Town) -> None:
    def grey(weather: Weather) -> NDArray[np.float64]:
        return camera.render(straight, ON_LANE, FLAT, weather)[:, :, :3].mean(axis=2)

    clear = grey(CLEAR)
    far, near = slice(43, 47), slice(60, 84)
    fog = grey(Weather(fog_density=90.0))
    assert fog[far].std() < 0.6 * clear[far].std()
    night = grey(Weather(sun_altitude_angle=-60.0))
    assert night.mean() < 0.5 * clear.mean()
    wet = grey(Weather(wetness=100.0))
    assert wet[near].mean() < clear[near].mean()
    rain = grey(Weather(precipitation=90.0))
    assert np.abs(rain - clear).max() > 20.0
    np.testing.assert_array_equal(grey(Weather(precipitation=90.0)), rain)


def test_presets_are_carlas() -> None:
    assert Weather.preset("ClearNoon") == Weather()
    assert Weather.preset("HardRainNoon").precipitation == 100.0
    with pytest.raises(ValueError, match="unknown weather preset 'Snow'"):
        Weather.preset("Snow")


@pytest.mark.parametrize(("width", "height", "fov"), [(0, 84, 1.0), (84, 9000, 1.0), (84, 84, 0.0), (84, 84, 3.2)])
def test_impossible_cameras_are_refused(width: int, height: int, fov: float) -> None:
    with pytest.raises(ValueError, match="camera: "):
        Camera(width, height, fov)


# --- towns -------------------------------------------------------------------------------------------------------


def test_spawn_points_stand_on_lanes_and_apart(straight: Town) -> None:
    points = straight.spawn_points
    assert len(points) >= 8
    assert {round(point.y, 2) for point in points} == {1.75, -1.75}
    for index, point in enumerate(points):
        assert all(math.hypot(point.x - q.x, point.y - q.y) > 2.5 for q in points[:index])


def test_ground_of_a_bridge_is_found_by_height(crossing: Town) -> None:
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
def test_real_towns_show_road_ahead_of_every_spawn_point(camera: Camera, name: str) -> None:
    path = REAL_MAPS / f"{name}.xodr"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    real = Town.load(str(path))
    for point in real.spawn_points[:: max(1, len(real.spawn_points) // 25)]:
        ground = real.ground(point.x, point.y, point.z)
        seen = camera.render_semantic(real, compose(point, Pose(x=1.2, z=2.0, pitch=-0.26)), ground)[:, :, 2]
        assert np.isin(seen[55:, 41], (ROADS, ROAD_LINE)).mean() > 0.95, point
