"""What a client has painted the town's objects with: colour and contrast by the object's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["LAYERS", "MAX_CONTRAST", "OBJECTS", "Look"]

OBJECTS = (
    "Road", "Sidewalk", "RoadLines_White", "RoadLines_Yellow", "Terrain", "Buildings", "Walls", "Vegetation", "Sky",
)  # fmt: skip
"""Names of the objects of every town that can be painted."""
MAX_CONTRAST = 60.0
"""Greatest standard deviation of an object's grey level."""
LAYERS = 0xFFFF
"""All bits of ``carla.MapLayer``."""


@dataclass(frozen=True)
class Look:
    """
    How the objects of a town look, where that differs from the town's own look. Equal looks have equal hashes.

    :param colors: mean colour by the object's name: blue, green, red, 0 to 255, in clear daylight
    :param contrasts: standard deviation of the grey level by the object's name, 0 to ``MAX_CONTRAST``
    """

    colors: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    contrasts: Mapping[str, float] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.colors.items())), tuple(sorted(self.contrasts.items()))))

    def painted(self, names: Sequence[str], color: tuple[float, float, float], contrast: float) -> Look:
        """
        :param names: of objects; those that no town has are left out
        :param color: mean colour: blue, green, red, 0 to 255
        :param contrast: standard deviation of the grey level; more than ``MAX_CONTRAST`` counts as that
        :return: this look with these objects painted
        """
        known = [name for name in names if name in OBJECTS]
        contrast = min(max(contrast, 0.0), MAX_CONTRAST)
        return Look(
            {**self.colors, **dict.fromkeys(known, color)}, {**self.contrasts, **dict.fromkeys(known, contrast)}
        )
