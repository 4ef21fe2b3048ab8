"""Statistics of the features extractors' output."""

from __future__ import annotations

from collections.abc import Callable

import torch as th
from torch import nn

from sb3_carla.callbacks.probes import PreDumpHook, ProbeCallback, WeakHook, encoders, networks

__all__ = ["FeatureStatisticsCallback", "feature_rank"]

STATISTICS: dict[str, Callable[[th.Tensor], th.Tensor]] = {
    "l2_norm": lambda features: features.norm(dim=1).mean(),
    "mean": th.mean,
    "std": th.std,
    "max": th.max,
    "min": th.min,
}


class FeatureStatisticsCallback(ProbeCallback):
    """
    Logs norm, mean, standard deviation, range and rank of the features of each convolutional extractor.

    Works with any SB3 algorithm. Measured is the last training batch before each dump; nothing is computed in between.

    Tags: ``debug/cnn_feature_{l2_norm,mean,std,max,min,rank}`` over all extractors, and, if there are several,
    ``debug/<network>_cnn_feature_*`` for each. If their ``features_dim`` differ, only the latter are logged.
    ``l2_norm`` is the batch mean of each sample's norm; ``rank`` is :func:`feature_rank`, of several extractors the
    lowest.
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._features: dict[str, th.Tensor] = {}

    def _attach(self) -> None:
        named: dict[nn.Module, str] = {}
        for network, module in networks(self.model).items():
            found = encoders(module)
            for path, encoder in found.items():
                # A policy that is one network may have one extractor for the actions and one for the value (PPO).
                name = network if len(found) == 1 else ("critic" if "vf_" in path else "actor")
                named.setdefault(encoder, name)
        for encoder, name in named.items():
            self._handles.append(encoder.register_forward_hook(WeakHook(self._store_features, name)))
        self._handles.append(PreDumpHook(self.logger, self._record))

    def _detach(self) -> None:
        super()._detach()
        self._features.clear()

    def _store_features(self, name: str, module: nn.Module, inputs: object, output: th.Tensor) -> None:
        if module.training:  # the policy is in evaluation mode while it acts
            self._features[name] = output.detach()

    def _record(self) -> None:
        if not self._features:
            return
        features = {name: output.float() for name, output in self._features.items()}
        ranks = {name: feature_rank(batch) for name, batch in features.items()}
        if len({batch.shape[1:] for batch in features.values()}) == 1:
            self._record_one("debug/cnn_feature", th.cat(list(features.values())), min(ranks.values()))
        if len(features) > 1:
            for name, batch in features.items():
                self._record_one(f"debug/{name}_cnn_feature", batch, ranks[name])
        self._features.clear()

    def _record_one(self, prefix: str, features: th.Tensor, rank: int) -> None:
        """:param features: shape (batch, features_dim), float32"""
        for name, statistic in STATISTICS.items():
            self.logger.record(f"{prefix}_{name}", float(statistic(features)))
        self.logger.record(f"{prefix}_rank", rank)


@th.no_grad()
def feature_rank(features: th.Tensor, delta: float = 0.01) -> int:
    """
    Effective rank: number of singular values that make up a share of at least 1 - ``delta`` of their sum.

    Source: Kumar et al., Implicit under-parameterization inhibits data-efficient deep RL, ICLR 2021 (srank).

    :param features: shape (n, features_dim), float32
    :param delta: share that is ignored [-]
    :return: 1 to min(n, features_dim); 0 if a feature is not finite, or all are 0
    """
    if not features.isfinite().all():
        return 0
    rows = (features if features.shape[0] <= features.shape[1] else features.T).double()
    # The eigenvalues of X X^T are the squared singular values of X, and cheaper to compute.
    squares = th.linalg.eigvalsh(rows @ rows.T).clamp(min=0.0).flip(0)  # (min(n, features_dim),), descending
    values = squares.sqrt()
    if values[0] <= 0.0:
        return 0
    shares = values.cumsum(0) / values.sum()
    return int((shares < 1.0 - delta).sum()) + 1
