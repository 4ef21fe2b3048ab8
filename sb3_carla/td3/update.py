"""
One update of TD3: Fujimoto et al., Addressing function approximation error in actor-critic methods, ICML 2018.

:func:`update` is lines 7 to 12 of the paper's algorithm 1, in its order; line numbers stand beside the code. All
functions are pure but for the networks that they train. Losses and metrics are tensors: nothing waits for the device.
In shapes, n is the batch size.

What differs from the paper: encoders may compute in bfloat16, gradients may be clipped (``descend``), an actor may look
through the critic's encoder, critics may see the simulator's state instead of the observation, and the actor's
features may be trained to predict that state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.policies import BaseModel
from torch.nn import functional as F

from sb3_carla.policies.td3 import DetachedActor, PredictingActor
from sb3_carla.td3.tensors import frozen
from sb3_carla.td3.types import Batch, Metrics, Networks

__all__ = ["Losses", "actor_loss", "critic_loss", "encode", "td_target", "update"]


def encode(networks: Networks, network: BaseModel, observations: Any) -> th.Tensor:
    """
    :param networks: of the update
    :param network: one of them
    :param observations: of a batch, or its states
    :return: the network's features, shape (n, features_dim), float32
    """
    assert network.features_extractor is not None
    with th.autocast(network.device.type, dtype=th.bfloat16, enabled=networks.autocast):
        features: th.Tensor = network.features_extractor(observations)
    return features.float()


def td_target(networks: Networks, batch: Batch) -> th.Tensor:
    """
    :param networks: of the update
    :param batch: transitions
    :return: y, the target of both critics, shape (n, 1)
    """
    actor, critic = networks.actor_target, networks.critic_target
    features = actor_features = encode(networks, critic, batch.next_states)  # (n, features_dim)
    if actor.features_extractor is not critic.features_extractor:
        actor_features = encode(networks, actor, batch.next_observations)  # (n, features_dim)
    noise = th.empty_like(batch.actions).normal_(0.0, networks.noise)  # (n, action_dim)
    noise = noise.clamp(-networks.noise_clip, networks.noise_clip)
    actions = (actor.mu(actor_features) + noise).clamp(-1.0, 1.0)  # (n, action_dim)
    inputs = th.cat([features, actions], dim=1)  # (n, features_dim + action_dim)
    values = th.cat([q_network(inputs) for q_network in critic.q_networks], dim=1)  # (n, n_critics)
    return batch.rewards + batch.discounts * values.min(dim=1, keepdim=True).values


def critic_loss(networks: Networks, batch: Batch, target: th.Tensor) -> tuple[th.Tensor, th.Tensor, Metrics]:
    """
    :param networks: of the update
    :param batch: transitions
    :param target: of :func:`td_target`
    :return: the critics' mean squared errors, summed; the critic's features, shape (n, features_dim), detached; metrics
    """
    with th.set_grad_enabled(not networks.freeze_critic_encoder):
        features = encode(networks, networks.critic, batch.states)  # (n, features_dim)
    inputs = th.cat([features, batch.actions], dim=1)  # (n, features_dim + action_dim)
    values = [q_network(inputs) for q_network in networks.critic.q_networks]  # n_critics x (n, 1)
    losses = [F.mse_loss(value, target) for value in values]
    loss = th.stack(losses).sum()
    metrics = {"train/critic_loss": loss.detach(), "train/target_Q_mean": target.mean()}
    for number, (value, part) in enumerate(zip(values, losses, strict=True), start=1):
        metrics[f"train/critic_{number}_loss"] = part.detach()
        metrics[f"train/q{number}_value"] = value.detach().mean()
        metrics[f"debug/td_error_q{number}"] = (value.detach() - target).abs().mean()
    return loss, features.detach(), metrics


def actor_loss(networks: Networks, batch: Batch, features: th.Tensor) -> tuple[th.Tensor, Metrics]:
    """
    :param networks: of the update
    :param batch: transitions
    :param features: of :func:`critic_loss`
    :return: minus the first critic's mean value of the actor's actions; plus, if asked for, the weighted error of the
        state that the actor's features predict; metrics
    """
    actor_features = critic_features = features
    if not isinstance(networks.actor, DetachedActor):
        actor_features = encode(networks, networks.actor, batch.observations)  # (n, features_dim)
        with th.no_grad():  # encoded again, because the critic's step has changed its encoder
            critic_features = encode(networks, networks.critic, batch.states)
    actions = networks.actor.mu(actor_features)  # (n, action_dim)
    values: th.Tensor = networks.critic.q_networks[0](th.cat([critic_features, actions], dim=1))  # (n, 1)
    loss = -values.mean()
    metrics = {"train/actor_loss": loss.detach()}
    if networks.state_prediction > 0.0:
        assert isinstance(networks.actor, PredictingActor)
        error = F.mse_loss(networks.actor.state_head(actor_features), batch.states)  # of shape (n, state_size)
        metrics["train/state_prediction_loss"] = error.detach()
        loss = loss + networks.state_prediction * error
    return loss, metrics


class Losses(NamedTuple):
    """The passes through the networks. ``compile_step`` compiles them, and the ablation replaces one."""

    td_target: Callable[[Networks, Batch], th.Tensor] = td_target
    critic: Callable[[Networks, Batch, th.Tensor], tuple[th.Tensor, th.Tensor, Metrics]] = critic_loss
    actor: Callable[[Networks, Batch, th.Tensor], tuple[th.Tensor, Metrics]] = actor_loss


def update(
    networks: Networks,
    batch: Batch,
    descend: Callable[[str, th.Tensor], None],
    *,
    train_actor: bool = True,
    losses: Losses = Losses(),  # noqa: B008 (immutable)
) -> Metrics:
    """
    Train the critics, and the actor where it is its turn.

    :param networks: what is trained
    :param batch: transitions (line 6)
    :param descend: takes "critic" or "actor" and its loss, and makes one step of that network's optimizer
    :param train_actor: whether t mod d = 0 (line 10)
    :param losses: the passes through the networks
    :return: metrics
    """
    with th.no_grad():
        target = losses.td_target(networks, batch)  # lines 7 and 8
    loss, features, metrics = losses.critic(networks, batch, target)
    descend("critic", loss)  # line 9
    if train_actor:
        with frozen(networks.critic.q_networks[0]):
            loss, more = losses.actor(networks, batch, features)
            descend("actor", loss)  # line 11
        metrics |= more
        soft_update(networks)  # line 12
    return metrics


@th.no_grad()
def soft_update(networks: Networks) -> None:
    """
    Move the target networks towards the trained ones by ``tau``.

    :param networks: of the update
    """
    th._foreach_mul_(networks.targets, 1.0 - networks.tau)  # SB3 rounds twice too; one lerp would differ
    th._foreach_add_(networks.targets, networks.online, alpha=networks.tau)
