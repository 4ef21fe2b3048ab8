"""Share of actions at the limits of the action space, where the gradient of tanh is nearly zero."""

from __future__ import annotations

from typing import Any

import torch as th
from gymnasium import spaces
from torch import nn

from sb3_carla.callbacks.probes import PreDumpHook, ProbeCallback, WeakHook, exclude_if_too_long

__all__ = ["ActionSaturationCallback"]


class ActionSaturationCallback(ProbeCallback):
    """
    Logs the share of actions near the limits of a box action space.

    Works with any SB3 algorithm; does nothing if the action space is not a box. If the policy has an actor (DDPG, TD3,
    SAC, TQC), the actor's output counts, before exploration noise; otherwise (PPO, A2C) the actions taken.

    Tags (means over the steps since the last dump): ``debug/action_saturation`` over all dimensions, and, if there are
    several, ``debug/action_saturation_<name>``. The names are the environment's ``action_names`` (one per dimension),
    or numbers if it has none.

    :param limit: an action a with abs(a) > limit is saturated; actions are scaled to -1..1 [-]
    :param verbose: not used
    """

    CHECKPOINTED = ("_saturated", "_steps")

    def __init__(self, limit: float = 0.95, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.limit = limit
        self._names: list[str] = []
        self._output: th.Tensor | None = None
        self._saturated: th.Tensor | None = None
        self._steps = 0

    def _attach(self) -> None:
        space = self.model.action_space
        if not isinstance(space, spaces.Box):
            return
        self._low, self._high = (th.as_tensor(bound, dtype=th.float32).flatten() for bound in (space.low, space.high))
        self._names = action_names(self.training_env, len(self._low))
        actor = getattr(self.model.policy, "actor", None)
        self._actor = actor if isinstance(actor, nn.Module) else None
        if self._actor is not None:
            self._handles.append(self._actor.register_forward_hook(WeakHook(self._store_output)))
        self._handles.append(PreDumpHook(self.logger, self._record))

    def _detach(self) -> None:
        super()._detach()
        self._names, self._output, self._saturated, self._steps = [], None, None, 0

    def _store_output(self, module: nn.Module, inputs: object, output: Any) -> None:
        if not module.training and isinstance(output, th.Tensor):  # the policy is in evaluation mode while it acts
            self._output = output.detach()

    def _on_rollout_start(self) -> None:
        self._output = None  # discard outputs that other callbacks asked for

    def _on_step(self) -> bool:
        actions = self._actions() if self._names else None
        if actions is not None and len(actions):
            saturated = (actions.abs() > self.limit).float().mean(dim=0)  # (action_dim,)
            self._saturated = saturated if self._saturated is None else self._saturated + saturated
            self._steps += 1
        return True

    def _actions(self) -> th.Tensor | None:
        """Actions of this step, shape (n_envs, action_dim), scaled to -1..1; None if unknown (a random action)."""
        if self._actor is not None:
            output, self._output = self._output, None
            return None if output is None else output.reshape(-1, len(self._names))
        taken = self.locals.get("clipped_actions", self.locals.get("actions"))  # PPO's "actions" may be scaled already
        if taken is None:
            return None
        actions = th.as_tensor(taken, dtype=th.float32).reshape(-1, len(self._names)).cpu()
        return 2.0 * (actions - self._low) / (self._high - self._low) - 1.0

    def _record(self) -> None:
        if self._saturated is None:
            return
        shares = (self._saturated / self._steps).tolist()
        self.logger.record("debug/action_saturation", sum(shares) / len(shares))
        if len(shares) > 1:
            for name, share in zip(self._names, shares, strict=True):
                tag = f"debug/action_saturation_{name}"
                self.logger.record(tag, share, exclude=exclude_if_too_long(tag))
        self._saturated, self._steps = None, 0


def action_names(env: Any, number: int) -> list[str]:
    """
    :param env: vectorised environment
    :param number: number of action dimensions
    :return: names of the dimensions according to the environment; "0", "1", ... if it has none
    """
    names = env.get_attr("action_names", [0])[0] if env.has_attr("action_names") else None
    if isinstance(names, (list, tuple)) and len(names) == number:
        return list(names)
    return [str(index) for index in range(number)]
