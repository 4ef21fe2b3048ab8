"""Updates beside the environments' steps: really at the same time, repeatable, and nothing lost or left running."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from tiny import BarEnv

from sb3_carla.td3.td3 import TD3

SMALL: dict[str, Any] = {"buffer_size": 500, "learning_starts": 40, "batch_size": 16, "seed": 3, "device": "cpu"}
CONCURRENT: dict[str, Any] = {**SMALL, "concurrent_updates": True, "train_freq": 1}


def make(n_envs: int = 2, env: type[BarEnv] = BarEnv, algorithm: type[TD3] = TD3, **kwargs: Any) -> TD3:
    envs = make_vec_env(env, n_envs=n_envs, seed=3)
    return algorithm("LayerNormCnnPolicy", envs, **{**CONCURRENT, **kwargs})


def weights(model: TD3) -> list[th.Tensor]:
    return [value.detach().clone() for value in model.policy.state_dict().values()]


class WaitingEnv(BarEnv):
    """A step ends only when the update beside it has run."""

    update: threading.Event | None = None

    def step(self, action: np.ndarray) -> Any:
        if self.update is not None:
            assert self.update.wait(20.0), "no update ran beside the step"
            self.update.clear()
        return super().step(action)


def test_an_update_runs_during_the_step() -> None:
    model = make(n_envs=1, env=WaitingEnv)
    model.learn(42)
    before = model._n_updates
    run, event = model.run_updates, threading.Event()

    def update(*args: Any) -> None:
        run(*args)
        event.set()

    model.run_updates = update  # type: ignore[method-assign]

    class Switch(BaseCallback):
        """The first step has no update beside it: none is due yet."""

        def _on_step(self) -> bool:
            model.env.envs[0].unwrapped.update = event
            return True

    model.learn(6, callback=Switch(), reset_num_timesteps=False)
    assert model._n_updates == before + 6


class InTurn(TD3):
    """The same order of things in one thread."""

    def _begin_update(self) -> None:
        if self._due is not None:
            due, self._due = self._due, None
            self.run_updates(*due)


def test_the_result_is_that_of_the_same_steps_in_turn() -> None:
    beside = make().learn(120)  # the seed is set where the model is made
    in_turn = make(algorithm=InTurn).learn(120)
    assert beside._n_updates == in_turn._n_updates == 40
    assert all(map(th.equal, weights(beside), weights(in_turn)))


class Late(TD3):
    """The environments have made their step before the update looks at anything."""

    def run_updates(self, *args: Any) -> None:
        time.sleep(0.02)
        super().run_updates(*args)


def test_the_result_is_the_same_where_the_step_changes_how_rewards_are_normalised() -> None:
    late, in_turn = (
        algorithm("LayerNormCnnPolicy", VecNormalize(make_vec_env(BarEnv, 2, seed=3), norm_obs=False), **CONCURRENT)
        .learn(80)
        for algorithm in (Late, InTurn)
    )  # fmt: skip
    assert late._n_updates == in_turn._n_updates == 20
    assert all(map(th.equal, weights(late), weights(in_turn)))


@pytest.mark.long
def test_nothing_that_is_due_is_lost_and_no_thread_is_left() -> None:
    beside, plain = make(), make(concurrent_updates=False)
    for model in (beside, plain):
        model.learn(120)
    assert beside._n_updates == plain._n_updates
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("updates")]


def test_callbacks_see_networks_that_stand_still(tmp_path: Path) -> None:
    model, seen = make(), []

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            assert not model.policy.training
            seen.append(model._running)
            return True

    model.learn(100, callback=[Look(), CheckpointCallback(20, str(tmp_path), save_replay_buffer=True)])
    assert seen == [None] * 50
    again = TD3.load(tmp_path / "rl_model_80_steps.zip", env=model.env)
    again.load_replay_buffer(tmp_path / "rl_model_replay_buffer_80_steps.pkl")
    again.learn(20, reset_num_timesteps=False)
    assert again._n_updates > 0


def test_an_error_in_an_update_is_raised_and_the_model_lives_on() -> None:
    model = make()
    right = model.run_updates
    model.run_updates = lambda *_: 1 / 0  # type: ignore[assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        model.learn(100)
    model.run_updates = right  # type: ignore[method-assign]
    model.learn(100)
    assert model._n_updates > 0


def test_an_error_in_the_environment_leaves_nothing_running() -> None:
    model = make()

    class Fail(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps >= 60:
                raise RuntimeError("enough")
            return True

    with pytest.raises(RuntimeError, match="enough"):
        model.learn(100, callback=Fail())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("updates")]
    model.learn(100)
