"""Killed and resumed is the same as never stopped, bit for bit; and a damaged checkpoint is found before it is used."""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch as th
from elsewhere import run_python
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecNormalize
from tiny import STATE_CRITIC, SlidingBar, ToldBar

from sb3_carla import checkpoints
from sb3_carla.callbacks import DivergenceGuard, ExactCheckpointCallback
from sb3_carla.callbacks.checkpoint import ModelCheckpointCallback
from sb3_carla.checkpoints import MANIFEST, PIECES, Checkpoints, is_checkpoint, restore_callbacks
from sb3_carla.errors import CheckpointError
from sb3_carla.provenance import versions
from sb3_carla.td3 import TD3
from sb3_carla.vec_env import SupervisedVecEnv

SMALL: dict[str, Any] = {
    "learning_starts": 20, "batch_size": 8, "buffer_size": 60, "train_freq": 1, "seed": 3, "device": "cpu",
    "exploration_noise": [0.5, 0.1, 100], "learning_rate": 1e-3,
}  # fmt: skip


class RepeatableBar(ToldBar):
    """Says how it came to where it is, as CarlaLane-v0 does."""

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


@pytest.mark.parametrize(
    "options",
    [
        {**STATE_CRITIC, "overlap": True},
        {"deduplicate_frames": True, "n_steps": 3, "overlap": True},
        {"deduplicate_frames": True, "storage": True},
        {"n_steps": 3},
        {},
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

    class Stop(ExactCheckpointCallback):
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


def test_stock_algorithms_resume_too(tmp_path: Path) -> None:
    def make() -> Any:
        return stable_baselines3.SAC("MlpPolicy", envs(), learning_starts=20, buffer_size=200, seed=3, device="cpu")

    through = make().learn(120)
    make().learn(80, callback=ExactCheckpointCallback(60, tmp_path))
    resumed, _ = Checkpoints(tmp_path).resume(stable_baselines3.SAC, envs())
    resumed.learn(60, reset_num_timesteps=False)
    assert_same(resumed, through)


@pytest.mark.parametrize("norm_obs", [True, False])
def test_normalized_trainings_resume_too(norm_obs: bool, tmp_path: Path) -> None:
    def make() -> VecNormalize:
        return VecNormalize(envs(), norm_obs=norm_obs, norm_reward=True)

    arguments: dict[str, Any] = {"learning_starts": 20, "buffer_size": 200, "seed": 3, "device": "cpu"}
    through = stable_baselines3.SAC("MlpPolicy", make(), **arguments).learn(120)
    stable_baselines3.SAC("MlpPolicy", make(), **arguments).learn(80, callback=ExactCheckpointCallback(50, tmp_path))
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

    model = stable_baselines3.SAC("MlpPolicy", make(), learning_starts=20, buffer_size=200, seed=3, device="cpu")
    model.learn(60, callback=ExactCheckpointCallback(50, tmp_path))
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
        learning_starts=30, buffer_size=200, seed=3, device="cpu",
    )  # fmt: skip


def test_hindsight_trainings_resume_too(tmp_path: Path) -> None:
    through = hindsight().learn(120)
    hindsight().learn(80, callback=ExactCheckpointCallback(50, tmp_path))
    resumed, _ = Checkpoints(tmp_path).resume(stable_baselines3.SAC, envs(env=GoalBar))
    resumed.learn(70, reset_num_timesteps=False)
    assert_same(resumed, through)


def test_hindsight_asks_the_environments_and_cannot_overlap() -> None:
    model = TD3("MultiInputPolicy", envs(env=GoalBar), replay_buffer_class=stable_baselines3.HerReplayBuffer,
                learning_starts=30, buffer_size=200, device="cpu", overlap=True)  # fmt: skip
    with pytest.raises(ValueError, match="overlap: expected a replay buffer that asks the environments nothing"):
        model.learn(50)


def test_hindsight_does_not_mix_an_old_episode_with_a_new_one(tmp_path: Path) -> None:
    kwargs = {"env_kwargs": {"env": SlidingBar}}
    hindsight(**kwargs).learn(60, callback=ExactCheckpointCallback(50, tmp_path))
    with pytest.warns(UserWarning, match="last trajectory in the replay buffer will be truncated"):
        resumed, _ = Checkpoints(tmp_path).resume(stable_baselines3.SAC, envs(env=GoalBar, **kwargs))
    assert resumed.replay_buffer.ep_length[20:25].tolist() == [[5, 5]] * 5
    resumed.learn(20, reset_num_timesteps=False)


def test_episodes_go_on_in_processes_of_their_own_and_monitors_remember(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL)
    model.learn(26, callback=ExactCheckpointCallback(24, tmp_path))
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
    model.learn(60, callback=ExactCheckpointCallback(40, tmp_path))
    with caplog.at_level(logging.WARNING):
        resumed, _ = Checkpoints(tmp_path).resume(TD3, envs(env=SlidingBar))
    assert "not bit for bit" in caplog.text
    resumed.learn(40, reset_num_timesteps=False)
    assert resumed.num_timesteps == 80


# --- what lies on the disk -------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with checkpoints of steps 40, 80 and 120, of which two are kept."""
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL, deduplicate_frames=True)
    model.learn(130, callback=ExactCheckpointCallback(40, tmp_path, keep=2))
    return tmp_path


