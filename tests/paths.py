"""Where things are, for tests in every room."""

from __future__ import annotations

from pathlib import Path

__all__ = ["REAL_MAPS", "ROOT", "TESTS"]

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
REAL_MAPS = ROOT.parent / "shared" / "maps"
"""CARLA's own towns. Tests that need them skip where the folder is absent."""
