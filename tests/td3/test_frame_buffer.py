"""The frame buffer against one that keeps everything, over random episodes."""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack
from tiny import BarEnv

from sb3_carla.td3.frame_buffer import FrameReplayBuffer
from sb3_carla.td3.td3 import TD3

GAMMA = 0.9
ACTIONS = spaces.Box(-1.0, 1.0, (2,), np.float32)
DEVICE = "cuda" if th.cuda.is_available() else "cpu"


class Episodes:
    """Random episodes of one environment: stacks of frames of some ages, some alike, with every way to end."""

    def __init__(self, rng: np.random.Generator, ages: list[int], channels: int) -> None:
        self.rng, self.ages, self.channels = rng, ages, channels
        self.observation = self.first()

    def frame(self) -> np.ndarray:
        return self.rng.integers(0, 256, (self.channels, 3, 2), dtype=np.uint8)

    def first(self) -> np.ndarray:
        kind = self.rng.integers(3)  # repeated, padded with black, or all different
        shown = {age: self.frame() for age in self.ages}
        frames = [shown[min(known for known in shown if known >= age)] for age in range(self.ages[0], -1, -1)]
        if kind == 0:
            frames = frames[-1:] * len(frames)
        elif kind == 1:
            frames[:-1] = [np.zeros_like(frames[0])] * (len(frames) - 1)
        self.frames = frames
        return self.seen()

    def seen(self) -> np.ndarray:
        return np.concatenate([self.frames[-1 - age] for age in self.ages])

    def step(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, bool, bool, bool]:
        """Observation, next one, action, reward, done, truncated; and whether the environment was reset unasked."""
        before = self.observation
        # The same once more, one that was seen before, or a new one.
        back = self.rng.choice([1, int(self.rng.integers(1, 41)), 0], p=[0.2, 0.1, 0.7])
        self.frames.append(self.frames[-min(back, len(self.frames))] if back else self.frame())
        after = self.seen()
        done, lost = self.rng.random() < 0.2, self.rng.random() < 0.05
        self.observation = self.first() if done or lost else after
        action = self.rng.uniform(-1.0, 1.0, 2).astype(np.float32)
        return (
            before,
            after,
            action,
            float(self.rng.normal()),
            bool(done),
            bool(done and self.rng.random() < 0.5),
            bool(lost),
        )


def expected(history: list[Any], number: int, n_steps: int) -> tuple[np.ndarray, np.ndarray, float, float, float]:
    """By the definition: observation, the one that the return ends in, return, terminal, discount."""
    total, discount = 0.0, 1.0
    for last in history[number : number + n_steps]:
        _, after, _, reward, done, truncated, lost = last
        total += discount * reward
        discount *= GAMMA
        if done or lost:
            return history[number][0], after, total, float(done and not truncated), discount
    return history[number][0], after, total, 0.0, discount


def about(observation: np.ndarray) -> list[float]:
    """Numbers that tell one observation from another, exact in float32."""
    return [float(observation.sum()), float(observation[-1, 0, 0])]


