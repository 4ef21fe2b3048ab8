"""Exposure and noise of the frames, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.envs.image_noise import ImageNoise
from sb3_carla.envs.randomization import Light, Noise

SHAPE = (84, 84)
MOUNT = CameraMount(width=84, height=84)
GREY = np.full(SHAPE, 100, np.uint8)
NOISE = Noise(sigma=0.0, blur=0.0, vignette=0.0, jpeg_quality=0, hidden=0.0, bonnet=-1, seed=1)


def frames(light: Light | None, noise: Noise | None, frame: np.ndarray = GREY, count: int = 1) -> list[np.ndarray]:
    change = ImageNoise(light, noise, MOUNT, frame_seconds=0.2)
    return [change(frame.copy()) for _ in range(count)]


def test_nothing_is_drawn_nothing_changes() -> None:
    frame = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    for noise in (None, NOISE):
        np.testing.assert_array_equal(frames(None, noise, frame)[0], frame)


def test_gain_gamma_and_clipping() -> None:
    def exposed(gain: float, gamma: float) -> int:
        (frame,) = frames(Light(gain, gamma, 0.0, 10.0, 0.0), None)
        assert frame.min() == frame.max()
        return int(frame[0, 0])

    assert exposed(1.0, 1.0) == 100
    assert exposed(1.5, 1.0) == 150
    assert exposed(0.5, 2.0) == round(255 * (50 / 255) ** 2)
    assert exposed(1.8, 0.6) == round(255 * (180 / 255) ** 0.6)
    assert exposed(3.0, 1.0) == 255


def test_gain_drifts_as_a_sine() -> None:
    seen = frames(Light(1.0, 1.0, 0.2, 4.0, 0.0), None, count=21)  # 4 s
    levels = [int(frame[0, 0]) for frame in seen]
    assert levels[0] == levels[10] == levels[20] == 100
    assert levels[5] == round(100 * math.exp(0.2))
    assert levels[15] == round(100 * math.exp(-0.2))


def test_noise_is_white_new_in_each_frame_and_repeatable() -> None:
    first, second = frames(None, NOISE._replace(sigma=8.0), count=2)
    assert first.std() == pytest.approx(8.0, rel=0.05)
    assert first.mean() == pytest.approx(100.0, abs=0.5)
    assert np.corrcoef(first[:, 1:].ravel(), first[:, :-1].ravel())[0, 1] == pytest.approx(0.0, abs=0.05)
    assert (first != second).mean() > 0.8
    np.testing.assert_array_equal(frames(None, NOISE._replace(sigma=8.0), count=2), [first, second])


def test_blur_vignette_and_compression() -> None:
    edge = np.repeat(np.where(np.arange(84) < 42, 0, 200).astype(np.uint8)[None], 84, axis=0)
    sharp, soft = (
        np.abs(np.diff(frames(None, NOISE._replace(blur=b), edge)[0][40].astype(int))).max() for b in (0.1, 1)
    )
    assert sharp == 200
    # A Gaussian of 1 px takes the step over two pixels: 200 erf(0.5 / sqrt(2)) = 77
    assert soft == pytest.approx(200.0 * math.erf(0.5 / math.sqrt(2.0)), rel=0.1)
    (dim,) = frames(None, NOISE._replace(vignette=0.4))
    assert dim[0, 0] == dim[-1, -1] == 60
    assert dim[42, 42] == 100
    (squeezed,) = frames(None, NOISE._replace(jpeg_quality=20, vignette=0.4))
    assert 0 < np.abs(squeezed.astype(int) - dim).max() < 20


def test_bonnet_hides_the_lower_edge() -> None:
    frame = ImageNoise(None, NOISE._replace(hidden=0.25, bonnet=30), MOUNT, frame_seconds=0.2)(GREY)
    assert (frame[:63] == 100).all()  # a quarter of 84 rows: 63 to 83
    assert (frame[-1, 20:64] == 30).all()
    assert frame[63, 0] == 100  # the bonnet is highest in the middle
    assert frame[64, 42] == 30


def test_stretched_lower_edge_keeps_distances_to_the_side() -> None:
    frame = np.zeros(SHAPE, np.uint8)
    # Camera at 15 degrees down, focal length 42: row r looks down by atan((r - 41.5) / 42) + 15 degrees.
    frame[62, 61:] = 200  # what lies more than 19 pixels right of the middle in the last row that is seen
    stretched = ImageNoise(None, NOISE._replace(hidden=0.25), MOUNT, frame_seconds=0.2)(frame)
    slope = [math.tan(math.atan((row - 41.5) / 41.5) + math.radians(15.0)) for row in (62, 83)]
    edge = 41.5 + 19.0 * slope[1] / slope[0]
    assert stretched[83, math.floor(edge) - 1] < 100 <= stretched[83, math.ceil(edge) + 1]
