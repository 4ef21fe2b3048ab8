"""Each check passes a good log, and fails the bad one that it is there for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logs import TIMES, good_log, write_log
from outside_repository import python
from paths import ROOT
from stable_baselines3.common.logger import configure
from tiny import BarEnv

from sb3_carla.callbacks import DiagnosticsCallback
from sb3_carla.diagnostics.event_logs import read_run
from sb3_carla.diagnostics.limits import FEATURE_LIMITS, feature_norm_limits
from sb3_carla.diagnostics.validation import PROFILES, Limits, Report, validate
from sb3_carla.td3.td3 import TD3

LATE = TIMES > 0.5


def report(folder: Path, profile: str = "50k", without: tuple[str, ...] = (), **changes: Any) -> Report:
    tags = {tag: values for tag, values in good_log().items() if not tag.startswith(without or ("nothing",))}
    write_log(folder, {**tags, **{tag.replace("__", "/"): values for tag, values in changes.items()}})
    return validate(read_run(folder), profile)


def failed(found: Report) -> set[str]:
    return {result.check for result in found.results if result.verdict == "FAIL"}


@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_good_log_passes(tmp_path: Path, profile: str) -> None:
    found = report(tmp_path, profile)
    assert failed(found) == set()
    assert found.status == 0, str(found)
    assert str(found).endswith("\nGO")


def with_value(values: np.ndarray, index: int, value: float) -> np.ndarray:
    changed = values.copy()
    changed[index] = value
    return changed


ACTOR_NORM = "debug/actor_grad_norm_AFTER_clip"
ACTOR_MLP_NORM = "debug/actor_mlp_grad_norm_AFTER_clip"
GOOD = good_log()
Q = GOOD["train/q1_value"]


@pytest.mark.parametrize(
    ("profile", "tag", "values", "check"),
    [
        ("smoke", "train/critic_loss", with_value(TIMES, 40, np.nan), "no NaN, no Inf"),
        ("smoke", "reward/progress", with_value(TIMES, 3, np.inf), "no NaN, no Inf"),
        ("smoke", "debug/cnn_feature_l2_norm", with_value(TIMES, 7, 101.0), "debug/cnn_feature_l2_norm"),
        ("smoke", "debug/actor_cnn_feature_l2_norm", 1e12 * TIMES, "debug/actor_cnn_feature_l2_norm"),
        ("gradients", ACTOR_NORM, with_value(TIMES, 9, 1.001), ACTOR_NORM),
        ("gradients", "debug/actor_cnn_grad_norm_AFTER_clip", 2.0 * TIMES, "debug/actor_cnn_grad_norm_AFTER_clip"),
        ("gradients", "debug/critic_mlp_grad_norm_AFTER_clip", 11.0 * TIMES, "debug/critic_mlp_grad_norm_AFTER_clip"),
        ("gradients", "debug/critic_grad_clip_ratio", 1.1 * TIMES, "debug/critic_grad_clip_ratio"),
        ("gradients", ACTOR_MLP_NORM, with_value(TIMES / 2 + 0.1, 5, 0.0), "actor MLP norm > 0"),
        ("gradients", "alerts/gradient_explosion_warning", np.ones(1), "no alerts"),
        ("5k", "train/q1_value", with_value(Q, 70, -201.0), "train/q1_value"),
        ("5k", "train/target_Q_mean", 10.0 ** (2.2 * TIMES), "train/target_Q_mean not exploding"),
        ("5k", "train/q2_value", Q + 6.0, "mean abs(Q1 - Q2)"),
        ("5k", "train/critic_loss", 250.0 + TIMES, "mean critic loss"),
        ("5k", "train/episode_reward", np.where(LATE, 200.0 - 99.0 * TIMES, 200.0), "episode reward not degrading"),
        ("5k", "train/episode_length", np.where(LATE, 300.0 - 200.0 * TIMES, 300.0), "episode length not degrading"),
        ("50k", "debug/cnn_feature_l2_norm", 16.0 - 8.0 * TIMES, "debug/cnn_feature_l2_norm"),
        ("50k", "train/critic_loss", 0.1 + 0.2 * TIMES * (1.0 + Q**2), "train/critic_loss falling, relative to Q"),
        ("50k", "debug/td_error_q1", 0.1 + 0.2 * TIMES * (1.0 + Q), "debug/td_error_q1 falling, relative to Q"),
        ("50k", "train/episode_reward", 100.0 + np.sin(50.0 * TIMES), "episode reward rising"),
        ("50k", "train/actor_loss", -(10.0 ** (6.0 * TIMES)), "train/actor_loss not exploding"),
    ],
)  # fmt: skip
def test_each_check_can_fail(tmp_path: Path, profile: str, tag: str, values: np.ndarray, check: str) -> None:
    found = report(tmp_path, profile, **{tag.replace("/", "__"): values})
    assert failed(found) == {check}, str(found)
    assert found.status == 1
    assert str(found).endswith("NO-GO")


def test_a_slight_decline_is_no_no_go(tmp_path: Path) -> None:
    assert report(tmp_path, "5k", train__episode_reward=200.0 - 5.0 * TIMES).status == 0


def test_published_logs_lack_tags(tmp_path: Path) -> None:
    """No second critic, no ratios, no driving tags; SB3's own episode means: named, and judged all the same."""
    missing = ("train/q2", "train/target", "debug/td_error_q2", "debug/actor_grad_clip", "train/episode", "agent")
    means = {"rollout__ep_rew_mean": 200.0 * TIMES, "rollout__ep_len_mean": 300.0 * TIMES}
    found = report(tmp_path, "50k", missing, **means)
    assert found.status == 0, str(found)
    left_out = {result.check for result in found.results if result.verdict == "left out"}
    assert {"train/q2_value", "mean abs(Q1 - Q2)", "debug/actor_grad_clip_ratio"} <= left_out


