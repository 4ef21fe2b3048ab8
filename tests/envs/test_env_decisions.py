"""Decisions of several ticks: the packaged server draws one picture each, and nobody can tell from what is seen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sb3_carla.client.embedded_server import EmbeddedServer
from sb3_carla.envs.carla_lane import CarlaLaneEnv

CENTRE, FULL_LEFT = np.array([0.0, 1.0], np.float32), np.array([-1.0, 1.0], np.float32)


def drive(env: CarlaLaneEnv, episodes: int) -> list[tuple[np.ndarray, float, bool, dict]]:
    """All that is seen in some episodes, which end where the car leaves its lane."""
    seen = []
    for episode in range(episodes):
        observation, info = env.reset(seed=0 if episode == 0 else None)
        seen.append((observation.copy(), 0.0, False, info))
        for number in itertools.count():
            observation, reward, terminated, truncated, info = env.step(CENTRE if number < 9 + episode else FULL_LEFT)
            seen.append((observation.copy(), reward, terminated, info))
            if terminated or truncated:
                break
    return seen


@pytest.mark.parametrize("n_npcs", [0, 3])
def test_a_picture_a_decision_shows_what_a_picture_a_tick_shows(n_npcs: int) -> None:
    server = EmbeddedServer("Circuit01")
    try:
        with (
            CarlaLaneEnv(action_repeat=3, n_npcs=n_npcs) as sparing,
            CarlaLaneEnv(action_repeat=3, n_npcs=n_npcs, host=server.host, port=server.port) as foreign,
        ):
            one, other = drive(sparing, 4), drive(foreign, 4)
            for env, period in ((sparing, 0.15), (foreign, 0.0)):
                assert env._session is not None
                camera = next(actor for actor in env._session._actors if "camera" in actor.type_id)
                assert float(camera.attributes["sensor_tick"]) == pytest.approx(period)
    finally:
        server.close()
    assert len(one) == len(other)
    for (image, reward, end, info), (other_image, other_reward, other_end, other_info) in zip(one, other, strict=True):
        assert np.array_equal(image, other_image)
        assert (reward, end, info["lateral_offset_m"]) == (other_reward, other_end, other_info["lateral_offset_m"])
    assert sum(end for _, _, end, _ in one) == 4


def test_an_episode_that_ends_in_a_decision_ends_with_its_last_tick() -> None:
    with CarlaLaneEnv(action_repeat=10) as env:
        env.reset(seed=0)
        assert env._session is not None
        for _ in range(100):
            before = env._session.frame
            *_, terminated, _, info = env.step(FULL_LEFT)
            assert env._session.frame == before + 10
            if terminated:
                break
        assert info["end_reason"] == "off_lane"
        assert env.simulation.episode is not None
        assert env.simulation.episode.ticks % 10, "what happens after the end is not counted"
        assert abs(info["lateral_offset_m"]) > env.simulation.lane_pose.half_width


def test_a_decision_that_was_interrupted_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    with CarlaLaneEnv(action_repeat=4, timeout=3.0) as env:
        env.reset(seed=0)
        session = env._session
        assert session is not None
        for ticks in (1, 2, 3):
            left = itertools.chain([True] * ticks, [False])
            tick = session.tick

            def interrupted(left=left, tick=tick) -> None:
                tick()
                if not next(left):
                    raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(session, "tick", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    env.step(CENTRE)
            env.reset()
            assert env.step(CENTRE)[4].get("server_restarted") is None
            assert env._session is session
