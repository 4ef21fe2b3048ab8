"""Make a small file of a trained model to give away: weights in bfloat16, without what only a training needs."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch as th

__all__ = ["export_model"]

DATA, WEIGHTS = "data", "policy.pth"
OF_THE_TRAINING = (
    "_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer", "tensorboard_log",
)  # fmt: skip
"""Attributes of a model that say where its training was."""


def export_model(source: Path, target: Path) -> None:
    """
    Write a smaller copy of a model. ``TD3.load`` and ``load_policy`` read it like any other. Weights are rounded to
    bfloat16 (8 bits and an exponent), target networks become copies of the networks, and the optimizers forget their
    moments.

    :param source: ``.zip`` that :class:`sb3_carla.TD3` saved
    :param target: ``.zip`` to write
    """
    with (
        zipfile.ZipFile(source) as archive,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as small,
    ):
        for name in archive.namelist():
            if name == "system_info.txt":  # of whoever trained it
                continue
            data = archive.read(name)
            if name == DATA:
                data = json.dumps({**json.loads(data), **dict.fromkeys(OF_THE_TRAINING)}).encode()
            elif name == WEIGHTS:
                data = _written(_rounded(_read(data)))
            elif name.endswith(".optimizer.pth"):
                data = _written({**_read(data), "state": {}})
            small.writestr(name, data)


def _rounded(weights: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
    """Rounded; a target network's tensors are those of its network, which are then written once."""
    rounded: dict[str, th.Tensor] = {}
    for name, tensor in weights.items():
        network = name.replace("_target.", ".", 1)
        if network != name and network in weights:
            rounded[name] = rounded.setdefault(network, _round(weights[network]))
        else:
            rounded.setdefault(name, _round(tensor))
    return rounded


def _round(tensor: th.Tensor) -> th.Tensor:
    return tensor.bfloat16() if tensor.is_floating_point() else tensor


def _read(data: bytes) -> Any:
    return th.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _written(value: Any) -> bytes:
    buffer = io.BytesIO()
    th.save(value, buffer)
    return buffer.getvalue()
