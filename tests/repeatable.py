"""Trainings that give the same weights each time, and how to compare them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from tiny import ToldBar

SMALL: dict[str, Any] = {
    "learning_starts": 20, "batch_size": 8, "buffer_size": 60, "train_freq": 1, "seed": 3, "device": "cpu",
    "exploration_noise": [0.5, 0.1, 100], "learning_rate": 1e-3,
    "policy_kwargs": {"net_arch": [32, 32], "features_extractor_kwargs": {"features_dim": 32}},
}  # fmt: skip


class RepeatableBar(ToldBar):
    """Can be driven to the same state again, as CarlaLane-v0 can."""

    episode_so_far: dict[str, Any] = {}  # noqa: RUF012

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        again = (options or {}).get("resume")
        if seed is not None:
            super().reset(seed=seed)
        if again is not None:
            self.np_random.bit_generator.state = again["random"]
        self.episode_so_far = {"random": self.np_random.bit_generator.state, "actions": []}
        observation, info = super().reset()
        for action in again["actions"] if again is not None else ():
            observation, *_ = self.step(action)
        return observation, info

    def step(self, action: np.ndarray) -> Any:
        self.episode_so_far["actions"].append(action)
        return super().step(action)


def envs(n_envs: int = 2, env: Any = RepeatableBar, **kwargs: Any) -> Any:
    return make_vec_env(env, n_envs=n_envs, seed=3, **kwargs)


def tensors(model: Any) -> dict[str, th.Tensor]:
    found = dict(model.policy.state_dict())
    for name in ("actor", "critic"):
        for key, state in getattr(model, name).optimizer.state_dict()["state"].items():
            found |= {f"{name}.{key}.{part}": th.as_tensor(value) for part, value in state.items()}
    return found


def assert_same(one: Any, other: Any) -> None:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert th.equal(value, second[name]), name
    assert one._n_updates == other._n_updates
    assert one.num_timesteps == other.num_timesteps


class PoisonAt90(BaseCallback):
    """A weight of the critic becomes NaN at step 90."""

    def _on_step(self) -> bool:
        if self.num_timesteps == 90:
            with th.no_grad():
                self.model.critic.q_networks[0][0].weight[0, 0] = math.nan
        return True