def test_the_last_ones_are_kept_and_nothing_else(run: Path) -> None:
    assert [step.name for step in Checkpoints(run).steps()] == ["step_000000120", "step_000000080"]
    assert (run / "latest").resolve().name == "step_000000120"
    needed = {
        name
        for step in Checkpoints(run).steps()
        for _, names in json.loads((step / MANIFEST).read_text())["arrays"]
        for name in names
    }
    assert {path.name for path in (run / PIECES).iterdir()} == needed
    assert not list(run.glob(".*"))
    assert is_checkpoint(run / "latest" / "model.zip")
    assert not is_checkpoint(run / "model.zip")


def test_a_second_training_in_the_folder_keeps_its_own(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL, deduplicate_frames=True)
    with caplog.at_level(logging.WARNING):
        model.learn(50, callback=ExactCheckpointCallback(20, run))
    assert [step.name for step in Checkpoints(run).steps()] == ["step_000000040", "step_000000020"]
    assert (run / "latest").resolve().name == "step_000000040"
    assert Checkpoints(run).resume(TD3, envs())[0].num_timesteps == 40
    assert caplog.text.count("Checkpoint removed") == 2
    assert f"{run / 'step_000000120'} is ahead of the present step_000000020" in caplog.text


def test_saving_again_writes_what_is_new_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_carla.checkpoints.PIECE", 4096)
    model = TD3(
        "LayerNormCnnPolicy",
        envs(),
        **{**SMALL, "buffer_size": 2000, "learning_starts": 10_000},
        deduplicate_frames=True,
    )
    model.learn(1000, callback=ExactCheckpointCallback(960, tmp_path))
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / PIECES).iterdir()}
    model.learn(40, reset_num_timesteps=False)
    Checkpoints(tmp_path).save(model)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / PIECES).iterdir()}
    new = after.keys() - before.keys()
    assert all(after[name] == written for name, written in before.items() if name in after)
    assert 0 < len(new) < 0.25 * len(after)


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.zip", "state.pkl", "manifest.json", "piece", "missing", "cut"])
def test_a_damaged_checkpoint_is_skipped_with_a_word(run: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    newest, older = Checkpoints(run).steps()
    if name == "piece":
        own, others = (
            {n for _, names in json.loads((step / MANIFEST).read_text())["arrays"] for n in names}
            for step in (newest, older)
        )
        spoil(run / PIECES / next(iter(own - others)))
    elif name == "missing":
        (newest / "model.zip").unlink()
    elif name == "cut":
        (newest / "manifest.json").write_text((newest / "manifest.json").read_text()[:100])
    else:
        spoil(newest / name)
    with caplog.at_level(logging.WARNING):
        resumed, _ = Checkpoints(run).resume(TD3, envs(), newest)
    assert resumed.num_timesteps == 80
    assert "Checkpoint skipped" in caplog.text
    assert str(run / (PIECES if name == "piece" else newest.name)) in caplog.text


def test_other_versions_are_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Checkpoints(run).resume(TD3, envs())
    assert not caplog.text
    monkeypatch.setattr(checkpoints, "versions", lambda: {**versions(), "torch": "1.0"})
    resumed, _ = Checkpoints(run).resume(TD3, envs())
    assert resumed.num_timesteps == 120
    assert f"was written with torch {versions()['torch']} (now 1.0): it may not go on bit for bit" in caplog.text


def test_nothing_to_go_on_from_says_why(run: Path, tmp_path: Path) -> None:
    for step in Checkpoints(run).steps():
        spoil(step / "model.zip")
    with pytest.raises(CheckpointError, match=r"no checkpoint to go on from. .*120/model.zip is damaged.*80/model.zip"):
        Checkpoints(run).resume(TD3, envs())
    with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
        Checkpoints(tmp_path / "nowhere").resume(TD3, envs())
    with pytest.raises(ValueError, match="keep: expected at least 1, got 0"):
        Checkpoints(run, keep=0)
    with pytest.raises(ValueError, match="every: expected at least 1 step, got 0"):
        ExactCheckpointCallback(0, run)


def test_what_a_crash_left_half_written_is_no_checkpoint(run: Path) -> None:
    (run / ".step_000000160").mkdir()
    (run / ".step_000000160" / "model.zip").write_bytes(b"half")
    (run / PIECES / "abc.draft").write_bytes(b"half")
    checkpoints = Checkpoints(run)
    resumed, _ = checkpoints.resume(TD3, envs())
    assert resumed.num_timesteps == 120
    resumed.learn(42, callback=ExactCheckpointCallback(40, run), reset_num_timesteps=False)
    assert checkpoints.steps()[0].name == "step_000000160"
    assert not (run / PIECES / "abc.draft").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_does_not_end_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL)
    exact, plain = tmp_path / "exact", tmp_path / "plain"
    callbacks = [ExactCheckpointCallback(40, exact), ModelCheckpointCallback(20, str(plain))]  # 20 steps of two
    model.learn(50, callback=callbacks)
    before = [*tmp_path.rglob("*")]
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, room[1]))
    try:
        model.learn(50, callback=callbacks, reset_num_timesteps=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    for what in ("No checkpoint", "No model saved"):
        assert f"{what} at step 80: [Errno 27] File too large" in caplog.text
    caplog.clear()
    gc.collect()  # SB3 leaves files open that it could not write
    assert [*tmp_path.rglob("*")] == before, "and it is not filled by what failed"
    assert Checkpoints(exact).resume(TD3, envs())[0].num_timesteps == 40


def test_pieces_of_a_checkpoint_that_failed_go(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(run.rglob("*"))
    model, _ = Checkpoints(run).resume(TD3, envs())
    model.learn(20, reset_num_timesteps=False)

    def full(path: Path) -> None:
        if path.suffix != ".draft":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_to_disk", full)
    with pytest.raises(OSError, match="No space left"):
        Checkpoints(run).save(model)
    assert sorted(run.rglob("*")) == before


def test_two_trainings_do_not_write_to_one_folder(run: Path) -> None:
    code = f"""
import sys
from sb3_carla.checkpoints import Checkpoints
checkpoints = Checkpoints({str(run)!r})
checkpoints.claim()
print("claimed", flush=True)
sys.stdin.read()
"""
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL)
    streams: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **streams) as other:
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(CheckpointError, match=rf"belongs to a training that runs \(process {other.pid}\)"):
            model.learn(50, callback=ExactCheckpointCallback(40, run))
        other.kill()
    model.learn(50, callback=ExactCheckpointCallback(40, run))


