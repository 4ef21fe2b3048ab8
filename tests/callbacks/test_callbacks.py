"""The callbacks in other people's experiments: true numbers, nothing changed, nothing left behind."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN, TQC
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC
from stable_baselines3 import TD3 as StockTD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import CSVOutputFormat, configure
from tiny import BarEnv, train
from torch.optim.optimizer import _global_optimizer_pre_hooks

from sb3_carla.callbacks import (
    ActionSaturationCallback,
    DiagnosticsCallback,
    DrivingMetricsCallback,
    FeatureStatisticsCallback,
    GradientNormCallback,
)
from sb3_carla.td3.td3 import TD3

SMALL: dict[str, Any] = {"buffer_size": 500, "learning_starts": 40, "batch_size": 16, "seed": 3, "learning_rate": 3e-4}


def test_norms_of_our_td3(tmp_path: Path) -> None:
    limits = {"actor_max_grad_norm": 1e-3, "critic_max_grad_norm": 0.05}
    # At SB3's rate of 1e-3 the actor saturates in its first updates, and there is no gradient left to be clipped.
    model = TD3("LayerNormCnnPolicy", BarEnv(), **{**SMALL, **limits, "learning_rate": 1e-5})
    rows = train(model, tmp_path, [GradientNormCallback(), FeatureStatisticsCallback()])
    tag = "debug/actor_grad_norm_AFTER_clip"
    last = next(row for row in rows if tag in row)
    assert last[tag] == pytest.approx(1e-3, rel=0.01)
    assert last["debug/critic_grad_norm_AFTER_clip"] <= 0.05 * 1.001
    for name in ("actor", "critic"):
        before, after = (last[f"debug/{name}_grad_norm_{moment}_clip"] for moment in ("BEFORE", "AFTER"))
        assert last[f"debug/{name}_grad_clip_ratio"] == pytest.approx(after / before)
        assert last[f"debug/{name}_grad_clip_ratio"] <= 1.0
        assert last[f"debug/{name}_cnn_grad_norm_AFTER_clip"] < after
        assert last[f"gradients/{name}_mlp_norm"] > 0.0
    assert 10.0 < last["debug/cnn_feature_l2_norm"] < 23.0
    assert last["debug/cnn_feature_min"] == 0.0
    assert {"debug/actor_cnn_feature_mean", "debug/critic_cnn_feature_std"} <= set(last)


def test_norms_combine_as_l2_norms_of_parts(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", BarEnv(), **SMALL, gradient_steps=1, train_freq=10, policy_delay=1)
    rows = train(model, tmp_path, [GradientNormCallback()])
    for row in rows[5:]:  # one update a dump, so no means of several
        for name in ("actor", "critic"):
            parts = np.hypot(row[f"gradients/{name}_cnn_norm"], row[f"gradients/{name}_mlp_norm"])
            assert row[f"debug/{name}_grad_norm_BEFORE_clip"] == pytest.approx(parts, rel=1e-5)


def test_actor_is_not_written_where_it_was_not_updated(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", BarEnv(), **SMALL, gradient_steps=1, train_freq=10, policy_delay=2)
    rows = train(model, tmp_path, [GradientNormCallback()], steps=161)
    written = [row for row in rows if "debug/critic_grad_norm_AFTER_clip" in row]
    with_actor = [row for row in written if "debug/actor_grad_norm_AFTER_clip" in row]
    assert len(written) > 6
    assert abs(2 * len(with_actor) - len(written)) <= 1
    assert all(row["debug/actor_grad_norm_AFTER_clip"] > 0.0 for row in with_actor)


@pytest.mark.long
def test_what_is_kept_between_dumps_does_not_grow() -> None:
    kept = []

    class Count(GradientNormCallback):
        def _on_rollout_start(self) -> None:
            if self.num_timesteps in (20, 40):
                kept.append(sum(type(each) is th.Tensor for each in gc.get_objects()))

    model = DDPG("CnnPolicy", BarEnv(), learning_starts=10, buffer_size=50, batch_size=2, device="cpu")
    model.learn(41, callback=Count(), log_interval=10**9)
    assert kept[1] < kept[0] + 10


class SecondOptimizerTD3(TD3):
    """The published bug: the actor's CNN has an optimizer of its own, which steps before the gradients are clipped."""

    def _clip(self, name: str) -> None:
        if name == "actor":
            if not hasattr(self, "own"):
                self.own = th.optim.SGD(self.actor.features_extractor.parameters(), lr=1e-6)
                self.actor.optimizer = th.optim.Adam(self.actor.mu.parameters(), lr=1e-4)
                self._trained["actor"] = list(self.actor.mu.parameters())
            self.own.step()
        super()._clip(name)


