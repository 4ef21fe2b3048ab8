"""Ctrl-C, exceptions and stopped workers during a command: each answer belongs to its own command."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_carla.envs.vec_env import SupervisedVecEnv, WorkerError

pytestmark = pytest.mark.usefixtures("interruptible")


class Echo(gym.Env[np.ndarray, np.ndarray]):
    """The reward is the action. A large action takes a second, a negative one raises an exception."""

    observation_space = gym.spaces.Box(0, 255, (12, 320, 320), np.uint8)  # more than a pipe holds
    action_space = gym.spaces.Box(-1, 100, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return np.zeros(self.observation_space.shape, np.uint8), {}

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        if action[0] < 0.0:
            raise ValueError("negative")
        if action[0] > 50.0:
            time.sleep(1.0)
        observation = np.full(self.observation_space.shape, self.steps, np.uint8)
        return observation, float(action[0]), False, False, {}

    def put(self, array: np.ndarray) -> int:
        return array.nbytes


@pytest.fixture
def envs() -> Any:
    made = SupervisedVecEnv([Echo, Echo], timeout=60.0)
    made.reset()
    yield made
    made.close()


def step(envs: Any, *actions: float) -> Any:
    observations, rewards, dones, infos = envs.step(np.array(actions, np.float32)[:, None])
    return observations[:, 0, 0, 0].tolist(), rewards.tolist(), dones.tolist(), infos


def interrupt_in(seconds: float) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


@pytest.mark.parametrize(
    "actions", [pytest.param((90.0, 91.0), marks=pytest.mark.long), (2.0, 91.0)], ids=["none-answered", "one-answered"]
)
@pytest.mark.parametrize("between", [lambda envs: None, lambda envs: envs.get_attr("steps")], ids=["at-once", "asked"])
def test_after_an_interruption_the_next_step_begins_anew(envs: Any, between: Any, actions: Any) -> None:
    """A step whose result was not received must not be part of a transition."""
    assert step(envs, 1.0, 2.0)[:2] == ([1, 1], [1.0, 2.0])
    interrupt_in(0.3)
    with pytest.raises(KeyboardInterrupt):
        step(envs, *actions)
    between(envs)
    observations, rewards, dones, infos = step(envs, 3.0, 4.0)
    assert (observations, rewards, dones) == ([0, 0], [0.0, 0.0], [True, True])
    assert all(info["TimeLimit.truncated"] and info["server_restarted"] for info in infos)
    assert all(info["terminal_observation"].max() == 1 for info in infos)
    assert step(envs, 5.0, 6.0)[:3] == ([1, 1], [5.0, 6.0], [False, False])


def test_after_an_interruption_a_reset_and_questions_get_their_own_answers(envs: Any) -> None:
    interrupt_in(0.3)
    with pytest.raises(KeyboardInterrupt):
        step(envs, 90.0, 91.0)
    assert envs.env_method("put", np.zeros(3, np.uint8)) == [3, 3]
    assert envs.reset().shape == (2, 12, 320, 320)
    assert step(envs, 5.0, 6.0)[:3] == ([1, 1], [5.0, 6.0], [False, False])


def test_after_an_exception_the_others_answers_are_their_own(envs: Any) -> None:
    with pytest.raises(WorkerError, match="negative"):
        step(envs, -1.0, 2.0)
    assert step(envs, 3.0, 4.0)[:3] == ([0, 0], [0.0, 0.0], [True, True])
    assert step(envs, 5.0, 6.0)[:2] == ([1, 1], [5.0, 6.0])


@pytest.mark.long
def test_a_process_that_stops_in_the_middle_of_its_answer_is_replaced() -> None:
    envs = SupervisedVecEnv([Echo, Echo], timeout=3.0)
    envs.reset()
    envs.step_async(np.ones((2, 1), np.float32))
    time.sleep(1.0)  # it has begun to send, and waits
    os.kill(envs.processes[0].pid, signal.SIGSTOP)
    _, rewards, dones, _ = envs.step_wait()
    assert (rewards.tolist(), dones.tolist(), envs.restarts) == ([0.0, 1.0], [True, False], [1, 0])
    envs.close()


@pytest.mark.long
def test_a_process_that_reads_only_half_of_a_question_is_replaced() -> None:
    envs = SupervisedVecEnv([Echo, Echo], timeout=3.0)
    envs.reset()
    os.kill(envs.processes[0].pid, signal.SIGSTOP)
    assert envs.env_method("put", np.zeros(2_000_000, np.uint8)) == [2_000_000, 2_000_000]
    assert envs.restarts == [1, 0]
    envs.close()


def test_an_interrupted_close_leaves_no_process(envs: Any) -> None:
    processes = list(envs.processes)
    os.kill(processes[0].pid, signal.SIGSTOP)
    interrupt_in(0.5)
    with pytest.raises(KeyboardInterrupt):
        envs.close()
    assert not any(process.is_alive() for process in processes)
    envs.close()
