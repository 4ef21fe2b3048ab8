"""Ctrl-C, other threads, a missing HOME, and a working directory that changes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from maps import Geometry, road_map
from processes import STRAIGHT_ON, server_of

from sb3_carla.client.session import CarlaSession
from sb3_carla.envs.carla_lane import CarlaLaneEnv


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An environment that Ctrl-C has reached in the middle of a decision."""
    env = CarlaLaneEnv(action_repeat=4, timeout=60.0)
    env.reset(seed=0)
    env.step(STRAIGHT_ON)
    tick, ticks = CarlaSession.tick, itertools.count(1)

    def interrupted_tick(session: CarlaSession) -> None:
        tick(session)
        if next(ticks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(CarlaSession, "tick", interrupted_tick)
    with pytest.raises(KeyboardInterrupt):
        env.step(STRAIGHT_ON)
    yield env
    env.close()


def test_a_decision_that_was_interrupted_truncates_the_next_one(
    interrupted: CarlaLaneEnv, caplog: pytest.LogCaptureFixture
) -> None:
    """After an interruption images come at other ticks than those that the environment waits for."""
    _, _, terminated, truncated, info = interrupted.step(STRAIGHT_ON)
    assert (terminated, truncated, info["end_reason"]) == (False, True, "server_lost")
    assert "the decision before this one was interrupted" in caplog.text, "and no picture was waited for"
    interrupted.reset()
    assert interrupted.step(STRAIGHT_ON)[2:4] == (False, False)


def test_a_reset_after_an_interrupted_decision_drives_on(interrupted: CarlaLaneEnv) -> None:
    pid = server_of(interrupted).pid
    interrupted.reset()
    for _ in range(3):
        assert interrupted.step(STRAIGHT_ON)[2:4] == (False, False)
    assert server_of(interrupted).pid == pid


@pytest.mark.long
def test_closed_while_another_thread_waits_for_the_server() -> None:
    env = CarlaLaneEnv(timeout=3.0)
    env.reset(seed=0)
    errors: list[Exception] = []

    def step() -> None:
        try:
            env.step(STRAIGHT_ON)
        except Exception as error:
            errors.append(error)

    os.kill(server_of(env).pid, signal.SIGSTOP)
    thread = threading.Thread(target=step)
    thread.start()
    time.sleep(0.5)
    env.close()
    thread.join()
    assert [str(error) for error in errors] == ["the environment was closed by another thread during a step"]


def test_without_a_home() -> None:
    """The client library crashes where HOME is not set, as in services and small containers."""
    code = "from sb3_carla import CarlaLaneEnv\nwith CarlaLaneEnv() as env: env.reset(seed=0)\nprint('driven')"
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "driven\n"), done.stderr


def test_relative_paths_hold_when_the_folder_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.xodr").write_text(road_map(Geometry(600.0)).to_opendrive())
    monkeypatch.chdir(tmp_path / "there")
    with CarlaLaneEnv(town="there.xodr") as env:
        monkeypatch.chdir(tmp_path / "here")
        assert env.reset(seed=0)[1]["town"] == str(tmp_path / "there/there.xodr")
        assert env.reset(options={"town": "here.xodr"})[1]["town"] == str(tmp_path / "here/here.xodr")
