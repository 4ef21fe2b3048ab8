"""
Environments in worker processes; a worker that dies or hangs is replaced.

CARLA's client is a C++ library with threads. An exception in one of them aborts the Python process, which cannot catch
it. SB3's ``SubprocVecEnv`` then ends the training with ``EOFError``, and waits for ever for a worker that hangs. Here
only the episode of that one environment ends, as truncated.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper, VecEnvObs, VecEnvStepReturn
from stable_baselines3.common.vec_env.subproc_vec_env import SubprocVecEnv, _stack_obs

from sb3_carla.client.cleanup import close_at_exit
from sb3_carla.client.shared_memory import share_rasters
from sb3_carla.envs.vec_env_worker import run_worker

__all__ = ["SupervisedVecEnv", "WorkerError"]

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""Workers that are tried in a row before an environment is given up."""
CLOSE_TIMEOUT = 10.0
"""How long a worker may take to close its environment before it is killed [s]."""
PRELOADED_MODULES = ["sb3_carla.envs.carla_lane", "sb3_carla.envs.vec_env_worker"]
"""Modules that the fork server imports once: workers start faster, and share the memory."""


class WorkerError(RuntimeError):
    """An environment raised an exception in its worker, or its worker could not be replaced."""


class SupervisedVecEnv(SubprocVecEnv):
    """
    SB3's ``SubprocVecEnv`` for environments that can abort or block their process.

    When a worker is lost, the step of its environment returns reward 0 and the first observation of a new episode. Its
    ``info`` holds ``worker_restarted`` and ``server_restarted`` True; ``TimeLimit.truncated`` True, so that algorithms
    do not treat this as the end of the task; and the last observation received as ``terminal_observation``. The
    transitions of the other environments are kept.

    An exception that an environment raises in Python is raised here as :class:`WorkerError`; the worker lives on. After
    an exception or Ctrl-C the results of the interrupted step or reset are unknown. At the next step all environments
    then begin a new episode, as if their workers had been lost.

    :param env_fns: make the environments
    :param start_method: of ``multiprocessing``; None: "forkserver"
    :param timeout: a worker that does not answer for so long is lost [s]; must be longer than an environment may need
        to replace its server
    """

    def __init__(
        self, env_fns: list[Callable[[], gym.Env[Any, Any]]], start_method: str | None = None, timeout: float = 300.0
    ) -> None:
        share_rasters()
        context = multiprocessing.get_context("forkserver" if start_method is None else start_method)
        if context.get_start_method() == "forkserver":
            context.set_forkserver_preload(PRELOADED_MODULES)
        self.waiting = self.closed = False
        self.timeout = timeout
        self.restarts = [0] * len(env_fns)
        """Workers lost so far, for each environment."""
        self._context: Any = context
        self._env_fns = env_fns
        self._first_seeds: list[int | None] = [None] * len(env_fns)
        self._options: list[dict[str, Any]] = [{} for _ in env_fns]  # SB3 makes it as well, but later
        self._attributes: list[dict[str, Any]] = [{} for _ in env_fns]  # last value of each attribute that was set
        self._restarted: dict[int, tuple[Any, Any]] = {}  # first observation, info of workers replaced between steps
        self._last_observations: list[Any] = [None] * len(env_fns)
        self._pending = [0] * len(env_fns)  # answers of each worker that are still to be read
        self._stale = [0] * len(env_fns)  # how many of these, the first ones, are to be dropped
        self._interrupted: set[int] = set()  # environments that begin a new episode at the next step
        self.remotes, self.processes = [None] * len(env_fns), [None] * len(env_fns)
        for index in range(len(env_fns)):
            self._start(index)
        close_at_exit(self)
        spaces = self._call([0], "get_spaces", None)[0]
        super(SubprocVecEnv, self).__init__(len(env_fns), *spaces)

    # --- one worker --------------------------------------------------------------------------------------------

    def _start(self, index: int) -> None:
        for attempt in range(MAX_ATTEMPTS):
            remote, work_remote = self._context.Pipe()
            arguments = (work_remote, remote, CloudpickleWrapper(self._env_fns[index]), self.restarts[index] > 0)
            process = self._context.Process(target=run_worker, args=arguments, daemon=True)
            try:
                process.start()
            except (EOFError, OSError):  # the fork server was lost; Python starts a new one
                remote.close()
                work_remote.close()
                if attempt == MAX_ATTEMPTS - 1:
                    raise
                time.sleep(0.2)
                continue
            work_remote.close()
            _limit_waits(remote, self.timeout)
            self.remotes[index], self.processes[index] = remote, process
            self._pending[index] = self._stale[index] = 0
            return

    def _stop(self, index: int) -> None:
        self.remotes[index].close()
        self.processes[index].kill()
        self.processes[index].join()

    def _send(self, index: int, command: str, data: Any) -> None:
        self._pending[index] += 1
        try:
            self.remotes[index].send((command, data))
        except OSError:  # the worker has ended or hangs; reading its answer will tell
            self.processes[index].kill()
        except BaseException:  # e.g. KeyboardInterrupt: the message may have been sent in part
            self.processes[index].kill()
            raise

    def _drop_pending_answers(self) -> None:
        """Before new commands: answers to earlier commands, which were interrupted, will be dropped."""
        self._interrupted.update(index for index, pending in enumerate(self._pending) if pending)
        self._stale = list(self._pending)

    def _answer(self, index: int, deadline: float) -> tuple[bool, Any]:
        """
        Read a worker's answer.

        :return: whether it came, and the answer
        :raises WorkerError: if the environment raised an exception
        """
        while True:
            try:
                if not self.remotes[index].poll(max(0.0, deadline - time.monotonic())):
                    raise BlockingIOError
                error, answer = self._receive(index)
            except BlockingIOError:
                logger.warning("The worker of environment %d has not answered for %g s", index, self.timeout)
                return False, None
            except (EOFError, OSError):
                process = self.processes[index]
                process.join(1.0)
                logger.warning("The worker of environment %d ended with exit code %s", index, process.exitcode)
                return False, None
            self._pending[index] -= 1
            if not self._stale[index]:
                break
            self._stale[index] -= 1
        if error is not None:
            raise WorkerError(f"Environment {index} raised an exception:\n{error}")
        return True, answer

    def _receive(self, index: int) -> Any:
        try:
            return self.remotes[index].recv()
        except (EOFError, OSError):
            raise
        except BaseException:  # e.g. KeyboardInterrupt: the message may have been read in part
            self.processes[index].kill()
            raise

    def _replace(self, index: int) -> tuple[Any, Any]:
        """
        Replace a lost worker.

        :return: first observation and info of its environment
        :raises WorkerError: if ``MAX_ATTEMPTS`` new workers in a row are lost
        """
        for _ in range(MAX_ATTEMPTS):
            self._stop(index)
            self.restarts[index] += 1
            self._start(index)
            for attribute in self._attributes[index].items():
                self._send(index, "set_attr", attribute)
            self._send(index, "reset", (self._next_seed(index), self._options[index]))
            deadline = time.monotonic() + self.timeout
            answers = [self._answer(index, deadline) for _ in (*self._attributes[index], "reset")]
            if all(answered for answered, _ in answers):
                first: tuple[Any, Any] = answers[-1][1]
                return first
        raise WorkerError(f"The worker of environment {index} was lost {MAX_ATTEMPTS} times in a row while it started")

    def _next_seed(self, index: int) -> int | None:
        first = self._first_seeds[index]
        if first is None:
            return None
        return int(np.random.SeedSequence((first, self.restarts[index])).generate_state(1)[0])

    # --- all workers -------------------------------------------------------------------------------------------

    def step_async(self, actions: np.ndarray) -> None:
        """
        :param actions: shape (n_envs, ...)
        """
        self._drop_pending_answers()
        if self.waiting:  # step_wait() was interrupted: some results are unknown
            self._interrupted.update(range(self.num_envs))
        for index, action in enumerate(actions):
            if index in self._interrupted:
                self._send(index, "reset", (None, self._options[index]))
            elif index not in self._restarted:
                self._send(index, "step", action)
        self.waiting = True
        self._deadline = time.monotonic() + self.timeout

    def step_wait(self) -> VecEnvStepReturn:
        """As in SB3; the class docstring says what a lost worker's step returns."""
        results = [self._result(index) for index in range(self.num_envs)]
        self.waiting = False
        observations, rewards, dones, infos, reset_infos = zip(*results, strict=True)
        self._last_observations, self.reset_infos = list(observations), list(reset_infos)
        self._interrupted.clear()
        stacked = _stack_obs(observations, self.observation_space)
        return stacked, np.array(rewards, np.float32), np.array(dones), list(infos)  # float32 as in DummyVecEnv

    def _result(self, index: int) -> tuple[Any, float, bool, dict[str, Any], Any]:
        """Result of a step: observation, reward, whether the episode has ended, info, and info of the reset."""
        first = self._restarted.pop(index, None)
        if first is None or index in self._interrupted:
            answered, answer = self._answer(index, self._deadline)
            if answered and index not in self._interrupted:
                result: tuple[Any, float, bool, dict[str, Any], Any] = answer
                return result
            first = answer if answered else self._replace(index)
        last = self._last_observations[index]
        info = {"worker_restarted": True, "server_restarted": True, "TimeLimit.truncated": True}
        return first[0], 0.0, True, {**info, "terminal_observation": last}, first[1]

    def reset(self) -> VecEnvObs:
        """As in SB3."""
        self._drop_pending_answers()
        self.waiting = True
        for index, seed in enumerate(self._seeds):
            self._first_seeds[index] = self._first_seeds[index] if seed is None else seed
            self._send(index, "reset", (seed, self._options[index]))
        deadline, results = time.monotonic() + self.timeout, []
        for index in range(self.num_envs):
            answered, answer = self._answer(index, deadline)
            results.append(answer if answered else self._replace(index))
        self._restarted.clear()
        self._interrupted.clear()
        self.waiting = False
        observations, self.reset_infos = (list(part) for part in zip(*results, strict=True))
        self._last_observations = observations
        self._reset_seeds()
        self._reset_options()
        return _stack_obs(observations, self.observation_space)

    def _call(self, indices: Iterable[int], command: str, data: Any) -> list[Any]:
        """Send a command to several workers and read the answers; a lost worker is replaced, and gets it again."""
        indices = list(indices)
        self._drop_pending_answers()
        for index in indices:
            self._send(index, command, data)
        deadline, answers = time.monotonic() + self.timeout, []
        for index in indices:
            answered, answer = self._answer(index, deadline)
            if not answered:
                self._restarted[index] = self._replace(index)
                self._send(index, command, data)
                answered, answer = self._answer(index, time.monotonic() + self.timeout)
            if not answered:
                raise WorkerError(f"The worker of environment {index} was lost twice at {command} {data!r}")
            answers.append(answer)
        return answers

    def close(self) -> None:
        """End all workers; those that do not close in time are killed. Safe to call again."""
        if self.closed:
            return
        try:
            for index in range(len(self.processes)):
                self._send(index, "close", None)
            deadline = time.monotonic() + CLOSE_TIMEOUT
            for process in self.processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:  # also after a KeyboardInterrupt
            for index in range(len(self.processes)):
                self._stop(index)
            self.closed = True

    def get_images(self) -> Sequence[np.ndarray | None]:
        """:return: an image of each environment, shape (height, width, 3), uint8 RGB; None where it renders none"""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return self._call(range(self.num_envs), "render", None)

    def has_attr(self, attr_name: str) -> bool:
        """Whether all environments have an attribute."""
        return all(self._call(range(self.num_envs), "has_attr", attr_name))

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of each environment."""
        return self._call(self._get_indices(indices), "get_attr", attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of environments, and of those that replace them."""
        indices = list(self._get_indices(indices))
        self._call(indices, "set_attr", (attr_name, value))
        for index in indices:
            self._attributes[index][attr_name] = value

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """What a method of each environment returns."""
        return self._call(self._get_indices(indices), "env_method", (method_name, method_args, method_kwargs))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Whether each environment is wrapped in a class."""
        return self._call(self._get_indices(indices), "is_wrapped", wrapper_class)


def _limit_waits(connection: Any, seconds: float) -> None:
    """
    Limit each wait inside a message: the other end may stop while it sends or receives.

    :param connection: of ``multiprocessing``; its ``send`` and ``recv`` then raise ``BlockingIOError``
    :param seconds: limit
    """
    interval = struct.pack("ll", int(seconds), int(seconds % 1.0 * 1e6))  # struct timeval: seconds, microseconds
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # socket(7)
            end.setsockopt(socket.SOL_SOCKET, option, interval)
