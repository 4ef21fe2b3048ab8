"""
What is left behind on a server that lives on: by a session that lost it, and by processes that were killed.

Actors carry a mark that tells which process spawned them, so that the next one can clear up after it.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Leftovers", "abandoned_actors", "close_at_exit", "is_abandoned", "process_mark"]

PREFIX = "sb3_carla"
SNAPSHOT_WITHIN = 1.0
"""How long to wait for what a synchronous server tells by itself, or another client has it tell [s]."""

_open: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()  # what is to be closed, by which process


@dataclass(frozen=True, slots=True)
class Leftovers:
    """
    What a session leaves behind that loses its server.

    :param world_id: of the world that it drove in
    :param settings: ``carla.WorldSettings`` of before
    :param weather: ``carla.WeatherParameters`` of before, of that world
    :param actor_ids: its actors, in the order in which they have to go
    :param loading: a town was being loaded, which may be there by now, in a world of another number
    """

    world_id: int
    settings: Any
    weather: Any
    actor_ids: tuple[int, ...]
    loading: bool


def close_at_exit(user: Any) -> None:
    """
    Leave a server that lives on as it was found, also where the process ends without having closed its environment.

    :param user: of the server; with ``close``, which may be called again
    """
    _open[user] = os.getpid()


@atexit.register
def _close_all() -> None:
    for user, process in list(_open.items()):
        if process == os.getpid():
            user.close()


def process_mark() -> str:
    """
    :return: mark of this process, for ``role_name``: where process numbers mean the same as here, its own, its start
    """
    return "/".join((PREFIX, _numbering(), str(os.getpid()), _start(os.getpid())))


def is_abandoned(mark: str) -> bool:
    """
    :param mark: an actor's ``role_name``
    :return: whether it is the mark of a process that is no more; of one on another machine, or in a container with
        process numbers of its own, nobody can say
    """
    prefix, _, rest = mark.partition("/")
    numbering, _, process = rest.partition("/")
    number, _, start = process.partition("/")
    if (prefix, numbering) != (PREFIX, _numbering()) or not number.isdecimal():
        return False
    return _start(int(number)) != start


def abandoned_actors(world: Any, timeout: float) -> list[int]:
    """
    :param world: ``carla.World``
    :param timeout: for an answer of its server [s]
    :return: ids of the actors of processes that are no more, and of the cars that their sensors are on; sensors first
    :raises RuntimeError: if the server does not answer
    """
    _await_snapshot(world, timeout)
    sensors: dict[int, None] = {}  # as sets, in order
    cars: dict[int, None] = {}
    for actor in world.get_actors():
        if is_abandoned(actor.attributes.get("role_name", "")):
            (sensors if actor.type_id.startswith("sensor.") else cars)[actor.id] = None
            if actor.parent is not None:
                cars[actor.parent.id] = None
    return [*sensors, *cars]


def _await_snapshot(world: Any, timeout: float) -> None:
    """
    The client of a server that is synchronous knows of no actors before the first snapshot has come.

    CARLA sends one at each tick, and those that would tick may be no more: then this is a tick of ours.
    """
    deadline = time.monotonic() + SNAPSHOT_WITHIN
    while world.get_snapshot().frame == 0:
        if time.monotonic() > deadline:
            world.tick(timeout)
            return
        time.sleep(0.005)


def _numbering() -> str:
    """This start of this machine, and the namespace of its process numbers."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"


def _start(process: int) -> str:
    """When a process started, in the kernel's ticks; "" if there is none."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # its name, in brackets, may hold anything
    return "" if state in "ZX" else fields[18]
