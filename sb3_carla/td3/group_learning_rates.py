"""Separate learning rates for actor, critic and their features extractors. SB3's schedule update keeps them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import Schedule

from sb3_carla.td3.schedules import ScaledSchedule, rate_schedule

__all__ = ["GroupLearningRates", "describe_optimizer"]

NETWORKS = ("actor", "critic")
PARTS = (*NETWORKS, *(f"{network}_cnn" for network in NETWORKS))
"""Keys of ``learning_rates``: a network, or the parameter group named ``cnn`` of its optimizer."""


class GroupLearningRates(OffPolicyAlgorithm):
    """
    Mixin of an algorithm with an ``actor`` and a ``critic``, each with an ``optimizer``.

    A ``cnn`` group without a rate of its own has its network's; a network without one has ``learning_rate``. SB3 would
    give all parameter groups the same rate at every update.
    """

    learning_rates: Mapping[str, float | str | Schedule]
    """Rate by part, see ``PARTS``."""

    def _setup_rates(self) -> None:
        """Set the optimizers' first rates. The networks exist."""
        for part in self.learning_rates:
            if part not in PARTS:
                near = difflib.get_close_matches(str(part), PARTS, n=1)
                hint = f"; {near[0]}?" if near else ""
                raise ValueError(f"learning_rates: expected some of {', '.join(PARTS)}, got {part!r}{hint}")
        self._rates = {part: self._schedule(part) for part in PARTS}
        self._update_learning_rate([getattr(self, name).optimizer for name in NETWORKS])

    def _schedule(self, part: str) -> Schedule | None:
        """A part's own schedule, None if it has none."""
        value = self.learning_rates.get(part)
        if value is None:
            return None
        network = part.removesuffix("_cnn")
        names = [group.get("name") for group in getattr(self, network).optimizer.param_groups]
        if part != network and "cnn" not in names:
            raise ValueError(
                f"learning_rates: {part}: expected a {network} optimizer with a parameter group named 'cnn', got none: "
                "LayerNormCnnPolicy has one in each network that trains an encoder"
            )
        try:
            return rate_schedule(value)
        except ValueError as error:
            raise ValueError(f"learning_rates: {part}: {error}") from error

    def _update_learning_rate(self, optimizers: list[th.optim.Optimizer] | th.optim.Optimizer) -> None:
        """Set every group's own rate. ``optimizers`` is SB3's argument; they are known here."""
        # Several environments may step a little past the end, where a linear schedule would be negative.
        progress = max(self._current_progress_remaining, 0.0)
        for name in NETWORKS:
            rate = (self._rates[name] or self.lr_schedule)(progress)
            cnn_schedule = self._rates[f"{name}_cnn"]
            cnn_rate = rate if cnn_schedule is None else cnn_schedule(progress)
            for group in getattr(self, name).optimizer.param_groups:
                group["lr"] = cnn_rate if group.get("name") == "cnn" else rate

    def scale_learning_rates(self, factor: float) -> None:
        """
        Multiply all learning rates from the next update on.

        :param factor: of the rates [-]
        """
        self.learning_rate = self.lr_schedule = ScaledSchedule(self.lr_schedule, factor)
        self._rates = {part: rate and ScaledSchedule(rate, factor) for part, rate in self._rates.items()}
        self.learning_rates = {part: rate for part, rate in self._rates.items() if rate is not None}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_rates"]


def describe_optimizer(optimizer: th.optim.Optimizer) -> str:
    """
    :param optimizer: of a network
    :return: its class, and tensors, parameters and learning rate of each of its groups
    """
    groups = [
        f"{str(group.get('name', 'all')).upper()} {len(group['params'])} tensors, "
        f"{sum(parameter.numel() for parameter in group['params']):,} parameters, rate {group['lr']:g}"
        for group in optimizer.param_groups
    ]
    return f"({type(optimizer).__name__}): {'; '.join(groups)}"
