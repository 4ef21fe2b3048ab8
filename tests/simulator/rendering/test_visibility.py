"""Balls in and out of a camera's sight, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.visibility import in_sight

ROOT_2 = math.sqrt(2.0)


@pytest.mark.parametrize(
    ("place", "radius", "seen"),
    [
        ((10.0, 0.0, 0.0), 0.0, True),
        ((-1.0, 0.0, 0.0), 0.9, False),  # behind
        ((-1.0, 0.0, 0.0), 1.1, True),  # reaches past the camera
        # At 90 degrees the edge of the picture is y = x: a ball touches it where (y - x) / sqrt(2) = radius.
        ((10.0, 10.0 + 1.1 * ROOT_2, 0.0), 1.0, False),
        ((10.0, 10.0 + 0.9 * ROOT_2, 0.0), 1.0, True),
        ((10.0, -10.0 - 0.9 * ROOT_2, 0.0), 1.0, True),
        ((10.0, 0.0, 10.0 + 1.1 * ROOT_2), 1.0, False),
        ((10.0, 0.0, -10.0 - 0.9 * ROOT_2), 1.0, True),
    ],
)
def test_ball(place: tuple[float, float, float], radius: float, seen: bool) -> None:
    camera = Camera(840, 840, math.pi / 2.0)  # wide, so that half a pixel at the edge does not matter
    lens = camera._make_lenses(1)
    lens["axes"] = np.eye(3)
    assert in_sight(lens[0], *place, radius) == seen
