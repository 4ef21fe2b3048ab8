"""Where a result comes from: what was called, when, and with which versions."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from datetime import datetime, timezone
from typing import Any

__all__ = ["provenance", "versions"]

PACKAGES = ("sb3-carla", "carla", "gymnasium", "numpy", "opencv-python", "rl-zoo3", "stable-baselines3", "torch")


def provenance() -> dict[str, Any]:
    """
    :return: ``command``, ``date`` (UTC) and ``versions``, as every published number needs them
    """
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"command": " ".join(sys.orig_argv), "date": date, "versions": versions()}


def versions() -> dict[str, str]:
    """
    :return: of Python and of the packages that a result depends on
    """
    return {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
