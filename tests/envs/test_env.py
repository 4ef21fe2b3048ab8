"""CarlaLane-v0 on the embedded server: the contract, the ends, the numbers, and that nothing is left behind."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import math
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import carla
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from maps import Geometry, road_map
from stable_baselines3.common.env_checker import check_env as sb3_check

import sb3_carla
from sb3_carla.envs.carla_lane import CarlaLaneEnv
from sb3_carla.envs.driver import PurePursuitDriver
from sb3_carla.envs.episode import FAILURES
from sb3_carla.envs.options import ControlOptions, ServerOptions
from sb3_carla.envs.rewards import REWARD_TERMS
from sb3_carla.envs.towns import HELD_OUT_TOWNS, TRAINING_TOWNS
from sb3_carla.errors import MapError, ServerError, TownNotFoundError

STRAIGHT_ON = np.array([0.0, 0.5], dtype=np.float32)
SPEED_CONTROL = {"longitudinal": "speed", "lateral_acceleration": 4.0}


@pytest.fixture(scope="module")
def env() -> Iterator[CarlaLaneEnv]:
    made = gym.make("CarlaLane-v0", route_length=60.0, action_repeat=2)
    yield made.unwrapped
    made.close()


def run_episode(env: CarlaLaneEnv, act, **reset) -> tuple[float, dict]:
    env.reset(**reset)
    total = 0.0
    while True:
        _, reward, terminated, truncated, info = env.step(act())
        total += reward
        assert reward == pytest.approx(sum(info["reward_terms"].values()))
        if terminated or truncated:
            assert terminated is (info["end_reason"] in FAILURES)
            return total, info


# --- the contract ------------------------------------------------------------------------------------------------


def test_gymnasium_and_sb3_find_nothing_to_complain_about() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The one thing that Gymnasium's checker warns of wherever render_mode stays None while modes exist.
        warnings.filterwarnings("ignore", message=".*not able to test alternative render modes.*")
        with gym.make("CarlaLane-v0") as made:
            gymnasium_check(made.unwrapped)
            sb3_check(made.unwrapped)


def test_spaces_and_info(env: CarlaLaneEnv) -> None:
    observation, info = env.reset(seed=1)
    assert observation.shape == (4, 84, 84)
    assert observation.dtype == np.uint8
    assert (observation == observation[0]).all()  # the first frame, four times
    assert observation.std() > 5.0  # and something is to be seen
    observation, reward, terminated, truncated, info = env.step(STRAIGHT_ON)
    assert isinstance(reward, float)
    assert (terminated, truncated) == (False, False)
    assert set(info) == {
        "speed_mps", "lateral_offset_m", "heading_error_rad", "wheel_angle_rad", "route_completion", "distance_m",
        "reward_terms", "town", "scenario", "privileged_state",
    }  # fmt: skip
    assert tuple(info["reward_terms"]) == REWARD_TERMS


def test_class_docstring_lists_every_argument_with_its_default() -> None:
    rows = dict(re.findall(r"^\s*\| `(\w+)` \| (\S.*?) \|", CarlaLaneEnv.__doc__, re.MULTILINE))
    parameters = inspect.signature(CarlaLaneEnv).parameters
    assert list(rows) == list(parameters)
    for name, parameter in parameters.items():
        assert eval(rows[name], {}) == parameter.default, name


def test_class_docstring_lists_every_option_with_its_default() -> None:
    rows = dict(re.findall(r"^\s*\| `(\w+\.\w+)` \| (\S.*?) \|", CarlaLaneEnv.__doc__, re.MULTILINE))
    groups = {"control": ControlOptions(), "server": ServerOptions()}
    options = {f"{group}.{name}": value for group, each in groups.items() for name, value in asdict(each).items()}
    assert {name: eval(default, {}) for name, default in rows.items()} == options


def test_class_docstring_lists_every_info_key_reward_term_and_end(env: CarlaLaneEnv) -> None:
    def section(name: str) -> str:
        return re.split(r"^\s*## ", CarlaLaneEnv.__doc__.split(f"## {name}\n")[1], flags=re.MULTILINE)[0]

    def first_column(text: str) -> list[str]:
        return re.findall(r"^\s*\| ``(\w+)`` \|", text, re.MULTILINE)

    _, last = run_episode(env, lambda: np.array([0.6, 0.8]), options={"town": "Circuit01", "scenario": 0})
    assert set(first_column(section("Info"))) == {*last, "server_restarted"}
    assert set(re.findall(r"``(\w+)``", section("Reward"))) == set(REWARD_TERMS)
    assert first_column(section("End")) == [*FAILURES, "route_end", "time_limit", "server_lost"]


def test_frames_are_oldest_first(env: CarlaLaneEnv) -> None:
    env.reset(seed=2)
    seen = [env.step(STRAIGHT_ON)[0] for _ in range(6)]
    for before, after in itertools.pairwise(seen):
        np.testing.assert_array_equal(before[1:], after[:-1])
    assert (seen[-1][-1] != seen[-1][0]).any()


def test_other_sizes_and_stacks() -> None:
    with gym.make("CarlaLane-v0", image_size=(48, 64), frame_stack=3) as made:
        observation, _ = made.reset(seed=0)
        assert observation.shape == (3, 48, 64)


def test_frames_of_chosen_ages() -> None:
    """Of the same drive, an observation shows what the newest frame was so many decisions ago; at first, the start."""
    newest = []
    for stack in (1, [5, 2, 0]):
        with gym.make("CarlaLane-v0", frame_stack=stack, action_repeat=4) as made:
            seen = [made.reset(seed=3)[0], *(made.step(STRAIGHT_ON)[0] for _ in range(9))]
        newest.append(seen)
    single, aged = newest
    assert len({frame.tobytes() for frame in single}) == 10, "the car moves"
    for step, observation in enumerate(aged):
        expected = [single[max(step - age, 0)][0] for age in (5, 2, 0)]
        np.testing.assert_array_equal(observation, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"town": []}, "town: expected"),
        ({"n_npcs": -1}, "n_npcs: expected a whole number of at least 0, got -1"),
        ({"frame_stack": 0}, "frame_stack"),
        ({"frame_stack": [4, 1]}, "frame_stack: expected ages that fall to 0, such as [3, 2, 1, 0], got [4, 1]"),
        ({"frame_stack": [1, 1, 0]}, "frame_stack: expected ages that fall to 0"),
        ({"frame_stack": []}, "frame_stack: expected ages that fall to 0"),
        ({"frame_stack": [2.5, 0]}, "frame_stack: expected a whole number of at least 0, got 2.5"),
        ({"frame_stack": "four"}, "frame_stack: expected a whole number of at least 1, got 'four'"),
        ({"action_repeat": 1.5}, "action_repeat"),
        ({"control": "speed"}, "control: expected a mapping with keys from longitudinal, lateral_acceleration, steer"),
        ({"control": {"longitudinal": "gas"}}, "control.longitudinal: expected 'pedal' or 'speed', got 'gas'"),
        ({"control": {"steering": 1.0}}, "control: unknown key 'steering', did you mean 'steering_rate'? Known: "),
        ({"control": {"steering_rate": 0.0}}, "control.steering_rate: expected a finite positive number"),
        (
            {"control": {"lateral_acceleration": -1.0}},
            "control.lateral_acceleration: expected a finite positive number, got -1.0",
        ),
        ({"server": 4}, "server: expected a mapping with keys from command, max_episodes, max_memory, got 4"),
        ({"server": {"memory": 4}}, "server: unknown key 'memory', did you mean 'max_memory'?"),
        ({"server": {"command": "CarlaUE4.sh"}}, "server.command: expected a command with {port} in it, got 'CarlaUE"),
        ({"server": {"max_episodes": 2.5}}, "server.max_episodes: expected a whole number of at least 1, got 2.5"),
        ({"server": {"max_memory": 0}}, "server.max_memory: expected a finite positive number, got 0"),
        ({"host": "localhost", "server": {"max_episodes": 3}}, "server: expected none of command, max_episodes, max_m"),
        ({"target_speed": 0.0}, "target_speed: expected a finite positive number, got 0.0"),
        ({"target_speed": math.nan}, "target_speed"),
        ({"route_length": 5.0}, "route_length"),
        ({"image_size": (4, 4)}, "image_size"),
        ({"reward": {"progres": 1.0}}, "reward: unknown key 'progres', did you mean 'progress'?"),
        ({"timeout": 0.0}, "timeout"),
        ({"weather": []}, "weather: expected a preset, a mapping or a list"),
        ({"weather": 3}, "weather: expected a preset, a mapping or a list of these, got 3"),
        ({"weather": ["ClearNoon", None]}, "weather: expected a preset, a mapping or a list of these"),
        ({"weather": {"cloudiness": "much"}}, "weather: cloudiness: expected a number, got 'much'"),
        ({"weather": [{"wetness": math.nan}]}, "weather: wetness: expected a number, got nan"),
        ({"town": 3}, "town: expected a name, a path or a list of these, got 3"),
        ({"town": ["Circuit01", 3]}, "town: expected a name, a path or a list of these"),
        ({"n_npcs": "many"}, "n_npcs: expected a whole number of at least 0, got 'many'"),
        ({"scenario": -1}, "scenario: expected a whole number of at least 0, got -1"),
        ({"scenario": 1.0}, "scenario: expected a whole number of at least 0, got 1.0"),
        ({"target_speed": None}, "target_speed: expected a finite positive number, got None"),
        ({"timeout": "long"}, "timeout: expected a finite positive number, got 'long'"),
        ({"route_length": "far"}, "route_length: expected a finite positive number, got 'far'"),
        ({"timeout": math.inf}, "timeout: expected a finite positive number, got inf"),
        ({"route_length": math.inf}, "route_length: expected a finite positive number, got inf"),
        ({"image_size": 84}, "image_size: expected (height, width), each at least 8 px, got 84"),
        ({"image_size": "84"}, "image_size: expected a whole number of at least 8, got '8'"),
        ({"image_size": (84.0, 84.0)}, "image_size: expected a whole number of at least 8, got 84.0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_starts(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        CarlaLaneEnv(**arguments)


def test_bad_calls(env: CarlaLaneEnv) -> None:
    with pytest.raises(ValueError, match="unknown options"):
        env.reset(options={"twon": "Circuit01"})
    for options in ({"town": 3}, {"scenario": "first"}, {"weather": {"wetness": None}}):
        with pytest.raises(ValueError, match=f"{next(iter(options))}: .*expected"):
            env.reset(options=options)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="2 finite numbers"):
        env.step(np.array([math.nan, 0.0]))
    with pytest.raises(ValueError, match="2 finite numbers"):
        env.step(np.zeros(3))
    with pytest.raises(ValueError, match="2 finite numbers"):
        env.step("left")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="call reset"):
        CarlaLaneEnv().step(STRAIGHT_ON)


def test_bad_weather_is_named() -> None:
    with gym.make("CarlaLane-v0", weather="Sunny") as made, pytest.raises(ValueError, match="unknown preset 'Sunny'"):
        made.reset()


def test_weather_is_drawn_and_chosen() -> None:
    mapping = {"sun_altitude_angle": -90.0}
    with CarlaLaneEnv(weather=["ClearNoon", "HardRainSunset", mapping]) as env:
        brightness = {}
        for seed in range(12):
            pictures, _ = env.reset(seed=seed, options={"scenario": 0})
            session = env._session
            assert session is not None
            brightness[round(session.world.get_weather().sun_altitude_angle)] = pictures.mean()
        assert len(brightness) == 3, "all of the list are drawn"
        # A dry road in the light of headlights may be as bright as a wet one under clouds.
        assert brightness[-90] < 0.9 * brightness[45]
        env.reset(options={"weather": "CloudyNight", "town": "Village01"})
        assert session.world.get_weather().sun_altitude_angle < 0.0
        env.reset(options={"weather": "ClearNoon", "town": "Circuit02"})
        assert session.world.get_weather().sun_altitude_angle == 45.0, "a new town has the weather that was asked for"


# --- how episodes end --------------------------------------------------------------------------------------------


def test_scripted_driver_succeeds_on_held_out_towns(env: CarlaLaneEnv) -> None:
    driver = PurePursuitDriver(env)
    for town in HELD_OUT_TOWNS:
        for scenario in range(2):
            total, info = run_episode(env, driver.act, options={"town": town, "scenario": scenario})
            assert info["end_reason"] == "route_end", (town, scenario, info)
            assert info["is_success"] is True
            assert info["route_completion"] == 1.0
            assert info["lateral_deviation_m"] < 0.25
            assert (info["town"], info["scenario"]) == (town, scenario)
            assert total > 0.0


def test_leaving_the_lane_terminates(env: CarlaLaneEnv) -> None:
    _, info = run_episode(env, lambda: np.array([0.6, 0.8]), options={"town": "Circuit01", "scenario": 0})
    assert info["end_reason"] == "off_lane"
    assert (info["departures"], info["is_success"]) == (1, False)
    assert info["lane_invasions"] == 1
    assert info["reward_terms"]["safety"] == -5.0


def test_standing_still_is_stuck(env: CarlaLaneEnv) -> None:
    _, info = run_episode(env, lambda: np.array([0.0, -1.0]), options={"town": "Circuit01", "scenario": 0})
    assert info["end_reason"] == "stuck"
    assert info["distance_m"] < 0.1


@pytest.mark.parametrize(("speed", "end"), [(0.25, "stuck"), (0.9, "time_limit")])
def test_creeping_is_stuck_too(speed: float, end: str) -> None:
    """Now standing, now rolling: at 0.5 m/s half of the time nobody gets anywhere."""
    with CarlaLaneEnv(control=SPEED_CONTROL, action_repeat=4, route_length=40.0) as env:
        env.reset(seed=0, options={"scenario": 0})
        driver, ended, decision = PurePursuitDriver(env), False, 0
        while not ended:
            drive = -1.0 if decision // 4 % 2 else 2.0 * (2.0 * speed) / env.target_speed - 1.0
            _, _, terminated, truncated, info = env.step(np.array([driver.act()[0], drive], np.float32))
            ended, decision = terminated or truncated, decision + 1
        assert info["end_reason"] == end


def test_step_after_the_end_is_refused(env: CarlaLaneEnv) -> None:
    run_episode(env, lambda: np.array([0.6, 0.8]), seed=0)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(STRAIGHT_ON)
    env.reset(seed=0)
    env.close()
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(np.zeros(2))


def test_slow_driver_meets_the_time_limit() -> None:
    with gym.make("CarlaLane-v0", route_length=60.0, target_speed=25.0, action_repeat=4) as made:
        crawl = PurePursuitDriver(made)
        crawl_env = made.unwrapped

        def act() -> np.ndarray:
            action = crawl.act()
            action[1] = 0.3 if crawl_env.simulation.vehicle_state.speed < 1.5 else -0.2
            return action

        _, info = run_episode(crawl_env, act, seed=0)
    assert info["end_reason"] == "time_limit"
    assert 0.05 < info["route_completion"] < 0.9


# --- the same seed, the same pictures ----------------------------------------------------------------------------

FINGERPRINT = """
import hashlib, sys
import gymnasium as gym, numpy as np, sb3_carla
env = gym.make("CarlaLane-v0", town=["Circuit01", "Circuit02"], n_npcs=int(sys.argv[2]))
digest = hashlib.sha256()
rng = np.random.default_rng(0)
observation, _ = env.reset(seed=11)
for _ in range(int(sys.argv[1])):
    digest.update(observation.tobytes())
    action = np.array([rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 1.0)], dtype=np.float32)
    observation, reward, terminated, truncated, _ = env.step(action)
    digest.update(repr(reward).encode())
    if terminated or truncated:
        observation, _ = env.reset()
