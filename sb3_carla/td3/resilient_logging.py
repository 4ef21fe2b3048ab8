"""A training's log that outlives a full disk: what cannot be written is lost, with a warning, and later it goes on."""

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
"""Time after which TensorBoard's file is begun anew [s]."""
ROOM = 1 << 20
"""What must be free for that [bytes]."""


def make_resilient(log: Logger) -> None:
    """
    Let nothing that a logger's outputs cannot write end a training.

    SB3's outputs raise what the disk says, and TensorBoard's writer does so for ever after. Here they warn, once for
    each time that the disk is full, and TensorBoard's goes on in a new file of the same folder.

    :param log: its outputs are changed in place; calling it again changes nothing
    """
    for output in log.output_formats:
        if isinstance(output, TensorBoardOutputFormat):
            files = output.writer.file_writer
            if files is not None and not isinstance(files.event_writer, _Events):
                files.event_writer = _Events(files.event_writer)
        elif not isinstance(output.write, _Write):
            output.write = _Write(output.write)  # type: ignore[method-assign]


class _Write:
    """``write`` of an output: warns where that fails. A pipe that nobody reads any more still ends the training."""

    def __init__(self, write: Callable[..., None]) -> None:
        self._write, self._failed = write, False

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        try:
            self._write(*args, **kwargs)
        except BrokenPipeError:
            raise
        except OSError as error:
            if not self._failed:
                logger.warning("The log cannot be written, the training goes on without: %s", error)
            self._failed = True
        else:
            self._failed = False


class _Events:
    """
    TensorBoard's ``EventFileWriter``, which begins a new file where it could not go on with the last one.

    :param events: to begin with
    """

    def __init__(self, events: Any) -> None:
        self._events: Any = events
        self._folder = events.get_logdir()
        self._retry_at = 0.0

    def get_logdir(self) -> str:
        """Folder of the files."""
        return str(self._folder)

    def add_event(self, event: Any) -> None:
        """:param event: protocol buffer; lost if it cannot be written"""
        self._try("add_event", event)

    def flush(self) -> None:
        """Write what was added."""
        self._try("flush")

    def reopen(self) -> None:
        """Begin a new file."""
        self._try("reopen")

    def close(self) -> None:
        """Write what was added, and end."""
        if self._events is not None:
            self._try("close")

    def _try(self, method: str, *args: Any) -> None:
        if self._events is None and not self._begin_anew():
            return
        try:
            getattr(self._events, method)(*args)
        except OSError as error:
            logger.warning(
                "TensorBoard's log cannot be written, the training goes on without it for %g s: %s", RETRY_PAUSE, error
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
        logger.warning("TensorBoard's log goes on in a new file")
        return True
