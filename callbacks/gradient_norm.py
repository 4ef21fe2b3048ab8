"""Gradient norms before and after clipping."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch as th
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sb3_carla.callbacks.parts import BeforeDump, Hook, ProbeCallback, encoders, networks
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
    What is known of a network's present update.

    :param before: id of a parameter -> norm that the backward pass left it with
    :param after: id of a parameter -> norm that an optimizer applied to it; of several, the largest
    """

    before: dict[int, th.Tensor] = field(default_factory=dict)
    after: dict[int, th.Tensor] = field(default_factory=dict)


class GradientNormCallback(ProbeCallback):
    """
    Logs each network's gradient norm as the backward pass left it, and as the optimizers really applied it.

    Works with any SB3 algorithm and changes nothing in it. "Before" is taken by a hook on every parameter when its
    gradient has been accumulated; "after" when any optimizer is about to step on it. So a second optimizer that steps
    on gradients that nobody clipped shows up, and a norm over several tensors is the L2 norm of theirs, not the sum.
    Gradients that no optimizer applies (of the critic, in the actor's update) are not counted.

    Tags (means over the updates since the last dump; nothing where there was none):
    ``debug/<network>_grad_norm_BEFORE_clip``, ``debug/<network>_grad_norm_AFTER_clip``,
    ``debug/<network>_grad_clip_ratio``, ``debug/<network>_{cnn,mlp}_grad_norm_AFTER_clip``,
    ``gradients/<network>_{cnn,mlp}_norm``; <network> is "actor" and "critic", or "policy" where there is only one.
    ``alerts/gradient_explosion_{warning,critical}`` are 1 where any norm before clipping passed 10 000, 100 000.
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._part: dict[int, tuple[str, str]] = {}
        self._updates: dict[str, Update] = defaultdict(Update)
        self._norms: dict[str, dict[tuple[int, ...], list[th.Tensor]]] = defaultdict(lambda: defaultdict(list))

    def _attach(self) -> None:
        parameters: dict[int, th.nn.Parameter] = {}
        trained: set[int] = set()
        for name, network in networks(self.model).items():
            cnn = {id(parameter) for encoder in encoders(network).values() for parameter in encoder.parameters()}
            own = _trained(network)
            for parameter in network.parameters():
                # An encoder that two networks use belongs to the first whose optimizer trains it.
                if id(parameter) not in self._part or (id(parameter) in own and id(parameter) not in trained):
                    self._part[id(parameter)] = (name, "cnn" if id(parameter) in cnn else "mlp")
                if parameter.requires_grad:
                    parameters[id(parameter)] = parameter
            trained |= own
        for parameter in parameters.values():
            self._handles.append(parameter.register_post_accumulate_grad_hook(Hook(self._accumulated)))
        self._handles.append(register_optimizer_step_pre_hook(Hook(self._stepping)))
        self._handles.append(BeforeDump(self.logger, self._record))

    def _detach(self) -> None:
        super()._detach()
        self._part.clear()
        self._updates.clear()
        self._norms.clear()

    def _accumulated(self, parameter: th.Tensor) -> None:
        """After a backward pass: a parameter has its gradient."""
        assert parameter.grad is not None
        network = self._part[id(parameter)][0]
        if id(parameter) in self._updates[network].after:  # it was applied: this is the next update's
            self._finish(network)
        self._updates[network].before[id(parameter)] = th.linalg.vector_norm(parameter.grad)

    def _stepping(self, optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Before any optimizer's step: what it will apply to the networks' parameters."""
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
        """A network's update is complete: keep the norms of its parameters."""
        update = self._updates.pop(network, Update())
        known = tuple(key for key in update.after if key in update.before)
        if known:
            norms = [update.before[key] for key in known] + [update.after[key] for key in known]
            self._norms[network][known].append(th.stack(norms))

    def _record(self) -> None:
        for network in list(self._updates):
            if self._updates[network].after:
                self._finish(network)
        for network, found in self._norms.items():
            norms = self._combined(found)
            for kind, values in norms.items():
                self.logger.record(TAGS[kind].format(network), float(values.mean()))
            before, after = norms["all_before"].mean(), norms["all_after"].mean()
            self.logger.record(f"debug/{network}_grad_clip_ratio", float(after / before.clamp(min=1e-12)))
            largest = float(norms["all_before"].max())
            for tag, limit in ALERTS.items():
                if not largest <= limit:  # NaN, too
                    self.logger.record(tag, 1)
        self._norms.clear()

    def _combined(self, found: dict[tuple[int, ...], list[th.Tensor]]) -> dict[str, th.Tensor]:
        """
        The norms of a network's parts: L2 norms of the parameters' (3, 5, 8 give 9.9, not 16).

        :param found: ids of the parameters of an update -> their norms before, then after: shape (2 * parameters,)
        :return: kind of ``TAGS`` -> shape (updates,)
        """
        parts: dict[str, list[th.Tensor]] = defaultdict(list)
        for keys, rows in found.items():
            norms = th.stack(rows).reshape(len(rows), 2, len(keys))  # (updates, 2, parameters)
            for part in ("all", "cnn", "mlp"):
                columns = [column for column, key in enumerate(keys) if part in ("all", self._part[key][1])]
                if columns:
                    combined = th.linalg.vector_norm(norms[:, :, columns], dim=2)  # (updates, 2)
                    parts[f"{part}_before"].append(combined[:, 0])
                    parts[f"{part}_after"].append(combined[:, 1])
        return {kind: th.cat(values) for kind, values in parts.items()}


def _trained(network: th.nn.Module) -> set[int]:
    """Ids of the parameters that a network's optimizer trains."""
    groups = getattr(getattr(network, "optimizer", None), "param_groups", [])
    return {id(parameter) for group in groups for parameter in group["params"]}
