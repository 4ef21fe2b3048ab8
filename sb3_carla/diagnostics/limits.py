"""Limits that callbacks and checks share: see "Limits" in docs/metrics.md."""

from __future__ import annotations

__all__ = ["FEATURE_NORM", "GRADIENT_NORM", "MAY_BE_NAN"]

FEATURE_NORM = (10.0, 100.0)
"""Expected range of the norm of the CNN's features. Source: DQN on Atari."""
GRADIENT_NORM = {"warning": 1e4, "critical": 1e5}
"""Level of an alert -> gradient norm before clipping above which it is raised."""
MAY_BE_NAN = ("train/explained_variance",)
"""Tags that may be NaN: this one is if all returns of a PPO rollout are equal."""
