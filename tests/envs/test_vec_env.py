"""Workers that die, hang or raise: the other environments go on, and no false transition is stored."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
from paths import TESTS
from processes import wait_for
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from tiny import BarEnv

from sb3_carla.envs.vec_env import SupervisedVecEnv, WorkerError
from sb3_carla.td3.td3 import TD3


class FragileBar(BarEnv):
    """Does at its next step what :meth:`doom` was called with."""

    fate: str | None = None
    mark = 0

    def step(self, action: np.ndarray) -> Any:
        fate, self.fate = self.fate, None
        if fate == "abort":
            os.abort()
        if fate == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if fate == "hang":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as if CARLA's client never returned
            time.sleep(60)
        if fate == "raise":
            raise ValueError("the road is gone")
        return super().step(action)

    def doom(self, fate: str) -> int:
        self.fate = fate
        return os.getpid()


def made(n_envs: int = 3, env: Callable[[], gym.Env[Any, Any]] = FragileBar, **kwargs: Any) -> SupervisedVecEnv:
    return SupervisedVecEnv([partial(wrapped, env)] * n_envs, **kwargs)


def wrapped(env: Callable[[], gym.Env[Any, Any]]) -> Monitor[Any, Any]:
    return Monitor(env())


@pytest.fixture
def envs() -> Iterator[SupervisedVecEnv]:
    vector = made(timeout=30.0)
    vector.seed(5)
    yield vector
    vector.close()


def columns(observations: Any) -> list[int]:
    """Columns of the bars."""
    return [int(np.argmax(picture[0, 0])) for picture in observations]


def test_it_does_what_a_dummy_vec_env_does(envs: SupervisedVecEnv) -> None:
    plain = DummyVecEnv([partial(wrapped, FragileBar)] * 3)
    plain.seed(5)
    assert np.array_equal(envs.reset(), plain.reset())
    for step in range(25):
        actions = np.full((3, 1), 0.1 * (step % 7), np.float32)
        ours, theirs = envs.step(actions), plain.step(actions)
        for got, expected in zip(ours[:3], theirs[:3], strict=True):
            assert np.array_equal(got, expected)
        assert [info.get("TimeLimit.truncated") for info in ours[3]] == [
            info.get("TimeLimit.truncated") for info in theirs[3]
        ]
    assert envs.restarts == [0, 0, 0]


@pytest.mark.parametrize("fate", ["abort", pytest.param("stop", marks=pytest.mark.long)])
def test_a_lost_process_truncates_its_episode_alone(fate: str) -> None:
    envs = made(timeout=30.0)
    twin = DummyVecEnv([partial(wrapped, FragileBar)] * 3)
    for vector in (envs, twin):
        vector.seed(5)
    last = envs.reset()
    twin.reset()
    envs.timeout = 3.0 if fate == "stop" else 30.0
    (lost,) = envs.env_method("doom", fate, indices=[1])
    begun = time.monotonic()
    observations, rewards, dones, infos = envs.step(np.zeros((3, 1), np.float32))
    assert time.monotonic() - begun < 25.0
    expected = twin.step(np.zeros((3, 1), np.float32))
    for index in (0, 2):
        assert np.array_equal(observations[index], expected[0][index])
        assert rewards[index] == expected[1][index]
    assert (rewards[1], dones.tolist()) == (0.0, [False, True, False])
    assert infos[1]["worker_restarted"] is infos[1]["server_restarted"] is infos[1]["TimeLimit.truncated"] is True
    assert np.array_equal(infos[1]["terminal_observation"], last[1])
    assert envs.restarts == [0, 1, 0]
    assert not psutil.pid_exists(lost)
    for _ in range(9):
        dones = envs.step(np.zeros((3, 1), np.float32))[2]
    assert dones.tolist() == [True, False, True], "the new one began its ten steps later"
    envs.close()


def test_sb3s_own_ends_the_training_with_eof_error() -> None:
    """``SupervisedVecEnv`` prevents this."""
    envs = SubprocVecEnv([partial(wrapped, FragileBar)] * 2)
    envs.reset()
    envs.env_method("doom", "abort", indices=[1])
    with pytest.raises((EOFError, ConnectionResetError)):
        envs.step(np.zeros((2, 1), np.float32))
    for process in envs.processes:
        process.kill()


def test_a_training_goes_on_and_stores_no_end_of_the_task() -> None:
    envs = made(timeout=30.0)
    model = TD3("LayerNormCnnPolicy", envs, buffer_size=300, learning_starts=30, batch_size=8, train_freq=1, seed=1)
    model.learn(30)
    envs.env_method("doom", "abort", indices=[2])
    model.learn(60, reset_num_timesteps=False)
    assert envs.restarts == [0, 0, 1]
    assert model.num_timesteps == 90
    buffer = model.replay_buffer
    assert buffer is not None
    assert buffer.size() == 30
    lost = buffer.dones[10, 2], buffer.timeouts[10, 2], buffer.rewards[10, 2]
    assert lost == (1.0, 1.0, 0.0), "an end by the clock: the critic goes on from the last observation"
    assert not ((buffer.dones[:30] == 1.0) & (buffer.timeouts[:30] == 0.0)).any()
    envs.close()


def test_an_exception_in_python_is_raised_here(envs: SupervisedVecEnv) -> None:
    envs.reset()
    envs.env_method("doom", "raise", indices=[0])
    with pytest.raises(WorkerError, match=r"Environment 0 raised an exception:(\n|.)*ValueError: the road is gone"):
        envs.step(np.zeros((3, 1), np.float32))


class StillBorn(BarEnv):
    """Aborts at its first reset."""

    def reset(self, **kwargs: Any) -> Any:
        os.abort()


class DiesOnce(BarEnv):
    """The first instance aborts before it answers."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        if not mark.exists():
            mark.touch()
            os.abort()


