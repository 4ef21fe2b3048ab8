"""Rank, dormant units, saturation, bias of the critic, progress: numbers that can be worked out by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper
from stable_baselines3.td3.policies import CnnPolicy
from tiny import STATE_CRITIC, BarEnv, SlidingBar, train

from sb3_carla.callbacks import (
    ActionSaturationCallback,
    AgentStatisticsCallback,
    DormantNeuronsCallback,
    DrivingMetricsCallback,
    FeatureStatisticsCallback,
    ValueBiasCallback,
)
from sb3_carla.callbacks.dormant_neurons import dormant
from sb3_carla.callbacks.feature_statistics import feature_rank
from sb3_carla.callbacks.value_bias import Episode, monte_carlo_returns
from sb3_carla.diagnostics.event_logs import read_run
from sb3_carla.td3.td3 import TD3

SMALL: dict[str, Any] = {"buffer_size": 500, "learning_starts": 40, "batch_size": 16, "seed": 3, "learning_rate": 3e-4}


def test_feature_rank_by_hand() -> None:
    assert feature_rank(th.eye(8, 20)) == 8
    assert feature_rank(th.ones(16, 512)) == 1
    assert feature_rank(th.zeros(16, 512)) == 0
    assert feature_rank(th.full((4, 4), float("nan"))) == 0
    # Singular values 100, 1, 0.5: 100 of 101.5 is 98.5 %, 101 is 99.5 %.
    assert feature_rank(th.diag(th.tensor([1.0, 100.0, 0.5]))) == 2
    assert feature_rank(th.diag(th.tensor([1.0, 100.0, 0.5])), delta=0.02) == 1
    generator = th.Generator().manual_seed(0)
    product = th.randn(64, 5, generator=generator) @ th.randn(5, 512, generator=generator)
    assert feature_rank(product) == feature_rank(product.T) == 5


def test_dormant_units_by_hand() -> None:
    # Mean activations 1, 0.02, 0, 3: their mean is 1.005, so the limit is 0.0251.
    activations = th.tensor([[1.0, 0.04, 0.0, -3.0], [-1.0, 0.0, 0.0, 3.0]])
    assert dormant(activations, 0.025).tolist() == [False, True, True, False]
    images = th.zeros(2, 3, 5, 5)
    images[:, 1] = 1.0
    images[0, 2, 0, 0] = 50.0  # a mean of 1 over batch and image
    assert dormant(images, 0.025).tolist() == [True, False, False]
    assert dormant(th.zeros(4, 2), 0.025).all()


def test_rank_and_dormant_units_of_a_crippled_network(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", BarEnv(), **{**SMALL, "learning_rate": 0.0})
    with th.no_grad():
        for layer in (model.critic.q_networks[0][0], model.critic.q_networks[1][0]):
            layer.weight[:64] = 0.0
            layer.bias[:64] = -1.0
        model.actor.features_extractor.linear[1].weight.zero_()  # all features alike, whatever the image
    rows = train(model, tmp_path, [FeatureStatisticsCallback(), DormantNeuronsCallback()])
    last = rows[-1]
    assert last["debug/actor_cnn_feature_rank"] <= 1
    assert 1 < last["debug/critic_cnn_feature_rank"] <= 16
    assert last["debug/cnn_feature_rank"] == last["debug/actor_cnn_feature_rank"]
    # Units of the critic: 32 + 64 + 64 channels, 512 features, twice 2 * 256.
    assert last["debug/critic_dormant_ratio"] >= 128 / (160 + 512 + 1024)
    assert {"debug/dormant_ratio", "debug/actor_dormant_ratio"} <= set(last)


def test_extractors_of_different_sizes_are_not_thrown_together(tmp_path: Path) -> None:
    class Uneven(CnnPolicy):
        def make_critic(self, features_extractor: Any = None) -> Any:
            return super().make_critic(NatureCNN(self.observation_space, features_dim=64))

    rows = train(DDPG(Uneven, BarEnv(), learning_starts=20), tmp_path, [FeatureStatisticsCallback()], steps=40)
    assert {tag for tag in rows[-1] if tag.endswith("_rank")} == {
        "debug/actor_cnn_feature_rank", "debug/critic_cnn_feature_rank"
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("bias", "expected"), [(0.0, 0.0), (20.0, 1.0)])
def test_saturation_is_of_the_actors_output(tmp_path: Path, bias: float, expected: float) -> None:
    model = TD3("LayerNormCnnPolicy", BarEnv(), **{**SMALL, "learning_rate": 0.0}, exploration_noise=(0.3, 0.3, 100))
    with th.no_grad():
        model.actor.mu[-2].bias += bias
    rows = train(model, tmp_path, [ActionSaturationCallback()])
    assert rows[-1]["debug/action_saturation"] == expected  # noise of 0.3 would take 40 % below 0.95
    assert "debug/action_saturation" not in rows[0]  # the warm-up does not ask the actor


class Pushes(gym.Env[np.ndarray, np.ndarray]):
    """Rewards 1 a step for four steps; two named actions on unequal scales."""

    action_names = ("left", "right")

    def __init__(self, terminates: bool = True) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 8.0], np.float32))
        self._terminates = terminates

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = 4
        return np.zeros(3, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        ended = self._left == 0
        return np.zeros(3, np.float32), 1.0, ended and self._terminates, ended and not self._terminates, {}


@pytest.mark.parametrize(("squashed", "middle"), [(False, 4.0), (True, 0.0)])
def test_saturation_of_actions_taken_is_scaled_and_named(tmp_path: Path, squashed: bool, middle: float) -> None:
    arguments: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 1, "learning_rate": 0.0, "device": "cpu"}
    policy_kwargs = {"squash_output": squashed, "log_std_init": -5.0}
    model = PPO("MlpPolicy", Pushes(), use_sde=squashed, policy_kwargs=policy_kwargs, **arguments)
    with th.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.copy_(th.tensor([9.0, middle]))
    rows = train(model, tmp_path, [ActionSaturationCallback()], steps=70)
    assert rows[-1]["debug/action_saturation"] == 0.5
    assert rows[-1]["debug/action_saturation_left"] == 1.0
    assert rows[-1]["debug/action_saturation_right"] == 0.0


def test_returns_by_hand() -> None:
    assert monte_carlo_returns([1.0, 2.0, 4.0], 0.5) == [3.0, 4.0, 4.0]
    assert monte_carlo_returns([], 0.9) == []


def test_long_episodes_keep_a_bounded_sample_over_their_whole_length() -> None:
    episode = Episode()
    for step in range(10_000):
        episode.add(np.full(2, step), np.zeros(1), 1.0)
    kept = [index for index, _, _ in episode.states]
    assert 64 <= len(kept) < 128
    assert kept[0] == 0
    assert kept[-1] > 9800
    assert all(observation[0] == index for index, observation, _ in episode.states)


def constant_critic(model: Any, value: float) -> None:
    """All critics say the same, whatever they see."""
    with th.no_grad():
        for network in model.critic.q_networks:
            network[-1].weight.zero_()
            network[-1].bias.fill_(value)


@pytest.mark.parametrize("terminates", [True, False])
def test_bias_of_a_critic_that_is_known(tmp_path: Path, terminates: bool) -> None:
    model = DDPG(
        "MlpPolicy", Pushes(terminates), learning_starts=10, gamma=0.5, learning_rate=0.0, seed=0, device="cpu"
    )
    constant_critic(model, 10.0)
    last = train(model, tmp_path, [ValueBiasCallback(states_per_episode=99)], steps=40)[-1]
    returns = [1.875, 1.75, 1.5, 1.0]
    if not terminates:  # only the first state is far enough from the truncation, whose value is the critic's
        returns = [1.875 + 0.5**4 * 10.0]
    assert last["debug/monte_carlo_return"] == pytest.approx(np.mean(returns))
    assert last["debug/monte_carlo_q"] == pytest.approx(10.0)
    assert last["debug/q_bias"] == pytest.approx(10.0 - np.mean(returns))
    assert last["debug/q_bias_normalized"] == pytest.approx((10.0 - np.mean(returns)) / np.mean(returns))


class Grid(Pushes):
    """Its actions have two dimensions, and nobody tells its last observations."""

    def __init__(self) -> None:
        super().__init__(terminates=False)
        self.action_space = spaces.Box(-1.0, 1.0, (2, 2), np.float32)


@pytest.mark.parametrize("told", [True, False])
def test_bias_where_actions_have_dimensions_or_last_observations_are_not_told(tmp_path: Path, told: bool) -> None:
    class Untold(VecEnvWrapper):
        def reset(self) -> Any:
            return self.venv.reset()

        def step_wait(self) -> Any:
            *rest, infos = self.venv.step_wait()
            for info in infos if not told else []:
                info.pop("terminal_observation", None)
            return *rest, infos

    model = PPO("MlpPolicy", Untold(DummyVecEnv([Grid])), n_steps=32, batch_size=16, n_epochs=1, device="cpu")
    if told:
        model = SAC("MlpPolicy", Grid(), learning_starts=20, device="cpu")
    rows = train(model, tmp_path, [ValueBiasCallback(), ActionSaturationCallback()], steps=60)
    assert ("debug/q_bias" in rows[-1]) == told


class CountingBar(SlidingBar):
    """Tells how many steps the episode has had: of its ten, 1 to 10."""

    def step(self, action: np.ndarray) -> Any:
        *rest, info = super().step(action)
        return *rest, {**info, "bar": [10.0 - self._left]}


@pytest.mark.parametrize(("terminates", "compared"), [(True, range(1, 10)), (False, range(1, 7))])
def test_a_critic_of_states_is_asked_about_states(tmp_path: Path, terminates: bool, compared: range) -> None:
    arguments = {**SMALL, **STATE_CRITIC, "learning_rate": 0.0, "learning_starts": 100, "gamma": 0.5}
    model = TD3("LayerNormCnnPolicy", CountingBar(terminate=terminates), **arguments)
    constant_critic(model, 3.0)
    with th.no_grad():  # Q(s, a) = 3 + s
        for network in model.critic.q_networks:
            for layer in network[::2]:
                layer.weight.zero_()
                layer.weight[0, 0] = 1.0
            network[0].bias.zero_()
            network[2].bias.zero_()
    last = train(model, tmp_path, [ValueBiasCallback(states_per_episode=99)], steps=80)[-1]
    assert last["debug/monte_carlo_q"] == pytest.approx(3.0 + np.mean(compared)), (
        "all but the first, of which none told"
    )


class LosingBar(CountingBar):
    """Every second episode ends as where the environment's process has died: nobody can tell its last state."""

    lost = False

    def step(self, action: np.ndarray) -> Any:
        *rest, info = super().step(action)
        if self._left == 0:
            self.lost = not self.lost
            if self.lost:
                info = {"server_restarted": True}
        return *rest, info


