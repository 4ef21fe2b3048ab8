"""What a dashboard of a training shows, and in which order: TensorBoard's and the plots' alike."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sb3_carla.diagnostics.limits import FEATURE_NORM

__all__ = ["CATEGORIES", "FEATURE_LIMITS", "Panel"]

FEATURE_LIMITS = dict(zip(("limits/cnn_feature_norm_low", "limits/cnn_feature_norm_high"), FEATURE_NORM, strict=True))
"""Tag -> value."""


@dataclass(frozen=True)
class Panel:
    """
    One chart.

    :param title: above it
    :param patterns: regular expressions of the tags that it overlays, whole tags
    :param logarithmic: where the values span decades
    """

    title: str
    patterns: tuple[str, ...]
    logarithmic: bool = False

    def tags(self, known: Iterable[str]) -> list[str]:
        """
        :param known: tags of a log
        :return: those that belong here, in the order of the patterns
        """
        found = [tag for pattern in self.patterns for tag in sorted(known) if re.fullmatch(pattern, tag)]
        return list(dict.fromkeys(found))


def _clipping(network: str) -> Panel:
    """The norms of a network as a whole."""
    return Panel(
        f"{network.capitalize()}: gradient norm before, after, limit",
        (
            f"debug/{network}_grad_norm_BEFORE_clip",
            f"debug/{network}_grad_norm_AFTER_clip",
            f"limits/{network}_grad_norm",
        ),
        logarithmic=True,
    )


CATEGORIES: dict[str, tuple[Panel, ...]] = {
    "Gradients": (
        _clipping("actor"),
        _clipping("critic"),
        _clipping("policy"),
        Panel("Parts, after clipping", (r"debug/\w+_(cnn|mlp)_grad_norm_AFTER_clip",), logarithmic=True),
        Panel("Parts, before clipping", (r"gradients/\w+_(cnn|mlp)_norm",), logarithmic=True),
        Panel("Clip ratio", (r"debug/\w+_grad_clip_ratio",)),
    ),
    "Driving": (
        Panel("Episode return", ("train/episode_reward", "rollout/ep_rew_mean")),
        Panel("Episode length", ("train/episode_length", "rollout/ep_len_mean")),
        Panel("Success, route completion", ("driving/success", "driving/route_completion")),
        Panel("Lateral deviation [m]", ("driving/lateral_deviation_m",)),
        Panel("Speed [m/s]", ("driving/speed_mps",)),
        Panel("Collisions, lane invasions", (r"train/(collisions|lane_invasions)_per_episode",)),
        Panel("Reward terms", (r"reward/.*",)),
    ),
    "Values": (
        Panel("Q1, Q2, target", ("train/q[12]_value", "train/target_Q_mean")),
        Panel("Q against Monte-Carlo return", ("debug/monte_carlo_q", "debug/monte_carlo_return")),
        Panel("Normalised bias of Q", ("debug/q_bias_normalized",)),
        Panel("TD error", (r"debug/td_error_q[12]",)),
        Panel("Critic loss", (r"train/critic(_[12])?_loss", "train/value_loss")),
        Panel("Actor loss", ("train/actor_loss", "train/policy_gradient_loss")),
    ),
    "Networks": (
        Panel(
            "CNN feature norm, limits",
            (r"debug/(\w+_)?cnn_feature_l2_norm", *FEATURE_LIMITS),
            logarithmic=True,
        ),
        Panel("CNN feature mean, spread, range", (r"debug/cnn_feature_(mean|std|max|min)",)),
        Panel("Feature rank", (r"debug/(\w+_)?cnn_feature_rank",)),
        Panel("Dormant units", (r"debug/(\w+_)?dormant_ratio",)),
        Panel("Saturated actions", (r"debug/action_saturation\w*",)),
    ),
    "Agent": (
        Panel("Learning rates", (r"agent/\w+_lr", "train/learning_rate"), logarithmic=True),
        Panel("Replay buffer, is training", ("agent/buffer_utilization", "agent/is_training")),
        Panel("Gradient updates", ("agent/total_iterations",)),
        Panel("Alerts", (r"alerts/\w+",)),
    ),
}
