"""The server as a process: how it starts, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from harness import RawClient, running_server
from processes import is_alive

COMMAND = [sys.executable, "-m", "sb3_carla.server"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly_and_at_once(number: int) -> None:
    with running_server(stderr=subprocess.PIPE) as server:
        raw = RawClient(server.port)
        settings = raw.value("get_episode_settings")
        raw.value("set_episode_settings", [True, *settings[1:]])  # nothing to do: the loop sleeps
        server.process.send_signal(number)
        assert server.process.wait(30.0) == 0
        assert server.process.stderr is not None
        assert server.process.stderr.read() == ""
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""
        raw.close()


@pytest.mark.parametrize("stopped", [False, True])
def test_it_ends_with_its_parent(stopped: bool) -> None:
    code = """
import os, subprocess, sys
command = [sys.executable, "-m", "sb3_carla.server", "--port", "0", "--parent-pid", str(os.getpid())]
child = subprocess.Popen(command, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    try:
        time.sleep(0.5)
        assert is_alive(pid)
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 30.0
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_alive(pid)
    finally:
        parent.kill()
        parent.wait()
        parent.stdin.close()
        parent.stdout.close()
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_port_in_use_is_reported() -> None:
    with running_server() as server:
        done = subprocess.run([*COMMAND, "--port", str(server.port)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert f"port {server.port} on 127.0.0.1 is in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--town", "Nowhere"], 1, "Town not found: 'Nowhere'; available: Circuit01"),
        (["--town", "missing.xodr"], 1, "Town not found: 'missing.xodr'"),
        (["--host", "no.such.host.invalid", "--port", "0"], 1, "cannot be opened"),
        (["--port", "65535"], 1, "port 65536 on 127.0.0.1 cannot be opened"),
        (["--port", "70000"], 2, "expected a port from 0 to 65535, got 70000"),
        (["--help"], 0, ""),
    ],
)
def test_errors_are_reported_in_one_line(arguments: list[str], status: int, message: str) -> None:
    options = arguments if "--port" in arguments else ["--port", "0", *arguments]
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=30)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_stream_port_is_the_next_one_unless_told_otherwise() -> None:
    with running_server() as server:
        free = server.port
    process = subprocess.Popen(
        [*COMMAND, "--port", str(free), "--streaming-port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"sb3_carla.server listening on 127.0.0.1:{free} streaming ")
        assert not line.endswith(f" {free + 1}\n")
    finally:
        process.terminate()
        assert process.wait(30.0) == 0
        assert process.stdout is not None
        process.stdout.close()