def test_a_process_that_is_lost_before_it_answers_is_replaced(tmp_path: Path) -> None:
    envs = SupervisedVecEnv([partial(DiesOnce, tmp_path / "mark"), FragileBar])
    assert envs.restarts == [1, 0]
    assert envs.reset().shape == (2, *envs.observation_space.shape)
    envs.close()


def test_a_process_that_is_lost_again_and_again_is_an_error() -> None:
    envs = made(1, StillBorn)
    with pytest.raises(WorkerError, match="environment 0 was lost 3 times in a row"):
        envs.reset()
    envs.close()


@pytest.mark.long
def test_the_fork_server_may_die_too(envs: SupervisedVecEnv) -> None:
    envs.reset()
    pid = envs.env_method("doom", "nothing", indices=[1])[0]
    above = psutil.Process(pid).ppid()
    assert above != os.getpid()
    for lost in (above, pid):
        os.kill(lost, signal.SIGKILL)
    *_, dones, infos = envs.step(np.zeros((3, 1), np.float32))
    assert dones[1]
    assert infos[1]["worker_restarted"] is True
    assert not envs.step(np.zeros((3, 1), np.float32))[2].any()


def test_questions_outside_of_a_step_find_the_loss_too(envs: SupervisedVecEnv) -> None:
    envs.reset()
    envs.set_attr("mark", 7, indices=[1])
    (pid,) = envs.env_method("doom", "nothing", indices=[1])
    os.kill(pid, signal.SIGKILL)
    assert envs.get_attr("mark") == [0, 7, 0], "what was set is set again"
    *_, dones, infos = envs.step(np.zeros((3, 1), np.float32))
    assert dones.tolist() == [False, True, False]
    assert infos[1]["worker_restarted"] is True
    assert not envs.step(np.zeros((3, 1), np.float32))[2].any()
    assert envs.env_is_wrapped(Monitor) == [True, True, True]
    assert envs.has_attr("mark")


