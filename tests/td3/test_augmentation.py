"""Random shift against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th

from sb3_carla.td3.augmentation import random_shift


@pytest.mark.parametrize("dtype", [th.uint8, th.float32])
def test_equals_padding_and_cropping_one_by_one(dtype: th.dtype) -> None:
    images = th.randint(0, 256, (6, 3, 10, 12)).to(dtype)
    shifted = random_shift(images, 2, th.Generator().manual_seed(3))
    shifts = th.randint(0, 5, (2, 6), generator=th.Generator().manual_seed(3))
    for image, result, row, column in zip(images.numpy(), shifted.numpy(), *shifts.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="edge")
        np.testing.assert_array_equal(result, padded[:, row : row + 10, column : column + 12])
    assert shifted.dtype == dtype
    assert shifted.is_contiguous()


def test_every_shift_occurs_and_all_channels_move_together() -> None:
    image = th.arange(64.0).reshape(1, 1, 8, 8).expand(400, 2, 8, 8)
    shifted = random_shift(image, 1)
    assert len({tuple(one[0].flatten().tolist()) for one in shifted}) == 9
    assert th.equal(shifted[:, 0], shifted[:, 1])


def test_no_shift_and_bad_input() -> None:
    images = th.zeros(2, 1, 5, 5)
    assert random_shift(images, 0) is images
    with pytest.raises(ValueError, match="expected images of shape"):
        random_shift(images[0], 1)
