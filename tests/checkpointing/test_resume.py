"""Killed and resumed is the same as never stopped, bit for bit."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch as th
from gymnasium import spaces
from outside_repository import run_new_python
from paths import TESTS
from repeatable import SMALL, PoisonAt90, RepeatableBar, assert_same, envs
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import VecNormalize
from tiny import STATE_CRITIC, SlidingBar

from sb3_carla.callbacks import DiagnosticsCallback, DivergenceGuard, ExactCheckpointCallback
from sb3_carla.checkpointing.callback_states import restore_callbacks
from sb3_carla.checkpointing.checkpoints import Checkpoints
from sb3_carla.envs.vec_env import SupervisedVecEnv
from sb3_carla.td3.td3 import TD3

STOCK: dict[str, Any] = {"learning_starts": 20, "batch_size": 16, "buffer_size": 200, "seed": 3, "device": "cpu"}
"""Arguments of a small SAC."""


class Killed(ExactCheckpointCallback):
    """Of a training that does not come to its end."""

    def _on_rollout_end(self) -> None:
        pass


@pytest.mark.parametrize(
    "options",
    [
        {**STATE_CRITIC, "concurrent_updates": True},
        pytest.param({"deduplicate_frames": True, "n_steps": 3, "concurrent_updates": True}, marks=pytest.mark.long),
        pytest.param({"deduplicate_frames": True, "storage": True}, marks=pytest.mark.long),
        pytest.param({"n_steps": 3}, marks=pytest.mark.long),
        pytest.param({}, marks=pytest.mark.long),
    ],
    ids=["default", "n-step-frames", "storage", "n-step", "sb3-buffer"],
)
def test_resumed_is_the_same_as_never_stopped(options: dict[str, Any], tmp_path: Path) -> None:
    def make(name: str) -> TD3:
        kwargs = {**SMALL, **options}
        if kwargs.pop("storage", False):
            kwargs["replay_buffer_kwargs"] = {"storage": str(tmp_path / name)}
        return TD3("LayerNormCnnPolicy", envs(), **kwargs)

    through = make("frames")
    through.learn(160)
    stopped = make("frames2")

    class Enough(Exception):
        pass

    class Stop(Killed):
        def _on_step(self) -> bool:
            if self.num_timesteps >= 106:
                raise Enough
            return True

    with pytest.raises(Enough):
        stopped.learn(160, callback=Stop(90, tmp_path / "run"))
    np.random.seed(99)  # noqa: NPY002 (whatever happened in the meantime)
    th.manual_seed(99)
    resumed, _ = Checkpoints(tmp_path / "run").resume(TD3, envs())
    assert resumed.num_timesteps == 90
    resumed.learn(70, reset_num_timesteps=False)
    assert_same(resumed, through)


@pytest.mark.long
def test_stock_algorithms_resume_too(tmp_path: Path) -> None:
    def make() -> Any:
        return stable_baselines3.SAC("MlpPolicy", envs(), **STOCK)

    through = make().learn(120)
    make().learn(80, callback=Killed(60, tmp_path))
    resumed, _ = Checkpoints(tmp_path).resume(stable_baselines3.SAC, envs())
    resumed.learn(60, reset_num_timesteps=False)
    assert_same(resumed, through)


@pytest.mark.long
@pytest.mark.parametrize("norm_obs", [True, False])
def test_normalized_trainings_resume_too(norm_obs: bool, tmp_path: Path) -> None:
    def make() -> VecNormalize:
        return VecNormalize(envs(), norm_obs=norm_obs, norm_reward=True)

    through = stable_baselines3.SAC("MlpPolicy", make(), **STOCK).learn(120)
    stable_baselines3.SAC("MlpPolicy", make(), **STOCK).learn(80, callback=Killed(50, tmp_path))
    resumed, _ = Checkpoints(tmp_path).resume(stable_baselines3.SAC, make())
    resumed.learn(70, reset_num_timesteps=False)
    assert_same(resumed, through)
    for name in ("obs_rms", "ret_rms") if norm_obs else ("ret_rms",):
        one, other = (getattr(model.get_vec_normalize_env(), name) for model in (resumed, through))
        assert np.array_equal(one.mean, other.mean)
        assert one.count == other.count


def test_normalized_environments_that_cannot_be_repeated_begin_anew(tmp_path: Path) -> None:
    def make() -> VecNormalize:
        return VecNormalize(envs(env=SlidingBar))

    model = stable_baselines3.SAC("MlpPolicy", make(), **STOCK)
    model.learn(60, callback=Killed(50, tmp_path))
    resumed, _ = Checkpoints(tmp_path).resume(stable_baselines3.SAC, make())
    normalizer = resumed.get_vec_normalize_env()
    assert normalizer.training
    assert np.array_equal(resumed._last_original_obs, normalizer.get_original_obs())
    resumed.learn(20, reset_num_timesteps=False)
    assert np.isfinite(resumed.replay_buffer.observations).all()


class GoalBar(gym.ObservationWrapper[Any, Any, Any]):
    """The image's first row as what is seen and reached, and a dark one as the goal."""

    def __init__(self, env: type[SlidingBar] = RepeatableBar) -> None:
        super().__init__(env())
        row = spaces.Box(0.0, 255.0, (36,), np.float32)
        self.observation_space = spaces.Dict({"observation": row, "achieved_goal": row, "desired_goal": row})

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        row = observation[0, 0].astype(np.float32)
        return {"observation": row, "achieved_goal": row, "desired_goal": np.zeros_like(row)}

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, _: Any) -> np.ndarray:
        return -np.abs(achieved - desired).mean(axis=-1) / 255.0


