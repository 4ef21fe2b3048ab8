"""Small helpers for PyTorch that have nothing to do with a particular algorithm."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch as th
from torch import nn

__all__ = ["bf16_is_native", "frozen", "keep_freed_memory"]


def bf16_is_native(device: th.device) -> bool:
    """
    :param device: where the networks are
    :return: True if it multiplies bfloat16 natively: CUDA devices that say so, processors with AVX512-BF16
    """
    if device.type == "cuda":
        return bool(th.cuda.is_bf16_supported(including_emulation=False))
    cpu_info = Path("/proc/cpuinfo")
    return device.type == "cpu" and cpu_info.is_file() and "avx512_bf16" in cpu_info.read_text(encoding="utf-8")


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of ``malloc.h``."""
KEPT = 1 << 30
"""Freed memory that stays with the process [bytes]."""
LARGEST_MMAP_THRESHOLD = 32 << 20
"""The GNU C library refuses a higher one [bytes]."""


def keep_freed_memory() -> bool:
    """
    Let the C library keep up to 1 GiB that was freed, for what is allocated next, instead of giving it back at once.

    PyTorch allocates each result anew on a processor. A train step on images takes and gives back some 20 MB that way,
    thousands of pages, which the kernel must clear each time: a seventh of the step's time. The setting is the whole
    process's, and stays. Who has set ``MALLOC_...`` variables or ``GLIBC_TUNABLES`` keeps their own.

    Source: ``mallopt(3)``.

    :return: True if it was done; other C libraries than GNU's have no such settings
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return mallopt is not None and all(
        [mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD), mallopt(M_TRIM_THRESHOLD, KEPT)]
    )


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """
    No gradients for a module's own parameters, while they still flow through it.

    :param module: as before when the block ends
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
