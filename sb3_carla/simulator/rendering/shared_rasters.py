"""
Pictures that several processes need and only one has to paint and keep.

A training drives several environments, each with a server of its own, and all of them show the same towns: 40 to 70 MB
and a third of a second a town. So the process that starts the servers hands them one anonymous file in memory
(``memfd_create(2)``); the first server that needs a town paints it into the file, and the others map the same pages.
It ends with the last process that has it open, and leaves nothing on any disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

__all__ = ["Buffer", "SharedRasters", "paint_privately"]

PAGE = mmap.ALLOCATIONGRANULARITY
"""Records begin at multiples of it [bytes]: first a page with the key's 32 bytes and the size's 8, then the picture."""
KEY = 32
PATIENCE = 5.0
"""How long to wait for another process that paints [s]; then this one paints for itself."""
MOST = 4 * 2**30
"""Size of the file from which on pictures are no longer added: nothing in it is ever freed [bytes]. All built-in towns
together take 2.7 GiB."""

Buffer = NDArray[np.uint8]


def paint_privately(size: int, paint: Callable[[Buffer], None]) -> Buffer:
    """
    A picture for this process alone.

    :param size: [bytes]
    :param paint: fills a buffer of shape (size,), uint8
    :return: that buffer
    """
    own = np.empty(size, np.uint8)
    paint(own)
    return own


class SharedRasters:
    """
    Buffers in a file that several processes have open.

    :param fd: of the file, empty at first; stays open as long as this object is used
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def get(self, name: bytes, size: int, paint: Callable[[Buffer], None]) -> Buffer:
        """
        A picture, painted by whoever is first; by everybody for himself once the file is full.

        :param name: what it depends on: equal names stand for equal pictures
        :param size: [bytes]
        :param paint: fills a buffer of shape (size,), uint8
        :return: shape (size,), uint8; what is written to it is seen by this process alone
        """
        key = hashlib.sha256(name + size.to_bytes(8, "little")).digest()
        # A lock for each picture, so that processes that need different ones paint side by side.
        with self._locked(1 + int.from_bytes(key[:5], "little")) as locked:
            start = None
            if locked:
                with suppress(OSError):  # a limit on the size of files, for instance
                    start = self._place(key, size)
            if start is not None:
                if os.pread(self._fd, KEY, start - PAGE) != key:
                    paint(np.frombuffer(mmap.mmap(self._fd, size, mmap.MAP_SHARED, offset=start), np.uint8))
                    os.pwrite(self._fd, key, start - PAGE)
                return np.frombuffer(mmap.mmap(self._fd, size, mmap.MAP_PRIVATE, offset=start), np.uint8)
        return paint_privately(size, paint)

    @contextmanager
    def _locked(self, number: int) -> Iterator[bool]:
        """Whether a byte of the file is this process's alone; the system unlocks what a dead process had locked."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
                break
            except OSError:
                if time.monotonic() > deadline:
                    yield False
                    return
                time.sleep(0.005)
        try:
            yield True
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, number)

    def _place(self, key: bytes, size: int) -> int | None:
        """
        Where the picture begins, or room for it at the end; None where there is none. One whose painter died is passed
        over.
        """
        with self._locked(0) as locked:
            if not locked:
                return None
            start, end = 0, os.fstat(self._fd).st_size
            while start < end:
                head = os.pread(self._fd, KEY + 8, start)
                if head[:KEY] == key:
                    return start + PAGE
                start += PAGE + _whole_pages(int.from_bytes(head[KEY:], "little"))
            if start + PAGE + _whole_pages(size) > MOST:
                return None
            # One call: either the record is there with its size, or it is not. The key makes it valid, last.
            os.pwrite(self._fd, bytes(KEY) + size.to_bytes(8, "little"), start)
            os.ftruncate(self._fd, start + PAGE + _whole_pages(size))
            return start + PAGE


def _whole_pages(size: int) -> int:
    return -(-size // PAGE) * PAGE