def hindsight(**kwargs: Any) -> Any:
    return stable_baselines3.SAC(
        "MultiInputPolicy", envs(env=GoalBar, **kwargs), replay_buffer_class=stable_baselines3.HerReplayBuffer,
        **{**STOCK, "learning_starts": 30},
    )  # fmt: skip


@pytest.mark.long
def test_hindsight_trainings_resume_too(tmp_path: Path) -> None:
    through = hindsight().learn(120)
    hindsight().learn(80, callback=Killed(50, tmp_path))
    resumed, _ = Checkpoints(tmp_path).resume(stable_baselines3.SAC, envs(env=GoalBar))
    resumed.learn(70, reset_num_timesteps=False)
    assert_same(resumed, through)


def test_hindsight_asks_the_environments_and_cannot_overlap() -> None:
    model = TD3("MultiInputPolicy", envs(env=GoalBar), replay_buffer_class=stable_baselines3.HerReplayBuffer,
                learning_starts=30, buffer_size=200, device="cpu", concurrent_updates=True)  # fmt: skip
    with pytest.raises(ValueError, match="concurrent_updates: HerReplayBuffer calls the environments"):
        model.learn(50)


def test_hindsight_does_not_mix_an_old_episode_with_a_new_one(tmp_path: Path) -> None:
    kwargs = {"env_kwargs": {"env": SlidingBar}}
    hindsight(**kwargs).learn(60, callback=Killed(50, tmp_path))
    with pytest.warns(UserWarning, match="last trajectory in the replay buffer will be truncated"):
        resumed, _ = Checkpoints(tmp_path).resume(stable_baselines3.SAC, envs(env=GoalBar, **kwargs))
    assert resumed.replay_buffer.ep_length[20:25].tolist() == [[5, 5]] * 5
    resumed.learn(20, reset_num_timesteps=False)


def test_episodes_go_on_in_processes_of_their_own_and_monitors_remember(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL)
    model.learn(26, callback=Killed(24, tmp_path))
    expected = [list(monitor.rewards) for monitor in envs_of(model)]
    resumed, _ = Checkpoints(tmp_path).resume(TD3, envs(vec_env_cls=SupervisedVecEnv))
    before = resumed.get_env().get_attr("rewards")
    assert [rewards[:2] for rewards in expected] == [rewards[:2] for rewards in before]
    assert len(before[0]) == 2
    resumed.env.close()


def envs_of(model: Any) -> list[Monitor[Any, Any]]:
    return list(model.env.envs)


