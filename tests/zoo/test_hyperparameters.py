"""Hyperparameter files: what is wrong in one is said with its file and key."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

import pytest
import stable_baselines3
import yaml

from sb3_carla import TD3
from sb3_carla.zoo.hyperparameters import check_hyperparameters, read_hyperparameter_file, read_hyperparameters

ENV_ID = "CarlaLane-v0"
SHIPPED = sorted(
    str(file) for file in importlib.resources.files("sb3_carla.hyperparams").iterdir() if file.name.endswith(".yml")
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"CarlaLane-v0:\n  n_envs: [1\n", r"bad\.yml: .*expected ',' or ']'"),
        (b"\xff\xfe\x00bad", r"bad\.yml: 'utf-8' codec can't decode"),
        (b"", r"bad\.yml: expected a mapping of environments to their hyperparameters, got None"),
        (b"- a\n- b\n", r"bad\.yml: expected a mapping of environments to their hyperparameters, got \['a', 'b'\]"),
        (b"CarlaLane-v0: 3\n", r"bad\.yml: expected a mapping of environments to their hyperparameters, got .*3"),
        (b"Other-v0: {learning_rate: 1}\n", r"bad\.yml: expected an entry CarlaLane-v0, got Other-v0"),
        (b"CarlaLane-v0: {policy: CnnPolicy}\n", r"bad\.yml: CarlaLane-v0: expected a learning_rate, got policy"),
    ],
)
def test_file_that_is_none(tmp_path: Path, text: bytes, complaint: str) -> None:
    path = tmp_path / "bad.yml"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=f"(?s){complaint}"):
        read_hyperparameters(str(path), ENV_ID)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yml: .*No such file"):
        read_hyperparameter_file(str(tmp_path / "none.yml"))


@pytest.mark.parametrize("path", SHIPPED)
def test_what_is_shipped_passes(path: str) -> None:
    check_hyperparameters(read_hyperparameters(path, ENV_ID), TD3)


@pytest.mark.parametrize(
    ("key", "written", "complaint"),
    [
        ("n_stepz", "3", "n_stepz: no hyperparameter of TD3; n_steps?"),
        ("xyzzy", "3", "xyzzy: no hyperparameter of TD3$"),
        ("n_steps", "abc", "n_steps: expected a number, got 'abc'$"),
        ("tau", "1e-2", r"tau: expected a number, got '1e-2' \(YAML takes 1e-2 for text, 1.0e-2 for a number\)"),
        ("n_envs", "many", "n_envs: expected a number, got 'many'"),
        ("learning_rate", "quadratic_3", "learning_rate: expected a rate of at least 0, or lin_RATE .*'quadratic_3'"),
        ("learning_rate", "lin_x", "learning_rate: expected a rate of at least 0.*'lin_x'"),
        ("learning_rate", "-1", "learning_rate: expected a rate of at least 0.*-1"),
        ("learning_rates", "{actor: [1]}", r"learning_rates: actor: expected a rate of at least 0.*\[1\]"),
    ],
)
def test_entry_with_a_mistake(key: str, written: str, complaint: str) -> None:
    entry: dict[str, Any] = {**read_hyperparameters(SHIPPED[-1], ENV_ID), **yaml.safe_load(f"{key}: {written}")}
    with pytest.raises(ValueError, match=complaint):
        check_hyperparameters(entry, TD3)


@pytest.mark.parametrize(
    ("algorithm", "entry"),
    [
        ("PPO", {"learning_rate": "lin_3e-4", "clip_range": "lin_0.2", "n_epochs": 4, "n_timesteps": 1e6}),
        (
            "SAC",
            {
                "learning_rate": 3e-4,
                "ent_coef": "auto_0.1",
                "train_freq": [8, "step"],
                "learning_rates": {"actor": 1e-4},
            },
        ),
    ],
)
def test_other_algorithms(algorithm: str, entry: dict[str, Any]) -> None:
    known = {key: value for key, value in entry.items() if key != "learning_rates"}
    check_hyperparameters(known, getattr(stable_baselines3, algorithm))
    if known != entry:
        with pytest.raises(ValueError, match=f"learning_rates: no hyperparameter of {algorithm}"):
            check_hyperparameters(entry, getattr(stable_baselines3, algorithm))
