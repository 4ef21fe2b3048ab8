"""Exposure and noise of the frames, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sb3_carla.envs.image_noise import ImageNoise
from sb3_carla.envs.randomization import Light, Noise

SHAPE = (84, 84)
GREY = np.full(SHAPE, 100, np.uint8)
NOISE = Noise(sigma=0.0, blur=0.0, vignette=0.0, jpeg_quality=0, seed=1)


def frames(light: Light | None, noise: Noise | None, frame: np.ndarray = GREY, count: int = 1) -> list[np.ndarray]:
    change = ImageNoise(light, noise, SHAPE, frame_seconds=0.2)
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
