"""Re-projection: places on the ground land where geometry says, and where the engine's own camera draws them."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from drawn_recordings import ROAD, line_picture
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.recordings.pictures import Lens, PictureStore, focal_length
from sb3_carla.recordings.reprojection import Reprojector, Source
from sb3_carla.simulator.geometry import Pose, compose
from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.town import Town

OURS = CameraMount(84, 84)
WIDE = CameraMount(420, 420, fov=110.0, x=2.0, z=1.5, pitch=-5.0)


def lens(mount: CameraMount) -> Lens:
    return Lens(mount.width, mount.height, focal_length(mount), focal_length(mount))


def grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture[:, :, 0])


def test_the_same_camera_sees_the_same() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (84, 84)).astype(np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 2.0)  # type: ignore[assignment]
    found, seen = Reprojector(OURS).view([Source(picture, lens(OURS), OURS, (3.0, 1.0, 0.5))], (3.0, 1.0, 0.5))
    assert seen.all()
    assert np.abs(found.astype(int) - picture).max() <= 4  # bilinear samples a quarter of a pixel off, averaged


def test_a_point_on_the_ground_by_hand() -> None:
    # Camera level at 2 m height, 90 degrees, 85 pixels: focal length 42.5, axis through column and row 42.
    level = CameraMount(85, 85, x=0.0, z=2.0, pitch=0.0)
    # A dot 8 m ahead and 4 m to the right: column 42 + 42.5 * 4 / 8 = 63.25, row 42 + 42.5 * 2 / 8 = 52.625.
    picture = np.zeros((85, 85), np.uint8)
    picture[52:54, 63:65] = 255
    # The car stands 2 m further to the right: column 42 + 42.5 * 2 / 8 = 52.625, the same row.
    found, _ = Reprojector(level).view([Source(picture, lens(level), level, (0.0, 0.0, 0.0))], (0.0, 2.0, 0.0))
    rows, columns = np.mgrid[0:85, 0:85]
    weights = found / found.sum()
    # The dot's own centre is at column 63.5, row 52.5: 8.1 m ahead, 42.5 * 2 / 8.1 = 10.5 columns to the left of it.
    assert (columns * weights).sum() == pytest.approx(63.5 - 10.5, abs=0.15)
    assert (rows * weights).sum() == pytest.approx(52.5, abs=0.15)


def test_the_sky_is_only_rotated() -> None:
    level = CameraMount(85, 85, x=0.0, z=2.0, pitch=0.0)
    picture = np.zeros((85, 85), np.uint8)
    picture[20:23, 41:44] = 255  # 42.5 * tan(27.3 degrees) over the horizon, straight ahead
    source = Source(picture, lens(level), level, (0.0, 0.0, 0.0))
    shifted, _ = Reprojector(level).view([source], (5.0, 3.0, 0.0))
    assert np.abs(shifted.astype(int) - picture)[:40].max() <= 130  # where it was; only its edge is softer
    turned, seen = Reprojector(level).view([source], (0.0, 0.0, math.radians(10.0)))
    assert np.average(np.arange(85), weights=turned[:42].sum(axis=0)) == pytest.approx(
        42.0 - 42.5 * math.tan(math.radians(10.0)), abs=0.2
    )
    # Turned to the right by 10 degrees, the camera looks up to 55 degrees to the right, the source saw 45.
    edge = 42.5 * math.tan(math.radians(35.0)) + 42.0
    assert seen[41, : int(edge)].all()
    assert not seen[41, int(edge) + 2 :].any()


@pytest.mark.parametrize(
    ("shift", "turn_deg"), [(0.0, 0.0), (0.6, 0.0), (-0.6, 0.0), (0.0, 10.0), (0.0, -10.0), (-0.4, 7.0)]
)
def test_a_line_lands_where_geometry_says(shift: float, turn_deg: float) -> None:
    turn = math.radians(turn_deg)
    source = Source(grey(line_picture(WIDE, 1.5)), lens(WIDE), WIDE, (0.0, 0.0, 0.0))
    found, seen = Reprojector(OURS).view([source], (1.0, shift, turn))
    fine = CameraMount(840, 840)
    expected = cv2.resize(grey(line_picture(fine, 1.5 - shift, turn)), (84, 84), interpolation=cv2.INTER_AREA)
    ground = np.broadcast_to(np.arange(84)[:, None] >= 40, seen.shape) & seen  # thin far lines differ in their blur
    assert np.abs(found.astype(int) - expected)[ground].mean() < 3.0
    for row in range(45, 80, 6):
        if seen[row].all():
            centre, wanted = (
                np.average(np.arange(84), weights=np.abs(p[row].astype(int) - ROAD)) for p in (found, expected)
            )
            assert centre == pytest.approx(wanted, abs=0.35)


def test_unseen_ground_continues_along_the_cars_axis() -> None:
    level = CameraMount(168, 168, x=1.2, z=2.0, pitch=0.0)  # sees no ground nearer than 2 m before it
    source = Source(grey(line_picture(level, 1.0)), lens(level), level, (0.0, 0.0, 0.0))
    found, seen = Reprojector(OURS).view([source], (0.0, 0.0, 0.0))
    assert not seen[83].any()
    # The line, 1 m to the right, is still 1 m to the right: the lowest row looks 59.7 degrees down, 1.17 m ahead;
    # depth along the axis 1.17 cos(15) + 2 sin(15) = 1.65 m, so column 41.5 + 42 * 1 / 1.65 = 67.0.
    assert np.average(np.arange(84), weights=np.abs(found[83].astype(int) - ROAD)) == pytest.approx(67.0, abs=0.25)


def test_side_cameras_fill_what_the_front_one_did_not_see() -> None:
    narrow = CameraMount(200, 200, fov=60.0)
    sides = [CameraMount(300, 300, yaw=yaw) for yaw in (-60.0, 60.0)]
    black = np.zeros((200, 200), np.uint8)
    sources = [Source(black, lens(narrow), narrow, (0.0, 0.0, 0.0))]
    sources += [
        Source(np.full((300, 300), value, np.uint8), lens(mount), mount, (0.0, 0.0, 0.0))
        for value, mount in zip((100, 200), sides, strict=True)
    ]
    alone, some = Reprojector(OURS).view(sources[:1], (0.0, 0.0, 0.0))
    found, seen = Reprojector(OURS).view(sources, (0.0, 0.0, 0.0))
    assert not alone.any()
    assert seen.sum() > some.sum()
    assert found[42, 42] == 0
    assert found[42, 0] == 100
    assert found[42, 83] == 200


@pytest.mark.parametrize(("shift", "turn_deg"), [(0.0, 0.0), (0.6, 0.0), (0.0, 10.0), (-0.6, -5.0)])
def test_engine_draws_the_same_from_there(shift: float, turn_deg: float) -> None:
    town = Town.load("Circuit01")
    car = town.spawn_points[1]

    def drawn(mount: CameraMount, pose: Pose) -> NDArray[np.uint8]:
        place = compose(pose, Pose(x=mount.x, z=mount.z, pitch=math.radians(mount.pitch)))
        camera = Camera(mount.width, mount.height, math.radians(mount.fov))
        image = camera.render(town, place, town.ground(place.x, place.y, pose.z), Weather.preset("ClearNoon"), [])
        return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY)  # type: ignore[return-value]

    there = compose(car, Pose(x=0.2, y=shift, yaw=math.radians(turn_deg)))
    store = PictureStore(Reprojector(OURS).focal, grey=True)
    small = store.lens(WIDE)
    recorded = cv2.resize(drawn(WIDE, car), (small.width, small.height), interpolation=cv2.INTER_AREA)
    source = Source(recorded, small, WIDE, (car.x, car.y, car.yaw))  # type: ignore[arg-type]
    found, seen = Reprojector(OURS).view([source], (there.x, there.y, there.yaw))
    expected = drawn(OURS, there)
    near = np.broadcast_to(np.arange(84)[:, None] >= 42, seen.shape) & seen
    difference = np.abs(found.astype(int) - expected)[near]
    contrast = np.abs(expected.astype(int) - np.median(expected[near]))[near]
    assert difference.mean() < 4.0
    assert difference.mean() < 0.35 * contrast.mean()
