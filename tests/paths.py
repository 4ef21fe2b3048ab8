"""Where things are, for tests in every room."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PICTURES", "REAL_MAPS", "ROOT", "TESTS"]

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PICTURES = ROOT.parent / "shared" / "carla_pictures"
"""Pictures that a CARLA server of Unreal made. Tests that need them skip where the folder is absent."""
REAL_MAPS = ROOT.parent / "shared" / "maps"
"""CARLA's own towns. Tests that need them skip where the folder is absent."""