AGES = st.integers(1, 4).map(lambda stack: list(range(stack - 1, -1, -1))) | st.sampled_from(
    [[9, 4, 1, 0], [3, 0], [12, 6, 0], [31, 0]]
)
"""Of the frames in an observation: the last ones, or others [steps]."""


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n_envs=st.integers(1, 3), n_steps=st.integers(1, 5), places=st.integers(1, 40),
    steps=st.integers(1, 90), ages=AGES, channels=st.sampled_from([1, 3]), on_device=st.booleans(),
)  # fmt: skip
def test_every_transition_is_as_it_was(
    seed: int, n_envs: int, n_steps: int, places: int, steps: int, ages: list[int], channels: int, on_device: bool
) -> None:
    rng, stack = np.random.default_rng(seed), len(ages)
    space = spaces.Box(0, 255, (stack * channels, 3, 2), np.uint8)
    buffer = FrameReplayBuffer(
        places * n_envs, space, ACTIONS, DEVICE, n_envs, n_steps=n_steps, gamma=GAMMA, frame_stack=stack, seed=0,
        on_device=on_device, state="about",
    )  # fmt: skip
    sources = [Episodes(rng, ages, channels) for _ in range(n_envs)]
    histories: list[list[Any]] = [[] for _ in sources]
    for _ in range(steps):
        rows = [source.step() for source in sources]
        for history, row in zip(histories, rows, strict=True):
            history.append(row)
        obs, after, action, reward, done = (np.array(column) for column in list(zip(*rows, strict=True))[:5])
        infos = [{"TimeLimit.truncated": row[5], "about": about(row[1])} for row in rows]
        buffer.add(obs, after, action, reward, done, infos)
    for index, history in enumerate(histories):
        numbers = np.arange(buffer._oldest[index], steps)
        assert len(numbers) >= 1
        assert len(numbers) <= places
        data = buffer._samples(numbers, np.full(len(numbers), index), None)
        states, next_states = (
            found.cpu().numpy() for found in buffer._states_of(numbers, np.full(len(numbers), index))
        )
        # What the newest transition knows of a reset unasked comes with the next one.
        for row, number in enumerate(numbers):
            known = [*history[:-1], (*history[-1][:6], False)]
            obs, after, total, terminal, discount = expected(known, int(number), n_steps)
            np.testing.assert_array_equal(data.observations[row].cpu().numpy(), obs)
            np.testing.assert_array_equal(data.next_observations[row].cpu().numpy(), after)
            np.testing.assert_array_equal(data.actions[row].cpu().numpy(), history[number][2])
            began = number == 0 or history[number - 1][4] or history[number - 1][6]
            assert buffer._void[number % places, index] == began, "nobody told the state that an episode begins in"
            if not began:
                np.testing.assert_array_equal(states[row], about(obs))
            np.testing.assert_array_equal(next_states[row], about(after))
            assert float(data.rewards[row]) == pytest.approx(total, abs=1e-5)
            assert float(data.dones[row]) == terminal
            assert data.discounts is not None
            assert float(data.discounts[row]) == pytest.approx(discount)


def fill(buffer: Any, steps: int, n_envs: int = 2, length: int = 30) -> None:
    rng = np.random.default_rng(0)
    observations = rng.integers(0, 256, (n_envs, *buffer.obs_shape), dtype=np.uint8)
    for step in range(steps):
        frames = rng.integers(0, 256, (n_envs, 1, *buffer.obs_shape[1:]), dtype=np.uint8)
        after = np.concatenate([observations[:, 1:], frames], axis=1)
        done = np.full(n_envs, step % length == length - 1)
        action = rng.uniform(-1.0, 1.0, (n_envs, 2)).astype(np.float32)
        buffer.add(observations, after, action, np.full(n_envs, float(step)), done, [{}] * n_envs)
        observations = np.repeat(frames, buffer.obs_shape[0], axis=1) if done[0] else after


def test_equals_sb3s_buffer_on_the_same_transitions() -> None:
    space = spaces.Box(0, 255, (4, 36, 36), np.uint8)
    ours = FrameReplayBuffer(400, space, ACTIONS, "cpu", 2, n_steps=3, gamma=GAMMA)
    stock = NStepReplayBuffer(400, space, ACTIONS, "cpu", 2, n_steps=3, gamma=GAMMA)
    for buffer in (ours, stock):
        fill(buffer, 130)
    assert ours.size() == stock.size() == 130
    numbers = np.arange(130)
    for index in range(2):
        data = ours._samples(numbers, np.full(130, index), None)
        for number in (0, 27, 28, 29, 30, 126, 127, 128, 129):
            stock_data = None
            while stock_data is None or float(stock_data.actions[0, 0]) != float(data.actions[number, 0]):
                stock_data = stock._get_samples(np.array([number]))  # it draws the environment itself
            for name in ("observations", "next_observations", "rewards", "dones", "discounts"):
                th.testing.assert_close(
                    getattr(data, name)[number], getattr(stock_data, name)[0], msg=f"{name} {number}"
                )


def test_draws_uniformly_from_all_that_is_there() -> None:
    buffer = FrameReplayBuffer(60, spaces.Box(0, 255, (2, 2, 2), np.uint8), ACTIONS, "cpu", 2, seed=1)
    with pytest.raises(ValueError, match="at least one transition"):
        buffer.sample(1)
    fill(buffer, 50)
    rewards, counts = np.unique(buffer.sample(30_000).rewards.numpy(), return_counts=True)
    np.testing.assert_array_equal(rewards, np.arange(20.0, 50.0))  # the last 30 of 50
    assert counts.min() > 850
    assert counts.max() < 1150
    again = FrameReplayBuffer(60, spaces.Box(0, 255, (2, 2, 2), np.uint8), ACTIONS, "cpu", 2, seed=1)
    fill(again, 50)
    first, second = (b.sample(20).rewards for b in (FrameReplayBufferCopy(again), again))
    assert th.equal(first, second)