def test_environments_that_cannot_be_repeated_begin_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = TD3("LayerNormCnnPolicy", envs(env=SlidingBar), **SMALL)
    model.learn(60, callback=Killed(40, tmp_path))
    with caplog.at_level(logging.WARNING):
        resumed, _ = Checkpoints(tmp_path).resume(TD3, envs(env=SlidingBar))
    assert "not bit for bit" in caplog.text
    resumed.learn(40, reset_num_timesteps=False)
    assert resumed.num_timesteps == 80


def test_each_goes_on_with_its_own_log(tmp_path: Path) -> None:
    """SB3 goes on with the newest log of a folder: another seed's, whose curve and last good weights were lost."""
    for seed in (1, 2):
        model = TD3("LayerNormCnnPolicy", envs(), **{**SMALL, "seed": seed, "tensorboard_log": str(tmp_path / "tb")})
        model.learn(50, callback=Killed(40, tmp_path / str(seed)))
    other = {path: path.read_bytes() for path in (tmp_path / "tb" / "TD3_2").iterdir()}
    resumed, _ = Checkpoints(tmp_path / "1").resume(TD3, envs())
    resumed.learn(30, reset_num_timesteps=False)
    assert Path(resumed.logger.get_dir()) == tmp_path / "tb" / "TD3_1"
    assert {path: path.read_bytes() for path in (tmp_path / "tb" / "TD3_2").iterdir()} == other
    elsewhere, _ = Checkpoints(tmp_path / "1").resume(TD3, envs(), tensorboard_log=str(tmp_path / "new"))
    assert Path(elsewhere.logger.get_dir()) == tmp_path / "new" / "TD3_1"


def test_callbacks_count_on(tmp_path: Path) -> None:
    def callbacks() -> Any:
        evaluation = EvalCallback(envs(1), n_eval_episodes=1, eval_freq=6, verbose=0)
        return CallbackList([evaluation, Killed(40, tmp_path)])

    first = callbacks()
    TD3("LayerNormCnnPolicy", envs(), **SMALL).learn(40 + 2, callback=first)
    _, kept = Checkpoints(tmp_path).resume(TD3, envs())
    again = callbacks()
    restore_callbacks(again, kept)
    assert again.callbacks[0].n_calls == 20
    assert again.callbacks[0].best_mean_reward == first.callbacks[0].best_mean_reward > -np.inf


class StickyWrapper(gym.Wrapper[Any, Any, Any, Any]):
    """What it keeps of an episode nobody can know."""


def test_time_limits_go_on_and_of_other_wrappers_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limit: Any = {"wrapper_class": gym.wrappers.TimeLimit, "wrapper_kwargs": {"max_episode_steps": 7}}
    through = TD3("LayerNormCnnPolicy", envs(**limit), **SMALL)
    through.learn(120)
    TD3("LayerNormCnnPolicy", envs(**limit), **SMALL).learn(82, callback=Killed(78, tmp_path))
    resumed, _ = Checkpoints(tmp_path).resume(TD3, envs(**limit))
    resumed.learn(120 - 78, reset_num_timesteps=False)
    assert_same(resumed, through)
    gym.register("RepeatableBar-v0", RepeatableBar)
    registered = partial(gym.make, "RepeatableBar-v0")
    Checkpoints(tmp_path).resume(TD3, envs(env=registered))
    assert "bit for bit" not in caplog.text
    Checkpoints(tmp_path).resume(TD3, envs(env=registered, wrapper_class=StickyWrapper))
    assert "may not continue bit for bit: the state of these wrappers is unknown: StickyWrapper" in caplog.text


@pytest.mark.long
def test_noise_that_remembers_goes_on(tmp_path: Path) -> None:
    def make() -> TD3:
        noise = OrnsteinUhlenbeckActionNoise(np.zeros(1), np.full(1, 0.3))
        return TD3("LayerNormCnnPolicy", envs(), **{**SMALL, "exploration_noise": None}, action_noise=noise)

    through = make().learn(120)
    make().learn(82, callback=Killed(72, tmp_path))
    resumed, _ = Checkpoints(tmp_path).resume(TD3, envs())
    resumed.save(tmp_path / "before.zip")
    resumed.learn(120 - 72, reset_num_timesteps=False)
    assert_same(resumed, through)