def test_file_systems_without_links_keep_as_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refused)
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL)
    model.learn(130, callback=ExactCheckpointCallback(40, tmp_path))
    assert "Checkpoint without the link 'latest': [Errno 1]" in caplog.text
    assert len(Checkpoints(tmp_path).steps()) == 2


def test_another_number_of_environments_is_refused(run: Path) -> None:
    with pytest.raises(
        CheckpointError, match="step_000000120: its training had n_envs: 2, and goes on with 2 only, got 3"
    ):
        Checkpoints(run).resume(TD3, envs(3))


def test_only_off_policy_algorithms(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected one of SB3's off-policy algorithms, got PPO"):
        stable_baselines3.PPO("MlpPolicy", "Pendulum-v1").learn(10, callback=ExactCheckpointCallback(40, tmp_path))


def test_each_goes_on_with_its_own_log(tmp_path: Path) -> None:
    """SB3 goes on with the newest log of a folder: another seed's, whose curve and last good weights were lost."""
    for seed in (1, 2):
        model = TD3("LayerNormCnnPolicy", envs(), **{**SMALL, "seed": seed, "tensorboard_log": str(tmp_path / "tb")})
        model.learn(50, callback=ExactCheckpointCallback(40, tmp_path / str(seed)))
    other = {path: path.read_bytes() for path in (tmp_path / "tb" / "TD3_2").iterdir()}
    resumed, _ = Checkpoints(tmp_path / "1").resume(TD3, envs())
    resumed.learn(30, reset_num_timesteps=False)
    assert Path(resumed.logger.get_dir()) == tmp_path / "tb" / "TD3_1"
    assert {path: path.read_bytes() for path in (tmp_path / "tb" / "TD3_2").iterdir()} == other
    elsewhere, _ = Checkpoints(tmp_path / "1").resume(TD3, envs(), tensorboard_log=str(tmp_path / "new"))
    assert Path(elsewhere.logger.get_dir()) == tmp_path / "new" / "TD3_1"


def test_callbacks_count_on(tmp_path: Path) -> None:
    def callbacks() -> Any:
        evaluation = EvalCallback(envs(1), n_eval_episodes=1, eval_freq=7, verbose=0)
        return CallbackList([evaluation, ExactCheckpointCallback(40, tmp_path)])

    first = callbacks()
    TD3("LayerNormCnnPolicy", envs(), **SMALL).learn(40 + 2, callback=first)
    _, kept = Checkpoints(tmp_path).resume(TD3, envs())
    again = callbacks()
    restore_callbacks(again, kept)
    assert again.callbacks[0].n_calls == 20
    assert again.callbacks[0].best_mean_reward == first.callbacks[0].best_mean_reward > -np.inf


class PoisonAt90(BaseCallback):
    def _on_step(self) -> bool:
        if self.num_timesteps == 90:
            with th.no_grad():
                self.model.critic.q_networks[0][0].weight[0, 0] = math.nan
        return True


def test_a_guard_goes_back_to_the_weights_of_before_the_checkpoint(tmp_path: Path) -> None:
    def callbacks(name: str) -> Any:
        guard = DivergenceGuard(save_freq=30, save_path=str(tmp_path / name))
        return CallbackList([PoisonAt90(), CallbackList([guard]), ExactCheckpointCallback(80, tmp_path / name)])

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


# --- with CARLA and the zoo ------------------------------------------------------------------------------------------


def test_killed_zoo_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """2 N steps; and N steps, kill -9, the other N: the models are the same to the last bit."""
    train = ["-m", "rl_zoo3.train", "--algo", "td3", "--env", "CarlaLane-v0", "-n", "240", "--eval-freq", "-1"]
    train += ["--seed", "3", "--save-freq", "120", "--env-kwargs", "town:['Circuit01','Village01']", "n_npcs:2"]
    train += ["-params", "n_envs:2", "learning_starts:20", "batch_size:8", "buffer_size:200"]
    run_python(tmp_path, *train, "-f", "through")
    log = (tmp_path / "killed.log").open("w")
    killed = subprocess.Popen([sys.executable, *train, "-f", "killed"], cwd=tmp_path, stdout=log, stderr=log)
    latest = tmp_path / "killed/td3/CarlaLane-v0_1/checkpoints/latest"
    deadline = time.monotonic() + 120.0
    while not latest.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    log.close()
    assert not (latest.parents[1] / "CarlaLane-v0.zip").exists(), "it was killed before its end"
    again = [option if option != "120" else "60" for option in train]
    out = run_python(tmp_path, *again, "-f", "killed", "-i", str(latest / "model.zip"))
    assert "Going on at step 120" in out
    assert "With the hyperparameters that it had" not in out
    assert latest.resolve().name == "step_000000180", "checkpoints stay together"
    shorter = [option if option != "batch_size:8" else "batch_size:16" for option in train]
    out = run_python(tmp_path, *shorter, "-f", "killed", "-i", str(latest / "model.zip"))
    assert "Going on at step 180" in out, "the same command again finds the newest"
    assert "not those of the file and the command line: batch_size: 8\n" in out
    models = [
        TD3.load(tmp_path / folder / "CarlaLane-v0.zip")
        for folder in ("through/td3/CarlaLane-v0_1", "killed/td3/CarlaLane-v0_2")
    ]
    assert models[0].num_timesteps == 240
    assert models[0]._n_updates > 50
    assert_same(*models)
