"""
TD3 for images: gradient clipping, rates by part, random shift, and a train step that can be read line by line.

With clipping, shift and autocast off it computes what ``stable_baselines3.TD3`` computes: bit for bit with SB3's own
policies, up to rounding with ``LayerNormCnnPolicy`` (tests hold both). What differs beyond that is a choice:

1. ``actor_max_grad_norm``, ``critic_max_grad_norm``: one global L2 norm over all of a network's gradients.
2. ``actor_learning_rate`` and the like: rates of the optimizers' parameter groups, which survive SB3's schedule update.
3. ``random_shift``: DrQ's augmentation of the sampled images.
4. ``exploration_noise``: noise that falls linearly; ``noise_spread``: more of it in some environments than in others.
5. ``autocast``: the encoders compute in bfloat16; weights, features, heads, targets and losses stay in float32.
6. With ``LayerNormCnnPolicy(encoder="critic")`` the actor's update reuses the features of the critic's, as in DrQ-v2.
7. ``pre_activation_penalty``: what keeps the actor's tanh from saturating, where no gradient is left to bring it back.
8. ``deduplicate_frames``: a replay buffer that keeps each frame of stacked images once, with n-step returns.
9. ``action_smoothness``: the actor is drawn towards what its target does in the state that follows.
10. ``invert_gradients``: the policy gradient does not pass the tanh's slope, which is nothing where it saturates; it
    is scaled down towards the bound that it pushes to, and at full size when it leads back.
11. ``compile_step``: forward and backward passes through ``torch.compile``, on CUDA as CUDA graphs.
12. ``concurrent_updates``: updates take place while the environments make their next step, each on its own processor.
13. ``critic_state``: with ``LayerNormCnnPolicy(encoder="actor")`` the critics see the simulator's state, not its image.
14. With SB3's ``share_features_extractor=True`` the shared target encoder moves by ``tau`` at an update, not twice.

Sources: Fujimoto et al., Addressing function approximation error in actor-critic methods, ICML 2018 (algorithm 1);
Yarats et al., Mastering visual continuous control (DrQ-v2), 2021; Fujimoto et al., Towards general-purpose model-free
reinforcement learning (MR.Q), 2025 (the penalty, there 1e-5); Mysore et al., Regularizing action policies for smooth
control with reinforcement learning (CAPS), ICRA 2021 (temporal smoothness; differs: n steps apart, and the action that
follows is the target network's, which is known already); Hausknecht & Stone, Deep reinforcement learning in
parameterized action space, ICLR 2016 (inverting gradients); Horgan et al., Distributed prioritized experience replay
(Ape-X), ICLR 2018 (actors that explore by different amounts); Pinto et al., Asymmetric actor critic for image-based
robot learning, RSS 2018.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import stable_baselines3
import torch as th
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.type_aliases import GymEnv, PyTorchObs, Schedule
from torch import nn
from torch.nn import functional as F

from sb3_carla.checks import check_limits, check_whole
from sb3_carla.policies import LayerNormCnnPolicy
from sb3_carla.policies.td3 import DetachedActor, StateCritic
from sb3_carla.td3.arguments import check_noise
from sb3_carla.td3.augmentation import random_shift
from sb3_carla.td3.concurrent_updates import ConcurrentUpdates
from sb3_carla.td3.frame_buffer import FrameReplayBuffer
from sb3_carla.td3.group_learning_rates import GroupLearningRates
from sb3_carla.td3.noise import LinearNormalNoise, exploration_noise
from sb3_carla.td3.resilient_logging import make_resilient
from sb3_carla.td3.tensors import InvertingTanh, bf16_is_native, frozen, keep_freed_memory
from sb3_carla.td3.weights import arguments_of, write_arguments

__all__ = ["TD3"]

Metrics = dict[str, th.Tensor]

COMPILED = ("_target", "_critic_loss", "_actor_loss")
"""Methods that ``compile_step`` replaces in the instance."""


@dataclass(frozen=True)
class Batch:
    """
    Sampled transitions, ready for the networks.

    :param observations: shape (n, ...): float, scaled; uint8 where the encoders scale pixels themselves; or a dict
    :param next_observations: likewise
    :param actions: shape (n, action_dim), float32
    :param rewards: shape (n, 1), float32; n-step returns where the buffer gives them
    :param continues: shape (n, 1), float32: discount of what follows, 0 after a terminal state
    :param states: what the critics see: the observations, or with ``critic_state`` shape (n, state_size), float32
    :param next_states: likewise
    """

    observations: Any
    next_observations: Any
    actions: th.Tensor
    rewards: th.Tensor
    continues: th.Tensor
    states: Any
    next_states: Any


class TD3(ConcurrentUpdates, GroupLearningRates, stable_baselines3.TD3):
    """
    Twin Delayed DDPG with what learning from images needs. The list above the code says what differs from SB3's.

    :param policy: ``"LayerNormCnnPolicy"``, one of SB3's names, or a class
    :param env: environment, or its id
    :param learning_rate: of all parameters that have no rate of their own below; a number or a schedule
    :param actor_max_grad_norm: largest L2 norm of the actor's gradient; None does not clip
    :param critic_max_grad_norm: largest L2 norm of the critics' gradient; None does not clip
    :param actor_learning_rate: of the actor; a number, a schedule, or text such as ``lin_1e-4``, as in rl-zoo3's files
    :param critic_learning_rate: of the critics
    :param actor_cnn_learning_rate: of the actor's features extractor, ``actor_learning_rate`` if None
    :param critic_cnn_learning_rate: of the critics' features extractor, ``critic_learning_rate`` if None
    :param random_shift: largest shift of the sampled images [px]; 0 is off
    :param exploration_noise: standard deviation at the start, at the end, and after how many environment steps the
        end is reached; replaces ``action_noise``
    :param noise_spread: the last environment explores with so many times ``exploration_noise``, the first with so many
        times less, those between in even ratios: some show what the policy does, others what it might do; 1 is off
    :param autocast: encoders compute in bfloat16; None does so where the processor multiplies it natively, elsewhere it
        takes several times as long as float32
    :param pre_activation_penalty: weight of the mean square of the actor's outputs before their tanh; 0 is off
    :param action_smoothness: weight of the mean square distance between the action and the one that follows; 0 is off
    :param invert_gradients: see :class:`sb3_carla.td3.tensors.InvertingTanh`
    :param critic_state: key of the infos under which the environment tells its state, of about unit size: what the
        critics see with ``policy_kwargs={"encoder": "actor", "state_size": ...}``. Needs ``deduplicate_frames``
    :param compile_step: have PyTorch compile the passes through the networks at the first update, which takes a minute
        and, on a processor, a C++ compiler; the same arithmetic in another order
    :param concurrent_updates: see :class:`sb3_carla.td3.concurrent_updates.ConcurrentUpdates`; pays where the
        environments' steps leave a processor core idle, as those of a remote or a slow server do
    :param deduplicate_frames: use :class:`sb3_carla.FrameReplayBuffer`; its arguments in ``replay_buffer_kwargs``
    :param kwargs: further arguments of ``stable_baselines3.TD3``
    :raises ValueError: if an argument is outside its range, or has nothing to act on
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        **stable_baselines3.TD3.policy_aliases,
        "LayerNormCnnPolicy": LayerNormCnnPolicy,
    }

    def __init__(
        self,
        policy: str | type[Any],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        *,
        actor_max_grad_norm: float | None = 1.0,
        critic_max_grad_norm: float | None = 10.0,
        actor_learning_rate: float | str | Schedule | None = None,
        critic_learning_rate: float | str | Schedule | None = None,
        actor_cnn_learning_rate: float | str | Schedule | None = None,
        critic_cnn_learning_rate: float | str | Schedule | None = None,
        random_shift: int = 0,
        exploration_noise: Sequence[float] | None = None,
        noise_spread: float = 1.0,
        autocast: bool | None = None,
        pre_activation_penalty: float = 0.0,
        action_smoothness: float = 0.0,
        invert_gradients: bool = False,
        critic_state: str | None = None,
        compile_step: bool = False,
        concurrent_updates: bool = False,
        deduplicate_frames: bool = False,
        **kwargs: Any,
    ) -> None:
        self.actor_max_grad_norm = actor_max_grad_norm
        self.critic_max_grad_norm = critic_max_grad_norm
        self.actor_learning_rate = actor_learning_rate
        self.critic_learning_rate = critic_learning_rate
        self.actor_cnn_learning_rate = actor_cnn_learning_rate
        self.critic_cnn_learning_rate = critic_cnn_learning_rate
        self.random_shift = random_shift
        self.exploration_noise = exploration_noise
        self.noise_spread = noise_spread
        self.autocast = autocast
        self.pre_activation_penalty = pre_activation_penalty
        self.action_smoothness = action_smoothness
        self.invert_gradients = invert_gradients
        self.critic_state = critic_state
        self.compile_step = compile_step
        self.concurrent_updates = concurrent_updates
        self.deduplicate_frames = deduplicate_frames
        self._sums: dict[str, th.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._noise_settings: tuple[Any, ...] | None = None
        if exploration_noise is not None and kwargs.get("action_noise") is not None:
            raise ValueError("expected exploration_noise or action_noise, got both")
        if deduplicate_frames and kwargs.get("replay_buffer_class") is not None:
            raise ValueError("expected deduplicate_frames or replay_buffer_class, got both")
        # SB3's own TD3 loads the model too, and would hand replay_buffer_kwargs to its own buffer.
        self._frame_buffer_kwargs = dict(kwargs.pop("replay_buffer_kwargs", None) or {}) if deduplicate_frames else {}
        for key, argument in {"n_steps": "n_steps", "gamma": "gamma", "seed": "seed", "state": "critic_state"}.items():
            if key in self._frame_buffer_kwargs:
                raise ValueError(f"replay_buffer_kwargs: expected no {key!r}: TD3 sets it, by its argument {argument}")
        super().__init__(policy, env, learning_rate, **kwargs)

    # --- set-up ------------------------------------------------------------------------------------------------

    def _setup_model(self) -> None:
        self._check_arguments()
        if self.deduplicate_frames:
            self.replay_buffer_class, given = None, {**self._frame_buffer_kwargs, **self.replay_buffer_kwargs}
            self.replay_buffer = FrameReplayBuffer(
                self.buffer_size, self.observation_space, self.action_space, self.device, self.n_envs,
                **{**given, "n_steps": self.n_steps, "gamma": self.gamma, "seed": self.seed,
                   "state": self.critic_state},
            )  # fmt: skip
            self.optimize_memory_usage = False  # of SB3's own buffer, which a loaded model would have
        super()._setup_model()
        if (self.critic_state is not None) != isinstance(self.critic, StateCritic):
            raise ValueError(
                "critic_state: expected with policy_kwargs={'encoder': 'actor', 'state_size': ...} and only with it, "
                f"got {self.critic_state!r}"
            )
        if self.device.type == "cpu":
            keep_freed_memory()
        self._autocast = bf16_is_native(self.device) if self.autocast is None else self.autocast
        # An encoder that two networks use is trained by one of them and has one target.
        self._trained = {
            name: [p for group in network.optimizer.param_groups for p in group["params"]]
            for name, network in (("actor", self.actor), ("critic", self.critic))
        }
        pairs = {
            id(parameter): (parameter, target)
            for network, target_network in ((self.critic, self.critic_target), (self.actor, self.actor_target))
            for parameter, target in zip(network.parameters(), target_network.parameters(), strict=True)
        }
        self._online, self._targets = (list(side) for side in zip(*pairs.values(), strict=True))
        seeing = [network for network in (self.actor, self.critic) if not isinstance(network, StateCritic)]
        self._raw_pixels = (
            is_image_space(self.observation_space, check_channels=False)
            and self.policy.normalize_images
            and all(getattr(network.features_extractor, "accepts_uint8", False) for network in seeing)
        )
        if self.exploration_noise is not None:
            self._make_noise(self.exploration_noise)
        self._setup_rates()
        if self.compile_step:
            # CUDA graphs spare the processor the launch of each of some hundred small kernels.
            mode = "reduce-overhead" if self.device.type == "cuda" else None
            # Or callbacks that come after the first compilation, which look at networks by hooks, would see nothing.
            th._dynamo.config.skip_nnmodule_hook_guards = False
            for name in COMPILED:
                setattr(self, name, th.compile(getattr(self, name), mode=mode))

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        prepared = super()._setup_learn(*args, **kwargs)
        make_resilient(self.logger)
        if self._autocast and not bf16_is_native(self.device):
            warnings.warn(
                f"autocast=True: {self.device} only emulates bfloat16, several times slower than float32; "
                "autocast=None uses it where it is native",
                stacklevel=3,
            )
        if self.verbose >= 1:
            # A model that was loaded to go on still has the rates with which it ended.
            self._update_current_progress_remaining(self.num_timesteps, max(self._total_timesteps, 1))
            self._update_learning_rate([])
            for name in ("actor", "critic"):
                print(self._describe(name))
        return prepared

    def _make_noise(self, schedule: Sequence[float]) -> None:
        """Have the noise that was asked for; a loaded model's goes on where it was, if that is still what is asked."""
        settings = (tuple(schedule), self.noise_spread, self.n_envs)
        if self._noise_settings != settings:
            before = self.action_noise.noises if isinstance(self.action_noise, VectorizedActionNoise) else []
            steps = sum(noise.count for noise in before if isinstance(noise, LinearNormalNoise))
            shape = self.action_space.shape
            assert shape is not None
            self.action_noise = exploration_noise(shape, schedule, self.n_envs, self.noise_spread, steps)
            self._noise_settings = settings

    def _check_arguments(self) -> None:
        check_limits(actor_max_grad_norm=self.actor_max_grad_norm, critic_max_grad_norm=self.critic_max_grad_norm)
        check_whole("random_shift", self.random_shift, 0)
        for name in ("pre_activation_penalty", "action_smoothness"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)!r}")
        if self.random_shift > 0:
            space, scaled = self.observation_space, not self.policy_kwargs.get("normalize_images", True)
            if not is_image_space(space, check_channels=False, normalized_image=scaled):
                raise ValueError(
                    "random_shift: expected images to shift, uint8 in 0 to 255 or with normalize_images=False in "
                    f"policy_kwargs, got {space}"
                )
            assert space.shape is not None
            if self.random_shift >= min(space.shape[1:]):
                raise ValueError(
                    f"random_shift: expected less than the image's sides, got {self.random_shift} on {space}"
                )
        if self.exploration_noise is not None:
            check_noise("exploration_noise", self.exploration_noise)
        if not self.noise_spread >= 1.0 or (self.noise_spread > 1.0 and self.exploration_noise is None):
            raise ValueError(f"noise_spread: expected at least 1, and exploration_noise, got {self.noise_spread!r}")
        if self.critic_state is not None and not self.deduplicate_frames:
            raise ValueError("critic_state: expected deduplicate_frames=True, whose replay buffer keeps the states")

    def _describe(self, name: str) -> str:
        """One line about an optimizer: tensors, parameters and rate of each of its groups."""
        optimizer = getattr(self, name).optimizer
        parts = [
            f"{str(group.get('name', 'all')).upper()} {len(group['params'])} tensors, "
            f"{sum(p.numel() for p in group['params']):,} parameters, rate {group['lr']:g}"
            for group in optimizer.param_groups
        ]
        clip = getattr(self, f"{name}_max_grad_norm")
        return f"{name} optimizer ({type(optimizer).__name__}): {'; '.join(parts)}; clipped at {clip}"

    # --- the train step ----------------------------------------------------------------------------------------

    def update(self, gradient_steps: int, batch_size: int) -> None:
        """
        Update the networks (Fujimoto et al. 2018, algorithm 1, lines 6 to 14).

        :param gradient_steps: number of updates
        :param batch_size: transitions in each
        """
        buffer = self.replay_buffer
        if self._num_timesteps_at_start > 0 and isinstance(buffer, FrameReplayBuffer) and not buffer.drawable:
            return  # a loaded model goes on, past its learning_starts, with a buffer that is new
        self.policy.set_training_mode(True)
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        for _ in range(gradient_steps):
            self._n_updates += 1
            if self.compile_step:
                th.compiler.cudagraph_mark_step_begin()
            batch = self._sample(batch_size)
            metrics, features, following = self.update_critic(batch)
            if self._n_updates % self.policy_delay == 0:
                metrics |= self.update_actor(batch, features, following)
                self.update_targets()
            self._collect(metrics)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _sample(self, batch_size: int) -> Batch:
        assert self.replay_buffer is not None
        states = None
        if self.critic_state is not None:
            assert isinstance(self.replay_buffer, FrameReplayBuffer)
            data, *states = self.replay_buffer.sample_with_states(batch_size, env=self.normalizer)
            told, expected = states[0].shape[1], self.policy.state_size
            if told != expected:
                raise ValueError(f"state_size: expected {told}, as info[{self.critic_state!r}] has, got {expected}")
        else:
            data = self.replay_buffer.sample(batch_size, env=self.normalizer)
        discounts = self.gamma if data.discounts is None else data.discounts
        continues = (1.0 - data.dones) * discounts
        observations, following = self._prepare(data.observations), self._prepare(data.next_observations)
        seen = (observations, following) if states is None else states
        return Batch(observations, following, data.actions, data.rewards, continues, *seen)

    def _prepare(self, observations: PyTorchObs) -> Any:
        """Augment and scale a batch of observations once, for all networks that look at it."""
        if isinstance(observations, th.Tensor) and self.random_shift > 0:
            observations = random_shift(observations, self.random_shift)
        if self._raw_pixels:
            return observations
        return preprocess_obs(observations, self.observation_space, normalize_images=self.policy.normalize_images)

    def _encode(self, network: BaseModel, observations: Any) -> th.Tensor:
        """A network's features of prepared observations: shape (n, features_dim), float32."""
        with th.autocast(self.device.type, dtype=th.bfloat16, enabled=self._autocast):
            assert network.features_extractor is not None
            features: th.Tensor = network.features_extractor(observations)
        return features.float()

    def update_critic(self, batch: Batch) -> tuple[Metrics, th.Tensor, th.Tensor]:
        """
        One step of both critics towards the clipped double-Q target.

        :param batch: transitions
        :return: metrics; the critic's features of the observations, detached: shape (n, features_dim); what the target
            actor does in the next observations: shape (n, action_dim)
        """
        with th.no_grad():
            target, following = self._target(batch)  # (n, 1), (n, action_dim)
        loss, features, metrics = self._critic_loss(batch, target)
        self.critic.optimizer.zero_grad()
        loss.backward()
        self._step("critic")
        return metrics, features, following

    def _critic_loss(self, batch: Batch, target: th.Tensor) -> tuple[th.Tensor, th.Tensor, Metrics]:
        """The critics' squared errors, summed; the features, detached; metrics."""
        with th.set_grad_enabled(not self.policy.share_features_extractor):
            features = self._encode(self.critic, batch.states)  # (n, features_dim)
        inputs = th.cat([features, batch.actions], dim=1)
        values = [q_network(inputs) for q_network in self.critic.q_networks]  # n_critics x (n, 1)
        losses = [F.mse_loss(value, target) for value in values]
        loss = th.stack(losses).sum()
        metrics = {"train/critic_loss": loss.detach(), "train/target_Q_mean": target.mean()}
        for number, (value, part) in enumerate(zip(values, losses, strict=True), start=1):
            metrics[f"train/critic_{number}_loss"] = part.detach()
            metrics[f"train/q{number}_value"] = value.detach().mean()
            metrics[f"debug/td_error_q{number}"] = (value.detach() - target).abs().mean()
        return loss, features.detach(), metrics

    def _target(self, batch: Batch) -> tuple[th.Tensor, th.Tensor]:
        """r + gamma min_i Q_i'(s', pi'(s') + clipped noise): shape (n, 1); and pi'(s'): shape (n, action_dim)."""
        features = actor_features = self._encode(self.critic_target, batch.next_states)  # (n, features_dim)
        if self.actor_target.features_extractor is not self.critic_target.features_extractor:
            actor_features = self._encode(self.actor_target, batch.next_observations)
        noise = th.empty_like(batch.actions).normal_(0.0, self.target_policy_noise)
        noise = noise.clamp(-self.target_noise_clip, self.target_noise_clip)
        following = self.actor_target.mu(actor_features)
        inputs = th.cat([features, (following + noise).clamp(-1.0, 1.0)], dim=1)
        values = th.cat([q_network(inputs) for q_network in self.critic_target.q_networks], dim=1)  # (n, n_critics)
        return batch.rewards + batch.continues * values.min(dim=1, keepdim=True).values, following

    def update_actor(self, batch: Batch, features: th.Tensor, following: th.Tensor) -> Metrics:
        """
        One step of the actor up the first critic's value.

        :param batch: transitions
        :param features: what :meth:`update_critic` returned
        :param following: likewise
        :return: metrics
        """
        with frozen(self.critic.q_networks[0]):
            regularised, loss = self._actor_loss(batch, features, following)
            self.actor.optimizer.zero_grad()
            regularised.backward()
        self._step("actor")
        return {"train/actor_loss": loss}

    def _actor_loss(self, batch: Batch, features: th.Tensor, following: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """What the actor minimises, and of that -Q alone, detached."""
        actor_features = critic_features = features
        if not isinstance(self.actor, DetachedActor):
            actor_features = self._encode(self.actor, batch.observations)
            with th.no_grad():  # once more: the critic's step has changed its encoder
                critic_features = self._encode(self.critic, batch.states)
        *layers, tanh = self.actor.mu
        squash: Callable[[th.Tensor], th.Tensor] = InvertingTanh.apply if self.invert_gradients else tanh
        outputs = actor_features  # then (n, action_dim), before the tanh
        for layer in layers:
            outputs = layer(outputs)
        actions = squash(outputs)
        loss = regularised = -self.critic.q_networks[0](th.cat([critic_features, actions], dim=1)).mean()
        if self.pre_activation_penalty > 0.0:
            regularised = regularised + self.pre_activation_penalty * outputs.square().mean()
        if self.action_smoothness > 0.0:
            regularised = regularised + self.action_smoothness * (actions - following).square().mean()
        return regularised, loss.detach()

    def _step(self, name: str) -> None:
        """Clip a network's gradient as a whole and apply it."""
        limit = getattr(self, f"{name}_max_grad_norm")
        if limit is not None:
            nn.utils.clip_grad_norm_(self._trained[name], limit, foreach=True)
        getattr(self, name).optimizer.step()

    @th.no_grad()
    def update_targets(self) -> None:
        """Move the target networks towards the others by ``tau``; batch-norm statistics are copied."""
        th._foreach_mul_(self._targets, 1.0 - self.tau)  # SB3 rounds twice, and so differs from one lerp
        th._foreach_add_(self._targets, self._online, alpha=self.tau)
        for online, target in (
            (self.critic_batch_norm_stats, self.critic_batch_norm_stats_target),
            (self.actor_batch_norm_stats, self.actor_batch_norm_stats_target),
        ):
            for value, copy in zip(online, target, strict=True):
                copy.copy_(value)

    # --- logging and saving ------------------------------------------------------------------------------------

    def _collect(self, metrics: Metrics) -> None:
        for key, value in metrics.items():
            # A copy of the first one: CUDA graphs write their next results over these.
            self._sums[key] = self._sums[key] + value if key in self._sums else value.clone()
            self._counts[key] = self._counts.get(key, 0) + 1

    def dump_logs(self) -> None:
        """Write the means since the last dump; only here tensors become numbers."""
        for key, total in self._sums.items():
            self.logger.record(key, float(total) / self._counts[key])
        self._sums.clear()
        self._counts.clear()
        super().dump_logs()

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """
        As in SB3, with what :func:`sb3_carla.td3.weights.load_policy` needs in it.

        :param path: of the zip, or an open file
        :param exclude: as in SB3
        :param include: as in SB3
        """
        whole = io.BytesIO()  # a zip is added to by reading it, which a file that is open to be written does not allow
        super().save(whole, exclude, include)
        arguments = arguments_of(self.policy, self.policy_kwargs)
        if arguments is not None:
            write_arguments(whole, arguments)
        file = open_path(path, "w", suffix="zip")
        file.write(whole.getbuffer())
        if isinstance(path, (str, Path)):
            file.close()

    def _excluded_save_params(self) -> list[str]:
        excluded = [*super()._excluded_save_params(), "_trained", "_online", "_targets", "_sums", "_counts"]
        excluded += COMPILED
        if self.deduplicate_frames or (self.n_steps > 1 and self.replay_buffer_class is NStepReplayBuffer):
            # Chosen for n_steps, and chosen again on loading. SB3 saves it, and then warns that it ignores n_steps.
            excluded.append("replay_buffer_class")
        if self.deduplicate_frames:
            excluded.append("replay_buffer_kwargs")
        return excluded
