"""Messages on stderr; stdout carries only the line that says where the server listens."""

from __future__ import annotations

import contextlib
import sys

__all__ = ["log"]


def log(message: str) -> None:
    """
    Print one line to stderr; errors are ignored, because a closed stderr must not stop the server.

    :param message: without line breaks
    """
    with contextlib.suppress(OSError, ValueError):
        print(f"sb3_carla.server: {message}", file=sys.stderr, flush=True)
