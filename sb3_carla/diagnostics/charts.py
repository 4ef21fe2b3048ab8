"""The charts of a training, in order: for TensorBoard's "Custom scalars" and for our own plots."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sb3_carla.diagnostics.limits import FEATURE_LIMITS

__all__ = ["CATEGORIES", "Chart"]


@dataclass(frozen=True)
class Chart:
    """
    One chart.

    :param title: title of the chart
    :param patterns: regular expressions that match the whole tags which it overlays
    :param logarithmic: whether the y axis is logarithmic
    """

    title: str
    patterns: tuple[str, ...]
    logarithmic: bool = False

    def tags(self, known: Iterable[str]) -> list[str]:
        """
        :param known: tags of a log
        :return: tags of this chart, in the order of the patterns
        """
        found = [tag for pattern in self.patterns for tag in sorted(known) if re.fullmatch(pattern, tag)]
        return list(dict.fromkeys(found))


def _clipping(network: str) -> Chart:
    """Norms of all parameters of a network, before and after clipping."""
    return Chart(
        f"{network.capitalize()}: gradient norm before, after, limit",
        (
            f"debug/{network}_grad_norm_BEFORE_clip",
            f"debug/{network}_grad_norm_AFTER_clip",
            f"limits/{network}_grad_norm",
        ),
        logarithmic=True,
    )


CATEGORIES: dict[str, tuple[Chart, ...]] = {
    "Gradients": (
        _clipping("actor"),
        _clipping("critic"),
        _clipping("policy"),
        Chart("Parts, after clipping", (r"debug/\w+_(cnn|mlp)_grad_norm_AFTER_clip",), logarithmic=True),
        Chart("Parts, before clipping", (r"gradients/\w+_(cnn|mlp)_norm",), logarithmic=True),
        Chart("Clip ratio", (r"debug/\w+_grad_clip_ratio",)),
    ),
    "Driving": (
        Chart("Episode return", ("train/episode_reward", "rollout/ep_rew_mean")),
        Chart("Episode length", ("train/episode_length", "rollout/ep_len_mean")),
        Chart("Success, route completion", ("driving/success", "driving/route_completion")),
        Chart("Lateral deviation [m]", ("driving/lateral_deviation_m",)),
        Chart("Speed [m/s]", ("driving/speed_mps",)),
        Chart("Collisions, lane invasions", (r"train/(collisions|lane_invasions)_per_episode",)),
        Chart("Reward terms", (r"reward/.*",)),
    ),
    "Values": (
        Chart("Q1, Q2, target", ("train/q[12]_value", "train/target_Q_mean")),
        Chart("Q against Monte-Carlo return", ("debug/monte_carlo_q", "debug/monte_carlo_return")),
        Chart("Normalised bias of Q", ("debug/q_bias_normalized",)),
        Chart("TD error", (r"debug/td_error_q[12]",)),
        Chart("Critic loss", (r"train/critic(_[12])?_loss", "train/value_loss")),
        Chart("Actor loss", ("train/actor_loss", "train/policy_gradient_loss")),
        Chart("Error of the predicted state", ("train/state_prediction_loss",)),
    ),
    "Networks": (
        Chart(
            "CNN feature norm, limits",
            (r"debug/(\w+_)?cnn_feature_l2_norm", *FEATURE_LIMITS),
            logarithmic=True,
        ),
        Chart("CNN feature mean, spread, range", (r"debug/cnn_feature_(mean|std|max|min)",)),
        Chart("Feature rank", (r"debug/(\w+_)?cnn_feature_rank",)),
        Chart("Dormant units", (r"debug/(\w+_)?dormant_ratio",)),
        Chart("Saturated actions", (r"debug/action_saturation\w*",)),
    ),
    "Agent": (
        Chart("Learning rates", (r"agent/\w+_lr", "train/learning_rate"), logarithmic=True),
        Chart("Replay buffer, is training", ("agent/buffer_utilization", "agent/is_training")),
        Chart("Gradient updates", ("agent/total_iterations",)),
        Chart("Alerts", (r"alerts/\w+",)),
    ),
}
