"""
Runs the command of a server, and ends all processes that the command has started.

Called as ``process_watchdog.py PARENT_PID SERVER_ID COMMAND ...``. It ends them on SIGTERM, SIGINT or SIGHUP, and when
the parent process dies.

CARLA's server is a shell script that starts another process. A signal to the script leaves that process behind; a
signal to its process group misses a process that has left the group. So the processes of a server are found in two
ways: children inherit the environment variable ``SERVER_ID_VARIABLE``, and a process with another environment is still
a descendant of the watchdog, because the watchdog adopts orphans.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from types import FrameType

# psutil adds 15 ms to the start of this process (30 ms); a CARLA server takes seconds.
import psutil

SERVER_ID_VARIABLE = "SB3_CARLA_SERVER_ID"
"""Environment variable that all processes of a server have; its value is the server's id."""
POLL_INTERVAL = 0.1
"""Time between two checks of the parent and of the command [s]."""
PR_SET_CHILD_SUBREAPER = 36
"""Option of ``prctl(2)``: orphaned descendants become children of the calling process."""
TERMINATE_TIMEOUT = 2.0
"""Time between SIGTERM and SIGKILL [s]; less than the parent grants the watchdog (``server_process.py``)."""


def main(parent_pid: int, server_id: str, command: list[str]) -> int:
    """
    Run the command until it ends, the parent dies, or a signal asks for the end.

    :param parent_pid: process id of the parent
    :param server_id: value of ``SERVER_ID_VARIABLE`` for the command
    :param command: program and its arguments
    :return: exit status of the command; 127 if it cannot be run
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, receive)
    with contextlib.suppress(AttributeError):  # only Linux has prctl()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        environment = {**os.environ, SERVER_ID_VARIABLE: server_id}
        process = subprocess.Popen(command, start_new_session=True, env=environment)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    # This loop reads no files: it runs ten times a second, also on machines with thousands of processes.
    while process.poll() is None and not received and os.getppid() == parent_pid:
        _reap_orphans(process.pid)
        time.sleep(POLL_INTERVAL)
    end_server_processes(server_id, os.getpid())
    status = process.wait()
    with contextlib.suppress(ChildProcessError):  # no child is left
        while True:
            os.wait()
    return status


def _reap_orphans(command_pid: int) -> None:
    """Reap adopted orphans that have ended; the command itself is reaped by its ``Popen``."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while (ended := os.waitid(os.P_ALL, 0, options)) is not None and ended.si_pid != command_pid:
        os.waitpid(ended.si_pid, 0)


def server_processes(server_id: str, watchdog_pid: int | None) -> list[psutil.Process]:
    """
    Find the living processes of a server.

    :param server_id: value of ``SERVER_ID_VARIABLE``
    :param watchdog_pid: process id of the server's watchdog; None if it has none
    :return: processes with that value, and all descendants of the watchdog
    """
    found: list[psutil.Process] = []
    children: dict[int | None, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter(["environ", "ppid", "status"]):
        info = process.info  # None for each value that this user must not read
        if info["status"] == psutil.STATUS_ZOMBIE:
            continue
        children[info["ppid"]].append(process)
        if (info["environ"] or {}).get(SERVER_ID_VARIABLE) == server_id:
            found.append(process)
    descendants = [] if watchdog_pid is None else children[watchdog_pid]
    for process in descendants:  # the list grows in the loop
        descendants += children[process.pid]
    return list(dict.fromkeys(found + descendants))


def end_server_processes(
    server_id: str, watchdog_pid: int | None, signals: Sequence[int] = (signal.SIGTERM, signal.SIGKILL)
) -> None:
    """
    End the processes of a server, but not its watchdog.

    :param server_id: value of ``SERVER_ID_VARIABLE``
    :param watchdog_pid: process id of the server's watchdog; None if it has none
    :param signals: sent one after the other, ``TERMINATE_TIMEOUT`` apart, until all processes have ended
    """
    for number in signals:
        signalled: set[psutil.Process] = set()
        deadline = time.monotonic() + TERMINATE_TIMEOUT
        while (living := server_processes(server_id, watchdog_pid)) and time.monotonic() < deadline:
            for process in set(living) - signalled:
                with contextlib.suppress(psutil.Error):  # it has ended, or belongs to another user
                    process.send_signal(number)
            signalled.update(living)
            time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
