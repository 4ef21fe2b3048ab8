"""Poses against CARLA's own transforms."""

from __future__ import annotations

import math

import carla
import numpy as np
import pytest

from sb3_carla.simulator.geometry import Pose, compose, rotation_matrix, wrap_angle
from sb3_carla.simulator.physics.collision import boxes_overlap


def random_pose(rng: np.random.Generator) -> Pose:
    x, y, z = rng.uniform(-50.0, 50.0, 3)
    roll, pitch, yaw = rng.uniform(-1.4, 1.4, 3)
    return Pose(x, y, z, roll, pitch, yaw)


def as_carla(pose: Pose) -> carla.Transform:
    rotation = carla.Rotation(math.degrees(pose.pitch), math.degrees(pose.yaw), math.degrees(pose.roll))
    return carla.Transform(carla.Location(pose.x, pose.y, pose.z), rotation)


@pytest.mark.parametrize("seed", range(5))
def test_rotation_is_that_of_carla(seed: int) -> None:
    pose = random_pose(np.random.default_rng(seed))
    expected = np.array(as_carla(pose).get_matrix())[:3, :3]
    np.testing.assert_allclose(rotation_matrix(pose), expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_composed_pose_is_the_product_of_carlas_matrices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parent, child = random_pose(rng), random_pose(rng)
    expected = np.array(as_carla(parent).get_matrix()) @ np.array(as_carla(child).get_matrix())
    np.testing.assert_allclose(np.array(as_carla(compose(parent, child)).get_matrix()), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("angle", "wrapped"),
    [(0.0, 0.0), (math.pi, -math.pi), (-math.pi, -math.pi), (5.0, 5.0 - 2.0 * math.pi), (7.0, 7.0 - 2.0 * math.pi)],
)
def test_wrapped_angle(angle: float, wrapped: float) -> None:
    assert wrap_angle(angle) == pytest.approx(wrapped)


BOX = (2.0, 1.0, 0.75)


@pytest.mark.parametrize(
    ("other", "touch"),
    [
        (Pose(x=3.9), True),
        (Pose(x=4.1), False),
        (Pose(y=1.9), True),
        (Pose(y=2.1), False),
        (Pose(x=2.9, yaw=math.pi / 2.0), True),
        (Pose(x=3.1, yaw=math.pi / 2.0), False),
        # Corner to corner: only the rotated box's own axes tell them apart.
        (Pose(x=3.9, y=2.2, yaw=math.pi / 4.0), False),
        (Pose(x=3.4, y=2.2, yaw=math.pi / 4.0), True),
        (Pose(z=1.6), False),
        (Pose(z=1.4), True),
    ],
)
def test_boxes(other: Pose, touch: bool) -> None:
    assert boxes_overlap(Pose(), BOX, other, BOX) is touch
    assert boxes_overlap(other, BOX, Pose(), BOX) is touch
