"""
A published TD3 + CNN system for CARLA with its faults, each of which can be switched off. For the ablation only.

The faults, according to its code and logs, and how :class:`sb3_carla.TD3` with ``LayerNormCnnPolicy`` reproduces them:

1. The policy loss is ``-Q1(f, pi(f))`` with f the features of the *actor's* CNN, and its gradient reaches that CNN
   through both: ``policy_loss="actor_features"``. SB3 feeds Q1 with the critic's own features.
2. Each CNN has an optimizer of its own, which steps on the gradients before they are clipped:
   ``clipping="bypassed"``. ``clipping="parts"`` clips the CNN and the MLP to the limit separately, then both step: the
   same as separate optimizers that step after clipping, because Adam treats each parameter by itself.
3. The features are not normalised: ``features_extractor_class`` is SB3's ``NatureCNN``.
"""

from __future__ import annotations

from typing import Any

import torch as th
from torch import nn

from sb3_carla.td3.td3 import TD3
from sb3_carla.td3.types import Batch, Metrics, Networks
from sb3_carla.td3.update import encode

__all__ = ["CLIPPING", "POLICY_LOSSES", "PublishedTD3"]

POLICY_LOSSES = ("actor_features", "critic_features")
CLIPPING = ("none", "bypassed", "parts", "all")


class PublishedTD3(TD3):
    """
    TD3 with the published faults.

    :param args: arguments of :class:`sb3_carla.TD3`
    :param policy_loss: "actor_features" (published) or "critic_features" (as in TD3)
    :param clipping: "none", "bypassed" (published: the CNNs step on unclipped gradients), "parts" or "all"
    :param kwargs: further arguments of :class:`sb3_carla.TD3`
    :raises ValueError: if a choice is unknown, or the encoder is not "separate"
    """

    def __init__(
        self, *args: Any, policy_loss: str = "actor_features", clipping: str = "bypassed", **kwargs: Any
    ) -> None:
        for name, value, known in (("policy_loss", policy_loss, POLICY_LOSSES), ("clipping", clipping, CLIPPING)):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        self.policy_loss = policy_loss
        self.clipping = clipping
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.actor.features_extractor is self.critic.features_extractor:
            raise ValueError('PublishedTD3 needs encoder="separate": the actor and the critic each had a CNN')
        if self.policy_loss == "actor_features":
            self._losses = self._losses._replace(actor=actor_features_loss)

    def _clip(self, name: str) -> None:
        limit = getattr(self, f"{name}_max_grad_norm")
        if self.clipping == "all":
            super()._clip(name)
        elif limit is not None and self.clipping != "none":
            parts = {group["name"]: group["params"] for group in getattr(self, name).optimizer.param_groups}
            nn.utils.clip_grad_norm_(parts["mlp"], limit, foreach=True)
            if self.clipping == "parts":
                nn.utils.clip_grad_norm_(parts["cnn"], limit, foreach=True)


def actor_features_loss(networks: Networks, batch: Batch, features: th.Tensor) -> tuple[th.Tensor, Metrics]:
    """
    The published policy loss: the critic's head on the features of the actor's CNN.

    :param networks: of the update
    :param batch: transitions
    :param features: of the critic's CNN, not used
    :return: minus the first critic's mean value; metrics
    """
    own = encode(networks, networks.actor, batch.observations)  # (n, features_dim)
    values: th.Tensor = networks.critic.q_networks[0](th.cat([own, networks.actor.mu(own)], dim=1))  # (n, 1)
    loss = -values.mean()
    return loss, {"train/actor_loss": loss.detach()}
