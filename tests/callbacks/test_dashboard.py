"""The dashboard: its charts name tags that are written, and its limits are the model's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tiny import BarEnv

from sb3_carla.callbacks import DashboardCallback, DiagnosticsCallback
from sb3_carla.callbacks.dashboard import clipping_limit
from sb3_carla.diagnostics.charts import CATEGORIES
from sb3_carla.diagnostics.event_logs import read_run
from sb3_carla.td3.td3 import TD3

SMALL: dict[str, Any] = {"buffer_size": 500, "learning_starts": 40, "batch_size": 16, "seed": 3, "learning_rate": 3e-4}
DRIVING = ("Success", "Lateral", "Speed", "Collisions", "Reward terms")  # CarlaLane-v0's own


class Driven(BarEnv):
    """With the infos that a driving environment gives."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        info["reward_terms"] = {"progress": reward}
        if truncated:
            info |= {"collisions": 0, "is_success": True, "lateral_deviation_m": 0.1, "mean_speed_mps": 1.0}
        return observation, reward, terminated, truncated, info


def charts(folder: Path) -> dict[str, list[str]]:
    """Title -> patterns, as TensorBoard reads them."""
    events = EventAccumulator(str(folder)).Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a training."""
    folder = tmp_path_factory.mktemp("log")
    model = TD3("LayerNormCnnPolicy", Driven(), **SMALL, critic_max_grad_norm=2.5)
    model.set_logger(configure(str(folder), ["tensorboard"]))
    model.learn(140, callback=DiagnosticsCallback(), log_interval=1)
    model.logger.close()
    return folder


def test_every_chart_is_filled_by_a_training(logged: Path) -> None:
    scalars = read_run(logged).scalars
    found = charts(logged)
    assert next(iter(found)) == "Actor: gradient norm before, after, limit"
    assert not any("Policy" in title for title in found)
    for title, patterns in found.items():
        matched = [tag for tag in scalars for pattern in patterns if re.match(pattern, tag)]
        # Nothing is amiss, and these critics see pictures: there is no state to predict.
        assert matched or title in ("Alerts", "Error of the predicted state"), f"{title} stays empty: {patterns}"
    assert set(scalars["limits/critic_grad_norm"].values) == {2.5}
    assert set(scalars["limits/actor_grad_norm"].values) == {1.0}
    for name in ("actor", "critic"):
        limit, before = scalars[f"limits/{name}_grad_norm"], scalars[f"debug/{name}_grad_norm_BEFORE_clip"]
        assert limit.steps.tolist() == before.steps.tolist()
    drawn = {tag for category in CATEGORIES.values() for chart in category for tag in chart.tags(scalars)}
    assert {tag for tag in scalars if tag.startswith(("debug/", "gradients/", "agent/", "train/"))} - drawn <= {
        "debug/q_bias", *(tag for tag in scalars if re.match(r"debug/\w+_cnn_feature_(mean|std|max|min)", tag))
    }  # fmt: skip


def test_every_tag_is_documented(logged: Path) -> None:
    lines = (ROOT / "docs/metrics.md").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if line.startswith("|"))  # the tables
    names = {"network": "(actor|critic|policy)", "name": r"\w+", "term": r"\w+"}
    patterns = [
        re.sub(r"<(\w+)>", lambda match: names[match[1]], tag).replace("*", r"\w+")
        for tag in re.findall(r"`((?:train|debug|gradients|agent|alerts|driving|reward|limits)/[\w<>*/]+)`", text)
    ]
    unknown = [
        tag
        for tag in read_run(logged).scalars
        if not tag.startswith(("rollout/", "time/")) and not any(re.fullmatch(pattern, tag) for pattern in patterns)
    ]
    assert unknown == []


def test_one_network_has_one_chart_and_other_outputs_no_limits(tmp_path: Path) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, n_epochs=1, device="cpu", max_grad_norm=0.3)
    model.set_logger(configure(str(tmp_path), ["csv", "tensorboard"]))
    model.learn(200, callback=DiagnosticsCallback())
    model.logger.close()
    titles = [title for title in charts(tmp_path) if "before, after, limit" in title]
    assert titles == ["Policy: gradient norm before, after, limit"]
    assert read_run(tmp_path).scalars["limits/policy_grad_norm"].values == pytest.approx(0.3)
    assert "limits/" not in (tmp_path / "progress.csv").read_text()


def test_limits_are_the_models_own() -> None:
    off_policy = {"buffer_size": 10, "device": "cpu"}
    assert clipping_limit(DQN("MlpPolicy", "CartPole-v1", max_grad_norm=7, **off_policy), "policy") == 7.0
    assert clipping_limit(SAC("MlpPolicy", "Pendulum-v1", **off_policy), "actor") is None
    assert clipping_limit(TD3("LayerNormCnnPolicy", BarEnv(), **SMALL, actor_max_grad_norm=None), "actor") is None


def test_without_tensorboard_it_does_nothing(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", BarEnv(), **SMALL)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(61, callback=DashboardCallback(), log_interval=1)
    model.logger.close()
    assert "limits/" not in (tmp_path / "progress.csv").read_text()
