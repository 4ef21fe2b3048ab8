"""A lock on a folder that lasts as long as the process that took it."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import weakref
from pathlib import Path
from typing import Any

from sb3_carla.errors import CheckpointError

__all__ = ["FolderLock"]

logger = logging.getLogger(__name__)

LOCK = "lock"
"""Name of the lock file, which holds the id of the process that has the lock."""


class FolderLock:
    """
    Keeps other processes from writing to a folder.

    It is a POSIX record lock (``fcntl.lockf``): a forked child does not inherit it, so the lock ends with the process
    that took it, even if worker processes survive it for a moment. ``flock``, which the package filelock uses, would
    stay with such a worker.

    :param folder: made by :meth:`acquire` if it is missing
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._close: weakref.finalize[..., Any] | None = None  # closes the lock file, and so releases the lock

    def acquire(self) -> None:
        """
        Lock the folder until :meth:`release` or the end of this process. If locking is not possible (the disk is full,
        the file system has no locks), a warning says so.

        :raises CheckpointError: if another process has the lock
        """
        self.release()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock()
        except OSError as error:
            logger.warning("%s could not be locked, another training might write there too: %s", self.folder, error)

    def _lock(self) -> None:
        file = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        self._close = weakref.finalize(self, os.close, file)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            owner = os.read(file, 20).decode().strip()
            self.release()
            raise CheckpointError(
                f"{self.folder} is in use by a running training (process {owner}); give this training its own folder"
            ) from error
        os.truncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Unlock the folder. Calling it again does nothing."""
        if self._close is not None:
            self._close()