def FrameReplayBufferCopy(buffer: FrameReplayBuffer) -> FrameReplayBuffer:
    """Through pickle, as SB3 saves it."""
    copy: FrameReplayBuffer = pickle.loads(pickle.dumps(buffer))
    return copy


def test_a_million_transitions_fit() -> None:
    space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    buffer = FrameReplayBuffer(1_000_000, space, ACTIONS, "cpu", 4)  # zeros: untouched pages take no memory
    assert buffer.nbytes <= 7.5e9
    assert buffer.buffer_size * buffer.n_envs == 1_000_000


@pytest.mark.parametrize("length", [3, 300])
def test_short_episodes_shorten_the_memory_a_little(length: int) -> None:
    buffer = FrameReplayBuffer(1000, spaces.Box(0, 255, (4, 2, 2), np.uint8), ACTIONS, "cpu", 1)
    fill(buffer, 3000, n_envs=1, length=length)
    assert buffer.size() == 1000 if length == 300 else 750 < buffer.size() < 850


def test_frames_in_a_file(tmp_path: Path) -> None:
    space = spaces.Box(0, 255, (4, 36, 36), np.uint8)
    buffers = [
        FrameReplayBuffer(200, space, ACTIONS, "cpu", 2, seed=5, storage=storage)
        for storage in (None, str(tmp_path / "new" / "folder"))
    ]
    for buffer in buffers:
        fill(buffer, 130)
    in_memory, in_file = (buffer.sample(64) for buffer in buffers)
    assert th.equal(in_memory.observations, in_file.observations)
    pickled = pickle.dumps(buffers[1])
    assert len(pickled) < 60_000  # without the frames
    (file,) = (tmp_path / "new/folder").iterdir()
    assert file.stat().st_blocks * 512 > 200 * 36 * 36  # all of it there, though it was not filled
    del buffers[1], buffer
    back = pickle.loads(pickled)
    assert th.equal(back.sample(64).observations, buffers[0].sample(64).observations)
    assert [file] == list(file.parent.iterdir())
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"expected its frames in {file}"):
        pickle.loads(pickled).sample(64)


@pytest.mark.long
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in-another-process"])
def test_a_file_in_use_is_copied(tmp_path: Path, elsewhere: bool) -> None:
    writer = FrameReplayBuffer(
        200, spaces.Box(0, 255, (4, 36, 36), np.uint8), ACTIONS, "cpu", 2, seed=5, storage=str(tmp_path)
    )
    fill(writer, 60)
    pickled = pickle.dumps(writer)
    before = pickle.loads(pickled).sample(64).observations
    if elsewhere:
        code = "import pickle, sys; pickle.load(sys.stdin.buffer).frames.put_back(7)"
        subprocess.run([sys.executable, "-c", code], input=pickled, check=True)
    else:
        pickle.loads(pickled).frames.put_back(np.array(7))
    assert th.equal(writer.sample(64).observations, before)


def test_a_full_disk_is_an_error_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    space = spaces.Box(0, 255, (4, 36, 36), np.uint8)
    buffer = FrameReplayBuffer(10_000, space, ACTIONS, "cpu", 2, storage=str(tmp_path))
    with pytest.raises(
        OSError, match=f"room for 0.0137 GB of frames in {tmp_path}, .* GB are free: No space"
    ) as caught:
        fill(buffer, 1)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_loading_a_model_leaves_the_frames_of_another_alone(tmp_path: Path) -> None:
    storage = {"storage": str(tmp_path / "frames"), "frame_stack": 1}
    model = TD3(
        "LayerNormCnnPolicy", make_vec_env(BarEnv, 2), deduplicate_frames=True, replay_buffer_kwargs=storage,
        buffer_size=200, learning_starts=20, batch_size=8, seed=0, device="cpu",
    )  # fmt: skip
    model.learn(60)
    model.save(tmp_path / "model.zip")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    before = model.replay_buffer._samples(np.arange(20), np.zeros(20, int), None).observations.clone()
    assert before.any()
    loaded = TD3.load(tmp_path / "model.zip", env=make_vec_env(BarEnv, 2), buffer_size=10)
    assert loaded.replay_buffer.size() == 0
    loaded.learn(30)
    assert th.equal(model.replay_buffer._samples(np.arange(20), np.zeros(20, int), None).observations, before)
    loaded.load_replay_buffer(tmp_path / "buffer.pkl")
    assert th.equal(loaded.replay_buffer._samples(np.arange(20), np.zeros(20, int), None).observations, before)
    stock = stable_baselines3.TD3.load(tmp_path / "model.zip")
    assert stock.predict(np.zeros((2, 36, 36), np.uint8))[0].shape == model.action_space.shape


