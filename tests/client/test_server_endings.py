"""All processes of a server end, whatever its command starts and whenever Ctrl-C comes; its ports are its own."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from processes import OURS, SCRIPT, children, processes_with, server_below, wait_for, wait_until_gone

from sb3_carla.client import command_server
from sb3_carla.client.command_server import CommandServer
from sb3_carla.client.embedded_server import EmbeddedServer
from sb3_carla.client.process_watchdog import server_processes
from sb3_carla.client.server_supervisor import ServerSupervisor
from sb3_carla.errors import ServerStartError

pytestmark = pytest.mark.usefixtures("interruptible")

WITHOUT_ENVIRONMENT = f"env -i HOME=/ PATH={shlex.quote(os.environ['PATH'])} {OURS}"
AS_FIRST_PROCESS = "import ctypes; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)"
"""Code that lets a process adopt orphans, as the first process of a container does."""


def run(code: str, *, python: str = sys.executable, **options: Any) -> str:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def interrupt(call: Callable[[], object], *delays: float) -> None:
    """Ctrl-C during a call, or right after it."""
    timers = [threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)) for delay in delays]
    for timer in timers:
        timer.start()
    try:
        call()
    finally:
        for timer in timers:
            timer.join()


@pytest.mark.parametrize(
    "command",
    [
        WITHOUT_ENVIRONMENT,
        f"sh -c {shlex.quote(WITHOUT_ENVIRONMENT + ' & wait')}",
        f"sh -c {shlex.quote(f'(setsid {WITHOUT_ENVIRONMENT} &) ; sleep 1000')}",
    ],
    ids=["command", "child", "orphan"],
)
def test_processes_without_the_variable_are_counted_and_ended(command: str) -> None:
    server = CommandServer(command)
    processes = [process.pid for process in server_processes(server._server_id, server.pid)]
    assert processes
    assert server.memory > 50e6
    server.close()
    assert all(wait_until_gone(pid, 5.0) for pid in processes)


@pytest.mark.long
def test_processes_without_the_variable_end_where_what_watches_them_hangs() -> None:
    server = CommandServer(WITHOUT_ENVIRONMENT)
    processes = [process.pid for process in server_processes(server._server_id, server.pid)]
    os.kill(server.pid, signal.SIGSTOP)
    server.close()
    assert all(wait_until_gone(pid, 5.0) for pid in processes)


def test_orphans_that_end_are_no_zombies() -> None:
    server = CommandServer(f"sh -c {shlex.quote('(sleep 0.1 &) ; ' + OURS)}")
    wait_for(lambda: len(psutil.Process(server.pid).children()) == 1)
    server.close()


@pytest.mark.long
def test_replaced_servers_leave_no_zombies_in_a_container() -> None:
    code = f"""
{AS_FIRST_PROCESS}
import psutil
from sb3_carla.client.command_server import CommandServer
for _ in range(3):
    CommandServer({SCRIPT!r}).close()
print(psutil.Process().children())
"""
    assert run(code) == "[]\n"


def test_watching_a_server_reads_nothing() -> None:
    """The watchdog polls ten times a second: it must not walk through thousands of processes each time."""
    server = CommandServer(SCRIPT)
    watchdog = psutil.Process(server.pid)
    before = watchdog.io_counters()
    time.sleep(0.5)
    assert watchdog.io_counters() == before
    server.close()


def test_ports_of_a_server_that_is_still_starting_are_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_server, "LAST_PORT", command_server.FIRST_PORT + command_server.PORTS_PER_SERVER)
    first, reservation = command_server.reserve_ports()
    with reservation, pytest.raises(ServerStartError, match="Found no 3 free ports"):
        command_server.reserve_ports()
    again, reservation = command_server.reserve_ports()
    reservation.close()
    assert again == first


def is_reserved(port: int) -> bool:
    with socket.socket(socket.AF_UNIX) as other:
        try:
            other.bind(command_server.RESERVATION.format(port))
        except OSError:
            return True
    return False


def test_ports_are_reserved_as_long_as_the_server_lives() -> None:
    server = CommandServer(SCRIPT)
    assert is_reserved(server.port)
    server.close()
    assert not is_reserved(server.port)


def test_ports_of_a_killed_training_are_reserved_until_its_server_has_ended() -> None:
    code = f"""
import time
from sb3_carla.client.command_server import CommandServer
server = CommandServer({SCRIPT!r})
print(server.port, server.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        port, guard = map(int, training.stdout.readline().split())
        server = server_below(guard)
        os.kill(guard, signal.SIGSTOP)
        training.kill()
    assert is_reserved(port)
    os.kill(guard, signal.SIGCONT)
    assert wait_until_gone(server, 20.0)
    assert wait_until_gone(guard, 20.0)
    assert not is_reserved(port)


def test_servers_start_where_no_ports_can_be_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_server, "RESERVATION", str(tmp_path / "no such folder" / "{}"))
    CommandServer(SCRIPT).close()


