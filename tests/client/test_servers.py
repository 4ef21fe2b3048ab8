"""Servers that die, hang, leak or start late: the next episode goes on, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import psutil
import pytest
from processes import STRAIGHT_ON, children, server_of, wait_until_gone

import sb3_carla  # noqa: F401 (registers)
from sb3_carla.client.embedded_server import EmbeddedServer
from sb3_carla.client.server_process import TERMINATE_TIMEOUT
from sb3_carla.client.server_supervisor import ServerSupervisor
from sb3_carla.envs.carla_lane import CarlaLaneEnv
from sb3_carla.errors import ServerStartError


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    running = EmbeddedServer("Circuit01")
    yield running
    running.close()


def test_killed_server_truncates_and_the_next_reset_drives_on() -> None:
    with gym.make("CarlaLane-v0", timeout=2.0) as made:
        lane = made.unwrapped
        lane.reset(seed=0)
        lane.step(STRAIGHT_ON)
        os.kill(lane._connection.supervisor.server.pid, signal.SIGKILL)
        observation, reward, terminated, truncated, info = lane.step(STRAIGHT_ON)
        assert (reward, terminated, truncated) == (0.0, False, True)
        assert info["server_restarted"] is True
        assert info["end_reason"] == "server_lost"
        assert observation in lane.observation_space
        lane.reset(seed=0)
        assert lane.step(STRAIGHT_ON)[3] is False


def cycle(times: int) -> None:
    for _ in range(times):
        made = gym.make("CarlaLane-v0")
        made.reset(seed=0)
        made.step(STRAIGHT_ON)
        made.close()
        made.close()


def resident_megabytes() -> float:
    return psutil.Process().memory_info().rss / 2**20


def check_cycles(warm_up: int, times: int, growth: float) -> None:
    before = children()
    cycle(warm_up)
    open_files, memory = psutil.Process().num_fds(), resident_megabytes()
    cycle(times)
    assert children() == before
    assert psutil.Process().num_fds() <= open_files
    assert resident_megabytes() - memory < growth


def test_make_reset_close_leaves_nothing_behind() -> None:
    check_cycles(2, 4, growth=20.0)


@pytest.mark.slow
def test_200_cycles_leave_nothing_behind_and_memory_flat() -> None:
    check_cycles(20, 180, growth=10.0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_harms_neither_itself_nor_its_parent() -> None:
    """CARLA's client crashes if it is destroyed in a forked child, which has none of the client's threads."""
    with gym.make("CarlaLane-v0", action_repeat=4) as env:
        env.reset(seed=0)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            try:
                for method in (env.reset, lambda: env.step(STRAIGHT_ON)):
                    with pytest.raises(RuntimeError, match="the child cannot use this environment"):
                        method()
                env.close()
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        env.step(STRAIGHT_ON)


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_server_does_not_outlive_its_parent(end: str) -> None:
    code = """
import sys, time
import gymnasium as gym, sb3_carla
env = gym.make("CarlaLane-v0")
env.reset(seed=0)
print(env.unwrapped._connection.supervisor.server.pid, flush=True)
if sys.argv[1] == "kill":
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code, end], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    if end == "kill":
        parent.kill()
    parent.wait(30)
    parent.stdout.close()
    assert wait_until_gone(pid, 5.0)


def test_a_fork_leaves_the_server_alone(server: EmbeddedServer) -> None:
    child = os.fork()
    if child == 0:
        server.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert server.alive


