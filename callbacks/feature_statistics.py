"""What the features extractors put out."""

from __future__ import annotations

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn
from torch.utils.hooks import RemovableHandle

from sb3_carla.callbacks.parts import BeforeDump, encoders, networks

__all__ = ["FeatureStatisticsCallback"]


class FeatureStatisticsCallback(BaseCallback):
    """
    Logs norm, mean, standard deviation and range of the features of each convolutional extractor.

    Works with any SB3 algorithm. The statistics are of the last training batch before each dump; nothing is computed in
    between.

    Tags: ``debug/cnn_feature_{l2_norm,mean,std,max,min}`` over all extractors, and, where there are several,
    ``debug/<network>_cnn_feature_*`` for each. ``l2_norm`` is the batch mean of each sample's norm.
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._handles: list[RemovableHandle | BeforeDump] = []
        self._features: dict[str, th.Tensor] = {}

    def _on_training_start(self) -> None:
        named: dict[nn.Module, str] = {}
        for name, network in networks(self.model).items():
            for encoder in encoders(network):
                named.setdefault(encoder, name)
        for encoder, name in named.items():
            self._handles.append(encoder.register_forward_hook(self._keeper(name)))
        self._handles.append(BeforeDump(self.logger, self._record))

    def _keeper(self, name: str):  # type: ignore[no-untyped-def]
        def keep(module: nn.Module, inputs: object, output: th.Tensor) -> None:
            if module.training:  # not while acting
                self._features[name] = output.detach()

        return keep

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._features.clear()

    def _record(self) -> None:
        if not self._features:
            return
        self._record_one("debug/cnn_feature", th.cat([features.float() for features in self._features.values()]))
        if len(self._features) > 1:
            for name, features in self._features.items():
                self._record_one(f"debug/{name}_cnn_feature", features.float())
        self._features.clear()

    def _record_one(self, prefix: str, features: th.Tensor) -> None:
        """:param features: shape (n, features_dim), float32"""
        self.logger.record(f"{prefix}_l2_norm", float(features.norm(dim=1).mean()))
        for name, value in (
            ("mean", features.mean()), ("std", features.std()), ("max", features.max()), ("min", features.min())
        ):  # fmt: skip
            self.logger.record(f"{prefix}_{name}", float(value))
