"""Limits that callbacks and checks share: see "Limits" in docs/metrics.md."""

from __future__ import annotations

import math

__all__ = ["FEATURE_LIMITS", "FEATURE_NORM", "GRADIENT_NORM", "MAY_BE_NAN", "feature_norm_limits"]

FEATURE_NORM = (10.0, 100.0)
"""Expected range of the norm of a NatureCNN's 512 features. Source: DQN on Atari."""
FEATURE_LIMITS = "limits/cnn_feature_norm_low", "limits/cnn_feature_norm_high"
"""Tags of this range, for the number of features that the model has."""
GRADIENT_NORM = {"warning": 1e4, "critical": 1e5}
"""Level of an alert -> gradient norm before clipping above which it is raised."""
MAY_BE_NAN = ("train/explained_variance",)
"""Tags that may be NaN: this one is if all returns of a PPO rollout are equal."""


def feature_norm_limits(features_dim: int) -> tuple[float, float]:
    """
    :param features_dim: number of features
    :return: expected range of their norm: it grows with the square root of their number
    """
    scale = math.sqrt(features_dim / 512.0)
    return FEATURE_NORM[0] * scale, FEATURE_NORM[1] * scale
