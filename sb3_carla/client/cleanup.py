"""
Cleans up a server that runs on after a session has lost it, or after the client process was killed.

Each actor's ``role_name`` holds an owner tag: the process that has spawned the actor. The next process removes the
actors whose owner has ended.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Leftovers", "abandoned_actors", "close_at_exit", "is_abandoned", "owner_tag"]

PREFIX = "sb3_carla"
"""First part of each owner tag."""
SNAPSHOT_TIMEOUT = 1.0
"""How long to wait for a snapshot that comes without a tick of ours [s]."""

_open: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()  # object to close -> owner's process id


@dataclass(frozen=True, slots=True)
class Leftovers:
    """
    What a session leaves behind on a server that it loses.

    :param world_id: id of the session's world
    :param settings: original ``carla.WorldSettings``
    :param weather: original ``carla.WeatherParameters`` of that world
    :param actor_ids: the session's actors, in the order in which they must be destroyed
    :param loading: whether a town was being loaded: the server may have it by now, in a world with another id
    """

    world_id: int
    settings: Any
    weather: Any
    actor_ids: tuple[int, ...]
    loading: bool


def close_at_exit(resource: Any) -> None:
    """
    Close an object when the interpreter exits, if the user has not closed it.

    :param resource: uses a server; its ``close`` may be called again
    """
    _open[resource] = os.getpid()


@atexit.register
def _close_all() -> None:
    for resource, owner_pid in list(_open.items()):
        if owner_pid == os.getpid():
            resource.close()


def owner_tag() -> str:
    """
    :return: ``sb3_carla/BOOT_ID.PID_NAMESPACE/PID/START_TIME`` of this process, for ``role_name``
    """
    return "/".join((PREFIX, _pid_space(), str(os.getpid()), _start_time(os.getpid())))


def is_abandoned(role_name: str) -> bool:
    """
    :param role_name: of an actor
    :return: whether it is the owner tag of a process that has ended; False for a process on another machine or in
        another PID namespace, because its state is unknown here
    """
    prefix, _, rest = role_name.partition("/")
    pid_space, _, process = rest.partition("/")
    pid, _, start_time = process.partition("/")
    if (prefix, pid_space) != (PREFIX, _pid_space()) or not pid.isdecimal():
        return False
    return _start_time(int(pid)) != start_time


def abandoned_actors(world: Any, timeout: float) -> list[int]:
    """
    :param world: ``carla.World``
    :param timeout: for an answer of its server [s]
    :return: ids of the actors whose owner has ended, and of the cars that their sensors are attached to; sensors first
    :raises RuntimeError: if the server does not answer
    """
    _await_snapshot(world, timeout)
    sensors: dict[int, None] = {}  # ordered sets
    cars: dict[int, None] = {}
    for actor in world.get_actors():
        if is_abandoned(actor.attributes.get("role_name", "")):
            (sensors if actor.type_id.startswith("sensor.") else cars)[actor.id] = None
            if actor.parent is not None:
                cars[actor.parent.id] = None
    return [*sensors, *cars]


def _await_snapshot(world: Any, timeout: float) -> None:
    """
    Wait for the first snapshot: before it, the client of a synchronous server knows no actors.

    CARLA sends a snapshot at each tick. If no other client ticks, this one does.
    """
    deadline = time.monotonic() + SNAPSHOT_TIMEOUT
    while world.get_snapshot().frame == 0:
        if time.monotonic() > deadline:
            world.tick(timeout)
            return
        time.sleep(0.005)


def _pid_space() -> str:
    """Where process ids mean the same as here: boot id of the machine, inode of the PID namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"


def _start_time(pid: int) -> str:
    """
    Start of a process in clock ticks since boot; "" if there is no such process.

    Not ``psutil.Process.create_time()``: that adds the time of boot, which moves when the machine's clock is set. The
    car of a process that runs would then count as abandoned.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # proc(5): "pid (name) state ppid ...". The name may hold anything; field 22 is the start time.
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
