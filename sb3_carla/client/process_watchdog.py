"""
``guard.py PARENT MARK COMMAND ...``: runs a command; ends all that it has started when asked to or the parent dies.

A CARLA server is a shell script that starts another process: a signal to the script would leave that one behind, and
one to its process group whatever has left the group. So what a command starts is known by an environment variable,
which children inherit; and by its descent, for what begins with another environment: orphans below the guard become its
children. This file imports nothing but the standard library, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

MARK = "SB3_CARLA_SERVER"
"""Environment variable by which all processes of a server are known."""
LOOK = 0.1
"""How often to look whether the parent and the command live [s]."""
PR_SET_CHILD_SUBREAPER = 36
"""Of ``prctl(2)``."""
GRACE = 2.0
"""Time between SIGTERM and SIGKILL [s]; shorter than what whoever ends the guard grants it."""


def main(parent: int, mark: str, command: list[str]) -> int:
    """
    Run the command until it ends, the parent dies, or SIGTERM comes.

    :param parent: process id
    :param mark: value of ``MARK`` for the command
    :param command: program and its arguments
    :return: the command's exit status, 127 if it cannot be run
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask)
    with contextlib.suppress(AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        process = subprocess.Popen(command, start_new_session=True, env={**os.environ, MARK: mark})
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    while process.poll() is None and not asked and os.getppid() == parent:
        _reap(process.pid)
        time.sleep(LOOK)
    end(mark, os.getpid())
    status = process.wait()
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            os.wait()
    return status


def _reap(command: int) -> None:
    """Take leave of orphans that have ended; of the command its ``Popen`` does."""
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while (ended := os.waitid(os.P_ALL, 0, look)) is not None and ended.si_pid != command:
        os.waitpid(ended.si_pid, 0)


def children(*, alive: bool = False) -> dict[int, list[int]]:
    """
    :param alive: without those that have ended, and wait to be taken leave of
    :return: ids of the processes below each one
    """
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # gone since
                state, parent = (entry / "stat").read_text(errors="replace").rsplit(")", 1)[1].split()[:2]
                if not alive or state != "Z":
                    found.setdefault(int(parent), []).append(int(entry.name))
    return found


def family(mark: str, root: int | None) -> list[int]:
    """
    :param mark: value of ``MARK``
    :param root: a guard's process id, if there is one
    :return: ids of the living processes that have the mark, and of those below the guard
    """
    found = dict.fromkeys(marked(mark))
    below = children(alive=True)
    left = [] if root is None else [root]
    while left:
        more = below.get(left.pop(), [])
        found.update(dict.fromkeys(more))
        left += more
    return list(found)


def marked(mark: str, name: str = MARK) -> list[int]:
    """
    :param mark: value of an environment variable
    :param name: of the variable
    :return: ids of the processes that have it
    """
    wanted, found = f"{name}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # gone since, or somebody else's
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end(mark: str, root: int | None = None, signals: Sequence[int] = (signal.SIGTERM, signal.SIGKILL)) -> None:
    """
    End all processes with a mark, and those below a guard.

    :param mark: value of ``MARK``
    :param root: the guard's process id, if there is one
    :param signals: to end them by, one after the other
    """
    for number in signals:
        told: set[int] = set()
        deadline = time.monotonic() + GRACE
        while (left := family(mark, root)) and time.monotonic() < deadline:
            for pid in set(left) - told:
                with contextlib.suppress(OSError):  # gone since, or another user's
                    os.kill(pid, number)
            told.update(left)
            time.sleep(0.2 * LOOK)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
