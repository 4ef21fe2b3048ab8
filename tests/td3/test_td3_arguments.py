"""What TD3's arguments refuse, and what its exploration and its shift make of the environments they meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from tiny import SMALL, STATE_CRITIC, BarEnv

from sb3_carla.td3.noise import LinearNormalNoise
from sb3_carla.td3.td3 import TD3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actor_max_grad_norm": 0.0}, "actor_max_grad_norm: expected a finite positive number, got 0.0"),
        ({"critic_max_grad_norm": "1"}, "critic_max_grad_norm: expected a finite positive number, got '1'"),
        ({"random_shift": -1}, "random_shift: expected a whole number of at least 0, got -1"),
        ({"random_shift": 1.5}, "random_shift: expected a whole number of at least 0, got 1.5"),
        ({"random_shift": 36}, "random_shift: expected less than the image's sides, got 36"),
        ({"learning_rates": {"actor_cn": 1e-4}}, "learning_rates: expected some of .*, got 'actor_cn'; actor_cnn?"),
        ({"learning_rates": {"critic": -1.0}}, "learning_rates: critic: expected a rate of at least 0.*, got -1.0"),
        ({"exploration_noise": (0.1, 0.2)}, r"exploration_noise: expected \(start, end, steps\)"),
        ({"exploration_noise": 0.1}, r"exploration_noise: .* got 0.1"),
        ({"exploration_noise": (0.1, 0.1, 0)}, r"exploration_noise: .* got \(0.1, 0.1, 0\)"),
        ({"exploration_noise": (0.1, float("nan"), 9)}, r"exploration_noise: .* got \(0.1, nan, 9\)"),
        (
            {"deduplicate_frames": True, "replay_buffer_kwargs": {"gamma": 0.5}},
            "expected no 'gamma': TD3 sets it, by its",
        ),
        ({"policy_kwargs": {"encoder": "both"}}, "encoder: expected one of separate, critic, actor, got 'both'"),
        ({"state_prediction": 1.0}, "state_prediction: expected critic_state"),
        ({"state_prediction": -1.0}, "state_prediction: expected a number of at least 0, got -1.0"),
        ({"critic_state": "bar"}, "critic_state: expected deduplicate_frames=True"),
        ({"critic_state": "bar", "deduplicate_frames": True}, "critic_state: expected with policy_kwargs={'encoder'"),
        ({"policy_kwargs": STATE_CRITIC["policy_kwargs"]}, "critic_state: expected with policy_kwargs={'encoder'"),
        ({"policy_kwargs": {"encoder": "actor"}}, "state_size: expected a whole number of at least 1 with"),
        ({"policy_kwargs": {"state_size": 3}}, "state_size: expected 0 with encoder='separate', got 3"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TD3("LayerNormCnnPolicy", BarEnv(), **arguments)


def test_only_images_are_shifted() -> None:
    with pytest.raises(ValueError, match=r"expected images to shift, uint8 in 0 to 255 or .*, got Box"):
        TD3("MlpPolicy", make_vec_env("MountainCarContinuous-v0"), random_shift=2)


def test_unknown_arguments_are_not_swallowed() -> None:
    with pytest.raises(TypeError, match="actor_max_norm"):
        TD3("LayerNormCnnPolicy", BarEnv(), actor_max_norm=1.0)


def test_noise_falls_linearly() -> None:
    noise = LinearNormalNoise(2, 0.4, 0.1, 10)
    sigmas = []
    for _ in range(12):
        sigmas.append(noise.sigma)
        assert noise().shape == (2,)
    assert sigmas[::5] == pytest.approx([0.4, 0.25, 0.1])
    noise.reset()
    assert noise.sigma == pytest.approx(0.1)  # a new episode does not begin the schedule again


class Grid(gym.ActionWrapper[Any, Any, Any]):
    """The bar is matched by the first of 2 x 3 actions."""

    action_space = spaces.Box(-1.0, 1.0, (2, 3))

    def action(self, action: np.ndarray) -> np.ndarray:
        return action[0, :1]


@pytest.mark.parametrize("n_envs", [1, 2])
def test_actions_of_any_shape_are_explored(n_envs: int) -> None:
    env = make_vec_env(lambda: Grid(BarEnv()), n_envs)
    model = TD3("LayerNormCnnPolicy", env, exploration_noise=(0.4, 0.1, 300), **SMALL).learn(60)
    assert model.action_noise().shape == (n_envs, 2, 3)


class ScaledBar(gym.ObservationWrapper[Any, Any, Any]):
    """Pixels in 0 to 1."""

    observation_space = spaces.Box(0.0, 1.0, (2, 36, 36))

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation.astype(np.float32) / 255.0


def test_scaled_images_are_shifted_too() -> None:
    model = TD3(
        "LayerNormCnnPolicy", ScaledBar(BarEnv()), random_shift=2, policy_kwargs={"normalize_images": False}, **SMALL
    )
    model.learn(60)
    sampled = model._sample(16).observations
    assert sampled.shape == (16, 2, 36, 36)
    assert sampled.unique().tolist() == [0.0, 1.0]


def test_noise_goes_on_with_another_number_of_environments_and_follows_new_settings(tmp_path: Path) -> None:
    noise = {"exploration_noise": (0.4, 0.1, 300)}
    model = TD3("LayerNormCnnPolicy", make_vec_env(BarEnv, 4), **noise, **SMALL)
    model.learn(60)
    model.save(tmp_path / "model.zip")
    sigma = model.action_noise.noises[0].sigma
    assert TD3.load(tmp_path / "model.zip", make_vec_env(BarEnv, 4)).action_noise.noises[0].sigma == sigma
    again = TD3.load(tmp_path / "model.zip", make_vec_env(BarEnv, 1))
    again.learn(20, reset_num_timesteps=False)
    assert [noise.sigma for noise in again.action_noise.noises] == pytest.approx([0.4 - 0.3 * 80 / 300])
    other = TD3.load(tmp_path / "model.zip", make_vec_env(BarEnv, 2), exploration_noise=[0.05, 0.05, 10])
    assert [noise.sigma for noise in other.action_noise.noises] == pytest.approx([0.05, 0.05])
