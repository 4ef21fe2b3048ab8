"""Evaluation: the arithmetic by hand, the drivers for real on short routes."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import gymnasium as gym
import numpy as np
import pytest
import yaml

import sb3_carla
from sb3_carla import evaluation
from sb3_carla.envs.towns import HELD_OUT_TOWNS
from sb3_carla.evaluation import Case, EpisodeRecord, Evaluation, Trace, command, estimate_metrics
from sb3_carla.evaluation.metrics import _percentiles, jerk, wilson_interval
from sb3_carla.evaluation.page import page
from sb3_carla.evaluation.video import film
from sb3_carla.zoo import run_folders

DECISION = 0.1


def trace(offsets: list[float], **changed: Any) -> Trace:
    """Straight on at 8 m/s, at the offsets given after each decision."""
    n = len(offsets) + 1
    still = np.zeros(n)
    values = {
        "x": 8.0 * DECISION * np.arange(n), "y": still, "heading": still, "speed": np.full(n, 8.0),
        "lateral_offset": np.array([0.0, *offsets]), "heading_error": still, "wheel_angle": still,
    }  # fmt: skip
    return Trace(DECISION, **{**values, **changed})


RECORD = EpisodeRecord(
    town="Circuit06",
    scenario=0,
    seed=1,
    weather="ClearNoon",
    success=True,
    end_reason="route_end",
    route_completion=1.0,
    distance_m=300.0,
    collisions=0,
    departures=0,
    episode_return=10.0,
    decisions=3,
    trace=trace([0.1, -0.2, 0.3]),
)
FAILURE = replace(
    RECORD,
    success=False,
    end_reason="off_lane",
    route_completion=0.5,
    distance_m=200.0,
    departures=1,
    decisions=1,
    trace=trace([1.6]),
)


def test_cases_go_round_the_towns() -> None:
    found = evaluation.cases(["A", "B"], 5, first_seed=100)
    assert [(case.town, case.scenario, case.seed) for case in found] == [
        ("A", 0, 100),
        ("B", 0, 101),
        ("A", 1, 102),
        ("B", 1, 103),
        ("A", 2, 104),
    ]
    assert [case.scenario for case in evaluation.cases(["A"], 3, scenarios=[7, 9])] == [7, 9, 7]
    with pytest.raises(ValueError, match="at least one town, episode"):
        evaluation.cases([], 5)


def test_cases_are_repeated_in_every_weather() -> None:
    found = evaluation.cases(["A", "B"], 2, first_seed=5, weathers=["ClearNoon", "HardRainSunset"])
    assert [(case.town, case.seed, case.weather) for case in found] == [
        ("A", 5, "ClearNoon"),
        ("B", 6, "ClearNoon"),
        ("A", 5, "HardRainSunset"),
        ("B", 6, "HardRainSunset"),
    ]


def test_scores_by_hand() -> None:
    found = {name: estimate.value for name, estimate in estimate_metrics([RECORD, FAILURE]).items()}
    assert found["success_rate"] == 0.5
    assert found["route_completion"] == 0.75
    assert found["driving_score"] == 75.0
    assert found["lateral_mean_m"] == pytest.approx((0.1 + 0.2 + 0.3 + 1.6) / 4)
    assert found["lateral_rmse_m"] == pytest.approx(np.sqrt((0.01 + 0.04 + 0.09 + 2.56) / 4))
    # Four sorted values: the 95th percentile lies at position 0.95 * 3 = 2.85, between 0.3 and 1.6.
    assert found["lateral_p95_m"] == pytest.approx(0.3 + 0.85 * 1.3)
    assert found["speed_mps"] == pytest.approx(500.0 / (4 * DECISION))
    assert found["departures_per_km"] == pytest.approx(1 / 0.5)
    assert found["collisions_per_km"] == found["steering_rate_degps"] == found["jerk_rms_mps3"] == 0.0
    crashed = replace(FAILURE, end_reason="collision", departures=0, collisions=1)
    found = {name: estimate.value for name, estimate in estimate_metrics([RECORD, crashed]).items()}
    assert found["driving_score"] == pytest.approx(0.5 * (100.0 + 0.6 * 50.0))
    assert found["collisions_per_km"] == pytest.approx(2.0)


def test_steering_rate_heading_and_jerk_by_hand() -> None:
    moving = trace(
        [0.0, 0.0, 0.0],
        wheel_angle=np.radians([0.0, 2.0, -1.0, -1.0]),
        heading_error=np.radians([9.0, 3.0, 4.0, 0.0]),
        speed=np.array([8.0, 8.2, 8.2, 8.2]),
        heading=np.array([3.1, 3.1, 3.1, 3.15 - 2.0 * np.pi]),  # 0.05 rad to the right in the last decision
    )
    found = {name: estimate.value for name, estimate in estimate_metrics([replace(RECORD, trace=moving)]).items()}
    assert found["steering_rate_degps"] == pytest.approx(5.0 / 0.3)
    assert found["heading_rmse_deg"] == pytest.approx(np.sqrt((9.0 + 16.0) / 3))
    # Along: 2, 0, 0 m/s^2. Across: 0, 0, 8.2 * 0.5 m/s^2. So the jerks are 20 and 41 m/s^3.
    assert jerk(moving) == pytest.approx([20.0, 41.0])
    assert found["jerk_rms_mps3"] == pytest.approx(np.sqrt((20.0**2 + 41.0**2) / 2))


@pytest.mark.long
def test_intervals_cover_the_truth() -> None:
    """Of 200 samples of 50 episodes from a known distribution about 95 % have it inside."""
    rng = np.random.default_rng(0)
    inside = {"success_rate": 0, "lateral_mean_m": 0}
    for _ in range(200):
        records = [
            replace(RECORD, success=bool(rng.random() < 0.9), decisions=1, trace=trace([rng.exponential(0.2)]))
            for _ in range(50)
        ]
        found = estimate_metrics(records)
        for name, truth in (("success_rate", 0.9), ("lateral_mean_m", 0.2)):
            inside[name] += found[name].low <= truth <= found[name].high
    assert all(180 <= count <= 199 for count in inside.values()), inside


def test_percentiles_of_resamples_are_those_of_what_was_drawn() -> None:
    rng = np.random.default_rng(0)
    offsets = [rng.exponential(0.2, rng.integers(1, 30)).round(1) for _ in range(7)]
    draws = rng.integers(0, 7, (50, 7))
    expected = [np.percentile(np.concatenate([offsets[i] for i in draw]), 95) for draw in draws]
    counts = np.array([np.bincount(draw, minlength=7) for draw in draws])
    np.testing.assert_allclose(_percentiles(offsets, counts), expected, rtol=1e-12)


def test_fifty_successes_are_not_certainty() -> None:
    low, high = wilson_interval(1.0, 50)
    assert (low, high) == (pytest.approx(0.9287, abs=1e-4), 1.0)
    assert wilson_interval(0.0, 50) == (0.0, pytest.approx(1.0 - low))
    with pytest.raises(ValueError, match="at least one episode"):
        estimate_metrics([])


def test_table_file_and_page(tmp_path: Path) -> None:
    rain = replace(FAILURE, weather="HardRainSunset")
    roads = {"Circuit06": [np.array([[0.0, 0.0], [50.0, 5.0]])]}
    drivers = {"one": [RECORD, rain], "two <b>": [RECORD, RECORD]}
    result = Evaluation(drivers, ("one", "two <b>"), roads, settings={"algo": "td3"})
    table = result.table().splitlines()
    assert table[0] == "| driver | one | two <b> | 2 models, mean ± sd |"
    success = next(line for line in table if line.startswith("| success"))
    assert success == "| success | 50 % [9, 91] | 100 % [34, 100] | 75 % ± 35 % |"
    assert "| one | HardRainSunset | 1 | 0 % | 50.0 | 1.600 | 1.60 |" in table
    assert result.worst("one") is rain

    path = tmp_path / "new" / "evaluation.json"
    result.save(path)
    found = json.loads(path.read_text())
    assert found["settings"] == {"algo": "td3"}
    assert {"command", "date", "versions"} <= set(found)
    assert found["drivers"]["one"]["scores"]["success_rate"]["value"] == 0.5
    assert found["drivers"]["one"]["episodes"][1]["end_reason"] == "off_lane"
    assert "trace" not in found["drivers"]["one"]["episodes"][0]

    text = page(result)
    assert text.count('class="path"') == 4
    assert "<b>" not in text, "names are escaped"
    assert "By weather" in text
    assert "By town" not in text
    ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])


@pytest.fixture(scope="module")
def env() -> Iterator[evaluation.Env]:
    made: evaluation.Env = gym.make("CarlaLane-v0", town=HELD_OUT_TOWNS[0], route_length=25.0, action_repeat=2)
    yield made
    made.close()


def test_drivers_on_the_same_scenarios(env: evaluation.Env) -> None:
    to_drive = evaluation.cases(HELD_OUT_TOWNS[:2], 2)
    count: list[int] = []
    policies = {"scripted": evaluation.scripted_policy, "random": evaluation.random_policy}
    result = evaluation.evaluate(env, policies, to_drive, on_episode=lambda: count.append(1))
    assert len(count) == 4
    scripted, random = result.records["scripted"], result.records["random"]
    assert [(r.town, r.scenario, r.seed) for r in random] == [(c.town, c.scenario, c.seed) for c in to_drive]
    assert all(record.success and record.route_completion == 1.0 for record in scripted)
    assert not any(record.success for record in random)
    for record in scripted:
        assert len(record.trace.x) == record.decisions + 1
        assert record.trace.seconds == DECISION
        driven = np.hypot(np.diff(record.trace.x), np.diff(record.trace.y)).sum()
        assert driven == pytest.approx(record.distance_m, rel=0.05)
        edges = np.concatenate(result.lane_edges[record.town])
        away = np.hypot(edges[:, 0, None] - record.trace.x, edges[:, 1, None] - record.trace.y).min(axis=0)
        assert away.max() < 4.0, "the path lies on the map's roads"
    assert 0.0 < result.scores["scripted"]["lateral_mean_m"].value < 0.3
    again = evaluation.run_episode(env, to_drive[0], evaluation.random_policy)
    assert again == random[0]
    assert all(np.array_equal(a, b) for a, b in zip(astuple(again.trace), astuple(random[0].trace), strict=True))


@pytest.mark.long
def test_film_of_an_episode(tmp_path: Path) -> None:
    case = Case(HELD_OUT_TOWNS[0], 0, 1, "WetSunset")
    with gym.make("CarlaLane-v0", route_length=25.0, action_repeat=2, render_mode="rgb_array") as env:
        record = evaluation.run_episode(env, case, evaluation.scripted_policy)
        film(env, case, evaluation.scripted_policy, tmp_path / "film.webm")
        with pytest.raises(OSError, match="cannot be written"):
            film(env, case, evaluation.scripted_policy, tmp_path / "film.nonsense")
    shown = cv2.VideoCapture(str(tmp_path / "film.webm"))
    frames = [picture for good, picture in iter(shown.read, (False, None)) if good]
    assert len(frames) == record.decisions + 1 + 15, "the last frame stands for 1.5 s"
    assert frames[0].shape == (288, 480, 3)
    assert frames[0].std() > 10.0


def test_saved_model_drives(env: evaluation.Env, tmp_path: Path) -> None:
    model = sb3_carla.TD3("LayerNormCnnPolicy", env, buffer_size=10, n_steps=3, seed=0)
    model.save(tmp_path / "model.zip")
    loaded = run_folders.load_model(tmp_path / "model.zip")
    assert isinstance(loaded, sb3_carla.TD3)
    case = Case(HELD_OUT_TOWNS[0], 0, 1)
    first, again = (evaluation.run_episode(env, case, evaluation.model_policy(m)) for m in (model, loaded))
    assert first == again


def make_run(logs: Path, number: int, config: dict[str, Any], env_kwargs: dict[str, Any] | None) -> Path:
    """What rl-zoo3 leaves behind, dumped as it does."""
    run = logs / "td3" / f"CarlaLane-v0_{number}"
    (run / "CarlaLane-v0").mkdir(parents=True)
    (run / "CarlaLane-v0.zip").touch()
    (run / "CarlaLane-v0" / "config.yml").write_text(yaml.dump(OrderedDict(sorted(config.items()))))
    args = OrderedDict(env_kwargs=env_kwargs, train_freq=(1, "step"))
    (run / "CarlaLane-v0" / "args.yml").write_text(yaml.dump(args))
    return run / "CarlaLane-v0.zip"


def test_settings_of_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = {"town": ["Circuit01"], "action_repeat": 2}
    make_run(tmp_path, 2, {"gamma": 0.9, "env_kwargs": file}, None)
    model = make_run(
        tmp_path, 10, {"gamma": 0.9, "env_kwargs": file}, {"target_speed": 6.0, "server": {"max_memory": 4.0}}
    )
    assert run_folders.find_model(None, tmp_path) == model
    assert run_folders.environment_settings(model) == {"action_repeat": 2, "target_speed": 6.0}
    wrapped = make_run(tmp_path, 11, {"env_wrapper": "some.Wrapper"}, None)
    with pytest.raises(ValueError, match="env_wrapper"):
        run_folders.environment_settings(wrapped)
    checkpoint = model.parent / "checkpoints" / "latest" / "model.zip"
    assert run_folders.environment_settings(checkpoint) == {"action_repeat": 2, "target_speed": 6.0}
    assert not caplog.messages
    assert run_folders.environment_settings(tmp_path / "alone.zip") == {}
    assert "is not in a run's folder" in caplog.text


def test_models_are_named_by_the_command_line(tmp_path: Path) -> None:
    paths = [tmp_path / "lr=1" / "a.zip", tmp_path / "lr=1" / "b.zip"]
    paths[0].parent.mkdir()
    for path in paths:
        path.touch()

    def named(*given: str) -> dict[str, Path]:
        return command.find_models(command.parse(["--model", *given]))

    assert named("none") == {}
    assert named(str(paths[0])) == {"model": paths[0]}
    assert named(*map(str, paths)) == {"a": paths[0], "b": paths[1]}
    assert named(f"seed1={paths[0]}", str(paths[1])) == {"seed1": paths[0], "b": paths[1]}
    with pytest.raises(SystemExit, match="models need different names, got a, a"):
        named(str(paths[0]), str(paths[0]))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zip"):
        named("nowhere.zip")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("", "CarlaLane-v0.evaluation.json"),
        (
            "--no-baselines --device cpu --towns held-out --weathers ClearNoon --episodes 20",
            "CarlaLane-v0.evaluation.json",
        ),
        ("--towns Town01", "CarlaLane-v0.evaluation.Town01.json"),
        ("--towns Town01.xodr training", "CarlaLane-v0.evaluation.Town01.xodr+training.json"),
        ("--weathers HardRainNoon --npcs 20", "CarlaLane-v0.evaluation.HardRainNoon-npcs20.json"),
        ("--weathers ClearNoon WetNoon --npcs 0", "CarlaLane-v0.evaluation.ClearNoon+WetNoon-npcs0.json"),
        ("--episodes 5 --scenarios 3 7 --seed 1", "CarlaLane-v0.evaluation.episodes5-scenarios3+7-seed1.json"),
        ("--randomize look noise", "CarlaLane-v0.evaluation.randomize_look+noise.json"),
        ("--host ::1", "CarlaLane-v0.evaluation.host_1.json"),
        (
            '--env-kwargs {"target_speed":6,"control":{"longitudinal":"pedal"}}',
            "CarlaLane-v0.evaluation.control_longitudinal_pedal-target_speed_6.json",
        ),
        ("--towns held-out --output here/my.json", "my.json"),
    ],
)
def test_files_are_named_after_what_was_evaluated(options: str, name: str) -> None:
    model = Path("logs/td3/CarlaLane-v0_1/CarlaLane-v0.zip")
    path = command.output_path(command.parse(options.split()), model)
    assert path is not None
    assert path.name == name
    assert path.parent == (Path("here") if "--output" in options else model.parent)


def test_evaluation_is_random_only_if_asked(tmp_path: Path) -> None:
    model = make_run(tmp_path, 1, {"env_kwargs": {"randomize": "all", "action_repeat": 4}}, None)
    assert "randomize" not in command.environment(command.parse([]), [model])
    asked = command.parse(["--randomize", "light", "weather"])
    assert command.environment(asked, [model])["randomize"] == ["light", "weather"]
    assert asked.weathers == ["random"]
    assert command.parse(["--randomize", "all", "--weathers", "ClearNoon"]).weathers == ["ClearNoon"]
    with pytest.raises(SystemExit):
        command.parse(["--randomize", "tea"])
    with gym.make("CarlaLane-v0", randomize=["weather"], route_length=30.0, action_repeat=4) as env:
        record = evaluation.run_episode(env, Case("Circuit01", 0, 1, "random"), evaluation.scripted_policy)
    assert (record.weather, record.success) == ("random", True)


def test_long_names_are_cut_and_still_differ() -> None:
    towns = [f"Village{number}" for number in range(10, 42)]
    paths = [
        command.output_path(command.parse(["--towns", *each]), Path("a.zip")) for each in (towns, towns[:-1], towns)
    ]
    assert paths[0] == paths[2] != paths[1]
    for path in paths:
        assert path is not None
        assert re.fullmatch(r"a\.evaluation\.Village10\+Village11\+[\w+]*-[0-9a-f]{8}\.json", path.name)
        assert len(path.name) < 110


def test_towns_of_the_same_name_in_other_folders_have_other_files() -> None:
    names = {command.parse(["--towns", f"{folder}Town01.xodr"]).evaluated for folder in ("", "a/", "b/")}
    assert len(names) == 3
    assert all(name.startswith("Town01.xodr") for name in names)


def test_without_a_model_nothing_is_written() -> None:
    assert command.output_path(command.parse(["--model", "none", "--npcs", "3"]), None) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--env-kwargs", "[1]"], r"--env-kwargs: expected a JSON object, got \[1\]"),
        (["--env-kwargs", '{"nonsense": 1}'], "unexpected keyword argument 'nonsense'"),
        (["--video"], "--video: expected --output"),
    ],
)
def test_bad_options_are_named(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--model", "none", *options])
    assert re.search(message, f"{caught.value} {capsys.readouterr().err}")


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No run of sac on CarlaLane-v0"):  # of td3 one ships with the package
        run_folders.find_model(None, tmp_path, algo="sac")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zip"):
        run_folders.find_model("nowhere.zip", tmp_path)
