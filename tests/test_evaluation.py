"""Evaluation: the arithmetic by hand, the drivers for real on short routes."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import yaml

import sb3_carla
from sb3_carla import evaluation, runs
from sb3_carla.evaluation import Case, EpisodeRecord, Evaluation
from sb3_carla.towns import HELD_OUT_TOWNS

RECORD = EpisodeRecord(
    town="Circuit06",
    scenario=0,
    seed=1,
    success=True,
    end_reason="route_end",
    route_completion=1.0,
    distance_m=300.0,
    collisions=0,
    departures=0,
    episode_return=10.0,
    decisions=3,
    lateral_deviation_m=0.2,
    speed_mps=8.0,
    offsets=[0.1, 0.2, 0.3],
)
FAILURE = replace(
    RECORD,
    success=False,
    end_reason="off_lane",
    route_completion=0.5,
    distance_m=200.0,
    departures=1,
    decisions=1,
    lateral_deviation_m=1.6,
    speed_mps=4.0,
    offsets=[1.6],
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
    with pytest.raises(ValueError, match="a town, an episode"):
        evaluation.cases([], 5)


def test_summary_by_hand() -> None:
    found = evaluation.summary([RECORD, FAILURE])
    assert found["success_rate"] == 0.5
    assert found["route_completion"] == 0.75
    assert found["lateral_deviation_mean_m"] == pytest.approx((0.1 + 0.2 + 0.3 + 1.6) / 4)
    # Four sorted values: the 95th percentile lies at position 0.95 * 3 = 2.85, between 0.3 and 1.6.
    assert found["lateral_deviation_p95_m"] == pytest.approx(0.3 + 0.85 * 1.3)
    assert found["speed_mean_mps"] == pytest.approx((3 * 8.0 + 4.0) / 4)
    assert found["departures_per_km"] == pytest.approx(1 / 0.5)
    assert found["collisions_per_km"] == 0.0


def test_table_and_file(tmp_path: Path) -> None:
    result = Evaluation({"model": [RECORD, FAILURE]}, settings={"algo": "td3"})
    assert "| model | 1 of 2 | 75.0% | 0.55 / 1.40 | 7.00 | 0.00 | 2.00 |" in result.table()
    path = tmp_path / "new" / "evaluation.json"
    result.save(path)
    found = json.loads(path.read_text())
    assert found["settings"] == {"algo": "td3"}
    assert {"command", "date", "versions"} <= set(found)
    assert found["drivers"]["model"]["episodes"][1]["end_reason"] == "off_lane"
    assert "offsets" not in found["drivers"]["model"]["episodes"][0]


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
    assert all(
        0.0 < record.lateral_deviation_m < 0.3 and len(record.offsets) == record.decisions for record in scripted
    )
    assert not any(record.success for record in random)
    again = evaluation.run_episode(env, to_drive[0], evaluation.random_policy)
    assert again == random[0]


def test_saved_model_drives(env: evaluation.Env, tmp_path: Path) -> None:
    model = sb3_carla.TD3("LayerNormCnnPolicy", env, buffer_size=10, n_steps=3, seed=0)
    model.save(tmp_path / "model.zip")
    loaded = runs.load_model(tmp_path / "model.zip")
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


def test_settings_of_a_run(tmp_path: Path) -> None:
    file = {"town": ["Circuit01"], "action_repeat": 2}
    make_run(tmp_path, 2, {"gamma": 0.9, "env_kwargs": file}, None)
    model = make_run(tmp_path, 10, {"gamma": 0.9, "env_kwargs": file}, {"target_speed": 6.0, "host": "localhost"})
    assert runs.find_model(None, tmp_path) == model
    assert runs.environment_settings(model) == {"action_repeat": 2, "target_speed": 6.0}
    wrapped = make_run(tmp_path, 11, {"env_wrapper": "some.Wrapper"}, None)
    with pytest.raises(ValueError, match="env_wrapper"):
        runs.environment_settings(wrapped)
    assert runs.environment_settings(tmp_path / "alone.zip") == {}


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No run of td3 on CarlaLane-v0"):
        runs.find_model(None, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zip"):
        runs.find_model("nowhere.zip", tmp_path)
