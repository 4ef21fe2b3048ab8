"""Where a replay buffer's frames are: in memory, in a memory-mapped file, or on a PyTorch device."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

__all__ = ["FrameStorage"]


class FrameStorage:
    """
    An array of frames, shape (rows, pixels).

    A file is made with its full size when the first frame is written. A pickled storage does not contain its file: it
    goes on in it, or in a copy while another storage still uses it.

    :param shape: rows, pixels
    :param dtype: of the pixels
    :param folder: of the file, made if it is not there; None: no file
    :param on_device: a tensor on the device that :meth:`rows` names; excludes ``folder``
    :raises ValueError: if the frames are to be in two places
    """

    def __init__(
        self, shape: tuple[int, int], dtype: npt.DTypeLike, *, folder: str | None = None, on_device: bool = False
    ) -> None:
        if on_device and folder is not None:
            raise ValueError(f"expected storage or on_device, got both: {folder!r} and True")
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._folder = None if folder is None else Path(folder)
        self._on_device = on_device
        self._file: Path | None = None
        self._overwritten = False
        self._rows: Any = None if folder is not None else np.zeros(shape, dtype)

    @property
    def nbytes(self) -> int:
        """Size of all frames [bytes]."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def rows(self, device: th.device, *, filled: bool) -> Any:
        """
        :param device: for ``on_device``
        :param filled: frames have been written before
        :return: shape (rows, pixels): array, or tensor with ``on_device``
        :raises FileNotFoundError: if frames were written, and their file is gone
        :raises ValueError: if another storage has overwritten them since this one was pickled
        """
        if self._overwritten:
            raise ValueError(f"FrameReplayBuffer: expected frames of when it was saved in {self._file}, got later ones")
        if self._rows is None:
            if filled:
                raise FileNotFoundError(f"FrameReplayBuffer: expected its frames in {self._file}, which is gone")
            self._rows = self._allocate_file()
        if self._on_device and not isinstance(self._rows, th.Tensor):
            self._rows = th.from_numpy(self._rows).to(device)
        return self._rows

    @property
    def file_contents(self) -> npt.NDArray[Any] | None:
        """The frames that are in a file, for a checkpoint; None where they are elsewhere."""
        return np.asarray(self._rows) if isinstance(self._rows, np.memmap) else None

    def put_back(self, frames: npt.NDArray[Any]) -> None:
        """
        Write all frames of a checkpoint, to a new file if the old one is gone.

        :param frames: :attr:`file_contents` of when it was saved: shape (rows, pixels)
        """
        if self._rows is None:
            self._rows = self._allocate_file()
        self._rows[:] = frames
        self._overwritten = False

    def _allocate_file(self) -> Any:
        assert self._folder is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="frames-", suffix=".npy", dir=self._folder)
        self._file = Path(name).absolute()
        self._lock(handle)
        try:
            frames = np.lib.format.open_memmap(self._file, "w+", self.dtype, self.shape)
            # Reserves all blocks. Otherwise a disk that fills up later ends the process with SIGBUS, without a message.
            os.posix_fallocate(handle, 0, self._file.stat().st_size)
        except OSError as error:
            self._file.unlink()
            free = shutil.disk_usage(self._folder).free
            wanted = f"expected room for {self.nbytes / 1e9:.3g} GB of frames in {self._folder}"
            raise OSError(
                error.errno, f"FrameReplayBuffer: {wanted}, {free / 1e9:.3g} GB are free: {error.strerror}"
            ) from error
        return frames

    def _lock(self, handle: int) -> bool:
        """Lock an open file for as long as this storage lives; False where another storage has it."""
        weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # also where the file system has no locks
            return False
        return True

    # --- pickling ----------------------------------------------------------------------------------------------

    def digests(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[bytes]:
        """
        :param rows: of frames that are overwritten first when the storage goes on
        :return: a digest of each, for :meth:`check_digests`; empty where the frames are pickled themselves
        """
        if not isinstance(self._rows, np.memmap):
            return []
        return [blake2b(frame).digest() for frame in self._rows[rows]]

    def check_digests(self, rows: Sequence[int] | npt.NDArray[np.int64], digests: list[bytes]) -> None:
        """
        After unpickling: notice that the file has other frames by now.

        :param rows: as for :meth:`digests` when it was pickled
        :param digests: what it returned
        """
        self._overwritten = bool(digests) and self._rows is not None and digests != self.digests(rows)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if isinstance(self._rows, np.memmap):
            self._rows.flush()
            state["_rows"] = None  # they stay in the file
        elif isinstance(self._rows, th.Tensor):
            state["_rows"] = self._rows.cpu().numpy()  # whatever device it gets when it is loaded
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._file is not None and self._file.exists():
            self._rows = frames = np.lib.format.open_memmap(self._file, "r+")
            if not self._lock(os.open(self._file, os.O_RDWR)):
                self._rows = self._allocate_file()
                self._rows[:] = frames
