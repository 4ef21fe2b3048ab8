"""Small helpers for PyTorch that have nothing to do with a particular algorithm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch as th
from torch import nn

__all__ = ["InvertingTanh", "bf16_is_native", "frozen"]


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


class InvertingTanh(th.autograd.Function):
    """
    Tanh whose gradient is that of inverting gradients (Hausknecht & Stone, ICLR 2016, equation 11).

    A gradient that raises the action a is scaled by (1 - a) / 2, one that lowers it by (1 + a) / 2: little is left of
    what pushes further into the bound, and all of what leads away from it, where tanh's own slope 1 - a^2 stops both.
    """

    @staticmethod
    def forward(ctx: Any, outputs: th.Tensor) -> th.Tensor:
        """
        :param ctx: keeps the actions for the backward pass
        :param outputs: any shape
        :return: actions in -1 to 1
        """
        actions = th.tanh(outputs)
        ctx.save_for_backward(actions)
        return actions

    @staticmethod
    def backward(ctx: Any, gradient: th.Tensor) -> th.Tensor:
        """
        :param ctx: from ``forward``
        :param gradient: of the loss to be minimised, by the actions
        :return: that by the outputs, as said above
        """
        (actions,) = ctx.saved_tensors
        return gradient * (1.0 + th.where(gradient < 0.0, -actions, actions)) * 0.5