def test_a_saved_buffer_whose_file_has_gone_round_is_refused(tmp_path: Path) -> None:
    space = spaces.Box(0, 255, (4, 36, 36), np.uint8)
    buffer = FrameReplayBuffer(200, space, ACTIONS, "cpu", 2, seed=5, storage=str(tmp_path))
    fill(buffer, 60)
    saved = pickle.dumps(buffer)
    fill(buffer, 30)
    assert pickle.loads(saved).sample(8).observations.any()
    fill(buffer, 200)
    with pytest.raises(ValueError, match=f"expected frames of when it was saved in {tmp_path}.*, got later ones"):
        pickle.loads(saved).sample(8)
    begun_anew = pickle.dumps(buffer)
    buffer.reset()
    fill(buffer, 10)
    with pytest.raises(ValueError, match="got later ones"):
        pickle.loads(begun_anew).sample(8)
    assert pickle.loads(pickle.dumps(buffer)).sample(8).observations.any()


def test_frames_on_the_device() -> None:
    space = spaces.Box(0, 255, (4, 36, 36), np.uint8)
    buffers = [FrameReplayBuffer(200, space, ACTIONS, DEVICE, 2, seed=5, on_device=flag) for flag in (False, True)]
    for buffer in buffers:
        fill(buffer, 130)
    assert isinstance(buffers[1]._rows(), th.Tensor)
    assert buffers[1]._rows().device.type == DEVICE
    assert buffers[1].nbytes == buffers[0].nbytes
    buffers.append(pickle.loads(pickle.dumps(buffers[1])))
    samples = [buffer.sample(64) for buffer in buffers]
    for sample in samples[1:]:
        for ours, plain in zip(sample, samples[0], strict=True):
            assert th.equal(ours, plain)


def test_sb3s_own_frame_stack(tmp_path: Path) -> None:
    env = VecFrameStack(make_vec_env(BarEnv, 2), 3)
    model = stable_baselines3.TD3(
        "CnnPolicy", env, replay_buffer_class=FrameReplayBuffer, replay_buffer_kwargs={"frame_stack": 3},
        buffer_size=200, learning_starts=20, batch_size=8, seed=0, device="cpu",
    )  # fmt: skip
    model.learn(60)
    assert model._n_updates > 0
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    model.learn(20, reset_num_timesteps=False)


