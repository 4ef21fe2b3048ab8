"""``CarlaRecorded-v0``: Gymnasium's contract, starts, motion and ends on recordings whose lanes are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from drawn_recordings import straight_recording
from gymnasium.utils.env_checker import check_env
from paths import PICTURES
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import sb3_carla
from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.envs.carla_lane import CarlaLaneEnv
from sb3_carla.envs.carla_recorded import CarlaRecordedEnv
from sb3_carla.envs.kinematic_car import KinematicCar

CAMERA = CameraMount(168, 168, fov=100.0, x=2.0)
SPEED: dict[str, Any] = {"action_repeat": 4, "control": {"longitudinal": "speed", "lateral_acceleration": 6.0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A straight lane of 79 m."""
    return straight_recording(tmp_path / "straight", CAMERA, moments=80)


def drive(env: CarlaRecordedEnv, action: Any = None, **options: Any) -> dict[str, Any]:
    """Drive to the end with one action, or with the scripted driver; the last info."""
    driver = sb3_carla.PurePursuitDriver(env)
    env.reset(seed=0, options=options)
    while True:
        _, _, terminated, truncated, info = env.step(driver.act() if action is None else np.array(action, np.float32))
        if terminated or truncated:
            return info


def test_contract(folder: Path) -> None:
    env = gym.make("CarlaRecorded-v0", recording=folder, render_mode="rgb_array").unwrapped
    check_env(env)
    check_env_for_sb3(env)


def test_same_spaces_and_infos_as_the_lane_environment(folder: Path) -> None:
    env, lane = CarlaRecordedEnv(folder, **SPEED), CarlaLaneEnv(**SPEED)
    assert env.observation_space == lane.observation_space
    assert env.action_space == lane.action_space
    for key in ("speed_mps", "lateral_offset_m", "reward_terms", "privileged_state", "town", "scenario"):
        assert key in env.reset()[1]
    ended = drive(env)
    for key in ("is_success", "end_reason", "lateral_deviation_m", "mean_speed_mps", "lane_invasions", "departures"):
        assert key in ended


def test_docstring_tells_every_info_and_argument(folder: Path) -> None:
    text = CarlaRecordedEnv.__doc__ or ""
    assert all(f"``{key}``" in text for key in drive(CarlaRecordedEnv(folder, **SPEED)))
    import inspect

    assert all(f"| `{name}` |" in text for name in inspect.signature(CarlaRecordedEnv).parameters)


def test_start(folder: Path) -> None:
    env = CarlaRecordedEnv(folder)
    _, info = env.reset(seed=0, options={"station": 20.0, "lateral_offset": 0.5, "heading_error": -0.1})
    assert info["station_m"] == pytest.approx(20.0)
    assert info["lateral_offset_m"] == pytest.approx(0.5)
    assert info["heading_error_rad"] == pytest.approx(-0.1)
    assert (info["speed_mps"], info["town"], info["weather"], info["sequence"]) == (0.0, "Drawn", "ClearNoon", "a")
    # The recording camera is 0.8 m before ours: the drive begins where the first picture shows the same.
    assert env.reset(seed=0)[1]["station_m"] == pytest.approx(0.8)


def test_ends(folder: Path) -> None:
    env = CarlaRecordedEnv(folder, **SPEED)
    done = drive(env)
    assert (done["end_reason"], done["is_success"], done["route_completion"]) == ("route_end", True, 1.0)
    assert done["lateral_deviation_m"] < 0.01
    left = drive(env, [0.5, 0.5])
    assert (left["end_reason"], left["departures"]) == ("off_lane", 1)
    assert drive(env, [0.0, -1.0])["end_reason"] == "stuck"
    assert drive(env, [0.0, -0.7])["end_reason"] == "time_limit"  # 1.2 m/s
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(2, np.float32))


