"""Whatever a server's command starts and whenever Ctrl-C comes: nothing is left, and nobody else's server is taken."""

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
import pytest
from processes import OURS, SCRIPT, children, marked, server_below, wait_for, wait_until_gone

from sb3_carla.client import servers
from sb3_carla.client.process_watchdog import children as below
from sb3_carla.client.process_watchdog import family
from sb3_carla.client.servers import CommandServer, EmbeddedServer, Supervisor
from sb3_carla.errors import ServerStartError

pytestmark = pytest.mark.usefixtures("interruptible")

WITHOUT_ENVIRONMENT = f"env -i HOME=/ PATH={shlex.quote(os.environ['PATH'])} {OURS}"
AS_FIRST_PROCESS = "import ctypes; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)"
"""Orphans become children of a process that has done this, as they do of a container's first one."""


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
def test_processes_without_the_mark_are_counted_and_ended(command: str) -> None:
    server = CommandServer(command)
    processes = family(server._mark, server.pid)
    assert processes
    assert server.memory > 50e6
    server.close()
    assert all(wait_until_gone(pid, 5.0) for pid in processes)


@pytest.mark.long
def test_processes_without_the_mark_end_where_what_watches_them_hangs() -> None:
    server = CommandServer(WITHOUT_ENVIRONMENT)
    processes = family(server._mark, server.pid)
    os.kill(server.pid, signal.SIGSTOP)
    server.close()
    assert all(wait_until_gone(pid, 5.0) for pid in processes)


def test_orphans_that_end_are_no_zombies() -> None:
    server = CommandServer(f"sh -c {shlex.quote('(sleep 0.1 &) ; ' + OURS)}")
    wait_for(lambda: len(below().get(server.pid, [])) == 1)
    server.close()


@pytest.mark.long
def test_replaced_servers_leave_no_zombies_in_a_container() -> None:
    code = f"""
{AS_FIRST_PROCESS}
import os
from sb3_carla.client.process_watchdog import children
from sb3_carla.client.servers import CommandServer
for _ in range(3):
    CommandServer({SCRIPT!r}).close()
print(children().get(os.getpid()))
"""
    assert run(code) == "None\n"


def test_watching_a_server_reads_nothing() -> None:
    """It goes on ten times a second, beside thousands of other processes."""
    server = CommandServer(SCRIPT)
    counters = Path(f"/proc/{server.pid}/io")
    before = counters.read_text()
    time.sleep(0.5)
    assert counters.read_text() == before
    server.close()


def test_ports_of_a_server_that_is_still_starting_are_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "LAST_PORT", servers.FIRST_PORT + servers.PORTS)
    first, claim = servers._free_ports()
    with claim, pytest.raises(ServerStartError, match="Found no 3 free ports"):
        servers._free_ports()
    again, claim = servers._free_ports()
    claim.close()
    assert again == first


def claimed(port: int) -> bool:
    with socket.socket(socket.AF_UNIX) as other:
        try:
            other.bind(servers.CLAIM.format(port))
        except OSError:
            return True
    return False


def test_ports_are_claimed_as_long_as_the_server_lives() -> None:
    server = CommandServer(SCRIPT)
    assert claimed(server.port)
    server.close()
    assert not claimed(server.port)


def test_ports_of_a_killed_training_are_claimed_until_its_server_has_ended() -> None:
    code = f"""
import time
from sb3_carla.client.servers import CommandServer
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
    assert claimed(port)
    os.kill(guard, signal.SIGCONT)
    assert wait_until_gone(server, 20.0)
    assert wait_until_gone(guard, 20.0)
    assert not claimed(port)


def test_servers_start_where_no_claim_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "CLAIM", str(tmp_path / "no such folder" / "{}"))
    CommandServer(SCRIPT).close()


def test_modules_of_the_folder_are_not_the_servers(tmp_path: Path) -> None:
    """``python -m`` puts the folder first; and what a program finds only by its own path, its server finds too."""
    (tmp_path / "token.py").write_text("raise RuntimeError('the user's own')")
    path = [str(Path(servers.__file__).parents[1]), *filter(None, sys.path)]
    code = f"import sys; sys.path[:] = {path}\n"
    code += "from sb3_carla.client.servers import EmbeddedServer; EmbeddedServer('Circuit01').close(); print('started')"
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
    code = f"from sb3_carla.client.servers import CommandServer; CommandServer({command!r}).close(); print('started')"
    assert run(code, env={name: value for name, value in os.environ.items() if name != "HOME"}) == "started\n"


# Sockets by which ports were just being looked for are left to Python's collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("command", ["sleep 60 {port}", None], ids=["command", "packaged"])
def test_ctrl_c_while_a_server_starts_leaves_nothing(command: str | None) -> None:
    """At any time: the process may have been started, and nobody know it yet."""
    before = children()
    for delay in np.linspace(0.0, 0.04, 40):
        supervisor = Supervisor(command)
        start = functools.partial(supervisor.start, "Circuit01")
        with pytest.raises(KeyboardInterrupt) as kept:
            interrupt(start, delay)
        supervisor.close()
        assert children() == before
        assert kept.traceback


ALONE = """
from sb3_carla.client.servers import EmbeddedServer
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
    """Nor does who waits for it, for half a minute."""
    (tmp_path / "training.py").write_text(code)
    mark = uuid.uuid4().hex
    with subprocess.Popen([sys.executable, "training.py"], cwd=tmp_path, env={**os.environ, "MARK": mark}) as training:
        wait_for(lambda: any(is_being_imported(pid) for pid in marked("MARK", mark)))
        training.kill()
    wait_for(lambda: not marked("MARK", mark), 25.0)


def is_being_imported(pid: int) -> bool:
    """Stop a process if it is a server that has begun to import its modules."""
    with contextlib.suppress(OSError):  # gone since
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


@pytest.mark.parametrize("command", [SCRIPT, WITHOUT_ENVIRONMENT], ids=["marked", "unmarked"])
@pytest.mark.parametrize("delays", [[0.5], [0.5, 0.55], [0.5, 0.51, 0.52]], ids=["once", "twice", "thrice"])
def test_ctrl_c_in_close_leaves_nothing_of_a_command(command: str, delays: list[float]) -> None:
    server = CommandServer(command)
    processes = family(server._mark, server.pid)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(KeyboardInterrupt):
        interrupt(server.close, *delays)
    server.close()
    assert all(wait_until_gone(pid, 5.0) for pid in [server.pid, *processes])
