"""The one place that starts the packaged CARLA server: as a child process that never outlives its parent."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import tempfile
import time
import weakref
from typing import IO, ClassVar

from sb3_carla.errors import MapError, ServerStartError

__all__ = ["EmbeddedServer"]

READY = re.compile(rb"listening on (\S+):(\d+) streaming (\d+)")
STOP_GRACE = 3.0
"""Time [s] between SIGTERM and SIGKILL."""


class EmbeddedServer:
    """
    ``python -m sb3_carla.server`` on free loopback ports.

    It ends with :meth:`close`, when this object is collected, when the interpreter exits, and, because the server
    watches its parent, within a second after this process was killed.

    :param town: built-in town, or path of an OpenDRIVE file
    :param timeout: how long the server may take to come up [s]
    :raises MapError: if the server refuses the town
    :raises ServerStartError: if it ends, or is not ready in time
    """

    def __init__(self, town: str, *, timeout: float = 30.0) -> None:
        command = [sys.executable, "-m", "sb3_carla.server", "--port", "0", "--town", town]
        command += ["--parent-pid", str(os.getpid())]
        self._pictures: _Pictures | None = _Pictures.of_this_process()
        command += ["--pictures", str(self._pictures.fd)]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[self._pictures.fd],
            )
            assert process.stdout is not None
            self._process = process
            self._finalizer = weakref.finalize(self, _stop, process)
            line = _first_line(process.stdout, timeout)
            ready = READY.search(line)
            if ready is None:
                self.close()
                log.seek(0)
                _raise_start_error(town, process.returncode, timeout, log.read().decode(errors="replace"))
                raise AssertionError("unreachable")
        self.host: str = ready.group(1).decode()
        self.port: int = int(ready.group(2))

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the server and wait until it is gone; safe to call again."""
        self._finalizer()
        self._pictures = None


class _Pictures:
    """Memory in which this process's servers keep the towns' pictures; it goes with the last of them."""

    _present: ClassVar[weakref.ref[_Pictures] | None] = None

    def __init__(self) -> None:
        self.fd = os.memfd_create("sb3_carla_pictures")
        weakref.finalize(self, os.close, self.fd)

    @classmethod
    def of_this_process(cls) -> _Pictures:
        """Those of the servers that run, or new ones."""
        pictures = cls._present() if cls._present else None
        if pictures is None:
            pictures = cls()
            cls._present = weakref.ref(pictures)
        return pictures


def _first_line(stream: IO[bytes], timeout: float) -> bytes:
    deadline = time.monotonic() + timeout
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            break
        chunk = os.read(stream.fileno(), 4096)
        if not chunk:
            break
        line += chunk
    return line


def _raise_start_error(town: str, returncode: int | None, timeout: float, log: str) -> None:
    reason = log.strip().splitlines()[-1] if log.strip() else f"no answer within {timeout:g} s"
    if "town" in reason.lower() or "opendrive" in reason.lower():
        raise MapError(f"The embedded server cannot load town {town!r}: {reason}")
    raise ServerStartError(f"The embedded server did not start (exit status {returncode}): {reason}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
