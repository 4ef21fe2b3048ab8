"""Servers that the user's command starts: all their processes end with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import carla
import pytest
from processes import (
    OURS,
    SCRIPT,
    STRAIGHT_ON,
    children,
    processes_with,
    server_below,
    server_of,
    wait_for,
    wait_until_gone,
)

from sb3_carla.client.command_server import CommandServer
from sb3_carla.client.process_watchdog import SERVER_ID_VARIABLE
from sb3_carla.client.server_supervisor import ServerSupervisor
from sb3_carla.envs.carla_lane import CarlaLaneEnv
from sb3_carla.errors import ServerStartError


def test_command_starts_a_server_and_its_end_ends_all_of_it() -> None:
    server = CommandServer(SCRIPT)
    below = server_below(server.pid)
    assert below != server.pid
    assert server.memory > 20e6
    client = carla.Client(server.host, server.port)
    client.set_timeout(5.0)
    assert client.get_server_version() == "0.9.16"
    server.close()
    server.close()
    assert not server.alive
    assert server.memory == 0
    assert wait_until_gone(below, 1.0)


@pytest.mark.parametrize(
    "command",
    [f"timeout 100 {OURS}", f"sh -c 'setsid {OURS} & sleep 100'", f"sh -c 'trap \"\" TERM; setsid {OURS} & wait'"],
)
@pytest.mark.parametrize("guarded", [True, False])
def test_a_server_that_leaves_the_group_of_its_command_ends_too(command: str, guarded: bool) -> None:
    server = CommandServer(command)
    processes = list(processes_with(SERVER_ID_VARIABLE, server._server_id))
    assert len(processes) >= 2
    assert server.memory > 20e6
    if not guarded:
        os.kill(server.pid, signal.SIGKILL)
    server.close()
    assert all(wait_until_gone(pid, 1.0) for pid in processes)


@pytest.mark.long
def test_what_a_server_writes_does_not_pile_up() -> None:
    supervisor = ServerSupervisor(f"sh -c '{OURS} & yes'")
    log = supervisor.start("Circuit01")._log
    wait_for(lambda: os.fstat(log.fileno()).st_size > 100_000)
    size = os.fstat(log.fileno()).st_size
    os.kill(list(processes_with(SERVER_ID_VARIABLE, supervisor.server._server_id))[-1], signal.SIGSTOP)  # type: ignore[union-attr]
    supervisor.begin_episode()
    assert os.fstat(log.fileno()).st_size < size
    supervisor.close()


@pytest.mark.long
def test_what_ignores_sigterm_is_killed() -> None:
    server = CommandServer(f"sh -c 'trap \"\" TERM; {OURS}'")
    below = server_below(server.pid)
    os.kill(below, signal.SIGSTOP)
    begun = time.monotonic()
    server.close()
    assert time.monotonic() - begun < 30.0
    assert wait_until_gone(below, 1.0)


def test_command_does_not_outlive_its_parent() -> None:
    code = f"""
import time
from sb3_carla.client.command_server import CommandServer
server = CommandServer({SCRIPT!r})
print(server.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        guard = int(parent.stdout.readline())
        below = server_below(guard)
        parent.kill()
    assert wait_until_gone(below, 5.0)
    assert wait_until_gone(guard, 5.0)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-program {port}", "ended with status 127.*No such file"),
        ("sh -c 'echo no GPU found; exit 3' {port}", "ended with status 3.*no GPU found"),
        ("sh -c 'echo loading; sleep 60' {port}", "did not answer within 1 s.*loading"),
    ],
)
def test_command_that_starts_no_server(command: str, message: str) -> None:
    before = children()
    with pytest.raises(ServerStartError, match=message):
        CommandServer(command, timeout=1.0)
    assert children() == before


@pytest.mark.long
def test_something_else_listens_at_the_port(tmp_path: Path) -> None:
    """A server counts as started when it answers, not when its port is open."""
    script = tmp_path / "listen.py"
    script.write_text("import socket, sys, time\nopen = socket.create_server(('', int(sys.argv[1])))\ntime.sleep(60)\n")
    with pytest.raises(ServerStartError, match="did not answer"):
        CommandServer(f"{sys.executable} {script} {{port}}", timeout=3.0)


def test_command_without_a_place_for_the_port() -> None:
    with pytest.raises(ValueError, match=r"server.command: expected a command with \{port\} in it, got 'CarlaUE4.sh'"):
        CommandServer("CarlaUE4.sh")


def test_environment_drives_on_the_commands_server() -> None:
    with CarlaLaneEnv(server={"command": SCRIPT}, timeout=3.0, town="Circuit02") as env:
        env.reset(seed=0)
        below = server_below(server_of(env).pid)
        assert env.step(STRAIGHT_ON)[3] is False
        os.kill(below, signal.SIGKILL)
        assert env.step(STRAIGHT_ON)[4]["server_restarted"] is True
        env.reset()
        assert env.step(STRAIGHT_ON)[3] is False
        below = server_below(server_of(env).pid)
    assert wait_until_gone(below, 1.0)
