"""Equal arguments give equal pictures, bit for bit, whatever was drawn before and by which process."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from paths import TESTS

from sb3_carla.simulator import town as town_module
from sb3_carla.simulator.geometry import Pose, compose
from sb3_carla.simulator.physics.dynamics import VEHICLE_MODELS
from sb3_carla.simulator.rendering.bodies import Body
from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.look import Look
from sb3_carla.simulator.rendering.shared_rasters import SharedRasters
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.town import Town

TOWN = "Village01"
MOUNT = Pose(x=1.2, z=2.0, pitch=math.radians(-15.0))
CAR = VEHICLE_MODELS["vehicle.tesla.model3"].half_extents
LOOK = Look({"Road": (190.0, 180.0, 170.0), "Buildings": (60.0, 90.0, 120.0)}, {"Road": 25.0, "Buildings": 0.0})
Picture = NDArray[np.uint8]


def episode(
    town: Town, spawn: int, weather: str, look: Look | None = None, hidden: int = 0
) -> Callable[[Camera], list[Picture]]:
    """A drive of two frames behind another car, in all three kinds of picture."""

    def draw(camera: Camera) -> list[Picture]:
        pictures = []
        for step in range(2):
            car = compose(town.spawn_points[spawn], Pose(x=2.0 * step, yaw=0.02 * step))
            eye = compose(car, MOUNT)
            ground = town.ground(eye.x, eye.y, car.z)
            body = Body(compose(car, Pose(x=12.0, z=CAR[2])), CAR, (30 * step, 90, 200))
            sky = Weather.preset(weather)
            pictures += [
                camera.render(town, eye, ground, sky, [body], look=look, hidden_layers=hidden),
                camera.render_semantic(town, eye, ground, [body], hidden_layers=hidden),
                camera.render_depth(town, eye, ground, [body], hidden_layers=hidden),
            ]
        return pictures

    return draw


def episodes(town: Town) -> list[Callable[[Camera], list[Picture]]]:
    return [
        episode(town, 3, "ClearNoon"),
        episode(town, 8, "HardRainSunset", LOOK),
        episode(town, 3, "ClearNight", hidden=1),
        episode(town, 12, "ClearSunset", LOOK, hidden=32),
    ]


def digest(pictures: list[Picture]) -> str:
    return hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()


def all_digests(town: Town, *, reverse: bool = False) -> list[str]:
    """Of every episode, drawn by one camera."""
    camera = Camera(84, 84, 0.5 * math.pi)
    numbered = list(enumerate(episodes(town)))
    found = {number: digest(draw(camera)) for number, draw in (reversed(numbered) if reverse else numbered)}
    return [found[number] for number in range(len(numbered))]


@pytest.fixture(scope="module")
def town() -> Town:
    return Town.load(TOWN)


@pytest.fixture
def fd() -> Iterator[int]:
    number = os.memfd_create("test")
    yield number
    os.close(number)


def test_pictures_do_not_depend_on_order_camera_or_repetition(town: Town) -> None:
    first = all_digests(town)
    assert len(set(first)) == len(first), "the episodes differ"
    assert all_digests(town) == first
    assert all_digests(town, reverse=True) == first
    assert [digest(draw(Camera(84, 84, 0.5 * math.pi))) for draw in episodes(town)] == first
    assert all_digests(Town.load(TOWN)) == first


def test_other_cameras_do_no_harm(town: Town) -> None:
    first, *_ = episodes(town)
    camera = Camera(84, 84, 0.5 * math.pi)
    expected = digest(first(camera))
    for width, height, fov in ((1, 1, 1.0), (200, 150, 2.0), (84, 84, 0.3)):
        first(Camera(width, height, fov))
        assert digest(first(camera)) == expected


def test_another_process_draws_the_same(town: Town, fd: int) -> None:
    """It shares the town's memory, finds the kernels on disk, and draws in another order."""
    code = f"from test_repeatability import *\nprint(*all_digests(Town.load(TOWN, SharedRasters({fd})), reverse=True))"
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((here, str(TESTS)))}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, pass_fds=[fd], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == all_digests(town)
    assert all_digests(Town.load(TOWN, SharedRasters(fd))) == run.stdout.split()


def test_processes_share_one_scene(town: Town, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has built the scenery; this one builds none, and reads the same bits."""
    code = (
        "from sb3_carla.simulator.town import Town; from sb3_carla.simulator.rendering.shared_rasters import *;"
        f"print(len(Town.load({TOWN!r}, SharedRasters({fd})).scene.faces))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], pass_fds=[fd], capture_output=True, text=True, timeout=60, check=True
    )

    def nobody(*_: object) -> None:
        raise AssertionError("it is built already")

    monkeypatch.setattr(town_module, "build_scenery", nobody)
    size = os.fstat(fd).st_size
    shared = Town.load(TOWN, SharedRasters(fd))
    assert len(shared.scene.faces) == int(run.stdout)
    for ours, theirs in zip((*shared.scene, shared.lamps), (*town.scene, town.lamps), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(shared.obstacles) == len(town.obstacles) > 0
    assert os.fstat(fd).st_size == size
