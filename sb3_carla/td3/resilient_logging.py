"""A full disk does not end a training: log entries that cannot be written are lost, with a warning."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from typing import Any

from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
from torch.utils.tensorboard.writer import FileWriter

__all__ = ["RETRY_PAUSE", "make_resilient"]

logger = logging.getLogger(__name__)

RETRY_PAUSE = 60.0
"""Time after a failed write until a new TensorBoard file is tried [s]."""
ROOM = 1 << 20
"""Free disk space that a new file needs [bytes]."""


def make_resilient(log: Logger) -> None:
    """
    Make a logger's outputs warn instead of raising when the disk is full.

    SB3's outputs raise ``OSError``, and TensorBoard's writer raises it again at every later call. With this, they warn
    once each time the disk fills up, and TensorBoard's writer continues in a new file in the same folder.

    :param log: its outputs are changed in place; a second call changes nothing
    """
    for output in log.output_formats:
        if isinstance(output, TensorBoardOutputFormat):
            files = output.writer.file_writer
            if files is not None and not isinstance(files.event_writer, _Events):
                files.event_writer = _Events(files.event_writer)
        elif not isinstance(output.write, _Write):
            output.write = _Write(output.write)  # type: ignore[method-assign]


class _Write:
    """Replaces an output's ``write``: warns if it fails. A closed pipe (stdout) still ends the training."""

    def __init__(self, write: Callable[..., None]) -> None:
        self._write, self._failed = write, False

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        try:
            self._write(*args, **kwargs)
        except BrokenPipeError:
            raise
        except OSError as error:
            if not self._failed:
                logger.warning("The log cannot be written, the training continues without it: %s", error)
            self._failed = True
        else:
            self._failed = False


class _Events:
    """
    Wraps TensorBoard's ``EventFileWriter``. After a failed write it begins a new file.

    :param events: the first writer
    """

    def __init__(self, events: Any) -> None:
        self._events: Any = events
        self._folder = events.get_logdir()
        self._retry_at = 0.0

    def get_logdir(self) -> str:
        """:return: folder of the event files"""
        return str(self._folder)

    def add_event(self, event: Any) -> None:
        """:param event: protocol buffer. It is lost if it cannot be written"""
        self._try("add_event", event)

    def flush(self) -> None:
        """Write all events that were added."""
        self._try("flush")

    def reopen(self) -> None:
        """Begin a new file."""
        self._try("reopen")

    def close(self) -> None:
        """Write all events that were added, and close the file."""
        if self._events is not None:
            self._try("close")

    def _try(self, method: str, *args: Any) -> None:
        if self._events is None and not self._begin_anew():
            return
        try:
            getattr(self._events, method)(*args)
        except OSError as error:
            logger.warning(
                "TensorBoard's log cannot be written, training continues without it for %g s: %s",
                RETRY_PAUSE,
                error,
            )
            self._give_up()

    def _give_up(self) -> None:
        events, self._events = self._events, None
        self._retry_at = time.monotonic() + RETRY_PAUSE
        with contextlib.suppress(OSError):
            events.close()

    def _begin_anew(self) -> bool:
        if time.monotonic() < self._retry_at:
            return False
        self._retry_at = time.monotonic() + RETRY_PAUSE
        before = set()
        try:
            before = set(os.listdir(self._folder))
            if shutil.disk_usage(self._folder).free < ROOM:
                return False
            self._events = FileWriter(self._folder).event_writer
        except OSError:
            with contextlib.suppress(OSError):
                for name in set(os.listdir(self._folder)) - before:
                    if name.startswith("events.") and f".{os.getpid()}." in name:
                        os.unlink(os.path.join(self._folder, name))
            return False
        logger.warning("TensorBoard's log continues in a new file")
        return True
