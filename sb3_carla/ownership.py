"""Marks on actors that tell which process spawned them, so that what a killed process left behind can be cleared up."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_abandoned", "own_mark"]

PREFIX = "sb3_carla"


def own_mark() -> str:
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
