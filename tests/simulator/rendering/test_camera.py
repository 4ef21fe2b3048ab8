"""The picture against projections worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from paths import REAL_MAPS
from small_towns import furnished, overpass_town, straight_town

from sb3_carla.simulator.geometry import Pose, compose
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering.bodies import Body
from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.ground_polygons import ROAD_LINES, ROADS, TERRAIN
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.town import Town

FLAT = Ground(0.0)
CLEAR = Weather()
HEIGHT = 2.0
CAR, SKY = 14, 11


@pytest.fixture(scope="module")
def straight() -> Town:
    return furnished(straight_town())


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera(84, 84, math.pi / 2.0)


def labels(camera: Camera, town: Town, pose: Pose, boxes: tuple[Body, ...] = ()) -> NDArray[np.uint8]:
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
    lines = np.flatnonzero(seen[row] == ROAD_LINES)
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
    box = Body(Pose(x=50.0 + 10.0 + 2.0, y=1.75, z=1.0), (2.0, 1.0, 1.0))  # its back is 10 m ahead
    rows, columns = np.nonzero(labels(camera, straight, ON_LANE, (box,)) == CAR)
    assert abs(columns.min() - column_of(-1.0, 10.0)) <= 1.0
    assert abs(columns.max() - column_of(1.0, 10.0)) <= 1.0
    assert abs(rows.max() - row_of(10.0)) <= 1.0
    assert abs(rows.min() - 41.5) <= 1.0  # as high as the camera


def test_nearer_box_hides_the_farther_one_whatever_their_order(camera: Camera, straight: Town) -> None:
    near = Body(Pose(x=60.0, y=1.75, z=1.0), (1.0, 1.0, 1.0), tag=14)
    far = Body(Pose(x=75.0, y=1.75, z=1.0), (1.0, 3.0, 2.0), tag=15)
    first, second = labels(camera, straight, ON_LANE, (near, far)), labels(camera, straight, ON_LANE, (far, near))
    np.testing.assert_array_equal(first, second)
    assert first[44, 41] == 14
    assert 15 in first


def test_depth_of_a_box_is_that_of_its_back(camera: Camera, straight: Town) -> None:
    box = Body(Pose(x=62.0, y=1.75, z=1.0), (2.0, 1.0, 1.0))
    image = camera.render_depth(straight, ON_LANE, FLAT, (box,)).astype(np.float64)
    depth = (image[44, 41, 2] + 256.0 * image[44, 41, 1] + 65536.0 * image[44, 41, 0]) / (2**24 - 1) * 1000.0
    assert depth == pytest.approx(10.0, abs=0.01)


@pytest.mark.parametrize("offset", [-1.0, 0.0, 0.5, 3.0])
def test_box_around_or_behind_the_camera_does_no_harm(camera: Camera, straight: Town, offset: float) -> None:
    box = Body(Pose(x=50.0 + offset, y=1.75, z=1.0), (2.0, 1.0, 1.5))
    camera.render(straight, ON_LANE, FLAT, CLEAR, (box,))
    assert (labels(camera, straight, Pose(x=58.0, y=1.75, z=HEIGHT), (box,)) != CAR).all()


def test_pictures_depend_on_the_arguments_alone(straight: Town) -> None:
    one, other = Camera(84, 84, math.pi / 2.0), Camera(84, 84, math.pi / 2.0)
    for shift in np.linspace(0.0, 0.002, 7):  # other heights and tilts pass through the cache
        other.render(straight, Pose(x=10.0, z=HEIGHT + shift, pitch=shift), FLAT, Weather.preset("HardRainNoon"))
    np.testing.assert_array_equal(
        one.render(straight, ON_LANE, FLAT, CLEAR), other.render(straight, ON_LANE, FLAT, CLEAR)
    )


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
    level_town = furnished(straight_town())
    level = camera.render(level_town, compose(Pose(x=50.0, y=1.75), mount), FLAT, CLEAR)
    ground = Ground(3.0, slope_x=slope)
    car = Pose(x=50.0, y=1.75, z=3.0, pitch=math.atan(slope))
    tilted = camera.render(level_town, compose(car, mount), Ground(3.0 + slope * 1.2, slope_x=slope), CLEAR)
    assert ground.z == 3.0
    assert np.abs(level.astype(int) - tilted.astype(int)).mean() < 4.0


def test_long_lorry_is_painted_in_the_right_order(camera: Camera, straight: Town) -> None:
    """A lorry's middle is nearer than the car's, but the car stands between it and the camera."""
    lorry = Body(Pose(x=64.0, y=-1.0, z=1.5), (9.0, 1.2, 1.5), tag=15)
    car = Body(Pose(x=66.0, y=1.75, z=0.75), (2.0, 1.0, 0.75), tag=14)
    both = labels(camera, straight, ON_LANE, (car, lorry))
    alone = labels(camera, straight, ON_LANE, (car,))
    np.testing.assert_array_equal(both[alone == CAR], CAR)
    np.testing.assert_array_equal(both, labels(camera, straight, ON_LANE, (lorry, car)))


def test_camera_that_looks_straight_down_sees_a_plan(straight: Town) -> None:
    overhead = Camera(100, 50, math.pi / 2.0)  # from 50 m: 1 m a pixel
    seen = overhead.render_semantic(straight, Pose(x=150.0, y=0.0, z=50.0, pitch=-math.pi / 2.0), FLAT)[:, :, 2]
    road = np.isin(seen, (ROADS, ROAD_LINES))  # 7 m wide, up the picture
    np.testing.assert_array_equal(road.sum(axis=1), np.full(50, 8))
    assert road[:, 46:54].all()
    turned = overhead.render_semantic(
        straight, Pose(x=150.0, y=0.0, z=50.0, pitch=-math.pi / 2.0, yaw=math.pi / 2.0), FLAT
    )[:, :, 2]
    assert np.isin(turned[22:28], (ROADS, ROAD_LINES)).all()


def test_rolled_camera_sees_a_rolled_horizon(camera: Camera, straight: Town) -> None:
    """Right side down by 0.2 rad: the horizon drops to the left by tan(0.2) pixels a column, seen from the camera."""
    sky = labels(camera, straight, Pose(x=50.0, y=1.75, z=HEIGHT, roll=0.2)) == SKY
    edge = sky.sum(axis=0)
    assert edge[10] - edge[73] == pytest.approx(63 * math.tan(0.2), abs=2.0)


def test_camera_on_a_car_works_its_view_out_once(camera: Camera, straight: Town) -> None:
    fresh = Camera(84, 84, math.pi / 2.0)
    mount = Pose(x=1.2, y=0.1, z=2.0, pitch=-0.2)
    for step in range(60):
        slope = 0.08 * math.sin(0.1 * step)
        car = Pose(x=50.0 + step, y=1.75, z=1.0, pitch=math.atan(slope), yaw=0.01 * step)
        slope_x, slope_y = slope * math.cos(car.yaw), slope * math.sin(car.yaw)
        eye = compose(car, mount)
        plane = Ground(1.0 + slope_x * (eye.x - car.x) + slope_y * (eye.y - car.y), slope_x, slope_y)
        fresh.render(straight, eye, plane, CLEAR)
    assert len(fresh._views) <= 4  # neighbours in the rounding


def test_car_on_the_road_below_a_bridge_is_not_seen_through_it(camera: Camera) -> None:
    overpass = furnished(overpass_town())
    below = Body(Pose(x=151.75, y=1.75, z=0.75), (2.0, 1.0, 0.75))
    above = Body(Pose(x=151.75, y=1.75, z=8.75), (1.0, 2.0, 0.75))
    on_bridge = Pose(x=151.75, y=20.0, z=8.0 + HEIGHT, yaw=-math.pi / 2.0)
    for box, seen in ((below, False), (above, True)):
        picture = camera.render_semantic(overpass, on_bridge, Ground(8.0), (box,))[:, :, 2]
        assert (picture == CAR).any() == seen


@pytest.mark.parametrize("distance", [100.0, 165.0])
def test_pictures_do_not_depend_on_those_before(distance: float) -> None:
    """An overpass that is far away, but in sight, does not stay as another camera left it."""
    overpass, narrow = furnished(overpass_town()), Camera(84, 84, math.radians(6.0))
    rectangle = overpass.raster.overpasses[0]
    here = Pose(x=rectangle.low[0] - distance, y=1.75, z=HEIGHT)
    pictures = []
    for y, height in ((20.0, 8.0), (-20.0, 8.0), (1.75, 0.0)):
        narrow.render(overpass, Pose(x=151.75, y=y, z=height + HEIGHT), Ground(height), CLEAR)
        pictures.append((narrow.render(overpass, here, FLAT, CLEAR), labels(narrow, overpass, here)))
    for picture, seen in pictures:
        assert (picture == pictures[-1][0]).all()
        assert (seen == pictures[-1][1]).all()


@pytest.mark.parametrize(("width", "height", "fov"), [(0, 84, 1.0), (84, 9000, 1.0), (84, 84, 0.0), (84, 84, 3.2)])
def test_impossible_cameras_are_refused(width: int, height: int, fov: float) -> None:
    with pytest.raises(ValueError, match="camera: "):
        Camera(width, height, fov)


@pytest.mark.parametrize("name", ["Town01", "Town02", pytest.param("Town04", marks=pytest.mark.long)])
def test_real_towns_show_road_ahead_of_every_spawn_point(camera: Camera, name: str) -> None:
    path = REAL_MAPS / f"{name}.xodr"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    real = Town.load(str(path))
    for point in real.spawn_points[:: max(1, len(real.spawn_points) // 25)]:
        ground = real.ground(point.x, point.y, point.z)
        seen = camera.render_semantic(real, compose(point, Pose(x=1.2, z=2.0, pitch=-0.26)), ground)[:, :, 2]
        assert np.isin(seen[55:, 41], (ROADS, ROAD_LINES)).mean() > 0.95, point
