"""Worker process of ``SupervisedVecEnv``: SB3's worker, which also reports exceptions and ends with its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from typing import Any

import gymnasium as gym
from stable_baselines3.common import monitor
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper
from stable_baselines3.common.vec_env.subproc_vec_env import _worker

__all__ = ["run_worker"]

ORPHAN_NOTICE_TIME = 1.0
"""How long an orphaned worker may take to end by itself before it gets SIGTERM [s]."""
ORPHAN_CLOSE_TIMEOUT = 90.0
"""How long it may take to close its environment before it gets SIGKILL [s]."""


class _AnswerConnection:
    """Connection that sends each answer of SB3's worker as ``(None, answer)``, see :func:`run_worker`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.recv, self.close = connection.recv, connection.close

    def send(self, answer: Any) -> None:
        """:param answer: of SB3's worker"""
        self._connection.send((None, answer))


def run_worker(connection: Any, parent_connection: Any, env_fn: CloudpickleWrapper, replacement: bool) -> None:
    """
    Run an environment until the parent closes it or ends.

    :param connection: receives ``(command, data)``, sends ``(traceback or None, answer)``
    :param parent_connection: the other end, which SB3's worker closes
    :param env_fn: makes the environment
    :param replacement: whether the worker replaces a lost one
    """
    if replacement:
        writer = monitor.ResultsWriter
        # Monitor would overwrite the file with the lost worker's episodes.
        monitor.ResultsWriter = lambda *args, **kwargs: writer(*args, **{**kwargs, "override_existing": False})  # type: ignore[assignment, misc]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which closes this worker
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    envs: list[gym.Env[Any, Any]] = []

    def make_env() -> gym.Env[Any, Any]:
        envs.append(env_fn.var())
        return envs[0]

    try:
        _worker(_AnswerConnection(connection), parent_connection, CloudpickleWrapper(make_env))  # type: ignore[arg-type]
    except BrokenPipeError:
        pass  # the parent has ended
    except Exception:
        connection.send((traceback.format_exc(), None))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for env in envs:
            with contextlib.suppress(Exception):
                env.close()  # SB3's worker closes it on command only: not after an exception, a signal or EOF


def _exit_on_sigterm(number: int, frame: object) -> None:
    """Close the environment before the end, so that a server that the user runs is restored."""
    raise SystemExit(128 + number)


def _end_with_parent() -> None:
    """
    End this process after its parent.

    A worker that waits for a command reads EOF and ends by itself; one that waits for its server does not.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    time.sleep(ORPHAN_NOTICE_TIME)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_CLOSE_TIMEOUT)
    os.kill(os.getpid(), signal.SIGKILL)  # it hangs in CARLA's client, where Python handles no signals
