"""Mixtures of words, and where a picture has ground and sky, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
from small_towns import straight_town

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering import picture
from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.inverse_perspective import pose_over_plane
from sb3_carla.simulator.rendering.weather import Weather

BLACK, WHITE = 0, 0xFFFFFFFF
TEXELS = np.array((BLACK, WHITE, 0x04030201, WHITE), np.uint32)  # two rows of two


def between(across: int, down: int) -> tuple[int, int, int, int]:
    """Bytes of the mixture of ``TEXELS``; places are in sixteenths."""
    return picture._lanes(picture._between(TEXELS, 0, 2, across, down))


def test_each_byte_is_interpolated_by_itself() -> None:
    assert between(0, 0) == (0, 0, 0, 0)
    assert between(8, 0) == (128, 128, 128, 128)  # 255 / 2, rounded
    assert between(4, 0) == (64, 64, 64, 64)  # 63.75
    assert between(0, 8) == (1, 1, 2, 2)  # halves of 1, 2, 3, 4: 0.5 and 1.5 are rounded up
    assert between(0, 16) == (1, 2, 3, 4)
    assert between(16, 16) == (255, 255, 255, 255)  # the greatest sum does not spill into the next byte
    # (1/2 of the row above + 1/2 of the row below): (127.5 + (1 + 255) / 2) / 2 = 127.75
    assert between(8, 8)[0] == 128


def test_a_rolled_camera_sees_ground_beside_the_sky() -> None:
    """Right side down by 0.3 rad: in the row of the axis the ground begins left of the middle."""
    town, camera = straight_town(), Camera(84, 84, math.pi / 2.0)
    pose, ground = Pose(x=50.0, y=1.75, z=2.0, roll=0.3), Ground(0.0)
    depth = camera._view(pose_over_plane(pose, ground), town.raster).ground.depth
    image = camera.render(town, pose, ground, Weather()).astype(int)
    row = 41
    on_ground = np.isfinite(depth[row])
    assert 20 < on_ground.sum() < 64
    bluish = image[row, :, 0] - image[row, :, 2]  # blue minus red: the sky is blue, the ground is not
    assert bluish[~on_ground].mean() > 15.0
    assert bluish[on_ground].mean() < 5.0
