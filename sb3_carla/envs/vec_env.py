"""
A vector of environments in processes of their own, each replaced when it dies or falls silent.

CARLA's client is a C++ library with threads: an exception in one of them aborts the Python process, whatever it does to
catch one. SB3's ``SubprocVecEnv`` then ends the training with ``EOFError``; for a process that hangs it waits for ever.
Here only the episode of that one environment ends, as truncated.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common import monitor
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper, VecEnvObs, VecEnvStepReturn
from stable_baselines3.common.vec_env.subproc_vec_env import SubprocVecEnv, _stack_obs, _worker

from sb3_carla.client.cleanup import close_at_exit
from sb3_carla.client.servers import share_rasters

__all__ = ["SupervisedVecEnv", "WorkerError"]

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Processes that are tried in a row before an environment is given up."""
GRACE = 10.0
"""How long a process may take to close its environment [s]."""
ORPHAN_NOTICES, ORPHAN_GRACE = 1.0, 90.0
"""How long a process whose parent was killed may take to see that by itself, and then to close its environment [s]."""
PRELOADED = ["stable_baselines3.common.monitor", "sb3_carla.envs.carla_lane"]
"""Imported once, before the processes are forked: each starts in no time, and they share the memory."""


class WorkerError(RuntimeError):
    """An environment raised an exception in its process, or could not be started again."""


