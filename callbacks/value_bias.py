"""What the critic promises, beside what the episodes really brought."""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_carla.callbacks.probes import BeforeDump, ProbeCallback

__all__ = ["ValueBiasCallback", "monte_carlo_returns", "predicted_values"]

MOST_STATES = 64
"""States kept of an episode; twice as many are thinned out to this number."""
MOST_COMPARED = 256
"""States compared at a dump; of more, the latest."""
UNSEEN = 0.1
"""Largest weight of what lies behind a truncation, in the return of a state that is compared."""


@dataclass
class Episode:
    """
    An episode that goes on: all its rewards, and some of its states and actions, evenly spread.

    :param stride: every ``stride``-th state is kept
    """

    rewards: list[float] = field(default_factory=list)
    states: list[tuple[int, Any, Any]] = field(default_factory=list)
    stride: int = 1

    def add(self, view: Any, action: Any, reward: float) -> None:
        """
        :param view: what the critic sees where the action was chosen; None: unknown
        :param action: as the critic takes it
        :param reward: what came of it
        """
        if len(self.rewards) % self.stride == 0 and view is not None:
            self.states.append((len(self.rewards), _copy(view), np.array(action)))
        self.rewards.append(float(reward))
        if len(self.states) >= 2 * MOST_STATES:
            self.states, self.stride = self.states[::2], 2 * self.stride


@dataclass(frozen=True)
class Comparison:
    """
    A state whose return is known.

    :param view: what the critic sees of it: the observation, or the environment's state
    :param action: as the critic takes it
    :param seen: discounted rewards that followed
    :param weight: of the value behind a truncation [-]
    :param end: last observation of a truncated episode, and what the critic sees of it; None of another
    """

    view: Any
    action: npt.NDArray[Any]
    seen: float
    weight: float
    end: Any


class ValueBiasCallback(ProbeCallback):
    """
    Compares the critic with the discounted return that really followed, over the episodes that ended since the last
    dump: the one measure of overestimation that needs no assumption.

    Works with any SB3 algorithm that has a critic: Q(s, a) of DDPG, TD3, SAC, TQC, DQN, QR-DQN, the value V(s) of PPO
    and A2C; does nothing elsewhere. The returns are those of the policy as it acted, exploration included; SAC's and
    TQC's Q also counts entropy, which the return does not. Behind a truncation nothing is known: there the critic's
    own value completes the return, and only states count for which that weighs at most 10 % (or the first, if there
    are none). A critic that sees the environment's state instead of the observation (``sb3_carla.TD3`` with
    ``critic_state``) is asked about that; of an episode's first observation it is not known.

    Tags: ``debug/monte_carlo_return``, ``debug/monte_carlo_q`` (means over the same states), ``debug/q_bias`` (their
    difference), ``debug/q_bias_normalized`` (divided by the mean absolute return). Source of the last: Chen et al.,
    Randomized ensembled double Q-learning, ICLR 2021, section 3.

    :param states_per_episode: that are compared, chosen at random
    :param verbose: not used
    """

    KEPT = ("_random", "_chosen")

    def __init__(self, states_per_episode: int = 8, verbose: int = 0) -> None:
        super().__init__(verbose)
        if states_per_episode < 1:
            raise ValueError(f"states_per_episode: expected at least 1, got {states_per_episode}")
        self.states_per_episode = states_per_episode
        self._random = random.Random(0)  # its own: the training's random numbers stay as they are
        self._episodes: dict[int, Episode] = {}
        self._chosen: deque[Comparison] = deque(maxlen=MOST_COMPARED)
        self._states: dict[int, Any] = {}  # of the environments, where the critic sees these

    def _attach(self) -> None:
        if _has_critic(self.model):
            self._handles.append(BeforeDump(self.logger, self._record))

    def _detach(self) -> None:
        super()._detach()
        self._episodes.clear()
        self._chosen.clear()
        self._states.clear()

    def _on_step(self) -> bool:
        if not self._handles:
            return True
        actions = self.locals.get("buffer_actions", self.locals["actions"])
        key = _state_key(self.model)
        steps = zip(self.locals["rewards"], self.locals["dones"], self.locals["infos"], strict=True)
        for index, (reward, ended, info) in enumerate(steps):
            episode = self._episodes.setdefault(index, Episode())
            view = _row(self.model._last_obs, index) if key is None else self._states.get(index)
            episode.add(view, actions[index], reward)
            if key is not None:
                self._states[index] = None if ended else info.get(key)
            if ended:
                self._finish(self._episodes.pop(index), info)
        return True

    def _finish(self, episode: Episode, info: dict[str, Any]) -> None:
        """Choose the states to compare; what the critic says of them waits for the dump."""
        gamma, usable = self._gamma, len(episode.rewards)
        key, end = _state_key(self.model), None
        if info.get("TimeLimit.truncated", False):
            last = info.get("terminal_observation")
            end = (last, last if key is None else info.get(key))
            if any(part is None for part in end):
                return  # nobody tells, or the environment's process is gone, and its last state with it
            unseen = math.ceil(math.log(UNSEEN) / math.log(gamma)) if 0.0 < gamma < 1.0 else usable
            usable = max(1, usable - unseen + 1)
        candidates = [state for state in episode.states if state[0] < usable]
        chosen = self._random.sample(candidates, min(self.states_per_episode, len(candidates)))
        returns = monte_carlo_returns(episode.rewards, gamma)
        for number, view, action in chosen:
            weight = gamma ** (len(episode.rewards) - number)
            self._chosen.append(Comparison(view, action, returns[number], weight, end))

    def _record(self) -> None:
        if not self._chosen:
            return
        found = list(self._chosen)
        self._chosen.clear()
        returns = np.array([comparison.seen for comparison in found])
        ends = {id(comparison.end): comparison.end for comparison in found if comparison.end is not None}
        if ends:
            observations, views = (_batch(list(column)) for column in zip(*ends.values(), strict=True))
            values = dict(zip(ends, _state_values(self.model, observations, views), strict=True))
            returns += [c.weight * values[id(c.end)] if c.end is not None else 0.0 for c in found]
        views, actions = _batch([c.view for c in found]), np.stack([c.action for c in found])
        q, expected = float(predicted_values(self.model, views, actions).mean()), float(returns.mean())
        size = float(np.abs(returns).mean())
        self.logger.record("debug/monte_carlo_return", expected)
        self.logger.record("debug/monte_carlo_q", q)
        self.logger.record("debug/q_bias", q - expected)
        if size > 0.0:
            self.logger.record("debug/q_bias_normalized", (q - expected) / size)

    @property
    def _gamma(self) -> float:
        return float(getattr(self.model, "gamma", 0.99))


