"""A replay buffer that keeps each camera frame once."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_carla.td3.frame_storage import FrameStorage
from sb3_carla.td3.frame_writer import HISTORY, FrameWriter

__all__ = ["FrameReplayBuffer"]

MOST_DRAWS = 100
"""Attempts to replace drawn transitions that must not be sampled."""
SPARE = 0.05
"""Share of additional frames: each episode has a few more frames than transitions."""


class FrameReplayBuffer(ReplayBuffer):
    """
    Replay buffer for stacks of frames. A frame that several observations share is stored once.

    A million transitions of 4x84x84 pixels take 7.5 GB instead of the 56 GB of SB3's ``ReplayBuffer``. Unlike SB3's
    ``optimize_memory_usage`` it tells truncations from terminations, and unlike ``NStepReplayBuffer`` it keeps no
    second copy for n-step returns.

    An observation may contain one new frame. Its other frames must be among the last 32 of its episode: the last four,
    for instance, or those of 0, 1, 4 and 9 steps ago. The first observation of an episode may contain any frames. If
    episodes have fewer than 20 steps on average, their first frames exceed the spare room, and the oldest transitions
    are dropped a little earlier.

    If the environment lost its server in a step (``info["server_restarted"]``), there is no next observation. The step
    is not sampled, and the step before it bootstraps from the last observation.

    Differs from SB3: random numbers come from a generator of the buffer's own.

    :param buffer_size: transitions in all environments together
    :param observation_space: images, channels first: ``frame_stack`` frames of equal size, the oldest first
    :param action_space: box or discrete
    :param device: PyTorch device of the samples
    :param n_envs: environments that are added together
    :param optimize_memory_usage: accepted as SB3 passes it; memory is always saved
    :param handle_timeout_termination: bootstrap from the last state of a truncated episode
    :param n_steps: length of the returns
    :param gamma: discount within them
    :param frame_stack: frames in an observation; None: one a channel
    :param storage: folder for a memory-mapped file with the frames; None: they are in memory. See
        :class:`sb3_carla.td3.frame_storage.FrameStorage`. A buffer that was pickled is refused after its file has been
        overwritten; checkpoints contain the frames
    :param state: key of the infos with the environment's state, an array of constant size, for
        :meth:`sample_with_states`; None: no states. The first observation of an episode has no info, so its step is not
        sampled
    :param on_device: keep the frames on ``device`` (7 KB a transition), so that sampling copies no pixels to it
    :param seed: of the samples; None for a random one
    :raises ValueError: if the observations are not images, or do not divide into frames, or both ``storage`` and
        ``on_device`` are given
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        n_steps: int = 1,
        gamma: float = 0.99,
        frame_stack: int | None = None,
        storage: str | None = None,
        state: str | None = None,
        on_device: bool = False,
        seed: int | None = None,
    ) -> None:
        if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 3:
            raise ValueError(f"FrameReplayBuffer needs images (channels, height, width), got {observation_space}")
        channels, height, width = observation_space.shape
        self.frame_stack = channels if frame_stack is None else frame_stack
        if self.frame_stack < 1 or channels % self.frame_stack:
            raise ValueError(f"frame_stack: expected a divisor of the {channels} channels, got {frame_stack}")
        if n_steps < 1:
            raise ValueError(f"n_steps: expected at least 1, got {n_steps}")
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage = True
        self.handle_timeout_termination = handle_timeout_termination
        self.n_steps, self.gamma = n_steps, gamma
        self.np_random = np.random.default_rng(seed)
        self._n_frames = int(np.ceil(self.buffer_size * (1.0 + SPARE))) + HISTORY + self.frame_stack
        pixels = channels // self.frame_stack * height * width
        rows = n_envs * self._n_frames
        self.frames = FrameStorage((rows, pixels), observation_space.dtype, folder=storage, on_device=on_device)
        shape = (self.buffer_size, self.n_envs)
        # Frame numbers of each transition's observation [0] and next observation [1].
        self._frame_ids = np.zeros((*shape, 2, self.frame_stack), np.int32)
        self.actions = np.zeros((*shape, self.action_dim), self._maybe_cast_dtype(action_space.dtype))
        self.rewards = np.zeros(shape, np.float32)
        self._ends = np.zeros(shape, bool)  # the episode's last step
        self._terminals = np.zeros(shape, bool)  # terminated: the next state has no value
        self._void = np.zeros(shape, bool)  # must not be sampled
        self._state = state
        # States before [0] and after [1] each transition; the first step sets their size.
        self._states = np.zeros((2, *shape, 0), np.float32)
        self._forget()

    @property
    def drawable(self) -> bool:
        """Whether it has a transition to learn from: its state is known, and its server was not lost."""
        return self._added > self.buffer_size or not bool(self._void[: self._added].all())

    def _rows(self) -> Any:
        """All frames, array or tensor: shape (n_envs * n_frames, pixels)."""
        return self.frames.rows(self.device, filled=any(writer.count for writer in self._writers))

    def _forget(self) -> None:
        self._added = 0  # transitions that were ever added, in each environment
        self._oldest = np.zeros(self.n_envs, np.int64)  # number of the oldest one that is complete
        self._writers = [FrameWriter(self.frame_stack) for _ in range(self.n_envs)]
        self._last_states: list[npt.NDArray[np.float32] | None] = [None] * self.n_envs
        self.pos, self.full = 0, False

    def reset(self) -> None:
        """Forget all transitions."""
        self._forget()

    def size(self) -> int:
        """:return: transitions that can be sampled, in each environment (the mean, rounded down)"""
        return int((self._added - self._oldest).sum()) // self.n_envs

    @property
    def nbytes(self) -> int:
        """Memory of all arrays, whether filled or not [bytes]."""
        small = (self._frame_ids, self.actions, self.rewards, self._ends, self._terminals, self._void, self._states)
        return self.frames.nbytes + sum(array.nbytes for array in small)

    # --- storing -----------------------------------------------------------------------------------------------

    def add(
        self,
        obs: npt.NDArray[Any],
        next_obs: npt.NDArray[Any],
        action: npt.NDArray[Any],
        reward: npt.NDArray[Any],
        done: npt.NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """
        :param obs: shape (n_envs, channels, height, width)
        :param next_obs: likewise; of an episode's last step the state that it ended in
        :param action: shape (n_envs, action_dim)
        :param reward: shape (n_envs,)
        :param done: shape (n_envs,), terminated or truncated
        :param infos: of each environment
        :raises ValueError: if ``next_obs`` has more than one frame that its episode has not seen lately, or an info
            lacks the ``state``
        """
        slot = self._added % self.buffer_size
        for index in range(self.n_envs):
            lost = bool(done[index] and infos[index].get("server_restarted", False))
            self._void[slot, index] = lost
            if lost:
                self._frame_ids[slot, index] = self._store_lost(index, obs[index])
            else:
                self._frame_ids[slot, index] = self._store(index, obs[index], next_obs[index])
            if self._state is not None and not lost:
                self._store_states(slot, index, infos[index])
            truncated = self.handle_timeout_termination and infos[index].get("TimeLimit.truncated", False)
            self._terminals[slot, index] = done[index] and not truncated
            self._writers[index].last_observation = None if done[index] else np.array(next_obs[index])
        self.actions[slot] = np.asarray(action).reshape(self.n_envs, self.action_dim)
        self.rewards[slot] = reward
        self._ends[slot] = done
        self._added += 1
        self._drop_overwritten()
        self.pos = self._added % self.buffer_size
        self.full = self._added >= self.buffer_size

    def _store(self, index: int, obs: npt.NDArray[Any], next_obs: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Numbers of a transition's frames: shape (2, frame_stack)."""
        writer = self._writer_at(index, obs)
        before = writer.ids.copy()
        new = writer.write(next_obs, partial(self._put, index))
        if new > 1:
            raise ValueError(
                f"FrameReplayBuffer needs stacks of {self.frame_stack} frames that move on by one frame a step; "
                f"here a next observation has {new} frames that its episode has not seen in its last {HISTORY}"
            )
        return np.stack((before, writer.ids))

    def _store_lost(self, index: int, obs: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """The same for a step that has no next observation: the last observation stands in for it."""
        writer = self._writer_at(index, obs)
        if writer.last_observation is not None:
            self._ends[(self._added - 1) % self.buffer_size, index] = True
        return np.stack((writer.ids, writer.ids))

    def _store_states(self, slot: int, index: int, info: dict[str, Any]) -> None:
        """An info has the state after its step; the state before it was in the previous info."""
        if self._state not in info:
            raise ValueError(f"state: expected {self._state!r} in the infos, got {', '.join(sorted(info))}")
        after = np.asarray(info[self._state], np.float32).reshape(-1)
        if not self._states.size:
            self._states = np.zeros((*self._states.shape[:3], after.size), np.float32)
        before = self._last_states[index]
        if before is None:
            self._void[slot, index] = True
        else:
            self._states[0, slot, index] = before
        self._states[1, slot, index] = self._last_states[index] = after

    def _writer_at(self, index: int, obs: npt.NDArray[Any]) -> FrameWriter:
        """The environment's writer. It starts an episode if ``obs`` does not follow from the last observation."""
        writer = self._writers[index]
        if not writer.continues_with(obs):
            if writer.last_observation is not None:  # reset before the episode's end: the last step has no successor
                self._ends[(self._added - 1) % self.buffer_size, index] = True
            self._last_states[index] = None
            writer.begin(obs, partial(self._put, index))
        return writer

    def _put(self, index: int, number: int, frame: npt.NDArray[Any]) -> None:
        rows, row = self._rows(), index * self._n_frames + number % self._n_frames
        rows[row] = th.from_numpy(frame) if isinstance(rows, th.Tensor) else frame

    def _drop_overwritten(self) -> None:
        """Forget transitions that were overwritten, or one of whose frames was."""
        np.maximum(self._oldest, self._added - self.buffer_size, out=self._oldest)
        for index, writer in enumerate(self._writers):
            first_frame = writer.count - self._n_frames
            while self._frame_ids[self._oldest[index] % self.buffer_size, index].min() < first_frame:
                self._oldest[index] += 1

    # --- sampling ----------------------------------------------------------------------------------------------

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """
        :param batch_size: transitions, drawn uniformly with replacement
        :param env: normalises observations and rewards
        :return: shapes (batch_size, ...); rewards are n-step returns, ``discounts`` belong to the next state's value
        :raises ValueError: if there is nothing to draw from
        """
        return self._samples(*self._draw(batch_size), env)

    def sample_with_states(
        self, batch_size: int, env: VecNormalize | None = None
    ) -> tuple[ReplayBufferSamples, th.Tensor, th.Tensor]:
        """
        :param batch_size: as in :meth:`sample`
        :param env: likewise
        :return: samples, and the environment's states before and after them: shape (batch_size, size) each, float32
        :raises ValueError: if there is nothing to draw from
        """
        numbers, indices = self._draw(batch_size)
        return self._samples(numbers, indices, env), *self._states_of(numbers, indices)

    def _draw(self, batch_size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Draw transitions: their numbers and their environments, shape (batch_size,) each."""
        sizes = self._added - self._oldest  # (n_envs,)
        total = int(sizes.sum())
        if total == 0:
            raise ValueError("FrameReplayBuffer: expected at least one transition to sample from, got none")
        drawn = self.np_random.integers(0, total, batch_size)
        ends = sizes.cumsum()
        for _ in range(MOST_DRAWS):
            indices = np.searchsorted(ends, drawn, side="right")  # (n,), environments
            numbers = drawn - (ends - sizes)[indices] + self._oldest[indices]  # (n,), transitions
            void = self._void[numbers % self.buffer_size, indices]
            if not void.any():
                break
            drawn[void] = self.np_random.integers(0, total, int(void.sum()))
        else:
            raise ValueError(
                f"FrameReplayBuffer: expected transitions to learn from among the {total} that it holds, drew none in "
                f"{MOST_DRAWS} attempts: their state is not known, or their server was lost; raise learning_starts"
            )
        return numbers, indices

    def _samples(
        self, numbers: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], env: VecNormalize | None
    ) -> ReplayBufferSamples:
        """:param numbers: of the transitions, counted from the first that was ever added: shape (n,)"""
        last = self._last_steps(numbers, indices)  # (n,)
        slots, columns = (numbers[:, None] + np.arange(self.n_steps)) % self.buffer_size, indices[:, None]
        powers = self.gamma ** np.arange(self.n_steps + 1, dtype=np.float32)  # (n_steps + 1,)
        counted = np.arange(self.n_steps) <= last[:, None]  # (n, n_steps)
        rewards = self._normalize_reward(self.rewards[slots, columns], env)
        returns = (rewards * powers[:-1] * counted).sum(axis=1, dtype=np.float32)  # (n,)
        first_slots, last_slots = slots[:, 0], slots[np.arange(len(last)), last]
        return ReplayBufferSamples(
            observations=self._gather(indices, self._frame_ids[first_slots, indices, 0], env),
            actions=self._to_device(self.actions[first_slots, indices]),
            next_observations=self._gather(indices, self._frame_ids[last_slots, indices, 1], env),
            dones=self._to_device(self._terminals[last_slots, indices].astype(np.float32)[:, None]),
            rewards=self._to_device(returns[:, None]),
            discounts=self._to_device(powers[last + 1][:, None]),
        )

    def _states_of(self, numbers: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]) -> tuple[th.Tensor, th.Tensor]:
        """States before and after the n-step returns: shape (n, size) each."""
        ends = numbers + self._last_steps(numbers, indices)  # (n,), last transitions of the returns
        before = self._states[0, numbers % self.buffer_size, indices]
        after = self._states[1, ends % self.buffer_size, indices]
        return self._to_device(before), self._to_device(after)

    def _last_steps(self, numbers: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Steps from each transition to the last one of its n-step return: shape (n,)."""
        steps = numbers[:, None] + np.arange(self.n_steps)  # (n, n_steps)
        stops = self._ends[steps % self.buffer_size, indices[:, None]]
        stops = stops | (steps >= self._added - 1)  # later transitions do not exist yet
        stops[:, -1] = True
        found: npt.NDArray[np.int64] = stops.argmax(axis=1)
        return found

    def _gather(
        self, indices: npt.NDArray[np.int64], ids: npt.NDArray[np.int32], env: VecNormalize | None
    ) -> th.Tensor:
        """:return: observations, shape (n, channels, height, width)"""
        rows = ids % self._n_frames + indices[:, None] * self._n_frames  # (n, frame_stack)
        frames = self._rows()
        if isinstance(frames, th.Tensor):
            found = frames[self._to_device(rows)].reshape(len(rows), *self.obs_shape)
            return found if env is None else self._to_device(self._normalize_obs(found.cpu().numpy(), env))
        taken = np.take(frames, rows, axis=0).reshape(len(rows), *self.obs_shape)
        return self._to_device(self._normalize_obs(taken, env))

    def _to_device(self, array: Any) -> th.Tensor:
        return th.from_numpy(array).to(self.device)

    # --- pickling ----------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_digests": self.frames.digests(self._first_overwritten())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        digests = state.pop("_digests")
        self.__dict__.update(state)
        self.frames.check_digests(self._first_overwritten(), digests)

    def _first_overwritten(self) -> npt.NDArray[np.int64]:
        """Rows that are overwritten first in each environment, whether the buffer goes on or begins anew."""
        rows = np.arange(self.n_envs) * self._n_frames
        if self._added > self._oldest.max():
            oldest = self._frame_ids[self._oldest % self.buffer_size, np.arange(self.n_envs), 0].min(axis=1)
            rows = np.concatenate([rows, rows + oldest % self._n_frames])
        return rows