def test_a_state_that_is_lost_ends_nothing(tmp_path: Path) -> None:
    arguments = {**SMALL, **STATE_CRITIC, "learning_starts": 20, "gamma": 0.5}
    model = TD3("LayerNormCnnPolicy", LosingBar(), **arguments)
    rows = train(model, tmp_path, [ValueBiasCallback(states_per_episode=99)], steps=80)
    assert "debug/monte_carlo_q" in rows[-1]
    assert model.replay_buffer._void[[9, 29, 49, 69], 0].all(), "the steps whose next observation is lost"


SMALL_BUFFER = {"learning_starts": 20, "buffer_size": 500, "batch_size": 16}


@pytest.mark.parametrize(
    ("algorithm", "env", "arguments"),
    [
        (PPO, "CartPole-v1", {"n_steps": 64, "batch_size": 32, "n_epochs": 2}),
        pytest.param(A2C, "Pendulum-v1", {}, marks=pytest.mark.long),  # PPO stands for it
        (DQN, "CartPole-v1", SMALL_BUFFER),
        pytest.param(QRDQN, "CartPole-v1", SMALL_BUFFER, marks=pytest.mark.long),
        pytest.param(SAC, "Pendulum-v1", SMALL_BUFFER, marks=pytest.mark.long),
        pytest.param(DDPG, "Pendulum-v1", SMALL_BUFFER, marks=pytest.mark.long),
        pytest.param(TQC, "Pendulum-v1", SMALL_BUFFER, marks=pytest.mark.slow),  # QR-DQN stands for sb3-contrib
    ],
)
def test_any_algorithm(tmp_path: Path, algorithm: Any, env: str, arguments: dict[str, Any]) -> None:
    callbacks = [
        ActionSaturationCallback(), AgentStatisticsCallback(), DormantNeuronsCallback(), DrivingMetricsCallback(),
        FeatureStatisticsCallback(), ValueBiasCallback(),
    ]  # fmt: skip
    model = algorithm("MlpPolicy", env, seed=1, device="cpu", **arguments)
    rows = train(model, tmp_path, callbacks, steps=420)
    seen = {tag: value for row in rows for tag, value in row.items() if tag.startswith(("debug/", "agent/"))}
    expected = {"debug/q_bias", "debug/monte_carlo_q", "debug/dormant_ratio", "agent/total_iterations"}
    expected |= {"agent/buffer_utilization", "agent/is_training"} if "buffer_size" in arguments else set()
    expected |= {"debug/action_saturation"} if env == "Pendulum-v1" else set()
    assert expected <= set(seen)
    assert np.isfinite(list(seen.values())).all()


