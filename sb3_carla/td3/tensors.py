"""Helpers for PyTorch that belong to no algorithm."""

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
    :return: True if it multiplies bfloat16 natively: CUDA devices that report it, processors with AVX512-BF16
    """
    if device.type == "cuda":
        return bool(th.cuda.is_bf16_supported(including_emulation=False))
    cpu_info = Path("/proc/cpuinfo")
    return device.type == "cpu" and cpu_info.is_file() and "avx512_bf16" in cpu_info.read_text(encoding="utf-8")


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameter numbers in ``malloc.h``."""
KEPT = 1 << 30
"""Freed memory that the process keeps [bytes]."""
LARGEST_MMAP_THRESHOLD = 32 << 20
"""The GNU C library refuses a higher one [bytes]."""


def keep_freed_memory() -> bool:
    """
    Let the C library keep up to 1 GiB of freed memory for later allocations, instead of returning it to the kernel.

    On a processor PyTorch allocates memory for each result. A train step on images allocates and frees some 20 MB,
    which is thousands of pages that the kernel must clear each time: a seventh of the step's time. The setting holds
    for the whole process. It is left alone if ``MALLOC_...`` variables or ``GLIBC_TUNABLES`` are set.

    Source: ``mallopt(3)``.

    :return: True if it was set; only the GNU C library has these settings
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
    Within the block, a module's parameters get no gradient. Gradients still flow through it to its inputs.

    :param module: its parameters are as before when the block ends
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
