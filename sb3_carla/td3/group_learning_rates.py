"""Learning rates of an actor's, of critics' and of their encoders' own, which survive SB3's schedule."""

from __future__ import annotations

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import Schedule

from sb3_carla.td3.schedules import ScaledSchedule, rate_schedule

__all__ = ["GroupLearningRates"]

NETWORKS = ("actor", "critic")


class GroupLearningRates(OffPolicyAlgorithm):
    """
    Mixin of an algorithm with an ``actor`` and a ``critic``, each with an ``optimizer``.

    A part is a network, or the parameter group named ``cnn`` of its optimizer. What has no rate of its own follows the
    network's, and that ``learning_rate``. SB3 would give all parameter groups the same rate at every update.
    """

    actor_learning_rate: float | str | Schedule | None
    critic_learning_rate: float | str | Schedule | None
    actor_cnn_learning_rate: float | str | Schedule | None
    critic_cnn_learning_rate: float | str | Schedule | None

    def _setup_rates(self) -> None:
        """Begin with the rates that were asked for; the networks are there."""
        self._rates = {part: self._schedule(part) for part in ("actor", "critic", "actor_cnn", "critic_cnn")}
        self._update_learning_rate([getattr(self, name).optimizer for name in NETWORKS])

    def _schedule(self, part: str) -> Schedule | None:
        """A part's own schedule, None if it follows the network's or ``learning_rate``."""
        value = getattr(self, f"{part}_learning_rate")
        if value is None:
            return None
        network = part.removesuffix("_cnn")
        names = [group.get("name") for group in getattr(self, network).optimizer.param_groups]
        if part != network and "cnn" not in names:
            raise ValueError(
                f"{part}_learning_rate: expected a {network} optimizer with a parameter group named 'cnn', got none: "
                "LayerNormCnnPolicy has one in each network that trains an encoder"
            )
        return rate_schedule(value)

    def _update_learning_rate(self, optimizers: list[th.optim.Optimizer] | th.optim.Optimizer) -> None:
        """Set every group's own rate; the optimizers are known."""
        # Several environments step past the end by a few; there a linear schedule would be below zero.
        progress = max(self._current_progress_remaining, 0.0)
        for name in NETWORKS:
            rate = (self._rates[name] or self.lr_schedule)(progress)
            cnn_schedule = self._rates[f"{name}_cnn"]
            cnn_rate = rate if cnn_schedule is None else cnn_schedule(progress)
            for group in getattr(self, name).optimizer.param_groups:
                group["lr"] = cnn_rate if group.get("name") == "cnn" else rate

    def scale_learning_rates(self, factor: float) -> None:
        """
        Multiply all learning rates, of parts too, from the next update on.

        :param factor: of the rates [-]
        """
        self.learning_rate = self.lr_schedule = ScaledSchedule(self.lr_schedule, factor)
        for part, schedule in self._rates.items():
            if schedule is not None:
                self._rates[part] = ScaledSchedule(schedule, factor)
                setattr(self, f"{part}_learning_rate", self._rates[part])

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_rates"]