def test_second_optimizer_on_unclipped_gradients_is_exposed(tmp_path: Path) -> None:
    limit = 1e-4
    arguments = {**SMALL, "actor_max_grad_norm": limit}
    honest = train(TD3("LayerNormCnnPolicy", BarEnv(), **arguments), tmp_path / "honest", [GradientNormCallback()])
    broken = train(
        SecondOptimizerTD3("LayerNormCnnPolicy", BarEnv(), **arguments), tmp_path / "broken", [GradientNormCallback()]
    )
    tag = "debug/actor_grad_norm_AFTER_clip"
    assert honest[-1][tag] <= limit * 1.001
    assert broken[-1][tag] > 3.0 * limit
    assert broken[-1]["debug/actor_cnn_grad_norm_AFTER_clip"] > 3.0 * limit
    assert broken[-1]["debug/actor_mlp_grad_norm_AFTER_clip"] <= limit * 1.001


OFF_POLICY = {"learning_starts": 20, "buffer_size": 500, "batch_size": 16}


@pytest.mark.parametrize(
    ("algorithm", "env", "arguments", "network"),
    [
        (PPO, "CartPole-v1", {"n_steps": 64, "batch_size": 32, "n_epochs": 2}, "policy"),
        pytest.param(A2C, "CartPole-v1", {}, "policy", marks=pytest.mark.long),  # PPO stands for it
        (DQN, "CartPole-v1", OFF_POLICY, "policy"),
        pytest.param(QRDQN, "CartPole-v1", OFF_POLICY, "policy", marks=pytest.mark.long),
        pytest.param(SAC, "Pendulum-v1", OFF_POLICY, "critic", marks=pytest.mark.long),
        pytest.param(TQC, "Pendulum-v1", OFF_POLICY, "critic", marks=pytest.mark.slow),  # QR-DQN stands for sb3-contrib
        pytest.param(DDPG, "Pendulum-v1", OFF_POLICY, "critic", marks=pytest.mark.long),  # TD3 stands for it
        (StockTD3, "Pendulum-v1", OFF_POLICY, "actor"),
    ],
)
def test_other_algorithms_train_the_same_with_and_without(
    tmp_path: Path, algorithm: Any, env: str, arguments: dict[str, Any], network: str
) -> None:
    weights = []
    for callbacks in ([], [DiagnosticsCallback()]):
        model = algorithm("MlpPolicy", env, seed=1, device="cpu", **arguments)
        rows = train(model, tmp_path / str(len(callbacks)), callbacks, steps=220)
        weights.append({key: value.clone() for key, value in model.policy.state_dict().items()})
    assert all(th.equal(weights[0][key], weights[1][key]) for key in weights[0])
    tag = f"debug/{network}_grad_norm_BEFORE_clip"
    norms = [row[tag] for row in rows if tag in row]
    assert norms
    assert min(norms) > 0.0
    assert not any(tag.startswith("alerts/") for row in rows for tag in row)


