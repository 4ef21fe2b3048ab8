"""
``guard.py PARENT MARK COMMAND ...``: runs a command; ends all that it has started when asked to or the parent dies.

A CARLA server is a shell script that starts another process: a signal to the script would leave that one behind, and
one to its process group whatever has left the group. So what a command starts is known by an environment variable,
which children inherit. This file imports nothing but the standard library, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

MARK = "SB3_CARLA_SERVER"
"""Environment variable by which all processes of a server are known."""
LOOK = 0.1
"""How often to look whether the parent and the command live [s]."""
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
    try:
        process = subprocess.Popen(command, start_new_session=True, env={**os.environ, MARK: mark})
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    while process.poll() is None and not asked and os.getppid() == parent:
        time.sleep(LOOK)
    end(mark)
    return process.wait()


def marked(mark: str) -> list[int]:
    """
    :param mark: value of ``MARK``
    :return: ids of the processes that have it
    """
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # gone since, or somebody else's
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end(mark: str) -> None:
    """
    End all processes with a mark: SIGTERM first, then SIGKILL.

    :param mark: value of ``MARK``
    """
    for kind in (signal.SIGTERM, signal.SIGKILL):
        told: set[int] = set()
        deadline = time.monotonic() + GRACE
        while (left := marked(mark)) and time.monotonic() < deadline:
            for pid in set(left) - told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, kind)
            told.update(left)
            time.sleep(0.2 * LOOK)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
