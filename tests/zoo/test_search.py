"""The hyperparameter search: what it samples can be trained, and what it reports is how the lane was kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from outside_repository import run_python
from stable_baselines3.common.env_util import make_vec_env
from tiny import SlidingBar

from sb3_carla.td3.td3 import TD3
from sb3_carla.zoo.search import LaneTrialCallback, lane_score, sample_td3

FILES: dict[str, dict[str, Any]] = {
    "pixels": {
        "policy_kwargs": {"encoder": "critic", "optimizer_kwargs": {"fused": True}},
        "exploration_noise": [0.3, 0.1, 777],
    },
    "state": {
        "policy_kwargs": {"encoder": "actor", "state_size": 1, "optimizer_kwargs": {"fused": True}},
        "critic_state": "state",
        "exploration_noise": [0.3, 0.1, 777],
    },
}


class Lane(SlidingBar):
    """Ends as CarlaLane-v0 does: the better the actions, the further it gets."""

    def step(self, action: np.ndarray) -> Any:
        observation, reward, terminated, truncated, _ = super().step(action)
        info = {"route_completion": 0.75, "lateral_deviation_m": 0.5, "is_success": False} if truncated else {}
        return observation, reward, terminated, truncated, info


class Told(SlidingBar):
    """Tells its state, as CarlaLane-v0 does."""

    def step(self, action: np.ndarray) -> Any:
        *rest, info = super().step(action)
        return *rest, {**info, "state": np.full(1, self._column / self._size, np.float32)}


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_what_is_sampled_can_be_trained(name: str) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    encoders = set()
    for _ in range(12):
        sampled = sample_td3(study.ask(), FILES[name])
        encoders.add(sampled["policy_kwargs"]["encoder"])
        assert sampled["policy_kwargs"]["optimizer_kwargs"] == {"fused": True}, "the rest of the file's stays"
        start, last, steps = sampled["exploration_noise"]
        assert (start, steps) == (0.3, 777)
        assert 0.02 <= last <= 0.2
        small = {"buffer_size": 100, "learning_starts": 10, "deduplicate_frames": True, "batch_size": 8}
        model = TD3("LayerNormCnnPolicy", Told(), **{**sampled, **small})
        model.learn(14)
        assert model._n_updates > 0
    assert ("actor" in encoders) is (name == "state")


def test_lane_score() -> None:
    assert lane_score(1.0, 0.0) == 1.0
    assert lane_score(1.0, 0.2) == pytest.approx(0.9)
    assert lane_score(0.5, 0.0) < lane_score(1.0, 0.4)


@pytest.mark.parametrize("threshold", [0.0, 0.9])
def test_trials_report_the_lane_score_and_are_pruned_by_it(threshold: float) -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=threshold))
    trial = study.ask()
    callback = LaneTrialCallback(make_vec_env(Lane, 2), trial, n_eval_episodes=4, eval_freq=20)
    model = TD3("LayerNormCnnPolicy", Lane(), buffer_size=100, learning_starts=1000)
    model.learn(50, callback=callback)
    assert callback.is_pruned is (threshold > 0.5)
    assert model.num_timesteps == (20 if callback.is_pruned else 50)
    assert callback.last_mean_reward == pytest.approx(0.5)
    reported = study.trials[0].intermediate_values
    assert reported == {step: pytest.approx(0.5) for step in range(1, 2 if callback.is_pruned else 3)}
    attributes = study.trials[0].user_attrs
    assert attributes == {"route_completion": pytest.approx(0.75), "lateral_deviation_m": pytest.approx(0.5)}


class LostServers(Lane):
    """Every second episode ends with the server, or with the worker process, which knows nothing of the road."""

    episode = 0

    def step(self, action: np.ndarray) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        if truncated:
            self.episode += 1
            if self.episode % 2:
                info = {"server_restarted": True}
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize(("episodes", "expected"), [(4, 0.5), (1, -np.inf)])
def test_lost_servers_do_not_count(episodes: int, expected: float) -> None:
    trial = optuna.create_study(direction="maximize").ask()
    callback = LaneTrialCallback(make_vec_env(LostServers, 1), trial, n_eval_episodes=episodes, eval_freq=20)
    TD3("LayerNormCnnPolicy", Lane(), buffer_size=100, learning_starts=1000).learn(20, callback=callback)
    assert callback.last_mean_reward == pytest.approx(expected)


@pytest.mark.long
def test_search_through_the_zoo(tmp_path: Path) -> None:
    search = ["-optimize", "--n-trials", "1", "--n-evaluations", "1", "--eval-episodes", "1", "--no-optim-plots"]
    small = ["-params", "n_envs:1", "learning_starts:20", "buffer_size:100"]
    short = ["--env-kwargs", "route_length:25.0", "town:'Circuit01'"]
    command = ["-m", "rl_zoo3.train", "--algo", "td3", "--env", "CarlaLane-v0", "-n", "40", "--seed", "3"]
    out = run_python(tmp_path, *command, *search, *short, *small)
    assert "one_minus_gamma" in out
    assert "features_dim" in out
    value = float(re.search(r"Value:\s+(-?[\d.e+-]+)", out)[1])  # type: ignore[index]
    assert -1.0 < value <= 1.0, "a lane score, where the return of 25 m would be another number"
