"""
CARLA servers as child processes: the packaged one or a command's, watched, replaced, and never left behind.

What a supervisor starts it ends, by process id, and nothing else: a server of somebody else's on the same machine is
not touched.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, ClassVar

import carla

from sb3_carla.client import process_watchdog
from sb3_carla.errors import MapError, ServerStartError, TownNotFoundError

__all__ = [
    "CommandServer",
    "EmbeddedServer",
    "ServerProcess",
    "Supervisor",
    "resident_memory",
    "share_rasters",
    "supervisor",
]

logger = logging.getLogger(__name__)

READY = re.compile(rb"listening on (\S+):(\d+) streaming (\d+)")
STOP_GRACE = 3.0
"""Time [s] between SIGTERM and SIGKILL."""
LAST_GRACE = 1.0
"""How long the guard may take to end by itself once nothing is left below it [s]."""
ANSWER_WITHIN = 2.0
"""How long a server that is starting may take for one answer before it is asked again [s]."""
PORTS = 3
"""Ports in a row that a CARLA server takes: calls, streams, secondary servers."""
FIRST_PORT, LAST_PORT = 10_000, 32_000
"""Where to look for free ones: below those that Linux gives to outgoing connections, which come and go."""
CLAIM = "\0sb3_carla ports {}"
"""Address of the socket that claims a server's ports: a name without a file, which goes with the socket."""
PICTURES = "sb3_carla_rasters"
SHARED = "SB3_CARLA_PICTURES"
"""Environment variable: path of the memory that a process shares with the processes below it."""
PATH = "SB3_CARLA_PATH"
"""Environment variable: where the packaged server finds its modules, a line for each folder."""
START = f"""
import os, sys
sys.path[:] = os.environ.pop({PATH!r}).split("\\n")
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, {int(signal.SIGCONT)})
import runpy
runpy.run_module("sb3_carla.server", run_name="__main__", alter_sys=True)
"""
"""
The packaged server: as ``python -m`` does it, but with the modules of this process, not those of its folder.

Before anything takes time it asks for a signal at its parent's death (``server/__main__.py``), so that one that is
stopped while it starts does not stay.
"""
TAIL = 65_536
"""How much of a server's log is searched for its last line [bytes]."""


class ServerProcess:
    """
    A running server. It ends with :meth:`close`, when this object is collected, and when the interpreter exits.

    :param command: that runs it
    :param mark: by which all its processes are known (``process_watchdog.py``)
    :param port: of the calls
    :param options: of ``subprocess.Popen``
    """

    packaged = False
    """Whether it is ours: it reads OpenDRIVE files of this machine by their path, and its sensors keep exact time."""

    def __init__(self, command: list[str], mark: str, port: int = 0, **options: Any) -> None:
        self._mark, self.host, self.port = mark, "127.0.0.1", port
        self._held = contextlib.ExitStack()
        self._finalizer = weakref.finalize(self, _release, self._held, os.getpid())
        self._log = self._held.enter_context(_new_log())
        streams = {"stdin": subprocess.DEVNULL, "stdout": self._log, "stderr": self._log}
        try:
            with _uninterrupted():
                self._process: subprocess.Popen[bytes] = subprocess.Popen(command, **{**streams, **options})
                self._held.callback(_stop, self._process, mark)
        except BaseException:  # Ctrl-C, too
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs; one that hangs does."""
        return self._process.poll() is None

    @property
    def memory(self) -> int:
        """Resident memory of the server's processes [bytes]; 0 when they are gone."""
        total = 0
        for pid in process_watchdog.family(self._mark, self.pid if self.alive else None):
            with contextlib.suppress(OSError):  # gone since
                total += resident_memory(pid)
        return total

    def forget_log(self) -> None:
        """Free the disk of what the server has written so far."""
        self._log.truncate(0)

    def close(self) -> None:
        """End the server, within seconds even if it hangs, and wait until it is gone; safe to call again."""
        self._finalizer()


class EmbeddedServer(ServerProcess):
    """
    ``python -m sb3_carla.server`` on free loopback ports. Because it watches its parent, it ends within a second after
    this process was killed, too.

    :param town: built-in town, or path of an OpenDRIVE file
    :param timeout: how long the server may take to come up [s]
    :raises TownNotFoundError: if there is no such town
    :raises MapError: if the map cannot be used
    :raises ServerStartError: if it ends, or is not ready in time
    """

    packaged = True

    def __init__(self, town: str, *, timeout: float = 30.0) -> None:
        self._pictures: _RasterMemory | None = _RasterMemory.of_this_process()
        command = [sys.executable, "-c", START, "--port", "0", "--town", town]
        command += ["--parent-pid", str(os.getpid()), "--shared-rasters", str(self._pictures.fd)]
        mark = secrets.token_hex(8)
        environment = {**os.environ, process_watchdog.MARK: mark, PATH: "\n".join(map(str, sys.path))}
        super().__init__(command, mark, stdout=subprocess.PIPE, pass_fds=[self._pictures.fd], env=environment)
        try:
            self._wait_until_ready(town, timeout)
        except BaseException:  # Ctrl-C, too
            self.close()
            raise

    def _wait_until_ready(self, town: str, timeout: float) -> None:
        assert self._process.stdout is not None
        ready = READY.search(_first_line(self._process.stdout, timeout))
        if ready is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)  # what it wrote to has been closed a moment before it is gone
            silent = f"no answer within {timeout:g} s" if self.alive else "it ended without a word"
            reason = _last_line(self._log) or silent
            _, unknown, available = reason.partition("Town not found")
            if unknown:
                raise TownNotFoundError(
                    f"The server has no town {town!r}; it has {available.partition('available: ')[2]}"
                )
            if "town" in reason.lower() or "opendrive" in reason.lower():
                raise MapError(f"The embedded server cannot load town {town!r}: {reason}")
            self.close()
            status = self._process.poll()
            raise ServerStartError(f"The embedded server did not start (exit status {status}): {reason}")
        self.host, self.port = ready.group(1).decode(), int(ready.group(2))

    def close(self) -> None:
        """End the server, within seconds even if it hangs, and wait until it is gone; safe to call again."""
        super().close()
        self._pictures = None


