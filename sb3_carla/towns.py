"""Names of the towns that come in the package, and which of them training never sees."""

from __future__ import annotations

__all__ = ["BUILT_IN_TOWNS", "HELD_OUT_TOWNS", "TRAINING_TOWNS"]

TRAINING_TOWNS: tuple[str, ...] = (
    "Circuit01",
    "Circuit02",
    "Circuit03",
    "Circuit04",
    "Circuit05",
    "Circuit09",
    "Village01",
    "Village02",
    "Village04",
    "Village05",
    "Village06",
    "Village07",
)
"""Towns to train on."""

HELD_OUT_TOWNS: tuple[str, ...] = ("Circuit06", "Circuit07", "Circuit08", "Village03", "Village08", "Village09")
"""Towns to evaluate on: other seeds, and styles that overlap with those of training without being the same."""

BUILT_IN_TOWNS: tuple[str, ...] = TRAINING_TOWNS + HELD_OUT_TOWNS
"""Every town that needs no file."""
