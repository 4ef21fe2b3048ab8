"""The ablation: variants mean what they say, faults are where they should be, runs are kept and reported."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch as th
from paths import ROOT
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import NatureCNN
from tiny import BarEnv, SlidingBar

from sb3_carla.ablation import variants
from sb3_carla.ablation.published import PublishedTD3
from sb3_carla.ablation.records import MAX_POINTS, RESULT, Run, downsampled_curves, read_runs, to_json
from sb3_carla.ablation.report import draw, families, table
from sb3_carla.ablation.runner import DivergedError, StopOnNonFinite, _build, _settings, run_all
from sb3_carla.ablation.variants import ENV_ID, load_variant, variant_names
from sb3_carla.checks import from_mapping
from sb3_carla.diagnostics.event_logs import RunLog, ScalarSeries
from sb3_carla.envs.carla_lane import CarlaLaneEnv
from sb3_carla.envs.options import ControlOptions
from sb3_carla.envs.privileged_state import PRIVILEGED_STATE_SIZE
from sb3_carla.envs.towns import HELD_OUT_TOWNS, expand_towns
from sb3_carla.policies import LayerNormNatureCNN
from sb3_carla.td3.update import encode, update
from sb3_carla.zoo import algorithms
from sb3_carla.zoo.hyperparameters import read_hyperparameters

SMALL: dict[str, Any] = {"buffer_size": 200, "batch_size": 16, "seed": 3, "device": "cpu", "autocast": False}
PLAIN = {"features_extractor_class": NatureCNN}


def published(**kwargs: Any) -> PublishedTD3:
    """The published system with 60 transitions in its buffer and no update yet."""
    given = {**SMALL, "learning_starts": 1000, "policy_kwargs": PLAIN, **kwargs}
    model = PublishedTD3("LayerNormCnnPolicy", BarEnv(), **given)
    model.learn(60)
    model.set_logger(configure(None, []))
    return model


def norm(parameters: Any) -> float:
    return float(th.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm())


# --- the faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy_loss", ["actor_features", "critic_features"])
def test_only_the_published_policy_loss_lets_the_actors_cnn_raise_q(policy_loss: str) -> None:
    """With a critic that is blind for actions, a policy can do nothing; the published one grows features instead."""
    model = published(policy_loss=policy_loss, clipping="none", learning_rate=1e-3)
    with th.no_grad():
        model.critic.q_networks[0][0].weight[:, -1].zero_()
    networks, batch = model._networks(), model._sample(32)
    features = encode(networks, model.critic, batch.observations).detach()
    losses = []
    for _ in range(30):
        loss, _ = model._losses.actor(networks, batch, features)
        losses.append(float(loss.detach()))
        model._descend("actor", loss)
    gradient = norm(model.actor.features_extractor.parameters())
    if policy_loss == "actor_features":
        assert losses[-1] < losses[0] - 0.1
        assert gradient > 1e-3
    else:
        assert losses[-1] == pytest.approx(losses[0], abs=1e-5)
        assert gradient == 0.0


@pytest.mark.parametrize(
    ("clipping", "cnn_clipped", "mlp_clipped"),
    [("none", False, False), ("bypassed", False, True), ("parts", True, True), ("all", True, True)],
)
def test_clipping_reaches_what_it_says(clipping: str, cnn_clipped: bool, mlp_clipped: bool) -> None:
    limit = 1e-4
    model = published(clipping=clipping, critic_max_grad_norm=limit)
    update(model._networks(), model._sample(32), model._descend, train_actor=False)
    encoder = list(model.critic.features_extractor.parameters())
    heads = [parameter for network in model.critic.q_networks for parameter in network.parameters()]
    cnn, mlp = norm(encoder), norm(heads)
    assert (cnn <= limit * 1.001) is cnn_clipped
    assert (mlp <= limit * 1.001) is mlp_clipped
    total = (cnn**2 + mlp**2) ** 0.5
    assert (total <= limit * 1.001) is (clipping == "all")


def test_bad_choices() -> None:
    with pytest.raises(ValueError, match="policy_loss: expected one of actor_features, critic_features, got 'mine'"):
        PublishedTD3("LayerNormCnnPolicy", BarEnv(), policy_loss="mine")
    with pytest.raises(ValueError, match="clipping: expected one of none, bypassed, parts, all"):
        PublishedTD3("LayerNormCnnPolicy", BarEnv(), clipping="some")
    with pytest.raises(ValueError, match='needs encoder="separate"'):
        PublishedTD3("LayerNormCnnPolicy", BarEnv(), policy_kwargs={"encoder": "critic"}, buffer_size=10)


# --- variants ----------------------------------------------------------------------------------------------------


class ToldState(SlidingBar):
    """Tells a state as CarlaLane-v0 does."""

    def step(self, action: np.ndarray) -> Any:
        *rest, info = super().step(action)
        return *rest, {
            **info,
            "privileged_state": np.full(PRIVILEGED_STATE_SIZE, self._column / self._size, np.float32),
        }


@pytest.mark.parametrize("name", variant_names())
def test_every_variant_trains(name: str) -> None:
    variant = load_variant(name)
    variant.hyperparameters.update(buffer_size=100, learning_starts=20, batch_size=8)
    env = make_vec_env(ToldState, variant.hyperparameters["n_envs"])
    model = _build(variant, env, seed=0, decisions=60)
    model.learn(60)
    assert model._n_updates > 0
    plain = not any(isinstance(m, th.nn.LayerNorm) for m in model.actor.features_extractor.modules())
    assert plain is (
        re.fullmatch("stock|sb3.*|ours.*-without-layer-norm|published(?!-layer|-repaired).*", name) is not None
    )


def flat(settings: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Hyperparameters by their dotted path."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


@pytest.mark.parametrize("name", variant_names())
def test_a_variant_differs_in_what_its_file_says_and_in_nothing_else(name: str) -> None:
    file = variants._content(name)
    base = (
        variants._resolve(file["like"], ())[1]
        if "like" in file
        else read_hyperparameters(algorithms.default_config("td3"), ENV_ID)
    )
    own, before = flat(variants._resolve(name, ())[1]), flat(base)
    missing = {key for key in before if key not in own}
    assert {key for key in own if own[key] != before.get(key, own)} == set(flat(file.get("but", {})))
    assert {key for key in missing if not any(key.startswith(path) for path in file.get("without", []))} == set()
    env_kwargs = load_variant(name).hyperparameters["env_kwargs"]
    assert env_kwargs.keys() <= inspect.signature(CarlaLaneEnv).parameters.keys()
    direct = re.match("published|stock|ours-with-direct-control", name)
    expected = ControlOptions("pedal") if direct else ControlOptions("speed", lateral_acceleration=6.0)
    assert from_mapping(ControlOptions, "control", env_kwargs["control"]) == expected
    assert not set(HELD_OUT_TOWNS) & set(expand_towns([env_kwargs["town"]]))


def test_layer_norm_and_algorithm_are_those_of_the_title() -> None:
    normed, plain = (load_variant(f"published{end}") for end in ("-layer-norm", ""))
    assert normed.hyperparameters["policy_kwargs"]["features_extractor_class"] is LayerNormNatureCNN
    assert plain.hyperparameters["policy_kwargs"]["features_extractor_class"] is NatureCNN
    assert load_variant("stock").algorithm.__module__ == "stable_baselines3.td3.td3"


def test_bad_variants_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown variant 'theirs', expected one of ours"):
        load_variant("theirs")
    (tmp_path / "ablation").mkdir()
    files = {"a": "title: a\nlike: b\n", "b": "title: b\nlike: a\n", "c": "title: c\nbutt: {}\n"}
    for name, text in files.items():
        (tmp_path / "ablation" / f"{name}.yml").write_text(text)
    monkeypatch.setattr(variants, "_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match="circle: a -> b -> a"):
        load_variant("a")
    with pytest.raises(ValueError, match=r"variant c: expected the keys .* got title, butt"):
        load_variant("c")


# --- runs --------------------------------------------------------------------------------------------------------


def test_a_run_that_becomes_nan_ends_without_an_action() -> None:
    class Poison(StopOnNonFinite):
        def _on_step(self) -> bool:
            if self.num_timesteps == 30:
                with th.no_grad():
                    self.model.actor.mu[0].bias[0] = float("nan")
            return True

    model = published()
    with pytest.raises(DivergedError):
        model.learn(60, callback=Poison())
    assert model.num_timesteps == 30


@pytest.mark.long
def test_runs_are_kept_resumed_and_reported(tmp_path: Path) -> None:
    told: list[str] = []
    ours = "ours-with-four-cars"  # has the fewest environments of its kind
    names, arguments = [ours, "published"], {"decisions": 48, "episodes": 1, "report": told.append}
    assert run_all(names, [1], tmp_path, minutes=0.0, **arguments) == 2, "no time, no run"
    assert run_all([ours], [1], tmp_path, **arguments) == 0
    written = (tmp_path / ours / "seed_1" / RESULT).stat().st_mtime_ns
    half = tmp_path / "published" / "seed_1"
    half.mkdir(parents=True)
    (half / "events.out.tfevents.1.half").write_bytes(b"begun, and interrupted")
    assert run_all(names, [1], tmp_path, **arguments) == 0
    assert (tmp_path / ours / "seed_1" / RESULT).stat().st_mtime_ns == written, "done once"
    assert not (half / "events.out.tfevents.1.half").exists()
    assert [line.split(":")[0] for line in told] == [
        f"{ours} seed 1",
        f"{ours} seed 1",
        "published seed 1",
        "published seed 1",
    ]

    result = json.loads((half / RESULT).read_text())
    assert (result["seed"], result["decisions"], result["diverged_at"]) == (1, 48, None)
    assert result["hyperparameters"]["policy_loss"] == "actor_features"
    assert result["command"] == "python scripts/ablation.py --variants published --seeds 1 --decisions 48 --episodes 1"
    assert 0.0 <= result["scores"]["route_completion"]["value"] <= 1.0
    for kept in ("events*", "model.zip"):
        for path in half.glob(kept):
            path.unlink()  # the result alone is enough for the report

    result.update(seed=2, diverged_at=40, scores=None)
    shutil.copytree(half, tmp_path / "published" / "seed_2")
    (tmp_path / "published" / "seed_2" / RESULT).write_text(json.dumps(result))
    runs = read_runs(tmp_path)
    rows = table(runs).splitlines()
    assert len(rows) == 4
    assert any("| published system | 2, 1 to NaN |" in row for row in rows)
    assert {family: list(members) for family, members in families(runs).items()} == {
        "published": ["published"], "ours": [ours],
    }  # fmt: skip
    draw(runs).savefig(tmp_path / "ablation.png")
    assert (tmp_path / "ablation.png").stat().st_size > 10_000
    with pytest.raises(FileNotFoundError, match="No finished run"):
        read_runs(tmp_path / "nowhere")


def test_results_of_other_settings_are_made_anew(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "published" / "seed_1" / RESULT
    path.parent.mkdir(parents=True)
    done = {
        "variant": "published",
        "seed": 1,
        **_settings(load_variant("published"), episodes=2, decisions=None, recordings=()),
    }
    assert (done["decisions"], done["episodes"]) == (4000, 2)

    def left(change: dict[str, Any], **arguments: Any) -> int:
        path.write_text(json.dumps({**done, **change}))
        return run_all(["published"], [1], tmp_path, minutes=0.0, report=told.append, **{"episodes": 2, **arguments})

    assert left({}) == left({}, decisions=4000) == 0
    assert left({}, episodes=3) == left({}, decisions=48) == 1
    assert left({"hyperparameters": {**done["hyperparameters"], "tau": 0.1}}, decisions=48) == 1
    assert left({"episodes": None}) == 1
    assert told == [
        f"published seed 1: its result has other {keys}"
        for keys in ("episodes", "decisions", "decisions and hyperparameters", "episodes")
    ]


def test_curves_keep_their_ends_and_what_was_not_finite(tmp_path: Path) -> None:
    steps = np.arange(0, 2500, 10)
    values = np.where(steps == 2490, np.nan, np.exp(steps / 100.0))
    log = RunLog(
        tmp_path, {"debug/cnn_feature_l2_norm": ScalarSeries(steps, values), "train/other": ScalarSeries(steps, values)}
    )
    text = to_json({"variant": "ours", "curves": downsampled_curves(log)})
    assert len(text.splitlines()) == 4
    assert "NaN" not in text
    curves = json.loads(text)["curves"]
    run = Run({"curves": curves})
    assert set(curves) == {"actor_features"}, "the critic has no encoder"
    shared = RunLog(tmp_path, {**log.scalars, "gradients/critic_cnn_norm": ScalarSeries(steps, values)})
    assert {"actor_features", "critic_features"} <= set(downsampled_curves(shared)), "one encoder stands for both"
    series = run.curve("actor_features")
    assert series is not None
    assert len(series.steps) == MAX_POINTS
    assert (series.steps[0], series.steps[-1]) == (0, 2490)
    assert np.allclose(
        series.values, np.where(series.steps == 2490, np.nan, np.exp(series.steps / 100.0)), 1e-4, equal_nan=True
    )
    assert np.isnan(run.tail("actor_features"))
    assert np.isnan(run.tail("q"))
    run.result["curves"]["q"] = {"steps": list(range(20)), "values": [0.0] * 18 + [3.0, 5.0]}
    assert run.tail("q") == 4.0


@pytest.mark.long
def test_runs_do_not_outlive_the_command(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/ablation.py"), "--variants", "published"]
    command += ["--seeds", "1", "--jobs", "1", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as parent:
        deadline = time.monotonic() + 240.0
        while not list(tmp_path.glob("published/seed_1/events*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        own = session_of(parent.pid)
        parent.kill()
    assert len(own) >= 3, "the command, a run, its server"
    while session_of(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not session_of(parent.pid)


def session_of(number: int) -> list[int]:
    """Processes of a session that live."""
    found = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(OSError):  # it has ended
            if os.getsid(process.pid) == number and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found