@pytest.mark.long
def test_large_rewards_are_the_users_own(tmp_path: Path) -> None:
    """They make gradients large. By default that is said, and nothing is done about it."""

    class Paid(gym.RewardWrapper[Any, Any]):
        def reward(self, reward: Any) -> float:
            return 1000.0 * float(reward)

    weights = []
    for callbacks in ([], [DiagnosticsCallback()]):
        model = SAC("MlpPolicy", Paid(gym.make("Pendulum-v1")), seed=1, device="cpu", **OFF_POLICY)
        train(model, tmp_path / str(len(callbacks)), callbacks, steps=240)
        weights.append(model.policy.state_dict())
    assert all(th.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_an_algorithm_that_tells_nothing_of_its_steps(tmp_path: Path) -> None:
    train(ARS("LinearPolicy", "Pendulum-v1", seed=1), tmp_path, [DiagnosticsCallback()], steps=4000)


class BarClasses(BarEnv):
    """The same with three actions: left, middle, right."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Discrete(3)

    def step(self, action: Any) -> Any:
        return super().step(np.array([float(action) - 1.0]))


@pytest.mark.parametrize(
    ("algorithm", "env", "shared", "networks_with_cnn", "extractors"),
    [
        # An extractor that actor and critic share belongs to the one whose optimizer trains it.
        (StockTD3, BarEnv, True, {"actor"}, set()),
        (StockTD3, BarEnv, False, {"actor", "critic"}, {"actor", "critic"}),
        pytest.param(SAC, BarEnv, True, {"actor"}, set(), marks=pytest.mark.long),
        pytest.param(SAC, BarEnv, False, {"actor", "critic"}, {"actor", "critic"}, marks=pytest.mark.long),
        (PPO, BarClasses, True, {"policy"}, set()),
        (PPO, BarClasses, False, {"policy"}, {"actor", "critic"}),
        (DQN, BarClasses, None, {"policy"}, set()),
    ],
)
def test_parts_are_found_where_extractors_are_shared(
    tmp_path: Path, algorithm: Any, env: Any, shared: bool | None, networks_with_cnn: set[str], extractors: set[str]
) -> None:
    arguments = {"n_steps": 32, "batch_size": 16, "n_epochs": 1} if algorithm is PPO else OFF_POLICY
    policy_kwargs = {} if shared is None else {"share_features_extractor": shared}
    model = algorithm("CnnPolicy", env(), policy_kwargs=policy_kwargs, seed=1, device="cpu", **arguments)
    rows = train(model, tmp_path, [DiagnosticsCallback()], steps=70)
    seen = {tag for row in rows for tag in row}
    assert {n for n in ("actor", "critic", "policy") if f"gradients/{n}_cnn_norm" in seen} == networks_with_cnn
    assert {n for n in ("actor", "critic", "policy") if f"debug/{n}_cnn_feature_l2_norm" in seen} == extractors
    assert "debug/cnn_feature_rank" in seen


def test_nothing_is_left_behind_or_saved(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", BarEnv(), **SMALL)

    class Save(GradientNormCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 80:
                self.model.save(tmp_path / "midway.zip")
            return True

    train(model, tmp_path, [Save(), DiagnosticsCallback()])
    assert all(not p._post_accumulate_grad_hooks for p in model.policy.parameters())
    assert all(not module._forward_hooks for module in model.policy.modules())
    assert [type(output) for output in model.logger.output_formats] == [CSVOutputFormat]
    assert not _global_optimizer_pre_hooks
    TD3.load(tmp_path / "midway.zip")


class Fail(BaseCallback):
    def _on_step(self) -> bool:
        if self.n_calls == 60:
            raise ZeroDivisionError
        return True


def test_hooks_that_an_exception_leaves_go_with_their_callback() -> None:
    model = TD3("LayerNormCnnPolicy", BarEnv(), **SMALL)
    callback = DiagnosticsCallback("rollback")
    gone = [weakref.ref(each) for each in callback.callbacks]
    with pytest.raises(ZeroDivisionError):
        model.learn(100, callback=[callback, Fail()])
    del callback
    gc.collect()
    assert [each() for each in gone] == [None] * len(gone)
    model.learn(60, log_interval=1)


def test_a_policy_can_be_copied_while_it_trains() -> None:
    class Copy(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 60:
                copied = copy.deepcopy(self.model.policy).train()
                copied.predict_values(copied.obs_to_tensor(self.model._last_obs)[0])
            return True

    model = PPO("CnnPolicy", BarEnv(), n_steps=32, batch_size=16, n_epochs=1)
    model.learn(70, callback=[DiagnosticsCallback(), Copy()])
    ARS("MlpPolicy", "CartPole-v1", n_delta=2).learn(300, callback=DiagnosticsCallback())


def test_driving_metrics_are_means_over_episodes(tmp_path: Path) -> None:
    class Driving(BarEnv):
        def step(self, action: np.ndarray) -> Any:
            observation, reward, terminated, truncated, info = super().step(action)
            info["reward_terms"] = {"progress": 0.5, "heading": -0.1 * self._left}
            if truncated:
                info |= {"collisions": 1, "is_success": False, "lateral_deviation_m": 0.3, "route_completion": 0.25}
            return observation, reward, terminated, truncated, info

    callback = DrivingMetricsCallback()
    train(TD3("LayerNormCnnPolicy", Driving(), **SMALL), tmp_path / "half", [callback], steps=5)  # half an episode
    rows = train(TD3("LayerNormCnnPolicy", Driving(), **SMALL), tmp_path, [callback], steps=30)
    assert rows[0]["reward/heading"] == pytest.approx(-0.45)
    assert rows[-1]["reward/progress"] == pytest.approx(0.5)
    assert rows[-1]["reward/heading"] == pytest.approx(-0.45)
    assert rows[-1]["train/collisions_per_episode"] == 1.0
    assert rows[-1]["driving/lateral_deviation_m"] == pytest.approx(0.3)
    assert rows[-1]["driving/success"] == 0.0
    assert rows[-1]["train/episode_length"] == 10.0


@pytest.mark.parametrize(
    "foreign",
    [
        {"collisions": [1, 2], "lane_invasions": ["Broken"], "is_success": None, "reward_terms": None},
        {"collisions": None, "is_success": np.array([True]), "reward_terms": {"a": None, "b": np.float32(2.0)}},
        {"collisions": np.array(["x"]), "reward_terms": [1.0]},
    ],
)
@pytest.mark.parametrize("names", [None, 3.0, ("a", "b"), BarEnv.step])
def test_what_foreign_environments_mean_by_the_same_names_is_passed_over(
    tmp_path: Path, foreign: dict[str, Any], names: Any
) -> None:
    class Foreign(BarEnv):
        action_names = names

        def step(self, action: np.ndarray) -> Any:
            *rest, info = super().step(action)
            return *rest, {**info, **foreign}

    model = A2C("CnnPolicy", Foreign(), device="cpu", policy_kwargs={"features_extractor_kwargs": {"features_dim": 8}})
    rows = train(model, tmp_path, [DrivingMetricsCallback(), ActionSaturationCallback()], steps=20)
    seen = {
        tag: value for tag, value in rows[-1].items() if tag.startswith(("driving/", "reward/", "train/collisions"))
    }
    assert seen == ({"driving/success": 1.0, "reward/b": 2.0} if foreign["collisions"] is None else {})


def test_long_names_that_begin_alike_are_left_out_of_the_table(tmp_path: Path) -> None:
    class Robot(BarEnv):
        action_names = ("right_front_shoulder_pitch", "right_front_shoulder_roll")

        def __init__(self) -> None:
            super().__init__()
            self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

        def step(self, action: np.ndarray) -> Any:
            *rest, info = super().step(action)
            terms = [f"distance_of_the_right_front_foot_to_{goal}" for goal in ("ground", "target")]
            return *rest, {**info, "reward_terms": dict.fromkeys(terms, 1.0)}

    model = DDPG("CnnPolicy", Robot(), learning_starts=5, buffer_size=50, batch_size=2, device="cpu")
    model.set_logger(configure(str(tmp_path), ["log", "csv"]))
    model.learn(21, callback=DiagnosticsCallback(), log_interval=1)
    model.logger.close()
    assert "episode_reward" in (tmp_path / "log.txt").read_text()
    header = (tmp_path / "progress.csv").read_text().partition("\n")[0]
    assert "roll" in header
    assert "to_target" in header


def test_alerts_are_raised_by_exploding_gradients_only(tmp_path: Path) -> None:
    class Loud(BarEnv):
        def step(self, action: np.ndarray) -> Any:
            observation, reward, *rest = super().step(action)
            return observation, 1e6 * reward, *rest

    tags = {"alerts/gradient_explosion_warning", "alerts/gradient_explosion_critical"}
    for env in (BarEnv(), Loud()):
        model = TD3("LayerNormCnnPolicy", env, **SMALL)
        rows = train(model, tmp_path / type(env).__name__, [GradientNormCallback()], steps=61)
        seen = {tag for row in rows for tag in tags if tag in row}
        assert seen == (tags if isinstance(env, Loud) else set())
