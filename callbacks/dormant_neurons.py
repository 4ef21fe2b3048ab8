"""Share of a network's units that are dormant."""

from __future__ import annotations

import torch as th
from torch import nn

from sb3_carla.callbacks.probes import PreDumpHook, ProbeCallback, WeakHook, hidden_activations, networks

__all__ = ["DormantNeuronsCallback", "dormant"]


class DormantNeuronsCallback(ProbeCallback):
    """
    Logs the share of each network's hidden units that are dormant.

    Works with any SB3 algorithm whose activation functions are modules. Measured is the first training batch after a
    dump; until the next dump nothing more is computed.

    Tags: ``debug/dormant_ratio`` over all networks, and, if there are several, ``debug/<network>_dormant_ratio``.

    Source: Sokar et al., The dormant neuron phenomenon in deep reinforcement learning, ICML 2023.

    :param threshold: normalised mean activation up to which a unit is dormant [-]
    :param verbose: not used
    """

    def __init__(self, threshold: float = 0.025, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.threshold = threshold
        self._flags: dict[tuple[str, int], th.Tensor] = {}

    def _attach(self) -> None:
        seen: set[nn.Module] = set()
        for network, module in networks(self.model).items():
            for number, activation in enumerate(hidden_activations(module)):
                if activation not in seen:
                    seen.add(activation)
                    self._handles.append(activation.register_forward_hook(WeakHook(self._measure, (network, number))))
        self._handles.append(PreDumpHook(self.logger, self._record))

    def _detach(self) -> None:
        super()._detach()
        self._flags.clear()

    def _measure(self, key: tuple[str, int], module: nn.Module, inputs: object, output: th.Tensor) -> None:
        if key not in self._flags and module.training:  # the policy is in evaluation mode while it acts
            self._flags[key] = dormant(output, self.threshold)

    def _record(self) -> None:
        if not self._flags:
            return
        flags: dict[str, list[th.Tensor]] = {}
        for (network, _), found in self._flags.items():
            flags.setdefault(network, []).append(found)
        self.logger.record("debug/dormant_ratio", _share(list(self._flags.values())))
        if len(flags) > 1:
            for network, parts in flags.items():
                self.logger.record(f"debug/{network}_dormant_ratio", _share(parts))
        self._flags.clear()


@th.no_grad()
def dormant(activations: th.Tensor, threshold: float) -> th.Tensor:
    """
    Find the dormant units of a layer: their mean absolute activation is at most ``threshold`` times the layer's mean.

    :param activations: shape (n, units), or (n, channels, height, width): a channel is a unit
    :param threshold: see :class:`DormantNeuronsCallback` [-]
    :return: shape (units,), bool; all True if every activation is zero
    """
    others = [dim for dim in range(activations.dim()) if dim != 1]
    scores = activations.abs().mean(dim=others, dtype=th.float32)  # (units,)
    return scores <= threshold * scores.mean()


def _share(flags: list[th.Tensor]) -> float:
    return float(th.cat(flags).float().mean())
