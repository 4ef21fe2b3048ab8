"""Files in memory: the servers' logs, and the rasters of towns that several servers share."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import weakref
from typing import ClassVar

__all__ = ["RasterMemory", "create_memory_file", "share_rasters"]

RASTERS = "sb3_carla_rasters"
"""Name of the file in memory that holds the rasters of towns."""
RASTERS_VARIABLE = "SB3_CARLA_RASTERS"
"""Environment variable: path of the raster memory that a process shares with its descendants."""


class RasterMemory:
    """
    Memory in which the servers of this process keep the rasters of towns.

    It is freed with the last server that uses it.
    """

    _current: ClassVar[weakref.ref[RasterMemory] | None] = None

    def __init__(self) -> None:
        shared = _open_shared()
        self.fd = create_memory_file(RASTERS) if shared is None else shared
        weakref.finalize(self, os.close, self.fd)

    @classmethod
    def of_this_process(cls) -> RasterMemory:
        """The memory that running servers use, or new memory if none runs."""
        memory = cls._current() if cls._current else None
        if memory is None:
            memory = cls()
            cls._current = weakref.ref(memory)
        return memory


def share_rasters() -> None:
    """Let the servers of all descendants of this process share one raster memory, until this process ends."""
    if RASTERS_VARIABLE not in os.environ:
        os.environ[RASTERS_VARIABLE] = f"/proc/{os.getpid()}/fd/{create_memory_file(RASTERS)}"


def create_memory_file(name: str) -> int:
    """
    Open a new file in memory, which works on a full disk too.

    :param name: shown in the file's link in ``/proc``
    :return: file descriptor; of a temporary file where this Python has no ``os.memfd_create``
    """
    if hasattr(os, "memfd_create"):
        return _above_standard_streams(os.memfd_create(name))
    with tempfile.TemporaryFile() as file:
        return _above_standard_streams(os.dup(file.fileno()))


def _above_standard_streams(fd: int) -> int:
    """Move a file to a descriptor above 2: the lower ones are free where the standard streams are closed."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _open_shared() -> int | None:
    """Open the memory that an ancestor shares; None if there is none, or the ancestor has ended."""
    path = os.environ.get(RASTERS_VARIABLE, "")
    with contextlib.suppress(OSError):
        # The link's name is checked because a later process may have the ancestor's process id.
        if os.readlink(path).startswith(f"/memfd:{RASTERS}"):
            return _above_standard_streams(os.open(path, os.O_RDWR))
    return None
