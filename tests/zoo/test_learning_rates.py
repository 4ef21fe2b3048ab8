"""The rates that a file asks for, against those that optimizers use: and the ways in which they differ."""

from __future__ import annotations

from typing import Any

import pytest
import stable_baselines3
from outside_repository import python
from paths import ROOT
from tiny import BarEnv

from sb3_carla.td3.td3 import TD3
from sb3_carla.zoo.learning_rates import build, verify

ENTRY: dict[str, Any] = {"policy": "LayerNormCnnPolicy", "learning_rate": 3e-4, "n_envs": 4, "n_timesteps": 100}


def test_an_algorithm_without_actor_and_critic_is_named() -> None:
    model = stable_baselines3.PPO("CnnPolicy", BarEnv(), n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match="expected an algorithm with an actor and a critic, got PPO"):
        verify(model, ENTRY)


@pytest.mark.parametrize(
    "rates",
    [{}, {"learning_rates": {"actor": 1e-4, "critic_cnn": 5e-5}}, {"learning_rate": "lin_1e-3"}],
)
def test_our_rates_survive_the_schedule(rates: dict[str, Any]) -> None:
    entry = {**ENTRY, **rates}
    checks = verify(build(TD3, entry, BarEnv()), entry)
    assert {check.group for check in checks} == {"actor", "actor_cnn", "critic", "critic_cnn"}
    assert len(checks) == 12
    assert all(check.passed for check in checks)
    expected = {(check.group, check.progress): check.expected for check in checks}
    if "learning_rates" in rates:
        assert expected["critic_cnn", 0.5] == 5e-5
        assert expected["actor_cnn", 0.5] == 1e-4
        assert expected["critic", 0.5] == 3e-4
    if rates.get("learning_rate") == "lin_1e-3":
        assert expected["critic", 0.5] == 5e-4
        assert expected["critic", 0.0] == 0.0


def test_sb3_overwrites_the_rates_of_parts() -> None:
    from sb3_carla.policies import LayerNormCnnPolicy

    entry = {**ENTRY, "policy": LayerNormCnnPolicy}
    model = build(stable_baselines3.TD3, entry, BarEnv())
    model.critic.optimizer.param_groups[0]["lr"] = 5e-5
    failed = [check for check in verify(model, {**entry, "learning_rates": {"critic_cnn": 5e-5}}) if not check.passed]
    assert {check.group for check in failed} == {"critic_cnn"}
    assert {check.found for check in failed} == {3e-4}


def command(*arguments: str) -> tuple[int, str, str]:
    done = python(ROOT, "scripts/verify_learning_rates.py", *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_command() -> None:
    status, out, _ = command("--preset", "drqv2")
    assert status == 0, out
    assert "| critic_cnn | 0.5 | 0.0001 | 0.0001 | pass |" in out


def test_missing_file_is_one_line() -> None:
    status, out, err = command("--config", "nowhere.yml")
    assert (status, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