def test_progress_of_the_agent(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", BarEnv(), **SMALL, learning_rates={"critic_cnn": lambda left: 1e-4 * left})
    rows = train(model, tmp_path, [AgentStatisticsCallback()], steps=121)
    assert [row["agent/is_training"] for row in rows[:3]] == [0.0, 0.0, 0.0]
    assert rows[-1]["agent/is_training"] == 1.0
    assert rows[-1]["agent/total_iterations"] == pytest.approx(120 - 40, abs=1)
    assert rows[4]["agent/buffer_utilization"] == pytest.approx(50 / 500, abs=0.01)
    assert rows[-1]["agent/actor_lr"] == rows[-1]["agent/actor_cnn_lr"] == rows[-1]["agent/critic_lr"] == 3e-4
    assert rows[-1]["agent/critic_cnn_lr"] == pytest.approx(1e-4 * (1.0 - 119 / 121), rel=0.6)


def test_tensorboard_has_a_point_for_each_episode(tmp_path: Path) -> None:
    from stable_baselines3.common.env_util import make_vec_env

    model = TD3("LayerNormCnnPolicy", make_vec_env(BarEnv, 2), **SMALL)
    model.set_logger(configure(str(tmp_path), ["csv", "tensorboard"]))
    model.learn(120, callback=DrivingMetricsCallback(), log_interval=4)
    model.logger.close()
    series = read_run(tmp_path).scalars["train/episode_reward"]
    np.testing.assert_array_equal(series.steps, np.repeat(np.arange(20, 121, 20), 2))
    with (tmp_path / "progress.csv").open() as file:
        rows = [float(row["train/episode_reward"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(rows, series.values.reshape(3, 4).mean(axis=1), rtol=1e-5)
