"""Versions of Python and of the packages that a result depends on."""

from __future__ import annotations

import importlib.metadata
import platform

__all__ = ["versions"]

PACKAGES = ("sb3-carla", "carla", "gymnasium", "numpy", "opencv-python", "rl-zoo3", "stable-baselines3", "torch")


def versions() -> dict[str, str]:
    """
    :return: package -> version, and "python"
    """
    return {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
