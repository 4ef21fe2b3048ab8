"""
TD3 for images: gradient clipping, learning rates by network, random shift, frames stored once.

With clipping, shift and autocast off it computes what ``stable_baselines3.TD3`` computes: bit for bit with SB3's own
policies, up to rounding with ``LayerNormCnnPolicy`` (tests hold both). The train step itself is in
:mod:`sb3_carla.td3.update`. What differs from SB3 is a choice:

1. ``actor_max_grad_norm``, ``critic_max_grad_norm``: one global L2 norm over all of a network's gradients.
2. ``learning_rates``: rates of the optimizers' parameter groups, which survive SB3's schedule update.
3. ``random_shift``: DrQ's augmentation of the sampled images.
4. ``exploration_noise``: Gaussian noise whose standard deviation falls linearly.
5. ``autocast``: the encoders compute in bfloat16; weights, features, heads, targets and losses stay in float32.
6. With ``LayerNormCnnPolicy(encoder="critic")`` the actor's update reuses the features of the critic's, as in DrQ-v2.
7. ``critic_state``: with ``LayerNormCnnPolicy(encoder="actor")`` the critics see the simulator's state, not its image.
8. ``deduplicate_frames``: a replay buffer that stores each frame of stacked images once, with n-step returns.
9. ``concurrent_updates``: updates take place while the environments make their next step, each on its own processor.
10. ``compile_step``: forward and backward passes through ``torch.compile``, on CUDA as CUDA graphs.
11. With SB3's ``share_features_extractor=True`` the shared target encoder moves by ``tau`` at an update, not twice.

Sources: Fujimoto et al., Addressing function approximation error in actor-critic methods, ICML 2018 (algorithm 1);
Yarats et al., Mastering visual continuous control (DrQ-v2), 2021; Pinto et al., Asymmetric actor critic for image-based
robot learning, RSS 2018.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import stable_baselines3
import torch as th
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.type_aliases import GymEnv, PyTorchObs, Schedule
from stable_baselines3.common.utils import polyak_update
from torch import nn

from sb3_carla.checks import check_limits
from sb3_carla.policies import LayerNormCnnPolicy
from sb3_carla.policies.td3 import StateCritic
from sb3_carla.td3.arguments import check_noise, check_random_shift
from sb3_carla.td3.augmentation import random_shift
from sb3_carla.td3.concurrent_updates import ConcurrentUpdates
from sb3_carla.td3.frame_buffer import FrameReplayBuffer
from sb3_carla.td3.group_learning_rates import GroupLearningRates, describe_optimizer
from sb3_carla.td3.noise import LinearNormalNoise, exploration_noise
from sb3_carla.td3.resilient_logging import make_resilient
from sb3_carla.td3.tensors import bf16_is_native, keep_freed_memory
from sb3_carla.td3.types import Batch, Metrics, Networks
from sb3_carla.td3.update import Losses, update
from sb3_carla.td3.weights import arguments_of, write_arguments

__all__ = ["TD3"]


class TD3(ConcurrentUpdates, GroupLearningRates, stable_baselines3.TD3):
    """
    Twin Delayed DDPG with what learning from images needs. The module's docstring lists what differs from SB3's.

    :param policy: ``"LayerNormCnnPolicy"``, one of SB3's names, or a class
    :param env: environment, or its id
    :param learning_rate: of all parameters that have no rate of their own in ``learning_rates``; a number or a schedule
    :param actor_max_grad_norm: largest L2 norm of the actor's gradient; None does not clip
    :param critic_max_grad_norm: largest L2 norm of the critics' gradient; None does not clip
    :param learning_rates: rates of parts: "actor", "critic", and their features extractors "actor_cnn", "critic_cnn",
        which otherwise have their network's; each a number, a schedule, or text such as "lin_1e-4"
    :param random_shift: largest shift of the sampled images [px]; 0 is off
    :param exploration_noise: standard deviation at the start, at the end, and after how many environment steps the
        end is reached; replaces ``action_noise``
    :param autocast: encoders compute in bfloat16; None does so where the processor multiplies it natively, elsewhere it
        takes several times as long as float32
    :param critic_state: key of the infos under which the environment tells its state, of about unit size: what the
        critics see with ``policy_kwargs={"encoder": "actor", "state_size": ...}``. Needs ``deduplicate_frames``
    :param state_prediction: weight of an auxiliary loss of the actor: the squared error of the state that a linear head
        on its features predicts. It trains the encoder to see where the car is. Needs ``critic_state``. Source:
        Toromanoff et al., End-to-end model-free reinforcement learning for urban driving using implicit affordances,
        CVPR 2020; differs: at the same time as the policy's loss, not before it
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
        learning_rates: Mapping[str, float | str | Schedule] | None = None,
        random_shift: int = 0,
        exploration_noise: Sequence[float] | None = None,
        autocast: bool | None = None,
        critic_state: str | None = None,
        state_prediction: float = 0.0,
        compile_step: bool = False,
        concurrent_updates: bool = False,
        deduplicate_frames: bool = False,
        **kwargs: Any,
    ) -> None:
        self.actor_max_grad_norm = actor_max_grad_norm
        self.critic_max_grad_norm = critic_max_grad_norm
        self.learning_rates = dict(learning_rates or {})
        self.random_shift = random_shift
        self.exploration_noise = exploration_noise
        self.autocast = autocast
        self.critic_state = critic_state
        self.state_prediction = state_prediction
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
        # Not in replay_buffer_kwargs: SB3's own TD3 can load the model too, and would pass them to its own buffer.
        self._frame_buffer_kwargs = dict(kwargs.pop("replay_buffer_kwargs", None) or {}) if deduplicate_frames else {}
        for key, argument in {"n_steps": "n_steps", "gamma": "gamma", "seed": "seed", "state": "critic_state"}.items():
            if key in self._frame_buffer_kwargs:
                raise ValueError(f"replay_buffer_kwargs: expected no {key!r}: TD3 sets it, by its argument {argument}")
        if state_prediction > 0.0:
            kwargs["policy_kwargs"] = {**(kwargs.get("policy_kwargs") or {}), "predict_state": True}
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
        self._losses = Losses()
        self._autocast = bf16_is_native(self.device) if self.autocast is None else self.autocast
        # An encoder that both networks use is in one optimizer and has one target.
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
            # On CUDA, graphs replace the launches of some hundred small kernels.
            mode = "reduce-overhead" if self.device.type == "cuda" else None
            # Without these guards, hooks that callbacks add after the first compilation would not be called.
            th._dynamo.config.skip_nnmodule_hook_guards = False
            compiled: list[Any] = [th.compile(function, mode=mode) for function in self._losses]
            self._losses = Losses(*compiled)

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
            # A loaded model still has its last learning rates.
            self._update_current_progress_remaining(self.num_timesteps, max(self._total_timesteps, 1))
            self._update_learning_rate([])
            for name in ("actor", "critic"):
                limit = getattr(self, f"{name}_max_grad_norm")
                print(f"{name} optimizer {describe_optimizer(getattr(self, name).optimizer)}; clipped at {limit}")
        return prepared

    def _make_noise(self, schedule: Sequence[float]) -> None:
        """Make the exploration noise. A loaded model keeps its noise if the settings are unchanged."""
        settings = (tuple(schedule), self.n_envs)
        if self._noise_settings != settings:
            before = self.action_noise.noises if isinstance(self.action_noise, VectorizedActionNoise) else []
            steps = sum(noise.count for noise in before if isinstance(noise, LinearNormalNoise))
            shape = self.action_space.shape
            assert shape is not None
            self.action_noise = exploration_noise(shape, schedule, self.n_envs, steps)
            self._noise_settings = settings

    def _check_arguments(self) -> None:
        check_limits(actor_max_grad_norm=self.actor_max_grad_norm, critic_max_grad_norm=self.critic_max_grad_norm)
        scaled = not self.policy_kwargs.get("normalize_images", True)
        check_random_shift(self.random_shift, self.observation_space, normalized_image=scaled)
        if self.exploration_noise is not None:
            check_noise("exploration_noise", self.exploration_noise)
        if not (isinstance(self.state_prediction, (int, float)) and 0.0 <= self.state_prediction < math.inf):
            raise ValueError(f"state_prediction: expected a number of at least 0, got {self.state_prediction!r}")
        if self.state_prediction > 0.0 and self.critic_state is None:
            raise ValueError("state_prediction: expected critic_state, which names the state to predict")
        if self.critic_state is not None and not self.deduplicate_frames:
            raise ValueError("critic_state: expected deduplicate_frames=True, whose replay buffer keeps the states")

    # --- the train step ----------------------------------------------------------------------------------------

    def run_updates(self, gradient_steps: int, batch_size: int) -> None:
        """
        Sample batches and update the networks, see :func:`sb3_carla.td3.update.update`.

        :param gradient_steps: number of updates
        :param batch_size: transitions in each
        """
        buffer = self.replay_buffer
        if self._num_timesteps_at_start > 0 and isinstance(buffer, FrameReplayBuffer) and not buffer.drawable:
            return  # a loaded model is past its learning_starts, but its new buffer has nothing to sample
        self.policy.set_training_mode(True)
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        for _ in range(gradient_steps):
            self._n_updates += 1
            if self.compile_step:
                th.compiler.cudagraph_mark_step_begin()
            train_actor = self._n_updates % self.policy_delay == 0
            batch = self._sample(batch_size)
            metrics = update(self._networks(), batch, self._descend, train_actor=train_actor, losses=self._losses)
            if train_actor:
                self._copy_batch_norm_statistics()
            self._collect(metrics)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _networks(self) -> Networks:
        return Networks(
            self.actor, self.critic, self.actor_target, self.critic_target, self._online, self._targets,
            tau=self.tau, noise=self.target_policy_noise, noise_clip=self.target_noise_clip, autocast=self._autocast,
            state_prediction=self.state_prediction, freeze_critic_encoder=self.policy.share_features_extractor,
        )  # fmt: skip

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
        discounts = (1.0 - data.dones) * discounts
        observations, following = self._prepare(data.observations), self._prepare(data.next_observations)
        seen = (observations, following) if states is None else states
        return Batch(observations, following, data.actions, data.rewards, discounts, *seen)

    def _prepare(self, observations: PyTorchObs) -> Any:
        """Augment and scale a batch of observations once for all networks."""
        if isinstance(observations, th.Tensor) and self.random_shift > 0:
            observations = random_shift(observations, self.random_shift)
        if self._raw_pixels:
            return observations
        return preprocess_obs(observations, self.observation_space, normalize_images=self.policy.normalize_images)

    def _descend(self, name: str, loss: th.Tensor) -> None:
        """One step down a loss of "actor" or "critic", the network's gradient clipped as a whole."""
        network = getattr(self, name)
        network.optimizer.zero_grad()
        loss.backward()
        self._clip(name)
        network.optimizer.step()

    def _clip(self, name: str) -> None:
        limit = getattr(self, f"{name}_max_grad_norm")
        if limit is not None:
            nn.utils.clip_grad_norm_(self._trained[name], limit, foreach=True)

    def _copy_batch_norm_statistics(self) -> None:
        """Target networks get the others' running means and variances, as in SB3."""
        polyak_update(self.critic_batch_norm_stats, self.critic_batch_norm_stats_target, 1.0)
        polyak_update(self.actor_batch_norm_stats, self.actor_batch_norm_stats_target, 1.0)

    # --- logging and saving ------------------------------------------------------------------------------------

    def _collect(self, metrics: Metrics) -> None:
        for key, value in metrics.items():
            # Cloned, because CUDA graphs overwrite their results at the next replay.
            self._sums[key] = self._sums[key] + value if key in self._sums else value.clone()
            self._counts[key] = self._counts.get(key, 0) + 1

    def dump_logs(self) -> None:
        """Write the means since the last dump. Only here tensors become numbers."""
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
        whole = io.BytesIO()  # adding to a zip needs a readable file
        super().save(whole, exclude, include)
        arguments = arguments_of(self.policy, self.policy_kwargs)
        if arguments is not None:
            write_arguments(whole, arguments)
        file = open_path(path, "w", suffix="zip")
        file.write(whole.getbuffer())
        if isinstance(path, (str, Path)):
            file.close()

    def _excluded_save_params(self) -> list[str]:
        excluded = [*super()._excluded_save_params(), "_trained", "_online", "_targets", "_sums", "_counts", "_losses"]
        if self.deduplicate_frames or (self.n_steps > 1 and self.replay_buffer_class is NStepReplayBuffer):
            # Loading chooses the class again. If it were saved, SB3 would warn that it ignores n_steps.
            excluded.append("replay_buffer_class")
        if self.deduplicate_frames:
            excluded.append("replay_buffer_kwargs")
        return excluded
