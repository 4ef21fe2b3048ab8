"""Kerbs: the upright faces between a carriageway and its pavements. From a car they are the edge of the road."""

from __future__ import annotations

from collections.abc import Sequence

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.lane_strips import PAVEMENTS, LaneStrip
from sb3_carla.simulator.rendering.mesh import Mesh, Pattern

__all__ = ["kerbs"]

LONGEST = 6.0
"""Length of a face on a straight street [m]."""
SAGITTA = 0.04
"""In a bend a face may be so far from the kerb's line [m]."""
TAG = int(carla.CityObjectLabel.Sidewalks)


def kerbs(strips: Sequence[LaneStrip], rng: np.random.Generator) -> Mesh | None:
    """
    Faces along the inner edges of all pavements, which look at the road.

    :param strips: lanes of the town
    :param rng: for their height and colour: one for a town
    :return: None if there are no pavements
    """
    height, grey = rng.uniform(0.10, 0.20), rng.uniform(60.0, 190.0)
    lines = [_pieces(strip) for strip in strips if strip.kind in PAVEMENTS and len(strip.inner) > 1]
    if not lines:
        return None
    # (n, 2, 3): left and right end of each face as seen from the road: x, y, height of the ground [m]
    ends = np.concatenate(lines)
    ends = ends[np.linalg.norm(ends[:, 1, :2] - ends[:, 0, :2], axis=1) > 0.05]
    count = len(ends)
    corners = np.zeros((count, 4, 3), np.float32)
    corners[:, 0, :2] = corners[:, 3, :2] = ends[:, 0, :2]
    corners[:, 1, :2] = corners[:, 2, :2] = ends[:, 1, :2]
    corners[:, 2:, 2] = height
    size = np.stack([np.linalg.norm(ends[:, 1, :2] - ends[:, 0, :2], axis=1), np.full(count, height)], axis=1)
    color = grey * 1.02, grey, grey * 0.98
    base = ends[:, 0, 2].astype(np.float32)
    return Mesh.of_faces(corners, size.astype(np.float32), color, TAG, base=base, pattern=Pattern.PLANKS)


def _pieces(strip: LaneStrip) -> NDArray[np.float64]:
    """Ends of the faces along one strip: shape (n, 2, 3)."""
    line = np.column_stack([strip.inner, strip.heights])  # (k, 3)
    kept = [0]
    for last in range(1, len(line)):
        first = kept[-1]
        chord = line[last, :2] - line[first, :2]
        length = float(np.hypot(*chord))
        between = line[first + 1 : last, :2] - line[first, :2]
        # Distance of the points in between from the chord.
        bulge = np.abs(between[:, 0] * chord[1] - between[:, 1] * chord[0]).max(initial=0.0) / max(length, 1e-6)
        if last - first > 1 and (length > LONGEST or bulge > SAGITTA):
            kept.append(last - 1)
    kept.append(len(line) - 1)
    points = line[kept]
    ends = np.stack([points[:-1], points[1:]], axis=1)
    # Right of the direction in which the road sees the pavement; the axes are left-handed.
    middle = len(line) // 2
    outwards = strip.outer[middle] - strip.inner[middle]
    along = line[middle, :2] - line[middle - 1, :2]
    to_the_right = along[0] * -outwards[1] + along[1] * outwards[0] > 0.0
    return ends if to_the_right else ends[:, ::-1]
