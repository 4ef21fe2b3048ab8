"""Gradient norms before and after clipping."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch as th
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sb3_carla.callbacks.probes import PreDumpHook, ProbeCallback, WeakHook, encoders, networks
from sb3_carla.diagnostics.limits import GRADIENT_NORM

__all__ = ["ALERTS", "GradientNormCallback"]

ALERTS = {f"alerts/gradient_explosion_{level}": norm for level, norm in GRADIENT_NORM.items()}
"""Tag -> norm before clipping that raises it."""
TAGS = {
    "all_before": "debug/{}_grad_norm_BEFORE_clip",
    "all_after": "debug/{}_grad_norm_AFTER_clip",
    "cnn_before": "gradients/{}_cnn_norm",
    "mlp_before": "gradients/{}_mlp_norm",
    "cnn_after": "debug/{}_cnn_grad_norm_AFTER_clip",
    "mlp_after": "debug/{}_mlp_grad_norm_AFTER_clip",
}


@dataclass
class Update:
    """
    Gradient norms of a network's current update.

    :param before: id of a parameter -> norm of its gradient after the backward pass
    :param after: id of a parameter -> norm of the gradient that an optimizer applied; the largest of several optimizers
    """

    before: dict[int, th.Tensor] = field(default_factory=dict)
    after: dict[int, th.Tensor] = field(default_factory=dict)


class GradientNormCallback(ProbeCallback):
    """
    Logs each network's gradient norm after the backward pass, and as the optimizers applied it.

    Works with any SB3 algorithm, and does not change it. "Before" is measured by a hook on every parameter when its
    gradient has been accumulated; "after" when any optimizer is about to step. Therefore a second optimizer that steps
    on unclipped gradients is visible. The norm over several tensors is the L2 norm of their norms, not the sum.
    Gradients that no optimizer applies (those of the critic in the actor's update) do not count.

    Tags (means over the updates since the last dump; not written if there were none):
    ``debug/<network>_grad_norm_BEFORE_clip``, ``debug/<network>_grad_norm_AFTER_clip``,
    ``debug/<network>_grad_clip_ratio``, ``debug/<network>_{cnn,mlp}_grad_norm_AFTER_clip``,
    ``gradients/<network>_{cnn,mlp}_norm``; <network> is "actor" and "critic", or "policy" if there is only one.
    ``alerts/gradient_explosion_{warning,critical}`` are 1 if a norm before clipping exceeded 10 000 or 100 000.
    """

    CHECKPOINTED = ("_norms",)

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._part: dict[int, tuple[str, str]] = {}
        self._updates: dict[str, Update] = defaultdict(Update)
        # (network, part) -> sum and largest of its norms before and after clipping, shape (2,); number of updates
        self._norms: dict[tuple[str, str], tuple[th.Tensor, th.Tensor, int]] = {}

    def _attach(self) -> None:
        parameters: dict[int, th.nn.Parameter] = {}
        trained: set[int] = set()
        for name, network in networks(self.model).items():
            cnn = {id(parameter) for encoder in encoders(network).values() for parameter in encoder.parameters()}
            own = _trained(network)
            for parameter in network.parameters():
                # An encoder that two networks share counts for the first one whose optimizer trains it.
                if id(parameter) not in self._part or (id(parameter) in own and id(parameter) not in trained):
                    self._part[id(parameter)] = (name, "cnn" if id(parameter) in cnn else "mlp")
                if parameter.requires_grad:
                    parameters[id(parameter)] = parameter
            trained |= own
        for parameter in parameters.values():
            self._handles.append(parameter.register_post_accumulate_grad_hook(WeakHook(self._on_gradient)))
        self._handles.append(register_optimizer_step_pre_hook(WeakHook(self._on_optimizer_step)))
        self._handles.append(PreDumpHook(self.logger, self._record))

    def _detach(self) -> None:
        super()._detach()
        self._part.clear()
        self._updates.clear()
        self._norms.clear()

    def _on_gradient(self, parameter: th.Tensor) -> None:
        """Called in a backward pass when a parameter's gradient is complete."""
        assert parameter.grad is not None
        network = self._part[id(parameter)][0]
        if id(parameter) in self._updates[network].after:  # already applied: the next update begins
            self._finish(network)
        self._updates[network].before[id(parameter)] = th.linalg.vector_norm(parameter.grad)

    def _on_optimizer_step(self, optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Called before any optimizer's step: measure the gradients that it will apply."""
        stepped = [
            parameter
            for group in optimizer.param_groups
            for parameter in group["params"]
            if id(parameter) in self._part and parameter.grad is not None
        ]
        if not stepped:
            return
        norms = th._foreach_norm([parameter.grad for parameter in stepped])
        for parameter, norm in zip(stepped, norms, strict=True):
            after = self._updates[self._part[id(parameter)][0]].after
            after[id(parameter)] = norm if id(parameter) not in after else th.maximum(norm, after[id(parameter)])

    def _finish(self, network: str) -> None:
        """Add the norms of a complete update to the sums since the last dump."""
        update = self._updates.pop(network, Update())
        known = sorted((key for key in update.after if key in update.before), key=lambda key: self._part[key][1])
        if not known:
            return
        n_cnn = sum(self._part[key][1] == "cnn" for key in known)
        norms = th.stack([kind[key] for kind in (update.before, update.after) for key in known])
        norms = norms.reshape(2, -1)  # (before and after, parameters), the CNN's first
        for part, columns in {"all": norms, "cnn": norms[:, :n_cnn], "mlp": norms[:, n_cnn:]}.items():
            if columns.numel():
                norm = th.linalg.vector_norm(columns, dim=1)  # (2,): L2 norm of the parameters' L2 norms
                total, largest, number = self._norms.get((network, part), (th.zeros_like(norm), norm, 0))
                self._norms[network, part] = (total + norm, th.maximum(largest, norm), number + 1)

    def state_dict(self) -> dict[str, Any]:
        """:return: state for a checkpoint: norms since the last dump"""
        self._finish_all()
        return super().state_dict()

    def _finish_all(self) -> None:
        for network in list(self._updates):
            if self._updates[network].after:
                self._finish(network)

    def _record(self) -> None:
        self._finish_all()
        for (network, part), (total, largest, number) in self._norms.items():
            before, after = (total / number).tolist()
            self.logger.record(TAGS[f"{part}_before"].format(network), before)
            self.logger.record(TAGS[f"{part}_after"].format(network), after)
            if part == "all":
                self.logger.record(f"debug/{network}_grad_clip_ratio", after / max(before, 1e-12))
                for tag, limit in ALERTS.items():
                    if not largest[0] <= limit:  # NaN, too
                        self.logger.record(tag, 1)
        self._norms.clear()


def _trained(network: th.nn.Module) -> set[int]:
    """Ids of the parameters that a network's optimizer trains."""
    groups = getattr(getattr(network, "optimizer", None), "param_groups", [])
    return {id(parameter) for group in groups for parameter in group["params"]}