def test_pedal_and_wheels_by_hand() -> None:
    car = KinematicCar()
    for _ in range(20):  # 1 s of full throttle: 4 m/s^2 less 0.12 of the wheels
        car.tick(0.0, 1.0, 0.05)
    assert car.speed == pytest.approx(3.88, abs=0.01)
    assert car.x == pytest.approx(0.5 * 3.88, abs=0.06)
    car = KinematicCar(speed=2.0, wheel_angle=math.radians(20.0))
    before = car.heading
    car.tick(0.5 / 0.964, 0.03, 0.05)  # 20 of 40 degrees, which the steering curve makes 3.6 % fewer at 2 m/s
    # Yaw rate v cos(beta) tan(delta) / L = 2 * 0.9838 * 0.3640 / 2.875 = 0.2491 rad/s
    assert car.heading - before == pytest.approx(0.2491 * 0.05, rel=0.02)
    car = KinematicCar(speed=1.0)
    for _ in range(3):
        car.tick(1.0, -1.0, 0.05)  # 8.12 m/s^2
    assert car.speed == 0.0
    assert car.wheel_angle == pytest.approx(3 * 0.075)  # 1.5 rad/s


def test_one_seed_one_episode(tmp_path: Path) -> None:
    folders = [straight_recording(tmp_path / name, CAMERA, name=name) for name in ("a", "b", "c")]
    env = CarlaRecordedEnv(folders, **SPEED)

    def episodes(seed: int) -> list[Any]:
        found: list[Any] = []
        for i in range(5):
            _, info = env.reset(seed=seed if i == 0 else None)
            observation, reward, *_ = env.step(np.array([0.1, 1.0], np.float32))
            found += [info["sequence"], reward, observation.tobytes()]
        return found

    assert episodes(1) == episodes(1)
    assert episodes(1) != episodes(2)
    assert {env.reset()[1]["sequence"] for _ in range(30)} == {"a", "b", "c"}


def test_resumed_episode(folder: Path) -> None:
    env = CarlaRecordedEnv(folder, **SPEED)
    env.reset(seed=3, options={"lateral_offset": 0.2})
    for steering in (0.1, -0.2, 0.05):
        observation, *_, info = env.step(np.array([steering, 1.0], np.float32))
    other = CarlaRecordedEnv(folder, **SPEED)
    again, same = other.reset(options={"resume": env.episode_so_far})
    assert (again == observation).all()
    assert same["station_m"] == info["station_m"]


def test_long_recording_is_cut(tmp_path: Path) -> None:
    env = CarlaRecordedEnv(straight_recording(tmp_path / "long", CAMERA, moments=102), route_length=40.0)
    assert [(drive.number, drive.start, drive.length) for drive in env.drives] == [
        (i, pytest.approx(0.8 + i * 100.2 / 3.0), pytest.approx(100.2 / 3.0)) for i in range(3)
    ]
    _, info = env.reset(options={"sequence": "a", "station": 50.0})
    assert info["scenario"] == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"town": "Town01"}, r"reset: unknown options \['town'\], expected sequence, station,"),
        ({"sequence": "b"}, "reset: sequence: expected one of a, got 'b'"),
        ({"station": 79.0}, "reset: station: expected one on a drive, 5 m before its end or earlier, got 79.0"),
        ({"lateral_offset": math.inf}, "lateral_offset: expected a finite number, got inf"),
        ({"heading_error": "left"}, "heading_error: expected a finite number, got 'left'"),
    ],
)
def test_wrong_options(folder: Path, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        CarlaRecordedEnv(folder).reset(options=options)


def test_wrong_arguments(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="render_mode: expected None or 'rgb_array', got 'human'"):
        CarlaRecordedEnv(folder, render_mode="human")
    with pytest.raises(ValueError, match=r"sequence 'a': expected at least 20 m, got 8\.2 m"):
        CarlaRecordedEnv(straight_recording(tmp_path / "short", CAMERA, moments=10))


def test_picture_for_people(folder: Path) -> None:
    env = CarlaRecordedEnv(folder, render_mode="rgb_array", image_size=(48, 64))
    observation, info = env.reset(seed=0)
    picture = env.render()
    assert picture is not None
    assert (picture.shape, observation.shape) == ((384, 640, 3), (4, 48, 64))
    assert 0.7 < info["seen"] <= 1.0


@pytest.mark.skipif(not (PICTURES / "street").is_dir(), reason="no pictures of CARLA here")
def test_scripted_driver_on_the_street() -> None:
    env = CarlaRecordedEnv(PICTURES / "street", **SPEED)
    for options in ({"lateral_offset": 0.4}, {"heading_error": math.radians(-4.0)}):
        info = drive(env, **options)
        assert info["is_success"]
        assert info["lateral_deviation_m"] < 0.15
