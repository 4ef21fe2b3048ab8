"""What an update of TD3 works on: a batch of transitions, and the networks with their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch as th
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.td3.policies import Actor

__all__ = ["Batch", "Metrics", "Networks"]

Metrics = dict[str, th.Tensor]
"""TensorBoard tag -> scalar tensor."""


@dataclass(frozen=True)
class Batch:
    """
    Sampled transitions, ready for the networks. n is the batch size.

    :param observations: shape (n, ...): float, scaled; uint8 where the encoders scale pixels themselves; or a dict
    :param next_observations: likewise
    :param actions: shape (n, action_dim), float32
    :param rewards: shape (n, 1), float32; n-step returns where the buffer gives them
    :param discounts: shape (n, 1), float32: discount of the next state's value, 0 after a terminal state
    :param states: what the critics see: the observations, or with ``critic_state`` shape (n, state_size), float32
    :param next_states: likewise
    """

    observations: Any
    next_observations: Any
    actions: th.Tensor
    rewards: th.Tensor
    discounts: th.Tensor
    states: Any
    next_states: Any


@dataclass(frozen=True)
class Networks:
    """
    What an update trains, and how.

    :param actor: pi
    :param critic: Q_1 and Q_2
    :param actor_target: pi'
    :param critic_target: Q_1' and Q_2'
    :param online: all parameters of actor and critic, each once
    :param targets: the target networks' parameters, in the same order
    :param tau: share of the way that the targets move at an update [-]
    :param noise: standard deviation of the target policy's noise [action units]
    :param noise_clip: largest magnitude of that noise [action units]
    :param autocast: the encoders compute in bfloat16
    :param state_prediction: weight of the actor's error in predicting the state, 0: it does not predict it [-]
    :param freeze_critic_encoder: the critic's loss does not train its encoder (SB3's ``share_features_extractor=True``)
    """

    actor: Actor
    critic: ContinuousCritic
    actor_target: Actor
    critic_target: ContinuousCritic
    online: list[th.Tensor]
    targets: list[th.Tensor]
    tau: float
    noise: float
    noise_clip: float
    autocast: bool
    state_prediction: float
    freeze_critic_encoder: bool
