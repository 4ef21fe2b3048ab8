"""Helpers for tests that start servers and other processes."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import carla
import numpy as np
import psutil

from sb3_carla.client.command_server import server_answers
from sb3_carla.client.server_process import ServerProcess
from sb3_carla.envs.carla_lane import CarlaLaneEnv

STRAIGHT_ON = np.array([0.0, 0.5], np.float32)
OURS = f"{shlex.quote(sys.executable)} -m sb3_carla.server --port {{port}}"
SCRIPT = f"sh -c '{OURS} & wait'"
"""Like CarlaUE4.sh: a script that starts the server as its child."""
PATIENCE = 5.0
"""Factor on time limits, for busy machines."""


def faulty(fault: str) -> str:
    """
    Command of a server with a fault.

    :param fault: arguments of ``faulty_server.py`` after the port
    """
    script = Path(__file__).with_name("faulty_server.py")
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {{port}} {fault}"


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children()}


def processes_with(variable: str, value: str) -> dict[int, str]:
    """Process ids and command lines of the living processes that have an environment variable with this value."""
    found = {}
    for process in psutil.process_iter(["environ", "cmdline"]):
        environment, command = process.info["environ"], process.info["cmdline"]
        if command and environment and environment.get(variable) == value:
            found[process.pid] = " ".join(command)
    return found


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def wait_until_gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + PATIENCE * seconds
    while time.monotonic() < deadline:
        if not is_alive(pid):
            return True
        time.sleep(0.05)
    return False


def server_below(pid: int) -> int:
    """Follow the last child of each process: the server itself."""
    while below := psutil.Process(pid).children():
        pid = below[-1].pid
    return pid


def server_of(env: CarlaLaneEnv) -> Any:
    assert env._connection.supervisor is not None
    assert env._connection.supervisor.server is not None
    return env._connection.supervisor.server


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + PATIENCE * seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def connected(server: ServerProcess) -> Any:
    """The server's world, as another client sees it; the server may still be starting."""
    wait_for(lambda: server_answers(server.host, server.port))
    client = carla.Client(server.host, server.port)
    client.set_timeout(10.0)
    return client.get_world()


def kinds(server: ServerProcess) -> dict[str, int]:
    """How many cars and sensors a server has."""
    world = connected(server)
    wait_for(lambda: world.get_snapshot().frame > 0)  # it comes on a connection of its own
    found = Counter(actor.type_id.partition(".")[0] for actor in world.get_actors())
    return {kind: found[kind] for kind in ("sensor", "vehicle") if found[kind]}
