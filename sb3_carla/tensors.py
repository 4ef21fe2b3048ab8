"""Small helpers for PyTorch that have nothing to do with a particular algorithm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch as th
from torch import nn

__all__ = ["bf16_is_native", "frozen"]


def bf16_is_native(device: th.device) -> bool:
    """
    :param device: where the networks are
    :return: True if it multiplies bfloat16 natively: CUDA devices that say so, processors with AVX512-BF16
    """
    if device.type == "cuda":
        return bool(th.cuda.is_bf16_supported(including_emulation=False))
    cpu_info = Path("/proc/cpuinfo")
    return device.type == "cpu" and cpu_info.is_file() and "avx512_bf16" in cpu_info.read_text(encoding="utf-8")


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