env.close()
print(digest.hexdigest())
"""


@pytest.mark.parametrize(("steps", "n_npcs"), [pytest.param(1000, 0, marks=pytest.mark.long), (300, 8)])
def test_one_seed_gives_one_sequence_also_across_processes(steps: int, n_npcs: int) -> None:
    command = [sys.executable, "-c", FINGERPRINT, str(steps), str(n_npcs)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    digests = [run.communicate(timeout=120)[0] for run in runs]
    assert digests[0] == digests[1]
    assert re.fullmatch(r"[0-9a-f]{64}\n", digests[0])


def test_a_seed_means_the_same_whatever_was_driven_before(env: CarlaLaneEnv) -> None:
    def fingerprint() -> str:
        digest = hashlib.sha256(env.reset(seed=5)[0].tobytes())
        for _ in range(20):
            digest.update(env.step(np.array([0.1, 0.7]))[0].tobytes())
        return digest.hexdigest()

    first = fingerprint()
    run_episode(env, lambda: np.array([-0.6, 1.0]), options={"town": HELD_OUT_TOWNS[0], "scenario": 1})
    assert fingerprint() == first


# --- towns, traffic ----------------------------------------------------------------------------------------------


def test_towns_are_drawn_from_the_list() -> None:
    with gym.make("CarlaLane-v0", town=list(TRAINING_TOWNS[:3])) as made:
        made.reset(seed=0)
        towns = {made.reset()[1]["town"] for _ in range(12)}
    assert towns == set(TRAINING_TOWNS[:3])


def test_the_name_that_the_map_has_is_the_towns(env: CarlaLaneEnv) -> None:
    env.reset(options={"town": "Circuit03"})
    name, episode = env.simulation.town_map.name, env._session.world.id
    assert name != "Circuit03"  # "Carla/Maps/Circuit03"
    _, info = env.reset(options={"town": name})
    assert info["town"] == "Circuit03"
    assert env._session.world.id == episode  # which was not loaded again


def test_unknown_town_is_named(env: CarlaLaneEnv) -> None:
    with pytest.raises(TownNotFoundError, match=r"no town 'Atlantis'; it has Circuit01"):
        env.reset(options={"town": "Atlantis"})
    env.reset(seed=0)  # and the environment still works
    with (
        pytest.raises(TownNotFoundError, match=r"no town 'Atlantis'; it has Circuit01"),
        gym.make("CarlaLane-v0", town="Atlantis") as made,
    ):
        made.reset()


def test_broken_map_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.xodr"
    path.write_text("<OpenDRIVE><road")
    with pytest.raises(MapError, match=r"broken\.xodr"), gym.make("CarlaLane-v0", town=str(path)) as made:
        made.reset()


def test_town_without_room_for_the_traffic_is_refused_every_time() -> None:
    """The cars that found room are not left standing for the next episode."""
    with CarlaLaneEnv(n_npcs=500) as env:
        for _ in range(2):
            with pytest.raises(ServerError, match=r"room for [1-9]\d* cars beside the agent's, not for 500"):
                env.reset()


def test_town_that_is_too_short_is_refused_every_time(tmp_path: Path) -> None:
    path = tmp_path / "short.xodr"
    path.write_text(road_map(Geometry(50.0)).to_opendrive())
    with CarlaLaneEnv(town=str(path)) as env:
        for _ in range(2):
            with pytest.raises(MapError, match="no lane that can be followed for 300 m"):
                env.reset()


def test_reset_that_failed_ends_the_episode(env: CarlaLaneEnv) -> None:
    env.reset(seed=0)
    with pytest.raises(TownNotFoundError, match="Atlantis"):
        env.reset(options={"town": "Atlantis"})
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(STRAIGHT_ON)


@pytest.mark.parametrize("max_episodes", [None, 1])
def test_map_file_that_was_written_anew_is_loaded_anew(tmp_path: Path, max_episodes: int | None) -> None:
    """World and routes are of one version, whether the server is replaced meanwhile or not."""
    path = tmp_path / "road.xodr"
    with CarlaLaneEnv(town=str(path), route_length=60.0, server={"max_episodes": max_episodes}) as env:
        for lane_width in (3.5, 4.0):
            path.write_text(road_map(Geometry(200.0), lane_width=lane_width).to_opendrive())
            env.reset(seed=0)
            assert env.simulation.lane_pose.half_width == 0.5 * lane_width
            place = env.simulation.town_map.get_waypoint(carla.Location(*env.simulation.route.position(0.0)))
            assert place.lane_width == lane_width


def test_not_every_town_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_carla.envs.simulation.TOWNS_KEPT", 2)
    with CarlaLaneEnv() as env:
        for town in ("Circuit01", "Village01", "Circuit01", "Circuit02", "Circuit01"):
            env.reset(options={"town": town})
        assert list(env.simulation.scenarios) == ["Circuit02", "Circuit01"]


def test_traffic_moves_and_the_scripted_driver_shares_the_road_with_it() -> None:
    with gym.make("CarlaLane-v0", n_npcs=12, route_length=100.0, action_repeat=2) as made:
        lane = made.unwrapped
        driver = PurePursuitDriver(lane)
        for seed in range(3):
            lane.reset(seed=seed)
            before = lane.simulation.traffic.positions
            ended = False
            while not ended:
                _, _, terminated, truncated, info = lane.step(driver.act())
                ended = terminated or truncated
            assert info["collisions"] == 0, info
            moved = np.hypot(*(lane.simulation.traffic.positions - before)[:, :2].T)
            assert np.median(moved) > 3.0


@pytest.mark.long
def test_traffic_has_room_or_says_so() -> None:
    with CarlaLaneEnv(town="Circuit01", n_npcs=24) as env:
        for seed in range(8):
            env.reset(seed=seed)
            cars = np.vstack([env.simulation.traffic.positions[:, :2], env.simulation.route.points[0, :2]])
            apart = np.hypot(*(cars[:, None] - cars[None]).T) + np.diag(np.full(len(cars), np.inf))
            assert apart.min() > 11.9
    with CarlaLaneEnv(town="Circuit01", n_npcs=36) as env, pytest.raises(ServerError, match="36 cars do not find 12 m"):
        all(env.reset(seed=seed) for seed in range(20))


def test_driving_into_a_standing_car_is_a_collision() -> None:
    with gym.make("CarlaLane-v0", n_npcs=1, town="Circuit01", scenario=0) as made:
        lane = made.unwrapped
        lane.reset(seed=0)
        x, y, z, heading, _ = lane.simulation.route.pose(25.0)
        car = lane.simulation.traffic._cars[0]
        lane.simulation.traffic._cars = []
        pose = carla.Transform(carla.Location(x, y, z), carla.Rotation(yaw=math.degrees(heading)))
        lane._session.client.apply_batch([carla.command.ApplyTransform(car.actor_id, pose)])
        driver = PurePursuitDriver(lane)
        ended = False
        while not ended:
            _, _, terminated, truncated, info = lane.step(driver.act())
            ended = terminated or truncated
    assert (info["end_reason"], info["collisions"]) == ("collision", 1)
    assert 15.0 < info["distance_m"] < 25.0


def test_waiting_behind_a_standing_car_is_not_being_stuck() -> None:
    with gym.make(
        "CarlaLane-v0", n_npcs=1, scenario=0, route_length=60.0, control=SPEED_CONTROL, action_repeat=4
    ) as made:
        lane = made.unwrapped
        lane.reset(seed=0)
        car = lane.simulation.traffic._cars[0]
        car.route, car.station, car.desired_speed = lane.simulation.route, 30.0, 1e-6
        driver = PurePursuitDriver(lane)
        ended = False
        while not ended:
            _, _, terminated, ended, info = lane.step(driver.act())
            assert not terminated, info
    assert info["end_reason"] == "time_limit"
    assert 15.0 < info["distance_m"] < 30.0 - 4.8
    assert info["speed_mps"] < 0.1


def test_import_is_light() -> None:
    code = "import sys, sb3_carla; print([m for m in ('torch', 'carla', 'cv2', 'rl_zoo3') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
    assert sb3_carla.__version__
