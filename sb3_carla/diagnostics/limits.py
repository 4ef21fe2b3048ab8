"""Limits that callbacks and checks share: those of the table in docs/metrics.md."""

from __future__ import annotations

__all__ = ["FEATURE_NORM", "GRADIENT_NORM", "MAY_BE_NAN"]

FEATURE_NORM = (10.0, 100.0)
"""Norm of the CNN's features that it should not leave. Source: DQN on Atari."""
GRADIENT_NORM = {"warning": 1e4, "critical": 1e5}
"""Level of an alert -> norm of a network's gradient, before clipping, that raises it."""
MAY_BE_NAN = ("train/explained_variance",)
"""Where all returns of a PPO rollout are equal."""