@pytest.mark.parametrize(
    ("profile", "missing"),
    [("smoke", "debug/cnn_feature"), ("gradients", "debug/actor"), ("5k", "train/q1"), ("5k", "train/episode_reward")],
)
def test_without_what_it_is_about_nothing_can_be_judged(tmp_path: Path, profile: str, missing: str) -> None:
    found = report(tmp_path, profile, (missing,))
    assert found.status == 2
    assert any(result.verdict == "cannot be judged" and missing in result.observed for result in found.results)


def test_too_short_a_log_cannot_be_judged_but_can_fail(tmp_path: Path) -> None:
    short = {**good_log(), "steps": 600.0 * TIMES}
    write_log(tmp_path / "short", dict(short))
    log = read_run(tmp_path / "short")
    assert validate(log, "gradients").status == 0
    assert validate(log, "5k").status == 2
    write_log(tmp_path / "bad", {**short, "alerts/x": np.ones(1)})
    assert validate(read_run(tmp_path / "bad"), "5k").status == 1


def test_zeros_between_actor_updates_are_explained(tmp_path: Path) -> None:
    zeros = np.where(np.arange(len(TIMES)) % 2 == 0, 0.0, 0.4)
    found = report(tmp_path, "gradients", debug__actor_mlp_grad_norm_AFTER_clip=zeros)
    line = next(result for result in found.results if result.check == "actor MLP norm > 0")
    assert "0 at 40 of 80 points" in line.observed
    assert "not updated" in line.observed


def test_limits_of_the_features_norm_scale_with_their_number(tmp_path: Path) -> None:
    norm = np.full(len(TIMES), 5.0)
    low, high = feature_norm_limits(64)
    assert (low, high) == pytest.approx((10.0 / math.sqrt(8.0), 100.0 / math.sqrt(8.0)))
    assert "debug/cnn_feature_l2_norm" in failed(report(tmp_path / "512", debug__cnn_feature_l2_norm=norm))
    limits = {
        tag.replace("/", "__"): np.full(len(TIMES), value)
        for tag, value in zip(FEATURE_LIMITS, (low, high), strict=True)
    }
    assert not failed(report(tmp_path / "64", debug__cnn_feature_l2_norm=norm, **limits))


def test_limits_can_be_changed(tmp_path: Path) -> None:
    write_log(tmp_path, good_log())
    strict = validate(read_run(tmp_path), "gradients", Limits(actor_norm=0.5))
    assert "debug/actor_grad_norm_AFTER_clip" in failed(strict)
    with pytest.raises(ValueError, match="profile: expected one of smoke, gradients, 5k, 50k, got '1M'"):
        validate(read_run(tmp_path), "1M")


def command(script: str, *arguments: str | Path) -> tuple[int, str, str]:
    done = python(ROOT, f"scripts/{script}", *map(str, arguments))
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
def test_commands_over_a_real_training(tmp_path: Path) -> None:
    model = TD3(
        "LayerNormCnnPolicy", BarEnv(), buffer_size=500, learning_starts=20, batch_size=16, seed=3, learning_rate=3e-4,
        policy_kwargs={"net_arch": [32, 32], "features_extractor_kwargs": {"features_dim": 32}},
    )  # fmt: skip
    model.set_logger(configure(str(tmp_path / "TD3_1"), ["tensorboard"]))
    model.learn(420, callback=DiagnosticsCallback(), log_interval=1)
    model.logger.close()
    for profile in ("smoke", "gradients"):
        status, out, err = command(
            "validate_training.py", tmp_path, "--profile", profile, "--json", tmp_path / "new" / "r.json"
        )
        assert (status, err) == (0, ""), out
        assert "GO" in out
        assert json.loads((tmp_path / "new" / "r.json").read_text())[0]["status"] == 0
    event_file = next((tmp_path / "TD3_1").glob("*tfevents*"))
    assert command("validate_gradients.py", event_file)[0] == 0
    assert command("validate_training.py", tmp_path, "--profile", "5k")[0] == 2
    # A crash in the middle of a write, then a second file of the same run.
    event_file.write_bytes(event_file.read_bytes()[:-7])
    write_log(tmp_path / "TD3_1", {"alerts/divergence_critical": np.ones(1), "steps": np.array([430.0])})
    status, out, _ = command("validate_training.py", tmp_path, "--profile", "gradients")
    assert status == 1
    assert "ends within a record" in out
    assert "alerts/divergence_critical 1 times, first at step 430" in out


@pytest.mark.long
def test_commands_say_what_they_cannot_read(tmp_path: Path) -> None:
    status, out, err = command("validate_training.py", tmp_path / "nothing", "--profile", "smoke")
    assert (status, out) == (2, "")
    assert "No event file and no folder" in err
    write_log(tmp_path / "good", good_log())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/events.out.tfevents.1").write_bytes(b"x" * 100)
    status, out, err = command("validate_training.py", tmp_path, "--profile", "smoke")
    assert status == 2
    assert "damaged at byte 0" in err
    assert "GO" in out
    status, _, err = command("validate_gradients.py", tmp_path / "bad")
    assert status == 2
    assert "damaged" in err
