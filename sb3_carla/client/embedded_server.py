"""The packaged server as a child process."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import select
import signal
import subprocess
import sys
import time
from typing import IO

from sb3_carla.client.process_watchdog import SERVER_ID_VARIABLE
from sb3_carla.client.server_process import RESTORE_SYS_PATH, ServerProcess, child_environment
from sb3_carla.client.shared_memory import RasterMemory
from sb3_carla.errors import MapError, ServerStartError, TownNotFoundError

__all__ = ["EmbeddedServer"]

READY = re.compile(rb"listening on (\S+):(\d+) streaming (\d+)")
"""Line that the server prints when it is ready: host, RPC port, streaming port."""
PR_SET_PDEATHSIG = 1
"""Option of ``prctl(2)``: the signal that the kernel sends when the parent dies."""
START_SCRIPT = f"""
{RESTORE_SYS_PATH}
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {int(signal.SIGCONT)})
import runpy
runpy.run_module("sb3_carla.server", run_name="__main__", alter_sys=True)
"""
"""
``python -m sb3_carla.server`` with the modules of this process.

A server may be stopped (SIGSTOP) while it starts. It asks for SIGCONT at its parent's death before the slow imports,
so that it then goes on, finds its parent dead (``server/__main__.py``), and ends.
"""


class EmbeddedServer(ServerProcess):
    """
    ``python -m sb3_carla.server`` on free loopback ports.

    It watches its parent: it ends within a second after this process was killed.

    :param town: built-in town, or path of an OpenDRIVE file
    :param timeout: how long the server may take to start [s]; the first one ever compiles for some twelve seconds
    :raises TownNotFoundError: if there is no such town
    :raises MapError: if the map cannot be used
    :raises ServerStartError: if the server ends, or is not ready in time
    """

    packaged = True

    def __init__(self, town: str, *, timeout: float = 120.0) -> None:
        self._rasters: RasterMemory | None = RasterMemory.of_this_process()
        command = [sys.executable, "-c", START_SCRIPT, "--port", "0", "--town", town]
        command += ["--parent-pid", str(os.getpid()), "--shared-rasters", str(self._rasters.fd)]
        server_id = secrets.token_hex(8)
        environment = child_environment(**{SERVER_ID_VARIABLE: server_id})
        super().__init__(command, server_id, stdout=subprocess.PIPE, pass_fds=[self._rasters.fd], env=environment)
        try:
            self._wait_until_ready(town, timeout)
        except BaseException:  # KeyboardInterrupt too
            self.close()
            raise

    def _wait_until_ready(self, town: str, timeout: float) -> None:
        assert self._process.stdout is not None
        ready = READY.search(_read_line(self._process.stdout, timeout))
        if ready is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)  # a process closes its output a moment before it has ended
            silent = f"no answer within {timeout:g} s" if self.alive else "it ended without a message"
            reason = self.last_log_line() or silent
            _, unknown, available = reason.partition("Town not found")
            if unknown:
                raise TownNotFoundError(
                    f"The server has no town {town!r}; it has {available.partition('available: ')[2]}"
                )
            if "town" in reason.lower() or "opendrive" in reason.lower():
                raise MapError(f"The embedded server cannot load town {town!r}: {reason}")
            self.close()
            status = self._process.poll()
            raise ServerStartError(f"The embedded server did not start (exit status {status}): {reason}")
        self.host, self.port = ready.group(1).decode(), int(ready.group(2))

    def close(self) -> None:
        """End the server, within seconds even if it hangs, and wait until it has ended; safe to call again."""
        super().close()
        self._rasters = None


def _read_line(stream: IO[bytes], timeout: float) -> bytes:
    """The first line of a pipe, or what has come of it within the timeout [s]."""
    deadline = time.monotonic() + timeout
    line, poll = b"", select.poll()  # select() fails for file descriptors above 1023
    poll.register(stream, select.POLLIN)
    while not line.endswith(b"\n"):
        if not poll.poll(1000.0 * max(0.0, deadline - time.monotonic())):
            break
        chunk = os.read(stream.fileno(), 4096)
        if not chunk:
            break
        line += chunk
    return line
