"""Checks of numeric arguments; each error names the argument, what was expected and what was given."""

from __future__ import annotations

import math
import numbers

__all__ = ["check_limits", "check_positive", "check_whole"]


def check_whole(name: str, value: object, least: int) -> None:
    """
    :param name: of the argument
    :param value: of the argument
    :param least: smallest allowed value
    :raises ValueError: if the value is no integer, or too small
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")


def check_positive(**values: object) -> None:
    """
    :param values: of arguments, by name
    :raises ValueError: if one is not a finite number above 0
    """
    for name, value in values.items():
        if not (isinstance(value, numbers.Real) and 0.0 < float(value) < math.inf):
            raise ValueError(f"{name}: expected a finite positive number, got {value!r}")


def check_limits(**values: object) -> None:
    """
    :param values: of arguments, by name; None is no limit
    :raises ValueError: if one is neither None nor a finite number above 0
    """
    check_positive(**{name: value for name, value in values.items() if value is not None})
