"""Messages to the person who runs the server, on stderr: stdout holds the one line that says where it listens."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["log"]


def log(message: str) -> None:
    """
    Print one line; a closed stderr is no reason to stop.

    :param message: without line breaks
    """
    with contextlib.suppress(OSError, ValueError):
        print(f"sb3_carla.server: {message}", file=sys.stderr, flush=True)
