"""``render_mode``: what is shown, and that it costs nothing until somebody looks."""

from __future__ import annotations

import os
import signal

import gymnasium as gym
import numpy as np
import pytest
from processes import STRAIGHT_ON

import sb3_carla  # noqa: F401 (registers)
from sb3_carla.envs.spectator import Spectator


def test_rgb_array_shows_the_car_from_behind() -> None:
    with gym.make("CarlaLane-v0", render_mode="rgb_array", action_repeat=4) as made:
        assert made.metadata["render_fps"] == 5
        made.reset(seed=0)
        first = made.render()
        for _ in range(10):
            made.step(STRAIGHT_ON)
        second = made.render()
    assert first.shape == second.shape == (384, 640, 3)
    assert first.dtype == np.uint8
    assert (first != second).mean() > 0.05


@pytest.mark.long
def test_what_is_rendered_late_is_what_would_have_been_rendered_from_the_start() -> None:
    """SB3 makes every environment such that it could be rendered: until somebody looks, that must cost nothing."""
    seen: dict[int | None, list[bytes]] = {}
    rendered: dict[int | None, list[bytes]] = {}
    for first in (0, 4, None):
        with gym.make("CarlaLane-v0", render_mode="rgb_array", action_repeat=4) as made:
            seen[first], rendered[first] = [made.reset(seed=0)[0].tobytes()], []
            for decision in range(8):
                listening = made.unwrapped._session.is_listening(Spectator.MOUNT)
                assert listening == (first is not None and decision > first)
                if first is not None and decision >= first:
                    pictures = [made.render().tobytes() for _ in range(2)]
                    assert pictures[0] == pictures[1]
                    rendered[first].append(pictures[0])
                seen[first].append(made.step(STRAIGHT_ON)[0].tobytes())
    assert seen[0] == seen[4] == seen[None]
    assert rendered[0][4:] == rendered[4]
    assert len(set(rendered[0])) == 8


@pytest.mark.long
def test_rendering_without_a_server_shows_black_and_ends_nothing() -> None:
    with gym.make("CarlaLane-v0", render_mode="rgb_array", action_repeat=4, timeout=3.0) as made:
        made.reset(seed=0)
        os.kill(made.unwrapped._connection.supervisor.server.pid, signal.SIGKILL)
        assert not made.render().any()
        assert not made.render().any()
        assert made.step(STRAIGHT_ON)[4]["server_restarted"]
        made.reset()
        assert made.render().any()
