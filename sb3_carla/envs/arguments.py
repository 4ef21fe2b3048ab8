"""Checks of the environment's arguments. Every error names the argument, what was expected and what was given."""

from __future__ import annotations

import itertools
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

from sb3_carla.checks import check_positive, check_whole
from sb3_carla.envs.towns import expand_towns

__all__ = [
    "check_route_length",
    "check_scenario",
    "frame_ages",
    "image_shape",
    "town_names",
    "weather_choices",
]


def frame_ages(value: Any) -> tuple[int, ...]:
    """
    :param value: the argument ``frame_stack``: the number of the last frames in an observation, or the age of each
        [decisions], oldest first
    :return: the ages
    :raises ValueError: if it is neither; ages are whole numbers that fall to 0
    """
    if not isinstance(value, str | bytes) and isinstance(value, Sequence):
        for age in value:
            check_whole("frame_stack", age, 0)
        if not value or value[-1] != 0 or any(a <= b for a, b in itertools.pairwise(value)):
            raise ValueError(f"frame_stack: expected ages that fall to 0, such as [3, 2, 1, 0], got {value!r}")
        return tuple(value)
    check_whole("frame_stack", value, 1)
    return tuple(range(int(value) - 1, -1, -1))


def image_shape(value: Any) -> tuple[int, int]:
    """
    :param value: the argument ``image_size``: height and width [px]
    :return: the two
    :raises ValueError: if it is not a pair of whole numbers of at least 8
    """
    if not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"image_size: expected (height, width), each at least 8 px, got {value!r}")
    for length in value:
        check_whole("image_size", length, 8)
    return value[0], value[1]


def check_route_length(value: object) -> None:
    """
    :param value: length of a route [m]
    :raises ValueError: if it is not a finite number of at least 20
    """
    check_positive(route_length=value)
    if float(value) < 20.0:  # type: ignore[arg-type]
        raise ValueError(f"route_length: expected at least 20 m, got {value!r}")


def check_scenario(value: object) -> None:
    """
    :param value: number of a scenario, or None for any
    :raises ValueError: if it is neither None nor a whole number of at least 0
    """
    if value is not None:
        check_whole("scenario", value, 0)


def town_names(towns: str | Sequence[str]) -> list[str]:
    """
    :param towns: one or several names, paths, or names of sets
    :return: all the towns, see :func:`sb3_carla.envs.towns.expand_towns`. Paths are absolute, because the server runs
        in another folder and this process may change its own
    :raises ValueError: if the list is empty, or an item is not a text
    """
    names = _listed(towns, str)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"town: expected a name, a path or a list of these, got {towns!r}")
    return [os.path.abspath(name) if name.endswith(".xodr") else name for name in expand_towns(names)]


def weather_choices(weather: Any) -> list[str | Mapping[str, float]]:
    """
    :param weather: one or several presets of ``carla.WeatherParameters``, or mappings of its parameters
    :return: all of them
    :raises ValueError: if the list is empty, an item is neither preset nor mapping, or a parameter is not a number
    """
    choices = _listed(weather, (str, Mapping))
    if not choices or not all(isinstance(choice, (str, Mapping)) for choice in choices):
        raise ValueError(f"weather: expected a preset, a mapping or a list of these, got {weather!r}")
    for choice in choices:
        for name, value in choice.items() if isinstance(choice, Mapping) else ():
            if not (isinstance(value, numbers.Real) and math.isfinite(value)):
                raise ValueError(f"weather: {name}: expected a number, got {value!r}")
    return choices


def _listed(value: Any, single: type | tuple[type, ...]) -> list[Any]:
    if isinstance(value, single) or not isinstance(value, Sequence):
        return [value]
    return list(value)