class CommandServer(ServerProcess):
    """
    A server that a command starts, for instance ``CarlaUE4.sh -RenderOffScreen -carla-rpc-port={port}``.

    It counts as started when it answers. A small process beside it (``process_watchdog.py``) ends everything that the
    command has started, also after this process was killed.

    :param command: ``{port}`` stands for the port of the calls, which it must use; split like a shell does
    :param timeout: how long the server may take to answer [s]
    :raises ServerStartError: if the command cannot be run, ends, or the server does not answer in time
    :raises ValueError: if the command does not say where the port goes
    """

    def __init__(self, command: str, *, timeout: float = 180.0) -> None:
        _check_command(command)
        port, claim = _free_ports()
        words = shlex.split(command.replace("{port}", str(port)))
        mark = secrets.token_hex(8)
        guarded = [sys.executable, process_watchdog.__file__, str(os.getpid()), mark, *words]
        with claim:  # the guard keeps it; Ctrl-C is for us, who then end it in order
            super().__init__(guarded, mark, port, start_new_session=True, pass_fds=[claim.fileno()])
        try:
            self._wait_until_it_answers(words, timeout)
        except BaseException:  # Ctrl-C, too
            self.close()
            raise

    def _wait_until_it_answers(self, words: list[str], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not (_answers(self.host, self.port) and self.alive):
            if not self.alive or time.monotonic() > deadline:
                status, last = self._process.poll(), _last_line(self._log)
                what = f"did not answer within {timeout:g} s" if status is None else f"ended with status {status}"
                raise ServerStartError(f"The server {shlex.join(words)} {what}. Its last line: {last!r}")
            time.sleep(0.2)


class Supervisor:
    """
    Keeps one server running for one environment: another one when it has died, hangs, or has had its time.

    :param command: that starts a server, see :class:`CommandServer`; None: the packaged one
    :param episodes: a new server after so many; None: never for this reason
    :param memory: a new server before an episode when it takes more than this [bytes]; None: never for this reason
    """

    def __init__(
        self,
        command: str | None = None,
        *,
        episodes: int | None = None,
        memory: float | None = None,
    ) -> None:
        self._command = command
        self._most_episodes, self._most_memory = episodes, memory
        self._episodes = 0
        self.server: ServerProcess | None = None
        """The one that runs."""

    def begin_episode(self) -> str | None:
        """
        Count an episode.

        :return: why the present server should be replaced before it, None if it should not
        """
        if self.server is None:
            return None
        self._episodes += 1
        self.server.forget_log()
        memory = self.server.memory if self._most_memory is not None else 0
        if not self.server.alive:
            return "it has ended"
        if self._most_memory is not None and memory > self._most_memory:
            return f"it takes {memory / 2**20:.0f} MiB, more than {self._most_memory / 2**20:.0f}"
        if self._most_episodes is not None and self._episodes > self._most_episodes:
            return f"it has served {self._most_episodes} episodes"
        return None

    def start(self, town: str) -> ServerProcess:
        """
        The running server, a new one if there is none.

        :param town: for the packaged server to begin with
        :raises ServerStartError: if none can be started
        :raises TownNotFoundError: if the packaged server has no such town
        :raises MapError: if it cannot use the map
        """
        if self.server is None:
            self._episodes = 1
            self.server = EmbeddedServer(town) if self._command is None else CommandServer(self._command)
        return self.server

    def close(self) -> None:
        """End the server; safe to call again."""
        if self.server is not None:
            server, self.server = self.server, None
            server.close()


class _RasterMemory:
    """Memory in which this process's servers keep the towns' pictures; it goes with the last of them."""

    _present: ClassVar[weakref.ref[_RasterMemory] | None] = None

    def __init__(self) -> None:
        shared = _open_shared()
        self.fd = _memory(PICTURES) if shared is None else shared
        weakref.finalize(self, os.close, self.fd)

    @classmethod
    def of_this_process(cls) -> _RasterMemory:
        """Those of the servers that run, or new ones."""
        pictures = cls._present() if cls._present else None
        if pictures is None:
            pictures = cls()
            cls._present = weakref.ref(pictures)
        return pictures


def share_rasters() -> None:
    """Have the servers of all processes below this one share one memory for the towns' pictures, until it ends."""
    if SHARED not in os.environ:
        os.environ[SHARED] = f"/proc/{os.getpid()}/fd/{_memory(PICTURES)}"


def _memory(name: str) -> int:
    """An open file in memory, as a disk may be full; in the temporary folder where this Python can make none there."""
    if hasattr(os, "memfd_create"):
        return _above_streams(os.memfd_create(name))
    with tempfile.TemporaryFile() as file:
        return _above_streams(os.dup(file.fileno()))


def _above_streams(file: int) -> int:
    """The same file under a number above those of the standard streams, which are given out where these are closed."""
    try:
        return fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(file)


def _open_shared() -> int | None:
    """The memory that a process above shares, if there is one and it still lives."""
    path = os.environ.get(SHARED, "")
    with contextlib.suppress(OSError):
        if os.readlink(path).startswith(f"/memfd:{PICTURES}"):  # and no file of a later process of the same number
            return _above_streams(os.open(path, os.O_RDWR))
    return None


def _answers(host: str, port: int) -> bool:
    """Whether a CARLA server answers there; that something listens is not enough."""
    try:
        socket.create_connection((host, port), ANSWER_WITHIN).close()
        client = carla.Client(host, port)
        client.set_timeout(ANSWER_WITHIN)
        client.get_server_version()
    except (OSError, RuntimeError):
        return False
    return True


def _free_ports() -> tuple[int, socket.socket]:
    """
    The first of as many ports in a row as a CARLA server takes, all free now; and what keeps other processes from
    choosing them too, for as long as it is open: a server may take a minute until it listens.
    """
    for _ in range(100):
        first = FIRST_PORT + PORTS * secrets.randbelow((LAST_PORT - FIRST_PORT) // PORTS)
        claim = _claim(first)
        if claim is None:
            continue
        try:
            for port in range(first, first + PORTS):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            claim.close()
        else:
            return first, claim
    raise ServerStartError(f"Found no {PORTS} free ports in a row on this machine")


def _claim(first: int) -> socket.socket | None:
    """None: another server has these ports. Where the system grants no such name, servers start without a claim."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(CLAIM.format(first))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            claim.close()
            return None
    return claim


def resident_memory(pid: int) -> int:
    """
    :param pid: of a process
    :return: its resident memory [bytes]
    :raises OSError: if there is no such process
    """
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _new_log() -> IO[bytes]:
    """:meth:`ServerProcess.forget_log` keeps it short."""
    file = _memory("sb3_carla_log")
    fcntl.fcntl(file, fcntl.F_SETFL, os.O_RDWR | os.O_APPEND)
    return os.fdopen(file, "a+b")


def _first_line(stream: IO[bytes], timeout: float) -> bytes:
    deadline = time.monotonic() + timeout
    line, poll = b"", select.poll()  # not select(), which knows no file descriptors above 1023
    poll.register(stream, select.POLLIN)
    while not line.endswith(b"\n"):
        if not poll.poll(1000.0 * max(0.0, deadline - time.monotonic())):
            break
        chunk = os.read(stream.fileno(), 4096)
        if not chunk:
            break
        line += chunk
    return line


def _last_line(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _release(held: contextlib.ExitStack, owner: int) -> None:
    if os.getpid() == owner:  # and not a fork of the process whose server it is
        held.close()


def _stop(process: subprocess.Popen[bytes], mark: str) -> None:
    try:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_GRACE)
    finally:  # also where Ctrl-C cuts this short
        with _uninterrupted():
            _kill(process, mark)


def _kill(process: subprocess.Popen[bytes], mark: str) -> None:
    """End what hangs, or was left behind."""
    try:
        process_watchdog.end(mark, process.pid if process.poll() is None else None, [signal.SIGKILL])
    finally:  # also where no file can be opened any more, and so no process be found
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LAST_GRACE)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C comes after the block, not in it."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # it comes in the main thread alone, if at all
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def supervisor(
    host: str | None, command: str | None, episodes: int | None = None, memory: float | None = None
) -> Supervisor | None:
    """
    What keeps an environment's server running.

    :param host: of a server that somebody else keeps, or None
    :param command: ``server.command`` of :class:`sb3_carla.envs.carla_lane.CarlaLaneEnv`
    :param episodes: its ``server.max_episodes``
    :param memory: its ``server.max_memory`` [GB]
    :return: None with a ``host``
    :raises ValueError: if something is asked of a server that somebody else keeps
    """
    if host is not None:
        if any(value is not None for value in (command, episodes, memory)):
            raise ValueError("server: expected none of command, max_episodes, max_memory beside host")
        return None
    return Supervisor(command, episodes=episodes, memory=None if memory is None else memory * 1e9)


def _check_command(command: str) -> None:
    if "{port}" not in command:
        raise ValueError(f"server.command: expected {{port}} where the port of the calls goes, got {command!r}")