@pytest.mark.parametrize(
    "closed", [*(pytest.param(some, marks=pytest.mark.long) for some in ("<&-", ">&-", "<&- >&-")), "<&- >&- 2>&-"]
)
def test_closed_streams_do_not_matter(closed: str) -> None:
    """As in ``nohup python train.py <&- &``."""
    code = "from sb3_carla.client.embedded_server import EmbeddedServer; EmbeddedServer('Circuit01').close()"
    subprocess.run(["bash", "-c", f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {closed}"], check=True)


def test_many_open_files_do_not_matter() -> None:
    """``select()`` fails for file descriptors above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with contextlib.ExitStack() as files:
            for _ in range(1100):
                files.enter_context(open("/dev/null"))
            EmbeddedServer("Circuit01").close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.long
def test_server_that_hangs_is_replaced() -> None:
    with CarlaLaneEnv(timeout=1.0) as env:
        env.reset(seed=0)
        hanging = server_of(env).pid
        os.kill(hanging, signal.SIGSTOP)
        begun = time.monotonic()
        *_, truncated, info = env.step(STRAIGHT_ON)
        assert truncated
        assert info["server_restarted"] is True
        assert time.monotonic() - begun < 12.0
        assert wait_until_gone(hanging, 1.0)
        env.reset()
        assert env.step(STRAIGHT_ON)[3] is False


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_server_lost_between_episodes_changes_nothing(how: int) -> None:
    with CarlaLaneEnv(timeout=1.0, n_npcs=3, town=["Circuit01", "Circuit02"]) as env:
        env.reset(seed=4)
        expected = env.reset()[0], env.step(STRAIGHT_ON)[0]
        env.reset(seed=4)
        os.kill(server_of(env).pid, how)
        got = env.reset()[0], env.step(STRAIGHT_ON)[0]
    assert all(map(np.array_equal, got, expected))


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_leaving_a_lost_server_waits_for_no_answer(how: int) -> None:
    with CarlaLaneEnv(timeout=60.0, n_npcs=3) as env:
        env.reset(seed=0)
        os.kill(server_of(env).pid, how)
        begun = time.monotonic()
        env.close()
        assert time.monotonic() - begun < TERMINATE_TIMEOUT + 20.0


@pytest.mark.long
def test_server_that_dies_while_an_episode_begins() -> None:
    with CarlaLaneEnv(timeout=1.0, town=["Village01", "Village02", "Circuit01"]) as env:
        env.reset(seed=0)
        for delay in (0.02, 0.1, 0.3):
            killer = threading.Timer(delay, os.kill, (server_of(env).pid, signal.SIGKILL))
            killer.start()
            while killer.is_alive():
                env.reset()
            env.reset()
        assert env.step(STRAIGHT_ON)[3] is False


@pytest.mark.long
def test_server_that_never_comes_back_is_an_error_after_some_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    with CarlaLaneEnv(timeout=2.0) as env:
        env.reset(seed=0)
        os.kill(server_of(env).pid, signal.SIGKILL)
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(ServerStartError, match=r"exit status 1.*ended without a message"):
            env.reset()
        monkeypatch.undo()
        env.reset()
        assert env.step(STRAIGHT_ON)[3] is False


@pytest.mark.long
def test_a_new_server_after_so_many_episodes() -> None:
    with CarlaLaneEnv(server={"max_episodes": 3}) as env:
        pids = []
        for _ in range(7):
            env.reset(seed=1)
            pids.append(server_of(env).pid)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


@pytest.mark.long
def test_a_new_server_when_it_takes_too_much_memory() -> None:
    with CarlaLaneEnv(server={"max_memory": 0.001}) as env:
        env.reset(seed=1)
        first = server_of(env).pid
        env.step(STRAIGHT_ON)
        env.reset()
        assert server_of(env).pid != first
    with CarlaLaneEnv(server={"max_memory": 8.0}) as env:
        env.reset(seed=1)
        first = server_of(env).pid
        env.reset()
        assert server_of(env).pid == first


def test_supervisor_says_why() -> None:
    supervisor = ServerSupervisor(max_episodes=1, max_memory=1e9)
    assert supervisor.begin_episode() is None, "none runs"
    server = supervisor.start("Circuit01")
    assert supervisor.start("Circuit01") is server
    assert supervisor.begin_episode() == "it has served 1 episodes"
    os.kill(server.pid, signal.SIGKILL)
    server._process.wait(30.0)
    assert supervisor.begin_episode() == "it has ended"
    supervisor.close()
    supervisor.close()


@pytest.mark.long
def test_losing_servers_leaves_nothing_behind() -> None:
    with CarlaLaneEnv(timeout=1.0) as env:

        def lose(times: int) -> None:
            for _ in range(times):
                env.reset(seed=0)
                os.kill(server_of(env).pid, signal.SIGKILL)
                assert env.step(STRAIGHT_ON)[3] is True

        lose(2)
        before = psutil.Process().num_fds(), psutil.Process().num_threads(), children()
        lose(4)
        assert (psutil.Process().num_fds(), psutil.Process().num_threads(), children()) == before
