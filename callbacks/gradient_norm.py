"""Gradient norms before and after clipping."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from sb3_carla.callbacks.parts import BeforeDump, encoders, networks

__all__ = ["GradientNormCallback"]


class GradientNormCallback(BaseCallback):
    """
    Logs each network's gradient norm as the backward pass left it, and as the optimizers really applied it.

    Works with any SB3 algorithm and changes nothing in it. "Before" is taken by a hook on every parameter when its
    gradient has been accumulated; "after" when any optimizer is about to step on it. So a second optimizer that steps
    on gradients that nobody clipped shows up, and a norm over several tensors is the L2 norm of theirs, not the sum.

    Tags (means over the updates since the last dump; nothing where there was none):
    ``debug/<network>_grad_norm_BEFORE_clip``, ``debug/<network>_grad_norm_AFTER_clip``,
    ``debug/<network>_grad_clip_ratio``, ``debug/<network>_{cnn,mlp}_grad_norm_AFTER_clip``,
    ``gradients/<network>_{cnn,mlp}_norm``; <network> is "actor" and "critic", or "policy" where there is only one.
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._handles: list[RemovableHandle | BeforeDump] = []
        self._part: dict[int, tuple[str, str]] = {}
        self._before: dict[int, th.Tensor] = {}
        self._pending: dict[str, dict[str, list[th.Tensor]]] = {}
        self._seen: dict[str, list[th.Tensor]] = defaultdict(list)

    def _on_training_start(self) -> None:
        self._part = {}
        for name, network in networks(self.model).items():
            cnn = {id(parameter) for encoder in encoders(network) for parameter in encoder.parameters()}
            for parameter in network.parameters():
                # An encoder that two networks use belongs to the one whose optimizer trains it.
                if id(parameter) not in self._part or _trains(network, parameter):
                    self._part[id(parameter)] = (name, "cnn" if id(parameter) in cnn else "mlp")
        known = {id(p): p for network in networks(self.model).values() for p in network.parameters()}
        for parameter in known.values():
            if parameter.requires_grad:
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._accumulated))
        self._handles.append(register_optimizer_step_pre_hook(self._stepping))
        self._handles.append(BeforeDump(self.logger, self._record))

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._before.clear()
        self._pending.clear()
        self._seen.clear()

    def _accumulated(self, parameter: th.Tensor) -> None:
        assert parameter.grad is not None
        self._before[id(parameter)] = parameter.grad.norm()

    def _stepping(self, optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Before any optimizer's step: what it will apply to the networks' parameters."""
        stepped: dict[str, list[th.Tensor]] = defaultdict(list)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in self._part and parameter.grad is not None:
                    stepped[self._part[id(parameter)][0]].append(parameter)
        for network, parameters in stepped.items():
            pending = self._pending.setdefault(network, defaultdict(list))
            if any(id(parameter) not in self._before for parameter in parameters):
                continue
            if pending and not self._waiting(network):
                pending.clear()
            after = th._foreach_norm([parameter.grad for parameter in parameters])
            for parameter, norm in zip(parameters, after, strict=True):
                part = self._part[id(parameter)][1]
                pending[f"{part}_after"].append(norm)
                pending[f"{part}_before"].append(self._before.pop(id(parameter)))
            if not self._waiting(network):
                self._finish(network)

    def _waiting(self, network: str) -> bool:
        """Whether another optimizer has still to step on gradients of this backward pass."""
        return any(self._part[key][0] == network for key in self._before)

    def _finish(self, network: str) -> None:
        norms = {key: _global_norm(values) for key, values in self._pending.pop(network).items()}
        for moment in ("before", "after"):
            parts = [norms[key] for key in norms if key.endswith(moment)]
            self._seen[f"{network}/total_{moment}"].append(_global_norm(parts))
        for key, norm in norms.items():
            self._seen[f"{network}/{key}"].append(norm)

    def _record(self) -> None:
        tags = {
            "total_before": "debug/{}_grad_norm_BEFORE_clip",
            "total_after": "debug/{}_grad_norm_AFTER_clip",
            "cnn_before": "gradients/{}_cnn_norm",
            "mlp_before": "gradients/{}_mlp_norm",
            "cnn_after": "debug/{}_cnn_grad_norm_AFTER_clip",
            "mlp_after": "debug/{}_mlp_grad_norm_AFTER_clip",
        }
        means = {key: float(th.stack(values).mean()) for key, values in self._seen.items()}
        for key, mean in means.items():
            network, kind = key.split("/")
            self.logger.record(tags[kind].format(network), mean)
            if kind == "total_after":
                ratio = mean / max(means[f"{network}/total_before"], 1e-12)
                self.logger.record(f"debug/{network}_grad_clip_ratio", ratio)
        self._seen.clear()


def _global_norm(norms: list[th.Tensor]) -> th.Tensor:
    """The L2 norm of the L2 norms: 3, 5, 8 give 9.9, not 16."""
    return th.stack(norms).norm()


def _trains(network: th.nn.Module, parameter: th.Tensor) -> bool:
    optimizer = getattr(network, "optimizer", None)
    return isinstance(optimizer, th.optim.Optimizer) and any(
        parameter is other for group in optimizer.param_groups for other in group["params"]
    )
