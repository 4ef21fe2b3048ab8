"""A TensorBoard dashboard that is there without being set up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stable_baselines3.common.logger import TensorBoardOutputFormat

from sb3_carla.callbacks.probes import BeforeDump, ProbeCallback, networks
from sb3_carla.diagnostics.panels import CATEGORIES, FEATURE_LIMITS

__all__ = ["DashboardCallback", "layout"]

NOT_TENSORBOARD = ("stdout", "log", "json", "csv")


class DashboardCallback(ProbeCallback):
    """
    Arranges what is logged on TensorBoard's page "Custom scalars": charts that overlay what belongs together, the norms
    before and after clipping and their limit among them.

    Works with any SB3 algorithm, and does nothing without TensorBoard. Charts whose tags nobody writes stay empty.

    Tags: ``limits/<network>_grad_norm`` (the model's own ``actor_max_grad_norm``, ``critic_max_grad_norm``, or
    ``max_grad_norm``) wherever that network's norm is written; ``limits/cnn_feature_norm_{low,high}`` beside the norm
    of the features. TensorBoard only.
    """

    def _attach(self) -> None:
        outputs = [output for output in self.logger.output_formats if isinstance(output, TensorBoardOutputFormat)]
        for output in outputs:
            output.writer.add_custom_scalars(layout(networks(self.model)))
        if outputs:
            self._handles.append(BeforeDump(self.logger, self._record, last=True))

    def _record(self) -> None:
        written = self.logger.name_to_value
        for name in networks(self.model):
            limit = clipping_limit(self.model, name)
            if limit is not None and f"debug/{name}_grad_norm_BEFORE_clip" in written:
                self.logger.record(f"limits/{name}_grad_norm", limit, exclude=NOT_TENSORBOARD)
        if "debug/cnn_feature_l2_norm" in written:
            for tag, limit in FEATURE_LIMITS.items():
                self.logger.record(tag, limit, exclude=NOT_TENSORBOARD)


def clipping_limit(model: Any, network: str) -> float | None:
    """
    :param model: any SB3 model
    :param network: "actor", "critic" or "policy"
    :return: norm that its gradient is clipped to; None if it is not clipped
    """
    found = getattr(model, f"{network}_max_grad_norm", None)
    if found is None and network == "policy":
        found = getattr(model, "max_grad_norm", None)
    return None if found is None else float(found)


def layout(found: Iterable[str]) -> dict[str, dict[str, list[Any]]]:
    """
    :param found: names of the model's networks: the others' norms get no charts
    :return: for ``SummaryWriter.add_custom_scalars``: category -> chart -> kind and patterns of tags
    """
    others = {f"limits/{name}_grad_norm" for name in {"actor", "critic", "policy"} - set(found)}
    return {
        category: {
            panel.title: ["Multiline", [f"{pattern}$" for pattern in panel.patterns]]
            for panel in panels
            if not others & set(panel.patterns)
        }
        for category, panels in CATEGORIES.items()
    }
