"""rl-zoo3 finds the environment, our TD3 and our hyperparameters; and nothing changes for anybody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from outside_repository import run_python

from sb3_carla.zoo import algorithms

PROBE = Path(__file__).with_name("zoo_probe.py")
OURS, STOCK = "sb3_carla.td3.td3.TD3", "stable_baselines3.td3.td3.TD3"
USER_CONFIG = """
CarlaLane-v0: {n_timesteps: 100, policy: MlpPolicy, gamma: 0.5, env_kwargs: {n_npcs: 3, town: Village01}}
Pendulum-v1: {n_timesteps: 100, policy: MlpPolicy, gamma: 0.5}
"""
OPTIONS = """
CarlaLane-v0:
  n_timesteps: 100
  policy: MlpPolicy
  env_kwargs:
    control: {longitudinal: speed, lateral_acceleration: 6.0}
    server: {max_episodes: 9}
    weather: {cloudiness: 50.0}
"""


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """One process sets up all experiments in a row: so they must not disturb each other either."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "user.yml").write_text(USER_CONFIG)
    (folder / "list.yml").write_text("- CarlaLane-v0")
    (folder / "options.yml").write_text(OPTIONS)
    cases = [
        {"env_id": "CarlaLane-v0"},
        {"env_id": "Pendulum-v1"},
        {"env_id": "CarlaLane-v0", "config": "user.yml", "env_kwargs": {"town": ["A", "B"]}},
        {"env_id": "Pendulum-v1", "config": "user.yml"},
        {"env_id": "CarlaLane-v0", "hyperparams": {"buffer_size": 100, "n_envs": 2, "vec_env": "supervised"}},
        {"env_id": "CarlaLane-v0", "config": "user.yml", "hyperparams": {"n_stepz": 3}},
        {"env_id": "CarlaLane-v0", "config": "list.yml"},
        {"env_id": "CarlaLane-v0", "config": "drqv3"},
        {"env_id": "CarlaLane-v0", "config": "missing.yml"},
        {"env_id": "CarlaLane-v0", "config": "options.yml", "env_kwargs": {"server": {"max_memory": 4.0}}},
        {
            "env_id": "CarlaLane-v0",
            "config": "options.yml",
            "env_kwargs": {"control": {"steering_rate": 2.0}, "weather": {"wetness": 9.0}},
            "eval_env_kwargs": {"control": {"longitudinal": "pedal"}},
        },
    ]
    found: list[dict[str, Any]] = json.loads(run_python(folder, str(PROBE), json.dumps(cases)).splitlines()[-1])
    return found


def test_ours(probed: list[dict[str, Any]]) -> None:
    found = probed[0]
    assert found["class"] == OURS
    assert Path(found["config"]).parts[-2:] == ("hyperparams", "td3.yml")
    assert "rl_zoo3" not in found["config"]
    # The zoo itself evaluates without the file's env_kwargs, and does not record them.
    assert found["env_kwargs"]["town"] == "training"
    assert found["env_kwargs"]["start_curriculum"] > 0.0
    assert found["env_kwargs"]["randomize"] == "all"
    anywhere = {**found["env_kwargs"], "start_curriculum": 0.0, "randomize": None}
    assert found["eval_env_kwargs"] == found["recorded"] == anywhere, "evaluation, enjoy and record_video"


def test_other_environments_are_left_alone(probed: list[dict[str, Any]]) -> None:
    found = probed[1]
    assert found["class"] == found["stock"] == STOCK
    assert "rl_zoo3" in found["config"]
    assert found["recorded"] is None


def test_environments_in_processes_of_their_own(probed: list[dict[str, Any]]) -> None:
    assert probed[4]["vec_env"] == "sb3_carla.envs.vec_env.SupervisedVecEnv"
    assert {found["vec_env"] for found in probed[:4]} == {"stable_baselines3.common.vec_env.dummy_vec_env.DummyVecEnv"}


def test_config_of_the_user_wins(probed: list[dict[str, Any]]) -> None:
    ours, theirs = probed[2:4]
    assert ours["config"] == theirs["config"] == "user.yml"
    assert ours["gamma"] == theirs["gamma"] == 0.5
    assert (ours["class"], theirs["class"]) == (OURS, STOCK)


def test_command_line_goes_over_the_file_key_by_key(probed: list[dict[str, Any]]) -> None:
    expected = {"n_npcs": 3, "town": ["A", "B"]}
    assert probed[2]["env_kwargs"] == probed[2]["eval_env_kwargs"] == probed[2]["recorded"] == expected


def test_option_groups_are_merged_key_by_key_too(probed: list[dict[str, Any]]) -> None:
    server, control = probed[9:]
    assert server["env_kwargs"] == {
        "control": {"longitudinal": "speed", "lateral_acceleration": 6.0},
        "server": {"max_episodes": 9, "max_memory": 4.0},
        "weather": {"cloudiness": 50.0},
    }
    assert (
        control["env_kwargs"]
        == control["recorded"]
        == {
            "control": {"longitudinal": "speed", "lateral_acceleration": 6.0, "steering_rate": 2.0},
            "server": {"max_episodes": 9},
            "weather": {"wetness": 9.0},
        }
    )
    evaluated = {"longitudinal": "pedal", "lateral_acceleration": 6.0, "steering_rate": 2.0}
    assert control["eval_env_kwargs"] == {**control["env_kwargs"], "control": evaluated}