def monte_carlo_returns(rewards: list[float], gamma: float) -> list[float]:
    """
    Discounted returns of an episode.

    :param rewards: of its n steps
    :param gamma: discount [-]
    :return: return from each step on, n numbers
    """
    returns = [0.0]
    for reward in reversed(rewards):
        returns.append(reward + gamma * returns[-1])
    return returns[:0:-1]


@th.no_grad()
def predicted_values(model: BaseAlgorithm, observations: Any, actions: np.ndarray) -> np.ndarray:
    """
    What a model's critics expect, their mean.

    :param model: any SB3 model with a critic
    :param observations: shape (n, ...), or a dict of such, as the critic gets them: with ``critic_state`` states
    :param actions: shape (n, ...), scaled to -1..1; (n,) where they are discrete; not used by V(s)
    :return: Q(s, a), or V(s) where the model has no Q: shape (n,)
    """
    policy: Any = model.policy
    if _state_key(model) is None:
        states = policy.obs_to_tensor(observations)[0]
    else:
        states = th.as_tensor(observations, device=model.device, dtype=th.float32)
    critic = getattr(policy, "critic", None)
    if isinstance(critic, th.nn.Module):
        flat = th.as_tensor(actions, device=model.device, dtype=th.float32).reshape(len(actions), -1)  # (n, action_dim)
        found = critic(states, flat)
        found = (
            th.cat(found, dim=1) if isinstance(found, tuple) else found
        )  # (n, n_critics) or (n, n_critics, quantiles)
        values = found.flatten(1).mean(dim=1)
    elif _discrete_values(policy) is None:
        values = policy.predict_values(states).flatten()
    else:
        chosen = th.as_tensor(actions, device=model.device).reshape(-1, 1).long()
        values = _action_values(policy, states).gather(1, chosen).flatten()
    return np.asarray(values.float().cpu().numpy())


@th.no_grad()
def _state_values(model: BaseAlgorithm, observations: Any, views: Any) -> np.ndarray:
    """What the policy itself would get from here, where it sees observations and the critic ``views``: shape (n,)."""
    policy: Any = model.policy
    if isinstance(getattr(policy, "critic", None), th.nn.Module):
        actions = policy._predict(policy.obs_to_tensor(observations)[0], deterministic=True)  # no random numbers
        return predicted_values(model, views, actions.cpu().numpy())
    if _discrete_values(policy) is None:
        return predicted_values(model, observations, np.zeros(0))
    found = _action_values(policy, policy.obs_to_tensor(observations)[0]).max(dim=1).values
    return np.asarray(found.float().cpu().numpy())


def _discrete_values(policy: Any) -> Any:
    """DQN's or QR-DQN's network, None of other policies."""
    return getattr(policy, "q_net", None) or getattr(policy, "quantile_net", None)


def _action_values(policy: Any, states: Any) -> th.Tensor:
    """:return: shape (n, n_actions)"""
    found: th.Tensor = _discrete_values(policy)(states)
    return found.mean(dim=1) if found.dim() == 3 else found  # QR-DQN: (n, quantiles, n_actions)


def _has_critic(model: BaseAlgorithm) -> bool:
    policy = model.policy
    recurrent = hasattr(policy, "lstm_actor")  # its value needs the LSTM's state
    critic = isinstance(getattr(policy, "critic", None), th.nn.Module)
    return critic or _discrete_values(policy) is not None or (hasattr(policy, "predict_values") and not recurrent)


def _state_key(model: BaseAlgorithm) -> str | None:
    """Key of the infos under which the critic's state is told; None where it sees observations."""
    key: str | None = getattr(model, "critic_state", None)
    return key


def _row(observations: Any, index: int) -> Any:
    if isinstance(observations, dict):
        return {key: value[index] for key, value in observations.items()}
    return observations[index]


def _copy(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: np.array(value) for key, value in observation.items()}
    return np.array(observation)


def _batch(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([observation[key] for observation in observations]) for key in observations[0]}
    return np.stack(observations)
