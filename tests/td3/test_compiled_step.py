"""``compile_step`` computes what the plain step computes, and the callbacks see the same."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from tiny import SMALL, BarEnv, train

from sb3_carla.callbacks import DiagnosticsCallback
from sb3_carla.td3.td3 import TD3

PLAIN = {"autocast": False, "policy_kwargs": {"encoder": "critic", "optimizer_kwargs": {"eps": 1e-4}}}
"""In float32, and with no steps of full size from gradients that are nothing but rounding."""
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of which torch.compile itself causes several


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of ``torch.compile`` but the code generator, which would need a C++ compiler and a minute."""
    monkeypatch.setattr(th, "compile", functools.partial(th.compile, backend="aot_eager"))


def trained(compile_step: bool, folder: Path, **options: Any) -> tuple[TD3, list[dict[str, float]]]:
    model = TD3("LayerNormCnnPolicy", BarEnv(), compile_step=compile_step, **{**SMALL, **PLAIN, **options})
    np.random.seed(5)  # noqa: NPY002 (SB3 draws from it)
    return model, train(model, folder, [DiagnosticsCallback(guard=None)], steps=81)


def assert_equal(ours: tuple[TD3, list[dict[str, float]]], plain: tuple[TD3, list[dict[str, float]]]) -> None:
    states = [model.policy.state_dict() for model, _ in (ours, plain)]
    for name, value in states[1].items():
        th.testing.assert_close(states[0][name], value, rtol=1e-3, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    logs = [log[-1] for _, log in (ours, plain)]
    assert set(logs[0]) == set(logs[1])
    for tag in ("gradients/critic_cnn_norm", "debug/cnn_feature_l2_norm", "train/critic_loss", "train/actor_loss"):
        assert logs[0][tag] == pytest.approx(logs[1][tag], rel=1e-3), tag


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"n_steps": 3}, marks=pytest.mark.long),
        pytest.param(
            {"policy_kwargs": {"encoder": "separate"}, "random_shift": 2},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_compiled_training_equals_the_plain_one(tmp_path: Path, options: dict[str, Any]) -> None:
    compiled, plain = (trained(flag, tmp_path / str(flag), **options) for flag in (True, False))
    assert_equal(compiled, plain)
    compiled[0].save(tmp_path / "model.zip")
    again = TD3.load(tmp_path / "model.zip", env=BarEnv())
    assert again.compile_step
    again.learn(45, reset_num_timesteps=False)


@pytest.mark.long
@pytest.mark.usefixtures("traced")
def test_callbacks_that_come_later_see_the_networks_too(tmp_path: Path) -> None:
    """What was compiled without their hooks has none."""
    model = TD3("LayerNormCnnPolicy", BarEnv(), compile_step=True, **{**SMALL, **PLAIN})
    model.learn(61)
    log = train(model, tmp_path, [DiagnosticsCallback(guard=None)], steps=81)
    assert {"debug/cnn_feature_l2_norm", "debug/dormant_ratio"} <= set(log[-1])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_generated_code_equals_the_plain_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.fallback_random", True)
    assert_equal(*(trained(flag, tmp_path / str(flag)) for flag in (True, False)))
