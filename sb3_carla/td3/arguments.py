"""What the arguments of :class:`sb3_carla.TD3` must be."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_carla.checks import check_whole

__all__ = ["check_noise", "check_random_shift"]


def check_noise(name: str, value: object) -> None:
    """
    :param name: of the argument
    :param value: standard deviation at the start, at the end, and after how many steps the end is reached
    :raises ValueError: if it is something else, or a standard deviation is negative, or the steps are less than 1
    """
    parts = value if isinstance(value, Sequence) else ()
    fine = len(parts) == 3 and all(isinstance(part, numbers.Real) and 0.0 <= float(part) < math.inf for part in parts)
    if not fine or parts[2] < 1:
        raise ValueError(f"{name}: expected (start, end, steps), at least 0, 0 and 1, got {value!r}")


def check_random_shift(shift: object, space: spaces.Space[Any], *, normalized_image: bool) -> None:
    """
    :param shift: the argument ``random_shift`` [px]
    :param space: of the observations
    :param normalized_image: the images are not to be scaled
    :raises ValueError: if it is no whole number of at least 0, or there are no images that it can shift
    """
    check_whole("random_shift", shift, 0)
    assert isinstance(shift, int)
    if shift == 0:
        return
    if not is_image_space(space, check_channels=False, normalized_image=normalized_image):
        raise ValueError(
            "random_shift: expected images to shift, uint8 in 0 to 255 or with normalize_images=False in "
            f"policy_kwargs, got {space}"
        )
    assert space.shape is not None
    if shift >= min(space.shape[1:]):
        raise ValueError(f"random_shift: expected less than the image's sides, got {shift} on {space}")