def test_of_what_was_set_often_only_the_last_is_set_again(
    envs: SupervisedVecEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of unread answers would fill the pipe, and both sides would wait for ever."""
    envs.reset()
    for mark in (3, 5, 8):
        envs.set_attr("mark", mark, indices=[1])
    (pid,) = envs.env_method("doom", "nothing", indices=[1])
    os.kill(pid, signal.SIGKILL)
    sent, send = [], envs._send
    monkeypatch.setattr(envs, "_send", lambda *message: (sent.append(message), send(*message)))
    assert envs.get_attr("mark") == [0, 8, 0]
    assert [data for _, command, data in sent if command == "set_attr"] == [("mark", 8)]


def test_seeds_make_the_new_environments_repeatable() -> None:
    seen = []
    for _ in range(2):
        envs = made(2)
        envs.seed(9)
        envs.reset()
        envs.env_method("doom", "abort", indices=[0])
        seen.append(columns(envs.step(np.zeros((2, 1), np.float32))[0]))
        envs.close()
    assert seen[0] == seen[1]


def test_close_ends_processes_that_hang(envs: SupervisedVecEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_carla.envs.vec_env.CLOSE_TIMEOUT", 1.0)
    envs.reset()
    pids = envs.env_method("doom", "nothing")
    os.kill(pids[1], signal.SIGSTOP)
    envs.close()
    envs.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.long
@pytest.mark.parametrize(("fate", "start_method"), [("nothing", "forkserver"), ("hang", "fork")])
def test_processes_do_not_outlive_a_killed_parent(tmp_path: Path, fate: str, start_method: str) -> None:
    code = """
import sys, time
import numpy as np
sys.path[:0] = sys.argv[3:]
from test_vec_env import made
from sb3_carla.envs import vec_env_worker
if __name__ == "__main__":
    vec_env_worker.ORPHAN_CLOSE_TIMEOUT = 2.0  # also in forked workers
    envs = made(2, start_method=sys.argv[1])
    envs.reset()
    pids = envs.env_method("doom", sys.argv[2])
    envs.step_async(np.zeros((2, 1), np.float32))
    time.sleep(0.5)
    print(*pids, flush=True)
    time.sleep(60)
"""
    script = tmp_path / "parent.py"
    script.write_text(code)
    command = [sys.executable, str(script), start_method, fate, str(TESTS), str(TESTS / "envs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_the_monitors_file_keeps_the_lost_processs_episodes(tmp_path: Path) -> None:
    envs = make_vec_env(FragileBar, 1, monitor_dir=str(tmp_path), vec_env_cls=SupervisedVecEnv)
    envs.reset()
    for _ in range(25):
        envs.step(np.zeros((1, 1), np.float32))
    envs.env_method("doom", "abort")
    for _ in range(11):
        envs.step(np.zeros((1, 1), np.float32))
    envs.close()
    lines = (tmp_path / "0.monitor.csv").read_text().splitlines()
    assert len(list(csv.DictReader(line for line in lines if not line.startswith("#")))) >= 3


# --- with CARLA's client ---------------------------------------------------------------------------------------------


def servers_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


def raster_memory_of(pid: int) -> set[int]:
    """Inodes of a process's raster memory; psutil's open_files() lists no files in memory."""
    folder = Path(f"/proc/{pid}/fd")
    return {(folder / fd.name).stat().st_ino for fd in folder.iterdir() if "sb3_carla_rasters" in os.readlink(fd)}


@pytest.mark.long
def test_environments_share_rasters_across_processes_and_survive_the_death_of_any() -> None:
    envs = make_vec_env("CarlaLane-v0", 2, env_kwargs={"timeout": 5.0}, vec_env_cls=SupervisedVecEnv, seed=3)
    envs.reset()
    workers = [process.pid for process in envs.processes]
    servers = [servers_of(pid)[0] for pid in workers]
    assert len(set.union(*map(raster_memory_of, servers))) == 1
    actions = np.zeros((2, 2), np.float32)
    os.kill(workers[0], signal.SIGABRT)  # as an exception in a thread of the client does
    *_, dones, infos = envs.step(actions)
    assert dones.tolist() == [True, False]
    assert infos[0]["worker_restarted"] is True
    os.kill(servers[1], signal.SIGKILL)
    *_, dones, infos = envs.step(actions)
    assert dones.tolist() == [False, True]
    assert infos[1]["server_restarted"] is True
    assert not envs.step(actions)[2].any()
    envs.close()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in servers))
