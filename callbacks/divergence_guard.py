"""Sees a training go wrong while it happens, says so in words, and brings it back."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import TensorBoardOutputFormat
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file, recursive_getattr

from sb3_carla.callbacks.probes import BeforeDump, Hook, ProbeCallback, networks
from sb3_carla.callbacks.verdicts import WINDOW, Evidence, Verdict, judge
from sb3_carla.td3.schedules import ScaledSchedule

__all__ = ["DivergenceGuard"]

logger = logging.getLogger(__name__)

RESPONSES = ("rollback", "stop", "warn")
STORE = "store"
"""Key of the weights in the guard's state."""


class DivergenceGuard(ProbeCallback):
    """
    Judges a training at each dump by what the other callbacks logged, and its weights before each rollout.

    Works with any SB3 algorithm. By itself it sees NaN and Inf (in losses, weights, rewards, observations) and values
    that no sum of rewards can reach; with ``GradientNormCallback``, ``FeatureStatisticsCallback``,
    ``ValueBiasCallback``, ``ActionSaturationCallback`` and ``DormantNeuronsCallback`` the rest. Each verdict is printed
    once, when it begins or becomes critical, and kept in :attr:`verdicts`; TensorBoard has the words under
    ``alerts/verdicts``.

    It keeps the last good weights (and optimizers): saved every ``save_freq`` steps, and good once as many steps more
    have passed without a verdict; until then, the weights of the training's start. Where saving fails, that is a
    warning. On a critical verdict (NaN, Inf, gradient norms beyond 100 000, exponential growth) it responds:

    - "rollback": goes on from the last good weights with learning rates times ``lr_factor``; after
      ``max_rollbacks`` of them, or where the environment is at fault or nothing could be saved, stops;
    - "stop": puts the last good weights back, so that what is saved next is sound, and ends the training;
    - "warn": does nothing but say so, and saves nothing.

    Tags: ``alerts/divergence_warning``, ``alerts/divergence_critical``: 1 at each dump where it holds.

    :param response: see above
    :param save_freq: steps between savings, and until one counts as good
    :param save_path: folder of ``last_good.zip``; None for the logger's, or if it has none, one that goes with the
        training
    :param max_rollbacks: see above
    :param lr_factor: of the learning rates at a rollback [-]
    :param verbose: not used
    :raises ValueError: if an argument is outside its range
    """

    KEPT = ("verdicts", "rollbacks", "_history", "_active", "_pending", "_largest_reward", "_stale_dump")

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
        self.verdicts: list[tuple[int, Verdict]] = []
        """(step, verdict) of all that began."""
        self.rollbacks = 0
        self._history: dict[str, list[tuple[int, float]]] = {}
        self._last_weights: dict[str, list[th.nn.Parameter]] = {}
        self._active: dict[str, bool] = {}  # rules that hold, and whether critically
        self._pending: list[Verdict] = []
        self._largest_reward = 0.0
        self._stop = False
        self._stale_dump = False
        self._store: GoodWeights | None = None  # of a training where it may respond

    def state_dict(self) -> dict[str, Any]:
        """:return: for a checkpoint, what it has seen and done, and the weights that it would go back to"""
        return super().state_dict() | {STORE: None if self._store is None else self._store.state_dict()}

    # --- what it sees ------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        # A gradient that is not finite makes all weights of its optimizer so: each network's last ones tell. Not those
        # of a target network inside it, which follow late.
        self._last_weights = {
            name: [p for key, p in network.named_parameters() if p.requires_grad and "target" not in key][-1:]
            for name, network in networks(self.model).items()
        }
        stored = self._resumed.pop(STORE, None)
        if self.response != "warn":
            self._store = GoodWeights(self.model, self.save_path or self.logger.get_dir())
            if not self._store.load_state_dict(stored):
                self._store.save(self.num_timesteps)
                self._store.promote()
            for optimizer in _risky_optimizers(self.model):
                self._handles.append(optimizer.register_step_pre_hook(Hook(self._stepping)))
        self._stop = False
        self._handles.append(BeforeDump(self.logger, self._judge, last=True))

    def _detach(self) -> None:
        if self._store is not None:
            self._store.discard()
            self._store = None
        super()._detach()
        self._last_weights = {}
        self._history.clear()
        self._active.clear()
        self._pending.clear()

    def _on_step(self) -> bool:
        if "rewards" in self.locals:  # ARS tells nothing of its steps
            self._check_step()
        if any(not verdict.curable for verdict in self._pending):
            self._respond()
        return not self._stop

    def _check_step(self) -> None:
        rewards = np.asarray(self.locals["rewards"])
        if not np.isfinite(rewards).all():
            self._announce(Verdict("rewards", True, f"the environment returned rewards {rewards}", curable=False))
        else:
            self._largest_reward = max(self._largest_reward, float(np.abs(rewards).max()))
        observations = self.locals["new_obs"]
        for name, values in observations.items() if isinstance(observations, dict) else [("", observations)]:
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                text = f"the environment returned observations{' ' + name if name else ''} that are not finite"
                self._announce(Verdict("observations", True, text, curable=False))

    def _stepping(self, optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """
        Leave out an update whose gradient is not finite. PPO and A2C raise an error at the next minibatch after one, in
        the middle of their train step, and wait for each minibatch anyway; SAC and TQC do so at the next of several
        updates. Elsewhere the weights tell, and no update has to wait.
        """
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if gradients and not th.stack(th._foreach_norm(gradients)).isfinite().all():
            self._announce(Verdict("gradients", True, "a gradient is not finite; the update was left out"))
            optimizer.zero_grad(set_to_none=True)

    def _on_rollout_end(self) -> None:
        if isinstance(self.model, OnPolicyAlgorithm):
            # Its next update has many parts, and the first may end in an error.
            self._check_weights()
            self._respond()

    def _on_rollout_start(self) -> None:
        self._check_weights()
        self._respond()
        if self._store is None or self._active or self._stop:
            return
        if self.num_timesteps - self._store.candidate_step >= self.save_freq:
            self._store.promote()
            self._store.save(self.num_timesteps)

    def _on_training_end(self) -> None:
        if self._stop and self._store is not None:
            self._store.restore()  # of an update that was under way when it stopped
        self._check_weights()
        self._respond()
        super()._on_training_end()

    def _check_weights(self) -> None:
        for name, weights in self._last_weights.items():
            if not all(bool(weight.isfinite().all()) for weight in weights):
                self._announce(Verdict("weights", True, f"the {name}'s weights are no longer finite"))

    def _judge(self) -> None:
        values = {tag: float(value) for tag, value in self.logger.name_to_value.items() if _is_number(value)}
        for tag, value in values.items():
            self._history.setdefault(tag, []).append((self.num_timesteps, value))
            del self._history[tag][:-WINDOW]
        if self._stale_dump:  # what it says was measured before the last rollback
            self._stale_dump = False
            self._history.clear()
            return
        found = judge(Evidence(values, self._history, self._largest_return()))
        rules = {verdict.rule for verdict in found}
        rules |= {"weights", "rewards", "observations"}  # seen elsewhere, and last
        self._active = {rule: critical for rule, critical in self._active.items() if rule in rules}
        for verdict in found:
            self._announce(verdict)

    def _largest_return(self) -> float:
        gamma = float(getattr(self.model, "gamma", 1.0))
        entropic = hasattr(self.model, "log_ent_coef") or hasattr(self.model, "ent_coef_tensor")
        return math.inf if entropic or gamma >= 1.0 else self._largest_reward / (1.0 - gamma)

    # --- what it says and does ---------------------------------------------------------------------------------

    def _announce(self, verdict: Verdict) -> None:
        level = "critical" if verdict.critical else "warning"
        self.logger.record(f"alerts/divergence_{level}", 1)
        if self._store is not None:
            self._store.discard()
        if verdict.critical:
            self._pending.append(verdict)
        if verdict.rule not in self._active or verdict.critical > self._active[verdict.rule]:
            self._active[verdict.rule] = verdict.critical
            self.verdicts.append((self.num_timesteps, verdict))
            self._say(f"{level} at step {self.num_timesteps}: {verdict.text}")

    def _say(self, text: str) -> None:
        print(f"DivergenceGuard: {text}", flush=True)
        for output in self.logger.output_formats:
            if isinstance(output, TensorBoardOutputFormat):
                output.writer.add_text("alerts/verdicts", text, self.num_timesteps)

    def _respond(self) -> None:
        critical, self._pending = self._pending, []
        if not critical or self._store is None or self._stop:
            return
        step = self._store.restore()
        where = "the weights of the start" if step == self._store.first_step else f"the weights of step {step}"
        curable = step is not None and all(verdict.curable for verdict in critical)
        if self.response == "rollback" and curable and self.rollbacks < self.max_rollbacks:
            self.rollbacks += 1
            _scale_learning_rates(self.model, self.lr_factor)
            self._active.clear()
            self._stale_dump = True
            self._say(f"back to {where}, learning rates times {self.lr_factor:g} (rollback {self.rollbacks})")
        else:
            self._stop = True
            if step is None:
                where = "nothing to go back to, as no weights could be saved"
            elif self._store.stays:
                where += f", which are also in {self._store.path}"
            self._say(f"stops the training, with {where}")
            self.logger.dump(self.num_timesteps)


class GoodWeights:
    """
    Two generations of a model's weights and optimizers on disk: a candidate, and the last that proved good.

    :param model: whose they are
    :param folder: for ``last_good.zip``; made if it is not there; None for one that is removed with this object
    """

    def __init__(self, model: BaseAlgorithm, folder: str | None) -> None:
        self.stays = folder is not None
        if folder is None:
            folder = tempfile.mkdtemp(prefix="last_good_")
            finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = Path(folder) / "last_good.zip"
        self.candidate_step = self.first_step = model.num_timesteps
        self._good_step: int | None = None
        self._model = model
        self._candidate = Path(folder) / "last_good.candidate.zip"
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """:return: its steps, and the files as arrays, which a checkpoint writes once as long as they stay"""
        steps = {name: getattr(self, name) for name in ("candidate_step", "first_step", "_good_step")}
        paths = {"good": self.path, "candidate": self._candidate}
        return {"steps": steps} | {name: np.fromfile(path, np.uint8) for name, path in paths.items() if path.exists()}

    def load_state_dict(self, state: dict[str, Any] | None) -> bool:
        """
        :param state: of :meth:`state_dict`, or None
        :return: whether it is taken over; otherwise nothing is saved yet
        """
        if state is None:
            return False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for name, path in {"good": self.path, "candidate": self._candidate}.items():
                path.unlink(missing_ok=True)
                if name in state:
                    path.write_bytes(state[name])
        except OSError as error:
            self.discard()
            logger.warning("The last good weights of the checkpoint could not be written: %s", error)
            return False
        for name, step in state["steps"].items():
            setattr(self, name, step)
        return True

    def save(self, step: int) -> None:
        """
        Save a candidate. Where that fails there is none, and the first time a warning.

        :param step: now
        """
        self.candidate_step = step
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._candidate.open("w+b") as file:  # SB3 leaves it open where it fails
                self._model.save(file)
        except (OSError, TypeError, AttributeError, pickle.PicklingError) as error:  # a full disk, or no way to pickle
            self.discard()
            if not self._warned:
                self._warned = True
                logger.warning("The weights of step %d could not be saved: %s", step, error)

    def promote(self) -> None:
        """The candidate, if there is one, has proved good."""
        if self._candidate.exists():
            os.replace(self._candidate, self.path)
            self._good_step = self.candidate_step

    def discard(self) -> None:
        """The candidate may be ill already: wait for another."""
        with contextlib.suppress(OSError):
            self._candidate.unlink(missing_ok=True)
        self.candidate_step = self._model.num_timesteps

    def restore(self) -> int | None:
        """:return: step of the weights that the model has now; None where none were saved, and it stays as it is"""
        if self._good_step is None:
            return None
        _, parameters, variables = load_from_zip_file(self.path, device=self._model.device)
        self._model.set_parameters(parameters, exact_match=True, device=self._model.device)
        for name, saved in (variables or {}).items():
            recursive_getattr(self._model, name).data = saved.data
        return self._good_step


def _risky_optimizers(model: Any) -> list[th.optim.Optimizer]:
    """Those after whose bad update the next one ends in an error, within the same train step."""
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
