"""A replay buffer that keeps each camera frame once."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

__all__ = ["FrameReplayBuffer"]

HISTORY = 32
"""Frames of an episode that the next observations may still hold: the last ones."""
MOST_DRAWS = 100
"""How often to draw anew in place of transitions that are not to be sampled."""
SPARE = 0.05
"""Room for frames beyond one a transition: the first and the last of each episode."""


class FrameReplayBuffer(ReplayBuffer):
    """
    Replay buffer for stacks of frames: what an observation shares with the one before is stored once.

    A million transitions of 4x84x84 pixels take 7.5 GB instead of the 56 GB of SB3's ``ReplayBuffer``. Unlike SB3's
    ``optimize_memory_usage`` it tells truncations from terminations, and unlike ``NStepReplayBuffer`` it keeps no
    second copy for n-step returns.

    An observation may hold one frame that is not among the last 32 of its episode; its others may be any of these, such
    as the last four, or those of 0, 1, 4 and 9 steps ago. The first of an episode may be anything. Where episodes are
    so short (under 20 steps on average) that their first frames need more than the spare room, the oldest transitions
    go a little earlier.

    A step in which the environment lost its server (``info["server_restarted"]``) has no next observation: it is not
    sampled, and the step before it bootstraps from the last observation seen.

    Differs from SB3 in its random numbers: they come from a generator of its own.

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
    :param storage: folder for the frames, memory-mapped there instead of held in memory; made if it is not there. Each
        buffer makes a file of its own there, of full size, when it gets its first frame. A pickled buffer needs that
        file, and goes on in it; while another buffer still uses it, in a copy. Once the file has gone round, what was
        pickled before is refused: checkpoints have the frames in them
    :param state: key of the infos under which the environment tells its state, always as many numbers, for
        :meth:`sample_with_states`; None: no states. The first observation of an episode comes without an info: with
        states, its step is not sampled
    :param on_device: hold the frames on ``device``, where it has 7 KB a transition to spare: sampling moves no pixels
    :param seed: of the samples that are drawn; None for a random one
    :raises ValueError: if the observations are not images, or do not divide into frames, or the frames are to be in two
        places
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
        if on_device and storage is not None:
            raise ValueError(f"expected storage or on_device, got both: {storage!r} and {device}")
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage = True
        self.handle_timeout_termination = handle_timeout_termination
        self.n_steps, self.gamma = n_steps, gamma
        self.np_random = np.random.default_rng(seed)
        self._frame_shape = (channels // self.frame_stack, height, width)
        self._n_frames = int(np.ceil(self.buffer_size * (1.0 + SPARE))) + HISTORY + self.frame_stack
        self._storage = None if storage is None else Path(storage)
        self._file: Path | None = None
        self._on_device = on_device
        self._overwritten = False
        # Shape (n_envs * n_frames, pixels); None: to be in a file that is not there yet.
        self._frames: Any = None if storage is not None else self._allocate()
        shape = (self.buffer_size, self.n_envs)
        # Of each transition: numbers of the frames in its observation and in the next.
        self._frame_ids = np.zeros((*shape, 2, self.frame_stack), np.int32)
        self.actions = np.zeros((*shape, self.action_dim), self._maybe_cast_dtype(action_space.dtype))
        self.rewards = np.zeros(shape, np.float32)
        self._ends = np.zeros(shape, bool)  # the episode goes no further
        self._terminals = np.zeros(shape, bool)  # and there is no value behind it
        self._void = np.zeros(shape, bool)  # nothing is to be learnt from it
        self._state = state
        self._states = np.zeros((2, *shape, 0), np.float32)  # before and after each; the first step tells their size
        self._forget()

    def _allocate(self) -> Any:
        shape = (self.n_envs * self._n_frames, int(np.prod(self._frame_shape)))
        if self._on_device:
            like = th.from_numpy(np.empty(0, self.observation_space.dtype))
            return th.zeros(shape, dtype=like.dtype, device=self.device)
        if self._storage is None:
            return np.zeros(shape, self.observation_space.dtype)
        self._storage.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="frames-", suffix=".npy", dir=self._storage)
        self._file = Path(name).absolute()
        self._lock(handle)
        try:
            frames = np.lib.format.open_memmap(self._file, "w+", self.observation_space.dtype, shape)
            # All of the room: a full disk is noticed here, where later it would end the process without a word.
            os.posix_fallocate(handle, 0, self._file.stat().st_size)
        except OSError as error:
            self._file.unlink()
            size = shape[0] * np.empty(shape[1], self.observation_space.dtype).nbytes
            free = shutil.disk_usage(self._storage).free
            wanted = f"expected room for {size / 1e9:.3g} GB of frames in {self._storage}, {free / 1e9:.3g} GB are free"
            raise OSError(error.errno, f"FrameReplayBuffer: {wanted}: {error.strerror}") from error
        return frames

    def _lock(self, handle: int) -> bool:
        """Have an open file for this buffer alone, for as long as it lives; False where another has it."""
        weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # or where the file system knows no locks
            return False
        return True

    @property
    def drawable(self) -> bool:
        """Whether it holds a transition to learn from: one whose state is known, and whose server was not lost."""
        return self._added > self.buffer_size or not bool(self._void[: self._added].all())

    def _held(self) -> Any:
        """
        :return: all frames, an array or a tensor: shape (n_envs * n_frames, pixels)
        :raises FileNotFoundError: if the file that held them is gone
        :raises ValueError: if it went on after this buffer was pickled, and has others in their place
        """
        if self._overwritten:
            raise ValueError(f"FrameReplayBuffer: expected frames of when it was saved in {self._file}, got later ones")
        if self._frames is None:
            if self._frames_added.any():
                raise FileNotFoundError(f"FrameReplayBuffer: expected its frames in {self._file}, which is gone")
            self._frames = self._allocate()
        if self._on_device:
            # An array where the buffer was loaded: only now it is known on which device it is used.
            self._frames = th.as_tensor(self._frames).to(self.device)
        return self._frames

    def put_back(self, frames: npt.NDArray[Any]) -> None:
        """
        Have other frames in the buffer's file, which is made anew if it is gone.

        :param frames: what it held when the buffer was pickled: shape (n_envs * n_frames, pixels)
        """
        if self._frames is None:
            self._frames = self._allocate()
        self._frames[:] = frames
        self._overwritten = False

    def _forget(self) -> None:
        self._added = 0  # transitions ever, in each environment
        self._oldest = np.zeros(self.n_envs, np.int64)  # of them, the first that is still whole
        self._frames_added = np.zeros(self.n_envs, np.int64)
        self._last_ids = np.zeros((self.n_envs, self.frame_stack), np.int32)
        self._recent: list[dict[bytes, int]] = [{} for _ in range(self.n_envs)]  # of frames by digest: their numbers
        self._last_observations: list[npt.NDArray[Any] | None] = [None] * self.n_envs  # None: an episode begins
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
        frames = self.n_envs * self._n_frames * np.empty(self._frame_shape, self.observation_space.dtype).nbytes
        return frames + sum(array.nbytes for array in small)

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
            self._last_observations[index] = None if done[index] else np.array(next_obs[index])
        self.actions[slot] = np.asarray(action).reshape(self.n_envs, self.action_dim)
        self.rewards[slot] = reward
        self._ends[slot] = done
        self._added += 1
        self._drop_overwritten()
        self.pos = self._added % self.buffer_size
        self.full = self._added >= self.buffer_size

    def _store(self, index: int, obs: npt.NDArray[Any], next_obs: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Numbers of a transition's frames: shape (2, frame_stack)."""
        self._go_on_from(index, obs)
        before, known = self._last_ids[index].copy(), self._frames_added[index]
        self._last_ids[index] = self._numbers(index, next_obs)
        new = int(self._frames_added[index] - known)
        if new > 1:
            raise ValueError(
                f"FrameReplayBuffer needs stacks of {self.frame_stack} frames that move on by one frame a step; "
                f"here a next observation has {new} frames that its episode has not seen in its last {HISTORY}"
            )
        return np.stack((before, self._last_ids[index]))

    def _store_lost(self, index: int, obs: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """The same of a step whose next observation there is not: the last one stands for it."""
        self._go_on_from(index, obs)
        if self._last_observations[index] is not None:
            self._ends[(self._added - 1) % self.buffer_size, index] = True
        return np.stack((self._last_ids[index], self._last_ids[index]))

    def _store_states(self, slot: int, index: int, info: dict[str, Any]) -> None:
        """An info tells the state after a step; that before it was told by the one before."""
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

    def _go_on_from(self, index: int, obs: npt.NDArray[Any]) -> None:
        """Have the frames of an observation, which are there already unless an episode begins."""
        last = self._last_observations[index]
        if last is not None and np.array_equal(obs, last):
            return
        if last is not None:  # the environment was reset without a word: nothing leads on from there
            self._ends[(self._added - 1) % self.buffer_size, index] = True
        self._last_states[index] = None
        self._recent[index].clear()
        self._last_ids[index] = self._numbers(index, obs)

    def _numbers(self, index: int, obs: npt.NDArray[Any]) -> list[int]:
        """
        Of an observation's frames; those that are not there yet are stored.

        So is a newest frame that looks like an earlier one, other than the last: each is forgotten ``HISTORY`` frames
        after it was seen last.
        """
        recent, found = self._recent[index], []
        last = next(reversed(recent), None)
        for place, frame in enumerate(obs.reshape(self.frame_stack, -1), start=1):
            shown = blake2b(frame.tobytes(), digest_size=16).digest()
            comes_again = place == self.frame_stack and last is not None and shown != last
            if shown not in recent or comes_again:
                recent.pop(shown, None)
                recent[shown] = self._put(index, frame)
                if len(recent) > HISTORY:
                    del recent[next(iter(recent))]
            found.append(recent[shown])
        return found

    def _put(self, index: int, frame: npt.NDArray[Any]) -> int:
        number = int(self._frames_added[index])
        row = index * self._n_frames + number % self._n_frames
        held = self._held()
        held[row] = th.from_numpy(frame) if isinstance(held, th.Tensor) else frame
        self._frames_added[index] += 1
        return number

    def _drop_overwritten(self) -> None:
        """Transitions whose place, or one of whose frames, was taken."""
        np.maximum(self._oldest, self._added - self.buffer_size, out=self._oldest)
        for index in range(self.n_envs):
            first_frame = self._frames_added[index] - self._n_frames
            while self._frame_ids[self._oldest[index] % self.buffer_size, index].min() < first_frame:
                self._oldest[index] += 1

    # --- sampling ----------------------------------------------------------------------------------------------

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """
        :param batch_size: transitions, drawn uniformly with replacement
        :param env: normalises observations and rewards
        :return: shapes (batch_size, ...); rewards are n-step returns, ``discounts`` those of what follows
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
        """Numbers of transitions, and their environments: shape (batch_size,) each."""
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
        """States in which the returns begin and end: shape (n, size) each."""
        ends = numbers + self._last_steps(numbers, indices)  # (n,)
        before, after = (
            states[at % self.buffer_size, indices] for states, at in zip(self._states, (numbers, ends), strict=True)
        )
        return self._to_device(before), self._to_device(after)

    def _last_steps(self, numbers: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many steps after each transition its return ends: shape (n,)."""
        steps = numbers[:, None] + np.arange(self.n_steps)  # (n, n_steps)
        stops = self._ends[steps % self.buffer_size, indices[:, None]]
        stops = stops | (steps >= self._added - 1)  # of what is not there yet, too
        stops[:, -1] = True
        found: npt.NDArray[np.int64] = stops.argmax(axis=1)
        return found

    def _gather(
        self, indices: npt.NDArray[np.int64], ids: npt.NDArray[np.int32], env: VecNormalize | None
    ) -> th.Tensor:
        """:return: observations, shape (n, channels, height, width)"""
        rows = ids % self._n_frames + indices[:, None] * self._n_frames  # (n, frame_stack)
        held = self._held()
        if isinstance(held, th.Tensor):
            there = held[self._to_device(rows)].reshape(len(rows), *self.obs_shape)
            return there if env is None else self._to_device(self._normalize_obs(there.cpu().numpy(), env))
        here = np.take(held, rows, axis=0).reshape(len(rows), *self.obs_shape)
        return self._to_device(self._normalize_obs(here, env))

    def _to_device(self, array: Any) -> th.Tensor:
        return th.from_numpy(array).to(self.device)

    # --- pickling ----------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if isinstance(self._frames, np.memmap):
            self._frames.flush()
            del state["_frames"]  # they stay where they are
            state["_witnesses"] = self._witness()
        elif isinstance(self._frames, th.Tensor):
            state["_frames"] = self._frames.cpu().numpy()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        witnesses = state.pop("_witnesses", [])
        self.__dict__.update({"_frames": None, "_overwritten": False, **state})
        if self._file is not None and self._file.exists():
            self._frames = frames = np.lib.format.open_memmap(self._file, "r+")
            if not self._lock(os.open(self._file, os.O_RDWR)):
                self._frames = self._allocate()
                self._frames[:] = frames
            self._overwritten = bool(witnesses) and witnesses != self._witness()

    def _witness(self) -> list[bytes]:
        """Digests of the frames of each environment that are overwritten first, go on or begin anew as it may."""
        rows = np.arange(self.n_envs) * self._n_frames
        if self._added > self._oldest.max():
            oldest = self._frame_ids[self._oldest % self.buffer_size, np.arange(self.n_envs), 0].min(axis=1)
            rows = np.concatenate([rows, rows + oldest % self._n_frames])
        return [blake2b(frame).digest() for frame in self._frames[rows]]