def test_mistakes_are_told_with_their_file(probed: list[dict[str, Any]]) -> None:
    assert probed[5]["refused"] == "user.yml: CarlaLane-v0: n_stepz: no hyperparameter of TD3; n_steps?"
    assert probed[6]["refused"].startswith("list.yml: expected a mapping of environments to their hyperparameters")
    for found, word in zip(probed[7:9], ("drqv3", "missing.yml"), strict=True):
        assert found["refused"].endswith(f"or one of drqv2, paper, sb3, spinningup, got {word!r}")


RATES = {"drqv2": 1e-4, "paper": 3e-4, "sb3": 1e-3, "spinningup": 1e-3}


@pytest.mark.long
def test_every_preset_trains_by_its_word(tmp_path: Path) -> None:
    assert sorted(algorithms.presets("td3")) == sorted(RATES)
    small = {"buffer_size": 100, "n_envs": 1, "learning_starts": 20, "batch_size": 8}
    cases = [{"env_id": "CarlaLane-v0", "config": word, "steps": 64, "hyperparams": small} for word in RATES]
    found = json.loads(run_python(tmp_path, str(PROBE), json.dumps(cases)).splitlines()[-1])
    for word, probe in zip(RATES, found, strict=True):
        assert probe["class"] == OURS
        assert probe["config"] == algorithms.presets("td3")[word]
        assert set(probe["rates"]) == {RATES[word]}
        assert probe["updates"] > 20


def test_own_custom_envs_wins_and_gym_packages_works(tmp_path: Path) -> None:
    (tmp_path / "custom_envs.py").write_text("MINE = True\n")
    code = """if True:
        import importlib, sys
        sys.path.insert(0, "")
        import gymnasium, rl_zoo3.train
        assert sys.modules["custom_envs"].MINE
        assert "CarlaLane-v0" not in gymnasium.registry
        importlib.import_module("sb3_carla")  # --gym-packages sb3_carla
        assert "CarlaLane-v0" in gymnasium.registry
        assert hasattr(rl_zoo3.train.ExperimentManager.__init__, "__sb3_carla__")
    """
    run_python(tmp_path, "-c", code)


def test_experiment_manager_imported_first(tmp_path: Path) -> None:
    code = """if True:
        import rl_zoo3.exp_manager as first
        import rl_zoo3.train
        assert rl_zoo3.exp_manager is first
        assert rl_zoo3.train.ExperimentManager is first.ExperimentManager
        patched = first.ExperimentManager.__init__
        assert hasattr(patched, "__sb3_carla__")
        import sb3_carla.zoo.hooks
        sb3_carla.zoo.hooks.install()
        assert first.ExperimentManager.__init__ is patched, "a second install() wraps again"

        del first.ExperimentManager.read_hyperparameters
        try:
            sb3_carla.zoo.hooks.install()
        except sb3_carla.zoo.hooks.ZooPatchError as error:
            assert "has no ExperimentManager.read_hyperparameters" in str(error), error
        else:
            raise AssertionError("a future rl-zoo3 without the method goes unnoticed")
    """
    run_python(tmp_path, "-c", code)


def test_runs_that_begin_at_the_same_moment_have_a_folder_each(tmp_path: Path) -> None:
    code = """
import argparse
import rl_zoo3.train as zoo
for env_id in ("CarlaLane-v0", "Pendulum-v1"):
    managers = [zoo.ExperimentManager(argparse.Namespace(), "td3", env_id, "logs") for _ in range(3)]
    for manager in managers:
        manager.create_log_folder()
        print(manager.save_path, manager.params_path)
"""
    lines = run_python(tmp_path, "-c", code).splitlines()[-6:]
    ours = [f"logs/td3/CarlaLane-v0_{number}" for number in (1, 2, 3)]
    assert lines[:3] == [f"{path} {path}/CarlaLane-v0" for path in ours]
    assert lines[3:] == ["logs/td3/Pendulum-v1_1 logs/td3/Pendulum-v1_1/Pendulum-v1"] * 3, "as it was"


def test_train_enjoy_record_and_continue(tmp_path: Path) -> None:
    common = ["--algo", "td3", "--env", "CarlaLane-v0", "-f", "logs"]
    small = ["-params", "n_envs:1", "learning_starts:20", "batch_size:8", "buffer_size:100"]
    train = ["-m", "rl_zoo3.train", *common, "-n", "30", "--eval-freq", "-1", "--seed", "3"]
    run_python(tmp_path, *train, *small)
    model = tmp_path / "logs/td3/CarlaLane-v0_1/CarlaLane-v0.zip"
    assert model.is_file()
    # At most 15 s, which are 75 decisions, until the time limit.
    held_out = ["--env-kwargs", "town:'Circuit06'", "target_speed:5.0", "route_length:25.0"]
    out = run_python(tmp_path, "-m", "rl_zoo3.enjoy", *common, "-n", "80", "--no-render", *held_out)
    assert "Episode Reward" in out
    run_python(tmp_path, "-m", "rl_zoo3.record_video", *common, "-n", "5", "-o", "video")
    assert list((tmp_path / "video").glob("*.mp4"))
    run_python(tmp_path, *train, "-i", str(model), *small)
    assert (tmp_path / "logs/td3/CarlaLane-v0_2/CarlaLane-v0.zip").is_file()
