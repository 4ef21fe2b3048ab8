"""
Rasters in memory that several server processes share: one process paints each, all map the same pages.

A training run drives several environments, each with its own server, in the same towns. A town's raster takes 40 to
70 MB and a third of a second to paint. The process that starts the servers gives them the descriptor of one anonymous
file in memory (``memfd_create(2)``). The first server that needs a town paints its raster into that file. The memory is
freed when the last process closes the file; nothing is left on a disk. ``multiprocessing.shared_memory`` is no
alternative: its segments have names in ``/dev/shm`` that stay behind when processes are killed.

File layout: records one after the other, each a multiple of ``PAGE`` long.

    offset 0       32 bytes   SHA-256 of name and size; zeros until the raster is complete
    offset 32       8 bytes   size of the raster [bytes], unsigned, little-endian
    offset PAGE     size      the raster
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
"""``mmap`` offsets must be multiples of this [bytes]."""
KEY = 32
"""Length of a SHA-256 digest [bytes]."""
LOCK_TIMEOUT = 5.0
"""How long to wait for another process that paints [s]; then this process paints its own copy."""
MAX_FILE_SIZE = 4 * 2**30
"""A larger file takes no more rasters, since none is ever removed [bytes]; all built-in towns take 2.7 GiB."""

Buffer = NDArray[np.uint8]


def paint_privately(size: int, paint: Callable[[Buffer], None]) -> Buffer:
    """
    A raster for this process only.

    :param size: [bytes]
    :param paint: fills a buffer of shape (size,), uint8
    :return: that buffer
    """
    own = np.empty(size, np.uint8)
    paint(own)
    return own


class SharedRasters:
    """
    Rasters in a file that several processes have open.

    :param fd: descriptor of the file, empty at first; must stay open while this object is used
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def get(self, name: bytes, size: int, paint: Callable[[Buffer], None]) -> Buffer:
        """
        Map a raster; the first process that asks for it paints it.

        A process paints its own copy if the file is full, or if another process takes longer than ``LOCK_TIMEOUT``.

        :param name: everything that the raster depends on: equal names and sizes mean equal rasters
        :param size: [bytes]
        :param paint: fills a buffer of shape (size,), uint8
        :return: shape (size,), uint8; writing to it is seen by this process only (copy on write)
        """
        key = hashlib.sha256(name + size.to_bytes(8, "little")).digest()
        # Each raster has a lock of its own, so that different ones can be painted at the same time. Byte 0 is the lock
        # of the list of records. Locks may lie beyond the end of the file (fcntl(2)).
        with self._locked(1 + int.from_bytes(key[:5], "little")) as locked:
            start = None
            if locked:
                with suppress(OSError):  # such as a limit on the size of files
                    start = self._find_or_append(key, size)
            if start is not None:
                if os.pread(self._fd, KEY, start - PAGE) != key:
                    paint(np.frombuffer(mmap.mmap(self._fd, size, mmap.MAP_SHARED, offset=start), np.uint8))
                    os.pwrite(self._fd, key, start - PAGE)
                return np.frombuffer(mmap.mmap(self._fd, size, mmap.MAP_PRIVATE, offset=start), np.uint8)
        return paint_privately(size, paint)

    @contextmanager
    def _locked(self, number: int) -> Iterator[bool]:
        """Lock a byte of the file; gives False after ``LOCK_TIMEOUT``. The system releases a dead process's locks."""
        deadline = time.monotonic() + LOCK_TIMEOUT
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

    def _find_or_append(self, key: bytes, size: int) -> int | None:
        """
        Offset of a raster [bytes], found or appended; None if the file is full or the lock is not to be had.

        Records without a key are skipped: their painter died, or is painting now and holds that raster's lock.
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
            if start + PAGE + _whole_pages(size) > MAX_FILE_SIZE:
                return None
            # One call writes the size, so that a record is complete or not there. ``get`` writes the key last.
            os.pwrite(self._fd, bytes(KEY) + size.to_bytes(8, "little"), start)
            os.ftruncate(self._fd, start + PAGE + _whole_pages(size))
            return start + PAGE


def _whole_pages(size: int) -> int:
    return -(-size // PAGE) * PAGE
