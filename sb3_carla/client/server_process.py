"""
A CARLA server as a child process: started, watched and ended, by process id.

No other process is touched: servers of other users or programs on the same machine run on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import IO, Any

import psutil

from sb3_carla.client.process_watchdog import end_server_processes, server_processes
from sb3_carla.client.shared_memory import create_memory_file

__all__ = ["RESTORE_SYS_PATH", "ServerProcess", "child_environment"]

TERMINATE_TIMEOUT = 3.0
"""Time between SIGTERM and SIGKILL [s]."""
WATCHDOG_TIMEOUT = 1.0
"""How long the watchdog may take to end by itself after its last descendant has ended [s]."""
LOG_TAIL = 65_536
"""How much of a server's log is searched for its last line [bytes]."""
SYS_PATH_VARIABLE = "SB3_CARLA_SYS_PATH"
"""Environment variable: where a child process finds its modules, one folder a line."""
RESTORE_SYS_PATH = f"""
import os, sys
sys.path[:] = os.environ.pop({SYS_PATH_VARIABLE!r}).split("\\n")
"""
"""First lines of a Python child: it imports the modules of this process, not those of its working directory."""


class ServerProcess:
    """
    A running server. It ends with :meth:`close`, when this object is garbage collected, and when the interpreter exits.

    :param command: program and its arguments
    :param server_id: value of the environment variable that all processes of the server have (``process_watchdog.py``)
    :param port: RPC port
    :param options: keyword arguments of ``subprocess.Popen``
    """

    packaged = False
    """Whether it is the packaged server: it opens OpenDRIVE files by path, and its ``sensor_tick`` is exact."""

    def __init__(self, command: list[str], server_id: str, port: int = 0, **options: Any) -> None:
        self._server_id, self.host, self.port = server_id, "127.0.0.1", port
        self._resources = contextlib.ExitStack()
        self._finalizer = weakref.finalize(self, _close_in_owner, self._resources, os.getpid())
        self._log = self._resources.enter_context(_create_log())
        streams = {"stdin": subprocess.DEVNULL, "stdout": self._log, "stderr": self._log}
        try:
            with _delay_keyboard_interrupt():
                self._process: subprocess.Popen[bytes] = subprocess.Popen(command, **{**streams, **options})
                self._resources.callback(_end, self._process, server_id)
        except BaseException:  # KeyboardInterrupt too
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child process runs; True also for one that hangs."""
        return self._process.poll() is None

    @property
    def memory(self) -> int:
        """Resident memory of the server's processes [bytes]; 0 when they have ended."""
        total = 0
        for process in server_processes(self._server_id, self.pid if self.alive else None):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                total += process.memory_info().rss
        return total

    def truncate_log(self) -> None:
        """Free the memory that the server's output takes."""
        self._log.truncate(0)

    def last_log_line(self) -> str:
        """The last line that the server has written; "" if there is none."""
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - LOG_TAIL))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End the server, within seconds even if it hangs, and wait until it has ended; safe to call again."""
        self._finalizer()


def child_environment(**variables: str) -> dict[str, str]:
    """
    Environment of a child process that begins with ``RESTORE_SYS_PATH``.

    :param variables: additional variables
    :return: this process's environment with these variables
    """
    return {**os.environ, SYS_PATH_VARIABLE: "\n".join(map(str, sys.path)), **variables}


def _create_log() -> IO[bytes]:
    """A file in memory to which the server appends, so that it can be truncated at any time."""
    fd = create_memory_file("sb3_carla_log")
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR | os.O_APPEND)
    return os.fdopen(fd, "a+b")


def _close_in_owner(resources: contextlib.ExitStack, owner_pid: int) -> None:
    """After ``os.fork()`` the child inherits the object, but the server belongs to the parent."""
    if os.getpid() == owner_pid:
        resources.close()


def _end(process: subprocess.Popen[bytes], server_id: str) -> None:
    try:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TERMINATE_TIMEOUT)
    finally:  # also after a KeyboardInterrupt
        with _delay_keyboard_interrupt():
            _kill(process, server_id)


def _kill(process: subprocess.Popen[bytes], server_id: str) -> None:
    """Kill the processes that hang or were left behind."""
    try:
        end_server_processes(server_id, process.pid if process.poll() is None else None, [signal.SIGKILL])
    finally:  # also when this process can open no more files: psutil then finds no processes
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(WATCHDOG_TIMEOUT)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def _delay_keyboard_interrupt() -> Iterator[None]:
    """Ctrl-C raises ``KeyboardInterrupt`` after the block, not in it."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # Python raises KeyboardInterrupt in the main thread only
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)