@pytest.mark.long
def test_a_guard_goes_back_to_the_weights_of_before_the_checkpoint(tmp_path: Path) -> None:
    def callbacks(name: str) -> Any:
        guard = DivergenceGuard(save_freq=30, save_path=str(tmp_path / name))
        return CallbackList([PoisonAt90(), CallbackList([guard]), Killed(80, tmp_path / name)])

    through = TD3("LayerNormCnnPolicy", envs(), **SMALL)
    through.learn(120, callback=callbacks("through"))
    TD3("LayerNormCnnPolicy", envs(), **SMALL).learn(82, callback=callbacks("killed"))
    (tmp_path / "killed/last_good.zip").unlink()
    resumed, kept = Checkpoints(tmp_path / "killed").resume(TD3, envs())
    again = callbacks("killed")
    restore_callbacks(again, kept)
    resumed.learn(120 - 80, reset_num_timesteps=False, callback=again)
    assert again.callbacks[1].callbacks[0].rollbacks == 1
    assert_same(resumed, through)


class SpikeAt62(BaseCallback):
    """Some updates whose gradients explode."""

    def _on_step(self) -> bool:
        weight = self.model.critic.q_networks[0][-1].weight
        with th.no_grad():
            if self.num_timesteps == 62:
                weight.mul_(2.0**20)
            elif self.num_timesteps == 64:
                weight.mul_(2.0**-20)
        return True


@pytest.mark.long
def test_a_guard_judges_by_what_was_seen_before_the_checkpoint(tmp_path: Path) -> None:
    """The dump comes after it, and tells of all updates since the last one."""

    def callbacks(name: str) -> Any:
        diagnostics = DiagnosticsCallback(None)
        guard = DivergenceGuard(save_freq=20, save_path=str(tmp_path / name))
        return CallbackList([diagnostics, guard, SpikeAt62(), Killed(70, tmp_path / name)])

    def make() -> TD3:
        return TD3("LayerNormCnnPolicy", envs(), **SMALL, critic_max_grad_norm=10.0)

    first, again = callbacks("through"), callbacks("stopped")
    through = make().learn(140, callback=first, log_interval=4)
    make().learn(82, callback=callbacks("stopped"), log_interval=4)
    resumed, kept = Checkpoints(tmp_path / "stopped").resume(TD3, envs())
    restore_callbacks(again, kept)
    resumed.learn(140 - 70, reset_num_timesteps=False, callback=again, log_interval=4)
    assert first.callbacks[1].rollbacks > 0
    assert [alert.rule for _, alert in again.callbacks[1].alerts] == [
        alert.rule for _, alert in first.callbacks[1].alerts
    ]
    assert_same(resumed, through)


