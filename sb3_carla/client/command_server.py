"""A server that the user's command starts, on ports that no other server takes."""

from __future__ import annotations

import errno
import os
import secrets
import shlex
import socket
import sys
import time

import carla

from sb3_carla.client import process_watchdog
from sb3_carla.client.server_process import RESTORE_SYS_PATH, ServerProcess, child_environment
from sb3_carla.errors import ServerStartError

__all__ = ["CommandServer"]

ANSWER_TIMEOUT = 2.0
"""How long a server that is starting may take for one answer before it is asked again [s]."""
PORTS_PER_SERVER = 3
"""Consecutive ports that a CARLA server takes: RPC, streaming, secondary servers."""
FIRST_PORT, LAST_PORT = 10_000, 32_000
"""Range of ports to choose from: below Linux's ephemeral ports (32768 and up), which come and go."""
RESERVATION = "\0sb3_carla ports {}"
"""
Address of the Unix socket that reserves a server's ports.

It begins with a null byte, so it is in Linux's abstract namespace (``unix(7)``): no file, and free with the last
process that holds the socket.
"""
WATCHDOG_SCRIPT = f"""
{RESTORE_SYS_PATH}
import runpy
runpy.run_path({process_watchdog.__file__!r}, run_name="__main__")
"""


class CommandServer(ServerProcess):
    """
    A server that a command starts, for instance ``CarlaUE4.sh -RenderOffScreen -carla-rpc-port={port}``.

    It has started when it answers a call. A watchdog process (``process_watchdog.py``) ends everything that the command
    has started, also after this process was killed.

    :param command: split like a shell does; ``{port}`` stands for the RPC port, which the server must use
    :param timeout: how long the server may take to answer [s]
    :raises ServerStartError: if the command cannot be run, ends, or the server does not answer in time
    :raises ValueError: if the command has no ``{port}``
    """

    def __init__(self, command: str, *, timeout: float = 180.0) -> None:
        if "{port}" not in command:
            raise ValueError(f"server.command: expected a command with {{port}} in it, got {command!r}")
        port, reservation = reserve_ports()
        words = shlex.split(command.replace("{port}", str(port)))
        server_id = secrets.token_hex(8)
        watched = [sys.executable, "-c", WATCHDOG_SCRIPT, str(os.getpid()), server_id, *words]
        with reservation:  # the watchdog inherits it and keeps it open
            super().__init__(
                watched, server_id, port, env=child_environment(), pass_fds=[reservation.fileno()],
                start_new_session=True,  # Ctrl-C reaches this process only, which then ends the server in order
            )  # fmt: skip
        try:
            self._wait_until_ready(words, timeout)
        except BaseException:  # KeyboardInterrupt too
            self.close()
            raise

    def _wait_until_ready(self, words: list[str], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not (server_answers(self.host, self.port) and self.alive):
            if not self.alive or time.monotonic() > deadline:
                status = self._process.poll()
                what = f"did not answer within {timeout:g} s" if status is None else f"ended with status {status}"
                last = self.last_log_line()
                raise ServerStartError(f"The server {shlex.join(words)} {what}. Its last line: {last!r}")
            time.sleep(0.2)


def server_answers(host: str, port: int) -> bool:
    """Whether a CARLA server answers a call at this port; an open port alone is not enough."""
    try:
        socket.create_connection((host, port), ANSWER_TIMEOUT).close()
        client = carla.Client(host, port)
        client.set_timeout(ANSWER_TIMEOUT)
        client.get_server_version()
    except (OSError, RuntimeError):
        return False
    return True


def reserve_ports() -> tuple[int, socket.socket]:
    """
    Find ``PORTS_PER_SERVER`` free consecutive ports and reserve them.

    A server may take a minute until it listens. Until then only the reservation keeps the ports from other servers of
    this package.

    :return: the first port, and the socket that reserves them as long as a process has it open
    :raises ServerStartError: if none are free
    """
    for _ in range(100):
        first = FIRST_PORT + PORTS_PER_SERVER * secrets.randbelow((LAST_PORT - FIRST_PORT) // PORTS_PER_SERVER)
        reservation = _reserve(first)
        if reservation is None:
            continue
        try:
            for port in range(first, first + PORTS_PER_SERVER):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            reservation.close()
        else:
            return first, reservation
    raise ServerStartError(f"Found no {PORTS_PER_SERVER} free ports in a row on this machine")


def _reserve(first: int) -> socket.socket | None:
    """None if another server has these ports. Where the system denies the address, the socket reserves nothing."""
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(RESERVATION.format(first))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reservation.close()
            return None
    return reservation
