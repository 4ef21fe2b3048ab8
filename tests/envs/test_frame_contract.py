"""A step shows its own tick's picture, or ends the episode: late, doubled, lost and wrong ones on a real connection."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from processes import STRAIGHT_ON, faulty

from sb3_carla.envs.carla_lane import CarlaLaneEnv
from sb3_carla.errors import FrameError, ServerTimeoutError


def drive(env: CarlaLaneEnv, steps: int) -> tuple[list[np.ndarray], dict[str, Any]]:
    """What is seen until a step fails, at most so many; the last info."""
    seen, info = [env.reset(seed=2)[0]], {}
    for _ in range(steps):
        observation, _, terminated, truncated, info = env.step(STRAIGHT_ON)
        seen.append(observation)
        if terminated or truncated:
            break
    return seen, info


@pytest.mark.parametrize("fault", ["twice 0", pytest.param("late 25 0.8", marks=pytest.mark.long)])
def test_pictures_sent_again_or_late_change_nothing(fault: str) -> None:
    with CarlaLaneEnv() as env:
        expected, _ = drive(env, 25)
    with CarlaLaneEnv(server={"command": faulty(fault)}, timeout=5.0) as env:
        got, info = drive(env, 25)
    assert "server_restarted" not in info
    assert len(got) == 26
    assert all(map(np.array_equal, got, expected))


@pytest.mark.long
@pytest.mark.parametrize(
    "fault",
    [
        "dropped 25",
        pytest.param("early 25", marks=pytest.mark.long),
        *(pytest.param(fault, marks=pytest.mark.long) for fault in ("never 25", "late 25 3.0", "size 25")),
    ],
)
def test_a_picture_that_is_lost_truncates_and_is_never_an_old_one(fault: str) -> None:
    with CarlaLaneEnv() as env:
        expected, _ = drive(env, 25)
    with CarlaLaneEnv(server={"command": faulty(fault)}, timeout=2.0) as env:
        begun = time.monotonic()
        for _ in range(2):
            got, info = drive(env, 25)
            assert info["server_restarted"] is True
            assert info["end_reason"] == "server_lost"
            assert 5 < len(got) < 25
            for picture, right in zip(got[:-1], expected, strict=False):
                assert np.array_equal(picture, right)
            assert np.array_equal(got[-1], got[-2]), "the last one seen: nothing came after it"
        assert time.monotonic() - begun < 60.0


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        pytest.param("never 1", ServerTimeoutError, "sent no image for frame", marks=pytest.mark.long),
        ("size 1", FrameError, "The camera sent 12 x 16 pixels, expected 84 x 84"),
        pytest.param("spawn 0", ServerTimeoutError, "stopped answering: time-out of 1000ms", marks=pytest.mark.long),
    ],
)
def test_a_camera_that_never_works_or_a_car_that_never_comes_is_an_error(
    fault: str, error: type[Exception], message: str
) -> None:
    begun = time.monotonic()
    with (
        CarlaLaneEnv(server={"command": faulty(fault), "max_memory": 8.0}, timeout=1.0) as env,
        pytest.raises(error, match=message),
    ):
        env.reset(seed=0)
    assert time.monotonic() - begun < 80.0
