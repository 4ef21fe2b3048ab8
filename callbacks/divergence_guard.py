"""Detects during a training that it diverges, reports the symptoms, and rolls it back or stops it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.logger import TensorBoardOutputFormat
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_carla.callbacks.divergence_rules import WINDOW, Alert, LoggedValues, find_alerts
from sb3_carla.callbacks.last_good_weights import LastGoodWeights
from sb3_carla.callbacks.probes import PreDumpHook, ProbeCallback, WeakHook, networks
from sb3_carla.td3.schedules import ScaledSchedule

__all__ = ["DivergenceGuard"]

RESPONSES = ("rollback", "stop", "warn")
LAST_GOOD = "last_good"
"""Key of the weights in the state that a checkpoint keeps."""


class DivergenceGuard(ProbeCallback):
    """
    Checks the logged values at each dump, and the weights before each rollout.

    Works with any SB3 algorithm. By itself it detects NaN and Inf (in losses, weights, rewards, observations) and Q
    values that no sum of rewards can reach. Its other rules use what ``GradientNormCallback``,
    ``FeatureStatisticsCallback``, ``ValueBiasCallback``, ``ActionSaturationCallback`` and ``DormantNeuronsCallback``
    log. Each alert is printed once, when it begins or becomes critical, and kept in :attr:`alerts`; TensorBoard shows
    the text under ``alerts/verdicts``.

    The guard keeps the last good weights and optimizers. They are saved every ``save_freq`` steps, and count as good
    after as many further steps without an alert; until then, the weights of the training's start do. If saving fails,
    there is a warning. A critical alert (NaN, Inf, gradient norms above 100 000, exponential growth) has a response:

    - "rollback": continue from the last good weights with learning rates times ``lr_factor``. Stop instead after
      ``max_rollbacks`` rollbacks, if the environment is the cause, or if no weights could be saved;
    - "stop": restore the last good weights, so that the model can be saved, and end the training;
    - "warn": only report the alert. No weights are saved.

    Tags: ``alerts/divergence_warning``, ``alerts/divergence_critical``: 1 at each dump with such an alert.

    :param response: see above
    :param save_freq: steps between two saves, and until saved weights count as good
    :param save_path: folder of ``last_good.zip``; None for the logger's folder, or, if it has none, a temporary one
    :param max_rollbacks: see above
    :param lr_factor: factor on the learning rates at a rollback, in (0, 1] [-]
    :param verbose: not used
    :raises ValueError: if an argument is outside its range
    """

    CHECKPOINTED = ("alerts", "rollbacks", "_history", "_active", "_pending", "_largest_reward", "_stale_dump")

    def __init__(
        self,
        response: str = "rollback",
        *,
        save_freq: int = 2000,
        save_path: str | None = None,
        max_rollbacks: int = 3,
        lr_factor: float = 0.5,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if response not in RESPONSES:
            raise ValueError(f"response: expected one of {', '.join(RESPONSES)}, got {response!r}")
        if save_freq < 1 or max_rollbacks < 0:
            raise ValueError(f"expected save_freq >= 1 and max_rollbacks >= 0, got {save_freq} and {max_rollbacks}")
        if not 0.0 < lr_factor <= 1.0:
            raise ValueError(f"lr_factor: expected a number in (0, 1], got {lr_factor}")
        self.response = response
        self.save_freq = save_freq
        self.save_path = save_path
        self.max_rollbacks = max_rollbacks
        self.lr_factor = lr_factor
        self.alerts: list[tuple[int, Alert]] = []
        """(step, alert) of each alert when it began or became critical."""
        self.rollbacks = 0
        self._history: dict[str, list[tuple[int, float]]] = {}
        self._last_weights: dict[str, list[th.nn.Parameter]] = {}
        self._active: dict[str, bool] = {}  # rule of a present alert -> whether it is critical
        self._pending: list[Alert] = []  # critical ones that have had no response yet
        self._largest_reward = 0.0
        self._stop = False
        self._stale_dump = False  # whether the next dump has values from before a rollback
        self._last_good: LastGoodWeights | None = None  # None with "warn"

    def state_dict(self) -> dict[str, Any]:
        """:return: state for a checkpoint, the last good weights included"""
        return super().state_dict() | {LAST_GOOD: None if self._last_good is None else self._last_good.state_dict()}

    # --- detection ---------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        # A gradient that is not finite makes all weights of its optimizer not finite, so one parameter per network is
        # enough. Target networks follow later.
        self._last_weights = {
            name: [p for key, p in network.named_parameters() if p.requires_grad and "target" not in key][-1:]
            for name, network in networks(self.model).items()
        }
        stored = self._resumed.pop(LAST_GOOD, None)
        if self.response != "warn":
            self._last_good = LastGoodWeights(self.model, self.save_path or self.logger.get_dir())
            if not self._last_good.load_state_dict(stored):
                self._last_good.save(self.num_timesteps)
                self._last_good.promote()
            for optimizer in _risky_optimizers(self.model):
                self._handles.append(optimizer.register_step_pre_hook(WeakHook(self._skip_bad_update)))
        self._stop = False
        self._handles.append(PreDumpHook(self.logger, self._check_logged_values, last=True))

    def _detach(self) -> None:
        if self._last_good is not None:
            self._last_good.discard()
            self._last_good = None
        super()._detach()
        self._last_weights = {}
        self._history.clear()
        self._active.clear()
        self._pending.clear()

    def _on_step(self) -> bool:
        if "rewards" in self.locals:  # ARS has no rewards there
            self._check_step()
        if any(not alert.recoverable for alert in self._pending):
            self._respond()
        return not self._stop

    def _check_step(self) -> None:
        rewards = np.asarray(self.locals["rewards"])
        if not np.isfinite(rewards).all():
            self._report(Alert("rewards", True, f"the environment returned rewards {rewards}", recoverable=False))
        else:
            self._largest_reward = max(self._largest_reward, float(np.abs(rewards).max()))
        observations = self.locals["new_obs"]
        for name, values in observations.items() if isinstance(observations, dict) else [("", observations)]:
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                text = f"the environment returned observations{' ' + name if name else ''} that are not finite"
                self._report(Alert("observations", True, text, recoverable=False))

    def _skip_bad_update(self, optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """
        Skip an update whose gradient is not finite. After such an update PPO and A2C raise an error at the next
        minibatch, SAC and TQC at the next of several updates of one ``train`` call. For other algorithms checking the
        weights is enough, which needs no device synchronisation per update.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if gradients and not th.stack(th._foreach_norm(gradients)).isfinite().all():
            self._report(Alert("gradients", True, "a gradient is not finite; the update was skipped"))
            optimizer.zero_grad(set_to_none=True)

    def _on_rollout_end(self) -> None:
        if isinstance(self.model, OnPolicyAlgorithm):
            # The next train call has many updates, and the first of them may raise an error.
            self._check_weights()
            self._respond()

    def _on_rollout_start(self) -> None:
        self._check_weights()
        self._respond()
        if self._last_good is None or self._active or self._stop:
            return
        if self.num_timesteps - self._last_good.candidate_step >= self.save_freq:
            self._last_good.promote()
            self._last_good.save(self.num_timesteps)

    def _on_training_end(self) -> None:
        if self._stop and self._last_good is not None:
            self._last_good.restore()  # an update may have been under way when the training stopped
        self._check_weights()
        self._respond()
        super()._on_training_end()

    def _check_weights(self) -> None:
        for name, weights in self._last_weights.items():
            if not all(bool(weight.isfinite().all()) for weight in weights):
                self._report(Alert("weights", True, f"the {name}'s weights are no longer finite"))

    def _check_logged_values(self) -> None:
        values = {tag: float(value) for tag, value in self.logger.name_to_value.items() if _is_number(value)}
        for tag, value in values.items():
            self._history.setdefault(tag, []).append((self.num_timesteps, value))
            del self._history[tag][:-WINDOW]
        if self._stale_dump:
            self._stale_dump = False
            self._history.clear()
            return
        found = find_alerts(LoggedValues(values, self._history, self._largest_return()))
        rules = {alert.rule for alert in found}
        rules |= {"weights", "rewards", "observations"}  # not checked here; these never end
        self._active = {rule: critical for rule, critical in self._active.items() if rule in rules}
        for alert in found:
            self._report(alert)

    def _largest_return(self) -> float:
        gamma = float(getattr(self.model, "gamma", 1.0))
        entropic = hasattr(self.model, "log_ent_coef") or hasattr(self.model, "ent_coef_tensor")
        # |Q| <= max |r| / (1 - gamma), a geometric series. Entropy bonuses (SAC, TQC) are not in the rewards.
        return math.inf if entropic or gamma >= 1.0 else self._largest_reward / (1.0 - gamma)

    # --- response ----------------------------------------------------------------------------------------------

    def _report(self, alert: Alert) -> None:
        level = "critical" if alert.critical else "warning"
        self.logger.record(f"alerts/divergence_{level}", 1)
        if self._last_good is not None:
            self._last_good.discard()
        if alert.critical:
            self._pending.append(alert)
        if alert.rule not in self._active or alert.critical > self._active[alert.rule]:
            self._active[alert.rule] = alert.critical
            self.alerts.append((self.num_timesteps, alert))
            self._print(f"{level} at step {self.num_timesteps}: {alert.text}")

    def _print(self, text: str) -> None:
        print(f"DivergenceGuard: {text}", flush=True)
        for output in self.logger.output_formats:
            if isinstance(output, TensorBoardOutputFormat):
                output.writer.add_text("alerts/verdicts", text, self.num_timesteps)

    def _respond(self) -> None:
        critical, self._pending = self._pending, []
        if not critical or self._last_good is None or self._stop:
            return
        step = self._last_good.restore()
        where = "the weights of the start" if step == self._last_good.first_step else f"the weights of step {step}"
        recoverable = step is not None and all(alert.recoverable for alert in critical)
        if self.response == "rollback" and recoverable and self.rollbacks < self.max_rollbacks:
            self.rollbacks += 1
            _scale_learning_rates(self.model, self.lr_factor)
            self._active.clear()
            self._stale_dump = True
            self._print(f"rolls back to {where}, learning rates times {self.lr_factor:g} (rollback {self.rollbacks})")
        else:
            self._stop = True
            if step is None:
                where = "no weights to restore, because none could be saved"
            elif self._last_good.permanent:
                where += f", which are also in {self._last_good.path}"
            self._print(f"stops the training, with {where}")
            self.logger.dump(self.num_timesteps)


def _risky_optimizers(model: Any) -> list[th.optim.Optimizer]:
    """Optimizers after whose bad update the next one, in the same ``train`` call, raises an error."""
    several = hasattr(model, "ent_coef_optimizer") and model.gradient_steps != 1  # SAC, TQC
    if not several and not isinstance(model, OnPolicyAlgorithm):
        return []
    found = [getattr(network, "optimizer", None) for network in networks(model).values()]
    return [each for each in [*found, getattr(model, "ent_coef_optimizer", None)] if each is not None]


def _scale_learning_rates(model: Any, factor: float) -> None:
    if hasattr(model, "scale_learning_rates"):
        model.scale_learning_rates(factor)
    else:
        model.learning_rate = model.lr_schedule = ScaledSchedule(model.lr_schedule, factor)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) or (isinstance(value, th.Tensor) and value.numel() == 1)
