"""Make a small file of a trained model to give away: weights in half precision, without what only training needs."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch as th

__all__ = ["export_model"]

WEIGHTS = "policy.pth"


def export_model(source: Path, target: Path) -> None:
    """
    Write a smaller copy of a model. ``TD3.load`` and ``load_policy`` read it like any other; weights are rounded to
    half precision (11 bits), target networks are copies of the networks, and the optimizers forget their moments.

    :param source: ``.zip`` that :class:`sb3_carla.TD3` saved
    :param target: ``.zip`` to write
    """
    with (
        zipfile.ZipFile(source) as archive,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as small,
    ):
        for name in archive.namelist():
            data = archive.read(name)
            if name == WEIGHTS:
                data = _written(_halved(_read(data)))
            elif name.endswith(".optimizer.pth"):
                data = _written({**_read(data), "state": {}})
            small.writestr(name, data)


def _halved(weights: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
    """Half precision; a target network's tensors are those of its network, which are then written once."""
    halves: dict[str, th.Tensor] = {}
    for name, tensor in weights.items():
        network = name.replace("_target.", ".", 1)
        if network != name and network in weights:
            halves[name] = halves.setdefault(network, _half(weights[network]))
        else:
            halves.setdefault(name, _half(tensor))
    return halves


def _half(tensor: th.Tensor) -> th.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def _read(data: bytes) -> Any:
    return th.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _written(value: Any) -> bytes:
    buffer = io.BytesIO()
    th.save(value, buffer)
    return buffer.getvalue()
