"""
Arrays on disk, cut into chunks that are named after their SHA-256.

Storing an array that has changed a little writes the changed chunks only, and arrays share equal chunks. Zarr and HDF5
have chunks too, but would write each of them once per checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sb3_carla.errors import CheckpointError

__all__ = ["ChunkStore", "flush_to_disk", "sha256"]

CHUNK_SIZE = 4 * 2**20
"""Size of a chunk; the last one of an array may be smaller [bytes]."""


class ChunkStore:
    """
    Chunks of arrays, one file each.

    :param folder: made by the first :meth:`write`
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._intact: set[str] = set()  # chunks that this object has written or verified
        self._new: list[Path] = []  # files written since the last commit

    def write(self, array: memoryview) -> tuple[int, list[str]]:
        """
        Write those chunks of an array that are missing or damaged.

        :param array: contiguous bytes
        :return: size [bytes], names of the chunks in order
        :raises OSError: if the disk is full, for example
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        names = []
        for start in range(0, array.nbytes, CHUNK_SIZE):
            chunk = array[start : start + CHUNK_SIZE]
            name = sha256(chunk)
            path = self.folder / name
            if not (path.exists() and (name in self._intact or _is_intact(path))):
                draft = path.with_suffix(".draft")
                self._new += [draft] if path.exists() else [draft, path]
                draft.write_bytes(chunk)
                flush_to_disk(draft)
                draft.rename(path)
            self._intact.add(name)
            names.append(name)
        return array.nbytes, names

    def read(self, size: int, names: Iterable[str]) -> bytearray:
        """
        :param size: of the array [bytes]
        :param names: of its chunks, as :meth:`write` returned them
        :return: the array
        :raises CheckpointError: if a chunk is damaged; its file is renamed, so that the next save writes it again
        :raises OSError: if a chunk is missing
        """
        array, start = bytearray(size), 0
        for name in names:
            chunk = (self.folder / name).read_bytes()
            if sha256(chunk) != name:
                with contextlib.suppress(OSError):
                    (self.folder / name).rename(self.folder / f"{name}.damaged")
                raise CheckpointError(f"{self.folder / name} is damaged: its checksum is not its name.")
            array[start : start + len(chunk)] = chunk
            start += len(chunk)
        if start != size:
            raise CheckpointError(f"{self.folder}: expected an array of {size} bytes, its chunks have {start}.")
        return array

    def commit(self) -> None:
        """Keep what was written since the last commit."""
        self._new.clear()

    def roll_back(self) -> None:
        """Delete what was written since the last commit."""
        for path in self._new:
            path.unlink(missing_ok=True)
        self._new.clear()

    def delete_all_but(self, needed: set[str]) -> None:
        """:param needed: names of the chunks that stay"""
        for path in self.folder.iterdir():
            if path.name not in needed:
                path.unlink()


def _is_intact(chunk: Path) -> bool:
    try:
        return sha256(chunk.read_bytes()) == chunk.name
    except OSError:
        return False


def sha256(content: Any) -> str:
    """
    :param content: bytes, or anything with a buffer
    :return: SHA-256 in hexadecimal
    """
    return hashlib.sha256(content).hexdigest()


def flush_to_disk(path: Path) -> None:
    """
    Wait until a file's content, or a folder's entries, are on the disk (``fsync``).

    :param path: of a file or folder
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
