"""The TD3 policy: LayerNorm NatureCNN, one optimizer per network, and a choice of which loss trains the encoder."""

from __future__ import annotations

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.td3.policies import Actor, TD3Policy
from torch import nn

from sb3_carla.policies.extractor import LayerNormNatureCNN

__all__ = ["ENCODERS", "DetachedActor", "LayerNormCnnPolicy", "PredictingActor", "StateCritic"]

ENCODERS = ("separate", "critic", "actor")


class DetachedActor(Actor):
    """
    An actor that uses the critic's encoder without training it.

    The encoder is a submodule of the critic only. So the actor's parameters are those of its head, in optimizers,
    target updates and saved models, and in SB3's own train step too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        encoder = self.features_extractor
        del self.features_extractor
        object.__setattr__(self, "features_extractor", encoder)  # past nn.Module, which would register it

    def extract_features(self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor) -> th.Tensor:
        """
        :param obs: a batch of observations
        :param features_extractor: the critic's
        :return: shape (n, features_dim), without gradient
        """
        with th.no_grad():
            return super().extract_features(obs, features_extractor)


class PredictingActor(Actor):
    """An actor whose features also predict the simulator's state, which trains its encoder (see ``TD3``)."""

    def __init__(self, *args: Any, state_size: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.state_head = nn.Linear(self.features_dim, state_size)


class StateCritic(ContinuousCritic):
    """
    Critics of the simulator's state, shape (n, state_size), while the actor sees the camera's image.

    :meth:`forward` and :meth:`q1_forward` are those of ``ContinuousCritic``, with states for observations.
    """

    def extract_features(self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor) -> th.Tensor:
        """
        :param obs: states, shape (n, state_size)
        :param features_extractor: passes them on
        :return: the states, shape (n, state_size), float32
        :raises ValueError: if the shape is another one, as it is in SB3's own train step, which passes images
        """
        if not isinstance(obs, th.Tensor) or obs.shape[1:] != self.observation_space.shape:
            seen = list(obs.shape) if isinstance(obs, th.Tensor) else type(obs).__name__
            raise ValueError(
                "encoder='actor': expected the critic to get states of shape "
                f"(n, {features_extractor.features_dim}), got {seen}; "
                "only sb3_carla.TD3 with critic_state trains such a policy"
            )
        features: th.Tensor = features_extractor(obs)
        return features


class LayerNormCnnPolicy(TD3Policy):
    """
    TD3's actor and critics on camera images.

    Each network has one optimizer with two parameter groups, named "cnn" and "mlp". So clipping sees all of a network's
    gradients, and each group may have its own learning rate (``learning_rates`` of :class:`sb3_carla.TD3`).

    ``encoder="critic"`` is DrQ-v2's arrangement (Yarats et al., 2021): one encoder, trained by the critic's loss, whose
    features the actor uses without a gradient. SB3's own ``share_features_extractor=True`` does the reverse. Differs
    from DrQ-v2: the target critic has its own encoder, which follows by ``tau``, and the target actor uses it. A model
    loaded with ``stable_baselines3.TD3`` predicts and trains as described, with one learning rate.

    ``encoder="actor"`` is an asymmetric actor-critic (Pinto et al., Asymmetric actor critic for image-based robot
    learning, RSS 2018): the critics see ``state_size`` numbers of the simulator's state instead of the image. Only
    training needs critics, so driving needs the camera alone. The actor has the only encoder, and the policy's loss
    trains it. A model loaded with ``stable_baselines3.TD3`` predicts; only :class:`sb3_carla.TD3` trains it
    (``critic_state``).

    To trace or export a model (``torch.jit.trace``, ``torch.export``), use the whole policy: the actor alone may lack
    the encoder. It returns actions in -1 to 1; ``predict`` scales them to the action space.

    :param observation_space: image, channels first
    :param action_space: box
    :param lr_schedule: learning rate of all groups until the algorithm sets theirs
    :param net_arch: hidden layers of actor and critic
    :param encoder: "separate" (one for the actor, one for the critic), "critic" or "actor"
    :param state_size: numbers in the state that the critics see with ``encoder="actor"``
    :param predict_state: the actor's features also predict the state (``state_prediction`` of
        :class:`sb3_carla.TD3`); only with ``encoder="actor"``
    :param features_extractor_class: network from image to features
    :param kwargs: further arguments of ``stable_baselines3.td3.policies.TD3Policy``
    :raises ValueError: if ``encoder`` is none of these, or ``state_size`` does not go with it
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        *,
        encoder: str = "separate",
        state_size: int = 0,
        predict_state: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] = LayerNormNatureCNN,
        **kwargs: Any,
    ) -> None:
        if encoder not in ENCODERS:
            raise ValueError(f"encoder: expected one of {', '.join(ENCODERS)}, got {encoder!r}")
        if encoder != "separate" and kwargs.get("share_features_extractor"):
            raise ValueError(f'encoder="{encoder}" and share_features_extractor=True exclude each other')
        if not isinstance(state_size, int) or (state_size > 0) != (encoder == "actor"):
            wanted = "a whole number of at least 1" if encoder == "actor" else "0"
            raise ValueError(f"state_size: expected {wanted} with encoder={encoder!r}, got {state_size!r}")
        if predict_state and encoder != "actor":
            raise ValueError(f"predict_state: expected only with encoder='actor', got encoder={encoder!r}")
        self.encoder, self.state_size, self.predict_state = encoder, state_size, predict_state
        if not kwargs.get("normalize_images", True) and issubclass(features_extractor_class, LayerNormNatureCNN):
            # As SB3 does for NatureCNN: images that are not to be scaled are scaled already.
            given = kwargs.get("features_extractor_kwargs") or {}
            kwargs["features_extractor_kwargs"] = {"normalized_image": True, **given}
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            # SB3 falls back to [400, 300] for every extractor that is not exactly NatureCNN.
            net_arch=[256, 256] if net_arch is None else net_arch,
            features_extractor_class=features_extractor_class,
            **kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        if self.encoder == "critic":
            self.actor = self._detached_actor(self.critic.features_extractor)
            self.actor_target = self._detached_actor(self.critic_target.features_extractor)
            self.actor_target.mu.load_state_dict(self.actor.mu.state_dict())
            self.actor_target.set_training_mode(False)
        rate = lr_schedule(1.0)
        self.actor.optimizer = self._optimizer(self.actor, rate, own_encoder=self.encoder != "critic")
        self.critic.optimizer = self._optimizer(self.critic, rate, own_encoder=not self.share_features_extractor)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Actor:
        """
        :param features_extractor: to use; None makes one
        :return: an actor that sees images
        """
        if not self.predict_state:
            return super().make_actor(features_extractor)
        arguments = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return PredictingActor(**arguments, state_size=self.state_size).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> ContinuousCritic:
        """
        :param features_extractor: to use; None makes one
        :return: critics of images, or of states with ``encoder="actor"``
        """
        if self.encoder != "actor":
            return super().make_critic(features_extractor)
        space = spaces.Box(-float("inf"), float("inf"), (self.state_size,))
        own = {"observation_space": space, "features_extractor": FlattenExtractor(space)}
        arguments: dict[str, Any] = {**self.critic_kwargs, **own, "features_dim": self.state_size}
        return StateCritic(**arguments).to(self.device)

    def _detached_actor(self, encoder: BaseFeaturesExtractor) -> DetachedActor:
        return DetachedActor(**self._update_features_extractor(self.actor_kwargs, encoder)).to(self.device)

    def _optimizer(self, network: BaseModel, rate: float, *, own_encoder: bool) -> th.optim.Optimizer:
        """One optimizer for all that a network trains; an encoder that another network trains is left out."""
        assert network.features_extractor is not None
        encoder = list(network.features_extractor.parameters())
        known = {id(parameter) for parameter in encoder}
        head = [parameter for parameter in network.parameters() if id(parameter) not in known]
        groups: list[dict[str, Any]] = [{"params": head, "name": "mlp"}]
        if own_encoder and encoder:
            groups.insert(0, {"params": encoder, "name": "cnn"})
        return self.optimizer_class(groups, lr=rate, **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"encoder": self.encoder, "state_size": self.state_size, "predict_state": self.predict_state}
        return {**super()._get_constructor_parameters(), **own}