class SupervisedVecEnv(SubprocVecEnv):
    """
    SB3's ``SubprocVecEnv`` for environments that can take their process down.

    Where a process is lost, its environment's step returns reward 0 and the first observation of a new episode;
    ``info`` has ``worker_restarted`` and ``server_restarted`` True, ``TimeLimit.truncated`` True, so that nothing is
    learnt as an end of the task, and as ``terminal_observation`` the last one seen. The other environments'
    transitions are kept. An exception that an environment raises in Python is raised here: no process is lost by it.
    After one, or after Ctrl-C, nobody has seen what a step or a reset came to: at the next step all environments begin
    anew, as if their processes had been lost.

    :param env_fns: make the environments
    :param start_method: of ``multiprocessing``; None: "forkserver"
    :param timeout: a process that does not answer for so long is lost [s]; longer than the environment's own patience
        with its server, which it may have to start anew
    """

    def __init__(
        self, env_fns: list[Callable[[], gym.Env[Any, Any]]], start_method: str | None = None, timeout: float = 300.0
    ) -> None:
        share_rasters()
        context = multiprocessing.get_context("forkserver" if start_method is None else start_method)
        if context.get_start_method() == "forkserver":
            context.set_forkserver_preload(PRELOADED)
        self.waiting = self.closed = False
        self.timeout = timeout
        self.restarts = [0] * len(env_fns)
        """Of each environment: processes lost so far."""
        self._context: Any = context
        self._env_fns = env_fns
        self._first_seeds: list[int | None] = [None] * len(env_fns)
        self._options: list[dict[str, Any]] = [{} for _ in env_fns]  # SB3 makes it as well, but later
        self._attributes: list[dict[str, Any]] = [{} for _ in env_fns]  # of each environment: what was set last
        self._begun: dict[int, tuple[Any, Any]] = {}  # observation and info of those replaced during an episode
        self._seen: list[Any] = [None] * len(env_fns)
        self._due = [0] * len(env_fns)  # of each process: answers that are still to be read
        self._abandoned = [0] * len(env_fns)  # of these, the first, for which nobody waits any more
        self._interrupted: set[int] = set()  # who is reset in place of a step
        self.remotes, self.processes = [None] * len(env_fns), [None] * len(env_fns)
        for index in range(len(env_fns)):
            self._start(index)
        close_at_exit(self)
        spaces = self._ask([0], "get_spaces", None)[0]
        super(SubprocVecEnv, self).__init__(len(env_fns), *spaces)

    # --- one process -------------------------------------------------------------------------------------------

    def _start(self, index: int) -> None:
        for attempt in range(ATTEMPTS):
            remote, work_remote = self._context.Pipe()
            arguments = (work_remote, remote, CloudpickleWrapper(self._env_fns[index]), self.restarts[index] > 0)
            process = self._context.Process(target=_work, args=arguments, daemon=True)
            try:
                process.start()
            except (EOFError, OSError):  # the fork server itself was lost; Python starts another
                remote.close()
                work_remote.close()
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(0.2)
                continue
            work_remote.close()
            _limit(remote, self.timeout)
            self.remotes[index], self.processes[index] = remote, process
            self._due[index] = self._abandoned[index] = 0
            return

    def _stop(self, index: int) -> None:
        self.remotes[index].close()
        self.processes[index].kill()
        self.processes[index].join()

    def _send(self, index: int, command: str, data: Any) -> None:
        self._due[index] += 1
        try:
            self.remotes[index].send((command, data))
        except OSError:  # nobody is there, or reads; that is found when the answer is due
            self.processes[index].kill()
        except BaseException:  # half of it may have been sent
            self.processes[index].kill()
            raise

    def _abandon(self) -> None:
        """A new round of questions begins: answers to those before it are not waited for any more."""
        self._interrupted.update(index for index, due in enumerate(self._due) if due)
        self._abandoned = list(self._due)

    def _answer(self, index: int, deadline: float) -> tuple[bool, Any]:
        """
        What a process answers.

        :return: whether it did, and its answer
        :raises WorkerError: if its environment raised an exception
        """
        while True:
            try:
                if not self.remotes[index].poll(max(0.0, deadline - time.monotonic())):
                    raise BlockingIOError
                error, answer = self._receive(index)
            except BlockingIOError:
                logger.warning("Environment %d has been silent for %g s", index, self.timeout)
                return False, None
            except (EOFError, OSError):
                self.processes[index].join(1.0)
                logger.warning("The process of environment %d ended with %s", index, self.processes[index].exitcode)
                return False, None
            self._due[index] -= 1
            if not self._abandoned[index]:
                break
            self._abandoned[index] -= 1
        if error is not None:
            raise WorkerError(f"Environment {index} raised an exception:\n{error}")
        return True, answer

    def _receive(self, index: int) -> Any:
        try:
            return self.remotes[index].recv()
        except (EOFError, OSError):
            raise
        except BaseException:  # half of it may have been read
            self.processes[index].kill()
            raise

    def _replace(self, index: int) -> tuple[Any, Any]:
        """
        Another process in the place of a lost one.

        :return: its environment's first observation, and info
        :raises WorkerError: if it is lost as well, some times in a row
        """
        for _ in range(ATTEMPTS):
            self._stop(index)
            self.restarts[index] += 1
            self._start(index)
            for attribute in self._attributes[index].items():
                self._send(index, "set_attr", attribute)
            self._send(index, "reset", (self._next_seed(index), self._options[index]))
            deadline = time.monotonic() + self.timeout
            answers = [self._answer(index, deadline) for _ in (*self._attributes[index], "reset")]
            if all(there for there, _ in answers):
                began: tuple[Any, Any] = answers[-1][1]
                return began
        raise WorkerError(f"The process of environment {index} was lost {ATTEMPTS} times in a row while it started")

    def _next_seed(self, index: int) -> int | None:
        first = self._first_seeds[index]
        if first is None:
            return None
        return int(np.random.SeedSequence((first, self.restarts[index])).generate_state(1)[0])

    # --- all of them -------------------------------------------------------------------------------------------

    def step_async(self, actions: np.ndarray) -> None:
        """
        :param actions: shape (n_envs, ...)
        """
        self._abandon()
        if self.waiting:  # nobody has seen all that the last one came to
            self._interrupted.update(range(self.num_envs))
        for index, action in enumerate(actions):
            if index in self._interrupted:
                self._send(index, "reset", (None, self._options[index]))
            elif index not in self._begun:
                self._send(index, "step", action)
        self.waiting = True
        self._deadline = time.monotonic() + self.timeout

    def step_wait(self) -> VecEnvStepReturn:
        """As in SB3; what a lost process comes to is said above."""
        results = [self._result(index) for index in range(self.num_envs)]
        self.waiting = False
        observations, rewards, dones, infos, reset_infos = zip(*results, strict=True)
        self._seen, self.reset_infos = list(observations), list(reset_infos)
        self._interrupted.clear()
        stacked = _stack_obs(observations, self.observation_space)
        return stacked, np.array(rewards, np.float32), np.array(dones), list(infos)  # rewards as of DummyVecEnv

    def _result(self, index: int) -> tuple[Any, float, bool, dict[str, Any], Any]:
        """Observation, reward, whether the episode is over, info, and info of the reset if it is."""
        began = self._begun.pop(index, None)
        if began is None or index in self._interrupted:
            there, answer = self._answer(index, self._deadline)
            if there and index not in self._interrupted:
                result: tuple[Any, float, bool, dict[str, Any], Any] = answer
                return result
            began = answer if there else self._replace(index)
        last = self._seen[index]
        info = {"worker_restarted": True, "server_restarted": True, "TimeLimit.truncated": True}
        return began[0], 0.0, True, {**info, "terminal_observation": last}, began[1]

    def reset(self) -> VecEnvObs:
        """As in SB3."""
        self._abandon()
        self.waiting = True
        for index, seed in enumerate(self._seeds):
            self._first_seeds[index] = self._first_seeds[index] if seed is None else seed
            self._send(index, "reset", (seed, self._options[index]))
        deadline, began = time.monotonic() + self.timeout, []
        for index in range(self.num_envs):
            there, answer = self._answer(index, deadline)
            began.append(answer if there else self._replace(index))
        self._begun.clear()
        self._interrupted.clear()
        self.waiting = False
        observations, self.reset_infos = (list(part) for part in zip(*began, strict=True))
        self._seen = observations
        self._reset_seeds()
        self._reset_options()
        return _stack_obs(observations, self.observation_space)

    def _ask(self, indices: Iterable[int], command: str, data: Any) -> list[Any]:
        """The same question to several; who is lost is replaced, and asked again."""
        indices = list(indices)
        self._abandon()
        for index in indices:
            self._send(index, command, data)
        deadline, answers = time.monotonic() + self.timeout, []
        for index in indices:
            there, answer = self._answer(index, deadline)
            if not there:
                self._begun[index] = self._replace(index)
                self._send(index, command, data)
                there, answer = self._answer(index, time.monotonic() + self.timeout)
            if not there:
                raise WorkerError(f"The process of environment {index} was lost twice over {command} {data!r}")
            answers.append(answer)
        return answers

    def close(self) -> None:
        """End all processes; those that do not close in time are killed. Safe to call again."""
        if self.closed:
            return
        try:
            for index in range(len(self.processes)):
                self._send(index, "close", None)
            deadline = time.monotonic() + GRACE
            for process in self.processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:  # also of a close that is interrupted
            for index in range(len(self.processes)):
                self._stop(index)
            self.closed = True

    def get_images(self) -> Sequence[np.ndarray | None]:
        """:return: of each environment a picture, shape (height, width, 3), uint8; None where it draws none"""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return self._ask(range(self.num_envs), "render", None)

    def has_attr(self, attr_name: str) -> bool:
        """Whether all environments have an attribute."""
        return all(self._ask(range(self.num_envs), "has_attr", attr_name))

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of each environment."""
        return self._ask(self._get_indices(indices), "get_attr", attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of environments, and of those that come in their place."""
        indices = list(self._get_indices(indices))
        self._ask(indices, "set_attr", (attr_name, value))
        for index in indices:
            self._attributes[index][attr_name] = value

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """What a method of each environment returns."""
        return self._ask(self._get_indices(indices), "env_method", (method_name, method_args, method_kwargs))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Whether each environment is wrapped in a class."""
        return self._ask(self._get_indices(indices), "is_wrapped", wrapper_class)


def _limit(connection: Any, seconds: float) -> None:
    """Bound each wait within a message, in which the other end may be stopped: ``BlockingIOError`` is raised then."""
    interval = struct.pack("ll", int(seconds), int(seconds % 1.0 * 1e6))
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            end.setsockopt(socket.SOL_SOCKET, option, interval)


class _Labelled:
    """The connection of a process, whose answers say that they are no errors."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.recv, self.close = connection.recv, connection.close

    def send(self, answer: Any) -> None:
        """:param answer: of SB3's worker"""
        self._connection.send((None, answer))


