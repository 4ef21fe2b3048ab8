"""A ready-made TensorBoard dashboard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stable_baselines3.common.logger import TensorBoardOutputFormat

from sb3_carla.callbacks.probes import PreDumpHook, ProbeCallback, encoders, networks
from sb3_carla.diagnostics.charts import CATEGORIES
from sb3_carla.diagnostics.limits import FEATURE_LIMITS, feature_norm_limits

__all__ = ["DashboardCallback", "layout"]

NOT_TENSORBOARD = ("stdout", "log", "json", "csv")


class DashboardCallback(ProbeCallback):
    """
    Lays out TensorBoard's page "Custom scalars": each chart overlays related tags, for example a gradient norm before
    and after clipping with its limit.

    Works with any SB3 algorithm, and does nothing without TensorBoard. Charts whose tags are not logged stay empty.

    Tags: ``limits/<network>_grad_norm`` (the model's own ``actor_max_grad_norm``, ``critic_max_grad_norm``, or
    ``max_grad_norm``) if that network's norm is logged; ``limits/cnn_feature_norm_{low,high}`` if the norm of
    the features is. Only TensorBoard gets them.
    """

    def _attach(self) -> None:
        outputs = [output for output in self.logger.output_formats if isinstance(output, TensorBoardOutputFormat)]
        for output in outputs:
            output.writer.add_custom_scalars(layout(networks(self.model)))
        if outputs:
            self._handles.append(PreDumpHook(self.logger, self._record, last=True))

    def _record(self) -> None:
        written = self.logger.name_to_value
        for name in networks(self.model):
            limit = clipping_limit(self.model, name)
            if limit is not None and f"debug/{name}_grad_norm_BEFORE_clip" in written:
                self.logger.record(f"limits/{name}_grad_norm", limit, exclude=NOT_TENSORBOARD)
        if "debug/cnn_feature_l2_norm" in written:
            found = (encoders(network) for network in networks(self.model).values())
            dims: list[Any] = [encoder.features_dim for each in found for encoder in each.values()]
            for tag, limit in zip(FEATURE_LIMITS, feature_norm_limits(max(dims)), strict=True):
                self.logger.record(tag, limit, exclude=NOT_TENSORBOARD)


def clipping_limit(model: Any, network: str) -> float | None:
    """
    :param model: any SB3 model
    :param network: "actor", "critic" or "policy"
    :return: limit that its gradient norm is clipped to; None if it is not clipped
    """
    found = getattr(model, f"{network}_max_grad_norm", None)
    if found is None and network == "policy":
        found = getattr(model, "max_grad_norm", None)
    return None if found is None else float(found)


def layout(found: Iterable[str]) -> dict[str, dict[str, list[Any]]]:
    """
    :param found: names of the model's networks; the norms of others get no charts
    :return: argument of ``SummaryWriter.add_custom_scalars``: category -> chart title -> kind and tag patterns
    """
    others = {f"limits/{name}_grad_norm" for name in {"actor", "critic", "policy"} - set(found)}
    return {
        category: {
            chart.title: ["Multiline", [f"{pattern}$" for pattern in chart.patterns]]
            for chart in charts
            if not others & set(chart.patterns)
        }
        for category, charts in CATEGORIES.items()
    }