def test_modules_of_the_folder_are_not_the_servers(tmp_path: Path) -> None:
    """``python -m`` would import from the working directory. Folders that only the parent knows must be found, too."""
    (tmp_path / "token.py").write_text("raise RuntimeError('the user's own')")
    path = [str(Path(command_server.__file__).parents[1]), *filter(None, sys.path)]
    code = f"import sys; sys.path[:] = {path}\n"
    code += "from sb3_carla.client.embedded_server import EmbeddedServer\n"
    code += "EmbeddedServer('Circuit01').close(); print('started')"
    assert run(code, python=getattr(sys, "_base_executable", sys.executable), cwd=tmp_path) == "started\n"


def test_no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/no such folder")
    EmbeddedServer("Circuit01").close()
    CommandServer(SCRIPT).close()


def test_python_that_knows_no_files_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    EmbeddedServer("Circuit01").close()
    with pytest.raises(ServerStartError, match="no GPU found"):
        CommandServer("sh -c 'echo no GPU found; exit 3' {port}")


def test_servers_have_a_home_where_their_parent_has_none() -> None:
    """CARLA's client crashes without one, see ``sb3_carla/__init__.py``."""
    command = "sh -c " + shlex.quote(f'test -n "$HOME" && exec {OURS}')
    code = "from sb3_carla.client.command_server import CommandServer\n"
    code += f"CommandServer({command!r}).close(); print('started')"
    assert run(code, env={name: value for name, value in os.environ.items() if name != "HOME"}) == "started\n"


@pytest.mark.long
# The interrupted search for ports leaves an open socket, and Python's garbage collector warns of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("command", ["sleep 60 {port}", None], ids=["command", "packaged"])
def test_ctrl_c_while_a_server_starts_leaves_nothing(command: str | None) -> None:
    """Ctrl-C may come right after the process was started, before any object knows it."""
    before = children()
    for delay in np.linspace(0.0, 0.04, 40):
        supervisor = ServerSupervisor(command)
        start = functools.partial(supervisor.start, "Circuit01")
        with pytest.raises(KeyboardInterrupt) as kept:
            interrupt(start, delay)
        supervisor.close()
        assert children() == before
        assert kept.traceback


ALONE = """
from sb3_carla.client.embedded_server import EmbeddedServer
EmbeddedServer("Circuit01")
"""
IN_A_VECTOR = """
from sb3_carla.envs.carla_lane import CarlaLaneEnv
from sb3_carla.envs.vec_env import SupervisedVecEnv
if __name__ == "__main__":
    SupervisedVecEnv([CarlaLaneEnv]).reset()
"""


@pytest.mark.parametrize(
    "code",
    [pytest.param(ALONE, id="alone"), pytest.param(IN_A_VECTOR, id="in a vector", marks=pytest.mark.long)],
)
def test_a_server_that_is_stopped_while_it_starts_does_not_outlive_a_killed_training(tmp_path: Path, code: str) -> None:
    """Neither does the process that waits for the server, with a time-out of half a minute."""
    (tmp_path / "training.py").write_text(code)
    mark = uuid.uuid4().hex
    with subprocess.Popen([sys.executable, "training.py"], cwd=tmp_path, env={**os.environ, "MARK": mark}) as training:
        wait_for(lambda: any(stop_while_importing(pid) for pid in processes_with("MARK", mark)))
        training.kill()
    wait_for(lambda: not processes_with("MARK", mark), 25.0)


def stop_while_importing(pid: int) -> bool:
    """Stop a process if it is a server that has begun to import its modules."""
    with contextlib.suppress(OSError):  # it has ended
        # psutil's memory_maps() takes 5 ms in place of 0.2 ms: the moment may be over.
        folder = Path(f"/proc/{pid}")
        if b"sb3_carla.server" in (folder / "cmdline").read_bytes() and "numpy" in (folder / "maps").read_text():
            os.kill(pid, signal.SIGSTOP)
            return True
    return False


def test_ctrl_c_in_close_leaves_nothing() -> None:
    server = EmbeddedServer("Circuit01")
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(KeyboardInterrupt):
        interrupt(server.close, 0.5)
    assert wait_until_gone(server.pid, 5.0)
    server.close()


@pytest.mark.long
def test_a_server_that_hangs_ends_where_no_more_files_can_be_opened() -> None:
    server = EmbeddedServer("Circuit01")
    os.kill(server.pid, signal.SIGSTOP)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            server.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert wait_until_gone(server.pid, 5.0)


@pytest.mark.parametrize("command", [SCRIPT, WITHOUT_ENVIRONMENT], ids=["with variable", "without variable"])
@pytest.mark.parametrize("delays", [[0.5], [0.5, 0.55], [0.5, 0.51, 0.52]], ids=["once", "twice", "thrice"])
def test_ctrl_c_in_close_leaves_nothing_of_a_command(command: str, delays: list[float]) -> None:
    server = CommandServer(command)
    processes = [process.pid for process in server_processes(server._server_id, server.pid)]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(KeyboardInterrupt):
        interrupt(server.close, *delays)
    server.close()
    assert all(wait_until_gone(pid, 5.0) for pid in [server.pid, *processes])
