"""What tests of servers share: processes, and which of them is whose."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import carla
import numpy as np

from sb3_carla.client import process_watchdog
from sb3_carla.client.servers import ServerProcess, _answers
from sb3_carla.envs.carla_lane import CarlaLaneEnv

STRAIGHT_ON = np.array([0.0, 0.5], np.float32)
OURS = f"{shlex.quote(sys.executable)} -m sb3_carla.server --port {{port}}"
SCRIPT = f"sh -c '{OURS} & wait'"
"""Like CarlaUE4.sh: the server is a child of what is started."""
PATIENCE = 5.0
"""A busy machine gets so many times as long as an idle one would need."""


def faulty(fault: str) -> str:
    """
    Command of a server that goes wrong.

    :param fault: see ``faulty_server.py``
    """
    script = Path(__file__).with_name("faulty_server.py")
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {{port}} {fault}"


def children() -> set[int]:
    listing = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in listing.split()}


def marked(name: str, value: str) -> dict[int, str]:
    """Process ids and command lines of all that live and carry an environment variable."""
    found = {}
    for pid in process_watchdog.marked(value, name):
        with contextlib.suppress(OSError):  # gone since
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if command:
                found[pid] = command
    return found


def wait_until_gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + PATIENCE * seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def server_below(pid: int) -> int:
    """The last of the descendants: the server itself."""
    while below := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(below[-1])
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
    """The server's world for another client; the server may still be starting."""
    wait_for(lambda: _answers(server.host, server.port))
    client = carla.Client(server.host, server.port)
    client.set_timeout(10.0)
    return client.get_world()


def kinds(server: ServerProcess) -> dict[str, int]:
    """How many cars and sensors a server has."""
    world = connected(server)
    wait_for(lambda: world.get_snapshot().frame > 0)  # the first one comes on a connection of its own
    found = Counter(actor.type_id.partition(".")[0] for actor in world.get_actors())
    return {kind: found[kind] for kind in ("sensor", "vehicle") if found[kind]}
