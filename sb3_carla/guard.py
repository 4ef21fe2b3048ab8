"""
``guard.py PARENT COMMAND ...``: runs a command, and ends all it has started when asked to, or when the parent dies.

A CARLA server is a shell script that starts another process: a signal to the script would leave that one behind. The
command gets a process group of its own, which is what is ended. This file imports nothing but the standard library, so
that it starts at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from types import FrameType

LOOK = 0.1
"""How often to look whether the parent and the command live [s]."""
GRACE = 2.0
"""Time between SIGTERM and SIGKILL [s]; shorter than what whoever ends the guard grants it."""


def main(parent: int, command: list[str]) -> int:
    """
    Run the command until it ends, the parent dies, or SIGTERM comes.

    :param parent: process id
    :param command: program and its arguments
    :return: the command's exit status, 127 if it cannot be run
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask)
    try:
        process = subprocess.Popen(command, start_new_session=True)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    while process.poll() is None and not asked and os.getppid() == parent:
        time.sleep(LOOK)
    _end_group(process)
    return process.returncode


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """The command may have ended and left others of its group behind: they end too."""
    deadline = time.monotonic() + GRACE
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()  # takes its exit status, or it would count as a member of the group for ever
            os.killpg(process.pid, 0)
            time.sleep(LOOK)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