@pytest.mark.parametrize(
    ("space", "arguments", "message"),
    [
        (spaces.Box(-1.0, 1.0, (3,), np.float32), {}, "needs images"),
        (
            spaces.Box(0, 255, (4, 8, 8), np.uint8),
            {"frame_stack": 3},
            "frame_stack: expected a divisor of the 4 channels",
        ),
        (spaces.Box(0, 255, (4, 8, 8), np.uint8), {"n_steps": 0}, "n_steps: expected at least 1, got 0"),
        (
            spaces.Box(0, 255, (4, 8, 8), np.uint8),
            {"storage": "x", "on_device": True},
            "storage or on_device, got both",
        ),
    ],
)
def test_bad_arguments(space: spaces.Box, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameReplayBuffer(10, space, ACTIONS, **arguments)


def test_frames_that_do_not_move_on_are_refused() -> None:
    buffer = FrameReplayBuffer(10, spaces.Box(0, 255, (4, 2, 2), np.uint8), ACTIONS)
    rng = np.random.default_rng(0)
    obs, other = rng.integers(0, 256, (2, 1, 4, 2, 2), dtype=np.uint8)
    with pytest.raises(ValueError, match="that move on by one frame a step"):
        buffer.add(obs, other, np.zeros((1, 2)), np.zeros(1), np.zeros(1, bool), [{}])


@pytest.mark.parametrize("back", [5, 9, 30, 31, 32, 40])
def test_a_view_that_comes_again_is_remembered_from_then_on(back: int) -> None:
    """A car that stands, moves and sees the same once more: the frame is as young as its last sight."""
    ages = (9, 4, 1, 0)
    shades = [0, *range(1, back), 0, *range(100, 150)]
    frames = [np.full((1, 3, 3), shade, np.uint8) for shade in shades]
    stacks = [np.concatenate([frames[max(step - age, 0)] for age in ages]) for step in range(len(frames))]
    buffer = FrameReplayBuffer(200, spaces.Box(0, 255, (4, 3, 3), np.uint8), ACTIONS)
    for before, after in itertools.pairwise(stacks):
        buffer.add(before[None], after[None], np.zeros((1, 2)), np.zeros(1), np.zeros(1, bool), [{}])
    numbers = np.arange(len(stacks) - 1)
    data = buffer._samples(numbers, np.zeros_like(numbers), None)
    np.testing.assert_array_equal(data.observations.cpu().numpy(), stacks[:-1])
    np.testing.assert_array_equal(data.next_observations.cpu().numpy(), stacks[1:])


def test_states_are_sampled_with_their_observations() -> None:
    buffer = FrameReplayBuffer(40, spaces.Box(0, 255, (2, 3, 3), np.uint8), ACTIONS, state="about", n_steps=3, seed=0)
    obs = np.zeros((2, 3, 3), np.uint8)
    for step in range(60):
        after = np.concatenate([obs[1:], np.full((1, 3, 3), step + 1, np.uint8)])
        done = np.array([step % 7 == 6])
        buffer.add(obs[None], after[None], np.zeros((1, 2)), np.zeros(1), done, [{"about": about(after)}])
        obs = np.zeros_like(after) if done[0] else after
    samples, states, next_states = buffer.sample_with_states(300)
    for images, told in ((samples.observations, states), (samples.next_observations, next_states)):
        assert told.shape == (300, 2)
        assert (images.sum(dim=(1, 2, 3)) > 0).all(), "a first observation, whose state is unknown, is not sampled"
        th.testing.assert_close(told[:, 0], images.sum(dim=(1, 2, 3)).float())
        th.testing.assert_close(told[:, 1], images[:, -1, 0, 0].float())
    with pytest.raises(ValueError, match="state: expected 'about' in the infos, got other"):
        buffer.add(obs[None], obs[None, ::-1], np.zeros((1, 2)), np.zeros(1), done, [{"other": 1}])


@pytest.mark.parametrize("first", [False, True])
def test_a_step_that_lost_its_server_is_not_learnt_from(first: bool) -> None:
    """Its next observation is the one before, and there is no reward: neither it nor a return over it happened."""
    space = spaces.Box(0, 255, (2, 3, 2), np.uint8)
    buffer = FrameReplayBuffer(20, space, ACTIONS, "cpu", n_steps=3, gamma=GAMMA, seed=1)
    frames = [np.full((1, 3, 2), 10 * i, np.uint8) for i in range(9)]
    stacks = [np.concatenate(frames[i : i + 2]) for i in range(8)]

    def add(number: int, before: np.ndarray, after: np.ndarray, lost: bool = False) -> None:
        info = {"TimeLimit.truncated": True, "server_restarted": True} if lost else {}
        action = np.full((1, 2), number / 10.0, np.float32)
        buffer.add(before[None], after[None], action, np.array([float(number)]), np.array([lost]), [info])

    steps = 0 if first else 2
    for number in range(steps):
        add(number, stacks[number], stacks[number + 1])
    add(2, stacks[steps], stacks[steps], lost=True)
    for number in (3, 4):
        add(number, stacks[number + 1], stacks[number + 2])
    batch = buffer.sample(400)
    seen = {round(10.0 * float(action)): row for row, action in enumerate(batch.actions[:, 0])}
    assert set(seen) == ({3, 4} if first else {0, 1, 3, 4})
    assert batch.discounts is not None
    if not first:
        assert float(batch.rewards[seen[0]]) == pytest.approx(0.0 + GAMMA * 1.0)
        for number, power in ((0, 2), (1, 1)):
            assert float(batch.discounts[seen[number]]) == pytest.approx(GAMMA**power)
            assert float(batch.dones[seen[number]]) == 0.0
            assert np.array_equal(batch.next_observations[seen[number]], stacks[2])
    assert np.array_equal(batch.next_observations[seen[4]], stacks[6])
