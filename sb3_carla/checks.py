"""Checks of arguments. Every error names the argument, what was expected and what was given."""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = ["check_finite", "check_limits", "check_positive", "check_whole", "from_mapping"]

Options = TypeVar("Options")


def from_mapping(options: type[Options], name: str, values: Mapping[str, Any] | None) -> Options:
    """
    :param options: a dataclass; its ``__post_init__`` checks the values
    :param name: of the argument
    :param values: by field; fields that are not given keep their defaults. None: all defaults
    :return: the instance
    :raises ValueError: if ``values`` is no mapping, a key is not a field, or a value is refused
    """
    known = [field.name for field in dataclasses.fields(options)]  # type: ignore[arg-type]
    if values is not None and not isinstance(values, Mapping):
        raise ValueError(f"{name}: expected a mapping with keys from {', '.join(known)}, got {values!r}")
    for key in values or {}:
        if key not in known:
            (nearest,) = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            raise ValueError(f"{name}: unknown key {key!r}, did you mean {nearest!r}? Known: {', '.join(known)}")
    return options(**(values or {}))


def check_whole(name: str, value: object, least: int) -> None:
    """
    :param name: of the argument
    :param value: what was given
    :param least: smallest allowed value
    :raises ValueError: if it is not a whole number, or smaller than that
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")


def check_finite(**values: object) -> None:
    """
    :param values: by argument
    :raises ValueError: if one is not a finite number
    """
    for name, value in values.items():
        if isinstance(value, bool) or not (isinstance(value, numbers.Real) and math.isfinite(value)):
            raise ValueError(f"{name}: expected a finite number, got {value!r}")


def check_positive(**values: object) -> None:
    """
    :param values: by argument
    :raises ValueError: if one is not a finite number above 0
    """
    for name, value in values.items():
        if not (isinstance(value, numbers.Real) and 0.0 < float(value) < math.inf):
            raise ValueError(f"{name}: expected a finite positive number, got {value!r}")


def check_limits(**values: object) -> None:
    """
    :param values: by argument; None means no limit
    :raises ValueError: if one is neither None nor a finite number above 0
    """
    check_positive(**{name: value for name, value in values.items() if value is not None})