def _work(connection: Any, parent: Any, env_fn: CloudpickleWrapper, replacement: bool) -> None:
    """What a process does: SB3's worker, whose exceptions go to the parent."""
    if replacement:
        write = monitor.ResultsWriter
        # The lost process's episodes stay in the file, which Monitor would begin anew.
        monitor.ResultsWriter = lambda *args, **kwargs: write(*args, **{**kwargs, "override_existing": False})  # type: ignore[assignment, misc]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which has this closed
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    made: list[gym.Env[Any, Any]] = []

    def make() -> gym.Env[Any, Any]:
        made.append(env_fn.var())
        return made[0]

    try:
        _worker(_Labelled(connection), parent, CloudpickleWrapper(make))  # type: ignore[arg-type]
    except BrokenPipeError:
        pass  # the parent has gone
    except Exception:
        connection.send((traceback.format_exc(), None))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for env in made:
            with contextlib.suppress(Exception):
                env.close()  # for the second time, but where the parent was killed, or an exception or a signal came


def _leave(number: int, frame: object) -> None:
    """Of SIGTERM: the environment is closed, so that a server that somebody else keeps is left as it was found."""
    raise SystemExit(128 + number)


def _end_with_the_parent() -> None:
    """Where the parent is killed, who waits for the next command sees that at once; not who waits for a server."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    time.sleep(ORPHAN_NOTICES)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE)
    os.kill(os.getpid(), signal.SIGKILL)  # it hangs within CARLA's client
