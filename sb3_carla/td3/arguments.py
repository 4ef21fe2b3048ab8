"""What the arguments of :class:`sb3_carla.TD3` must be."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

__all__ = ["check_noise"]


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
