"""Progress of the agent: number of updates, fill level of the replay buffer, learning rates."""

from __future__ import annotations

from typing import Any

import torch as th

from sb3_carla.callbacks.probes import PreDumpHook, ProbeCallback, networks

__all__ = ["AgentStatisticsCallback"]


class AgentStatisticsCallback(ProbeCallback):
    """
    Logs the agent's progress at each dump, for any SB3 algorithm.

    Tags: ``agent/total_iterations`` (gradient updates; PPO: epochs), ``agent/is_training`` (0 while only filling the
    buffer, 1 after), ``agent/buffer_utilization`` (if there is a replay buffer), and the current learning
    rates: ``agent/<network>_lr``, and for a parameter group named "cnn" ``agent/<network>_cnn_lr``.
    """

    def _attach(self) -> None:
        self._handles.append(PreDumpHook(self.logger, self._record))

    def _record(self) -> None:
        updates = int(getattr(self.model, "_n_updates", 0))
        self.logger.record("agent/total_iterations", updates)
        self.logger.record("agent/is_training", int(updates > 0))
        buffer: Any = getattr(self.model, "replay_buffer", None)
        if buffer is not None:
            self.logger.record("agent/buffer_utilization", buffer.size() / buffer.buffer_size)
        for name, network in networks(self.model).items():
            optimizer = getattr(network, "optimizer", None)
            if isinstance(optimizer, th.optim.Optimizer):
                for group in optimizer.param_groups:
                    part = f"{name}_cnn" if group.get("name") == "cnn" else name
                    self.logger.record(f"agent/{part}_lr", float(group["lr"]))