SIGTERM = """if True:
    import os, signal, sys
    import torch._dynamo  # once, not in every fork
    from repeatable import SMALL, PoisonAt90, envs
    from stable_baselines3.common.callbacks import BaseCallback
    from sb3_carla.callbacks import ExactCheckpointCallback
    from sb3_carla.td3.td3 import TD3

    def terminate():
        os.kill(os.getpid(), signal.SIGTERM)

    class Deed(BaseCallback):
        def __init__(self, deed):
            super().__init__()
            self.deed = deed

        def _on_step(self):
            if self.num_timesteps == 62:
                self.deed()
            return True

    def learn(steps, deed, folder):
        model, exact = TD3("LayerNormCnnPolicy", envs(), **SMALL), ExactCheckpointCallback(1000, folder)
        try:
            model.learn(steps, callback=[Deed(deed), exact])
        except KeyboardInterrupt:
            return model, exact
        finally:
            print(os.path.basename(folder), "has left learn", flush=True)

    def interrupt():
        raise KeyboardInterrupt

    def on_the_way():
        learn(100, terminate, "on the way")

    def in_the_last_step():
        learn(62, terminate, "in the last step")

    def twice():
        learn(100, lambda: (terminate(), terminate()), "twice")

    def after_an_interruption():
        kept = learn(100, interrupt, "interrupted")
        terminate()

    def after_another_training():
        kept = learn(100, interrupt, "interrupted again")
        learn(20, None, "ended")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        terminate()

    def treated_by_the_process():
        signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
        learn(100, terminate, "treated")

    def in_a_fork():
        def fork():
            child = os.fork()
            if not child:
                terminate()
                os._exit(4)
            os._exit(5 if os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGTERM else 6)

        learn(100, fork, "forked")

    cases = (on_the_way, in_the_last_step, twice, after_an_interruption, after_another_training)
    for case in (*cases, treated_by_the_process, in_a_fork):
        child = os.fork()
        if not child:
            case()
            os._exit(7)
        print(case.__name__, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.long
def test_sigterm(tmp_path: Path) -> None:
    """A training that is under way leaves a checkpoint; everything else ends at once, as ever."""
    done = subprocess.run(
        [sys.executable, "-c", SIGTERM], cwd=tmp_path, capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "on the way has left learn", "on_the_way 143",
        "in the last step has left learn", "in_the_last_step 143",
        "twice -15",
        "interrupted has left learn", "after_an_interruption -15",
        "interrupted again has left learn", "ended has left learn", "after_another_training -15",
        "treated_by_the_process 3",
        "in_a_fork 5",
    ], done.stderr  # fmt: skip
    through = TD3("LayerNormCnnPolicy", envs(), **SMALL).learn(100)
    for folder in ("on the way", "in the last step"):
        resumed, _ = Checkpoints(tmp_path / folder).resume(TD3, envs())
        assert resumed.num_timesteps == 62
        assert_same(resumed.learn(100 - 62, reset_num_timesteps=False), through)


# --- with CARLA and the zoo ------------------------------------------------------------------------------------------


@pytest.mark.long
def test_killed_zoo_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """2 N steps; and N steps, kill -9, the other N: the models are the same to the last bit."""
    train = ["-m", "rl_zoo3.train", "--algo", "td3", "--env", "CarlaLane-v0", "-n", "240", "--eval-freq", "-1"]
    train += ["--seed", "3", "--save-freq", "120", "--env-kwargs", "town:['Circuit01','Village01']", "n_npcs:2"]
    train += ["-params", "n_envs:2", "learning_starts:20", "batch_size:8", "buffer_size:200"]
    run_new_python(tmp_path, *train, "-f", "through")
    log = (tmp_path / "killed.log").open("w")
    killed = subprocess.Popen([sys.executable, *train, "-f", "killed"], cwd=tmp_path, stdout=log, stderr=log)
    latest = tmp_path / "killed/td3/CarlaLane-v0_1/checkpoints/latest"
    deadline = time.monotonic() + 300.0
    while not latest.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    log.close()
    assert not (latest.parents[1] / "CarlaLane-v0.zip").exists(), "it was killed before its end"
    again = [option if option != "120" else "60" for option in train]
    out = run_new_python(tmp_path, *again, "-f", "killed", "-i", str(latest / "model.zip"))
    assert "Resuming at step 120" in out
    assert "have no effect" not in out
    assert "These settings change" not in out
    assert [step.name for step in Checkpoints(latest.parent).steps()] == ["step_000000240", "step_000000180"]
    other = {"batch_size:8": "batch_size:16", "n_npcs:2": "n_npcs:1"}
    shorter = [other.get(option, option) for option in train]
    shorter += ["learning_rate:'lin_2e-3'", "policy_kwargs:dict(encoder='actor',state_size=14)"]
    out = run_new_python(tmp_path, *shorter, "-f", "killed", "-i", str(latest / "model.zip"))
    assert "Resuming at step 240" in out, "the same command again finds the newest"
    assert "these requested ones have no effect: batch_size: 8 (not 16), learning_rate: lin_1e-3 (not" in out
    assert "policy_kwargs.features_extractor_kwargs.features_dim: 64 (not None)" in out
    assert "does not continue bit for bit: env_kwargs.n_npcs: 1 (before: 2)\n" in out
    models = [
        TD3.load(tmp_path / folder / "CarlaLane-v0.zip")
        for folder in ("through/td3/CarlaLane-v0_1", "killed/td3/CarlaLane-v0_2")
    ]
    assert models[0].num_timesteps == 240
    assert models[0]._n_updates > 50
    assert_same(*models)
