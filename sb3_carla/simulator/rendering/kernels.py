"""How the kernels of the rendering are compiled, by numba."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

__all__ = ["VERSION", "inlined", "kernel"]

# What numba keeps on disk is thrown away when the function's own file changes, not when a function that it calls does.
_SOURCES = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
VERSION = f"version_{zlib.crc32(_SOURCES):08x}", "i8"
"""
Field without use. Its name changes with any file of this folder: a kernel that gets a record with it is compiled anew.
Kernels that call those of another file must have one.
"""

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """
    Compile a function at its first call. The result is kept on disk, where a folder for it can be written to.

    Arrays are not counted as used while they are read (``_nrt``): kernels make none, and the counting takes a tenth of
    the time.

    :param function: to compile; divisions by zero give infinity in it, as in numpy
    """
    return _compiled(function)


def inlined(function: Function) -> Function:
    """
    As :func:`kernel`, for small parts of other kernels: a call would pass every array as seven words on the stack.

    :param function: to compile into those that call it
    """
    return _compiled(function, forceinline=True)


def _compiled(function: Function, **options: bool) -> Function:
    try:
        return cast(Function, njit(cache=True, error_model="numpy", _nrt=False, **options)(function))  # type: ignore[call-overload]
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return cast(Function, njit(error_model="numpy", _nrt=False, **options)(function))  # type: ignore[call-overload]
