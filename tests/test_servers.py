"""Servers that die, hang, leak and come up late: episodes go on, and nothing is left behind."""

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
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import carla
import gymnasium as gym
import numpy as np
import pytest
from processes import OURS, STRAIGHT_ON, children, server_of, wait_until_gone

import sb3_carla  # noqa: F401 (registers)
from sb3_carla.env import CarlaLaneEnv
from sb3_carla.errors import ServerStartError, ServerTimeoutError
from sb3_carla.servers import STOP_GRACE, EmbeddedServer, Supervisor, _answers, resident_memory


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    running = EmbeddedServer("Circuit01")
    yield running
    running.close()


def test_foreign_server_is_left_as_it_was_found(server: EmbeddedServer) -> None:
    client = carla.Client(server.host, server.port)
    client.set_timeout(10.0)
    world = client.get_world()
    before = world.get_settings()
    world.set_weather(carla.WeatherParameters.WetSunset)
    town = world.get_map().name.rsplit("/", 1)[-1]
    with gym.make(
        "CarlaLane-v0", host=server.host, port=server.port, n_npcs=3, town=town, weather="HardRainNoon"
    ) as made:
        made.reset(seed=0)
        made.step(STRAIGHT_ON)
        assert client.get_world().get_settings().synchronous_mode is True
        assert world.get_weather() == carla.WeatherParameters.HardRainNoon
    assert world.get_weather() == carla.WeatherParameters.WetSunset
    after = client.get_world().get_settings()
    assert after.synchronous_mode is before.synchronous_mode is False
    assert after.fixed_delta_seconds == before.fixed_delta_seconds
    world.wait_for_tick(5.0)
    assert not [actor.type_id for actor in world.get_actors() if actor.type_id != "spectator"]
    assert server.alive


def test_nobody_at_the_port() -> None:
    with gym.make("CarlaLane-v0", host="127.0.0.1", port=1) as made:
        begun = time.monotonic()
        with pytest.raises(ServerTimeoutError, match=r"No CARLA server answers at 127\.0\.0\.1:1"):
            made.reset()
        assert time.monotonic() - begun < 5.0


def test_killed_server_truncates_and_the_next_reset_drives_on() -> None:
    with gym.make("CarlaLane-v0", timeout=2.0) as made:
        lane = made.unwrapped
        lane.reset(seed=0)
        lane.step(STRAIGHT_ON)
        os.kill(lane._supervisor.server.pid, signal.SIGKILL)
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
    return resident_memory(os.getpid()) / 2**20


def check_cycles(warm_up: int, times: int, growth: float) -> None:
    before = children()
    cycle(warm_up)
    open_files, memory = len(os.listdir("/proc/self/fd")), resident_megabytes()
    cycle(times)
    assert children() == before
    assert len(os.listdir("/proc/self/fd")) <= open_files
    assert resident_megabytes() - memory < growth


def test_make_reset_close_leaves_nothing_behind() -> None:
    check_cycles(2, 4, growth=20.0)


@pytest.mark.slow
def test_200_cycles_leave_nothing_behind_and_memory_flat() -> None:
    check_cycles(20, 180, growth=10.0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_harms_neither_itself_nor_its_parent() -> None:
    """CARLA's client crashes where it is taken apart in a fork of its process, which has none of its threads."""
    with gym.make("CarlaLane-v0", action_repeat=4) as env:
        env.reset(seed=0)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            try:
                for method in (env.reset, lambda: env.step(STRAIGHT_ON)):
                    with pytest.raises(RuntimeError, match="cannot go on in a fork"):
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
print(env.unwrapped._supervisor.server.pid, flush=True)
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


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_matter(closed: str) -> None:
    """As in ``nohup python train.py <&- &``."""
    code = "from sb3_carla.servers import EmbeddedServer; EmbeddedServer('Circuit01').close()"
    subprocess.run(["bash", "-c", f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {closed}"], check=True)


def test_many_open_files_do_not_matter() -> None:
    """select() knows none above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with contextlib.ExitStack() as files:
            for _ in range(1100):
                files.enter_context(open("/dev/null"))
            EmbeddedServer("Circuit01").close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_server_that_hangs_is_replaced() -> None:
    with CarlaLaneEnv(timeout=1.0) as env:
        env.reset(seed=0)
        hanging = server_of(env).pid
        os.kill(hanging, signal.SIGSTOP)
        begun = time.monotonic()
        *_, truncated, info = env.step(STRAIGHT_ON)
        assert truncated
        assert info["server_restarted"] is True
        assert time.monotonic() - begun < 6.0
        assert wait_until_gone(hanging, 1.0)
        env.reset()
        assert env.step(STRAIGHT_ON)[3] is False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_server_lost_between_episodes_changes_nothing(how: int) -> None:
    with CarlaLaneEnv(timeout=1.0, n_npcs=3, town=["Circuit01", "Circuit02"]) as env:
        env.reset(seed=4)
        expected = env.reset()[0], env.step(STRAIGHT_ON)[0]
        env.reset(seed=4)
        os.kill(server_of(env).pid, how)
        got = env.reset()[0], env.step(STRAIGHT_ON)[0]
    assert all(map(np.array_equal, got, expected))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_leaving_a_lost_server_waits_for_no_answer(how: int) -> None:
    with CarlaLaneEnv(timeout=4.0, n_npcs=3) as env:
        env.reset(seed=0)
        os.kill(server_of(env).pid, how)
        begun = time.monotonic()
        env.close()
        assert time.monotonic() - begun < STOP_GRACE + 3.0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_leaving_a_lost_server_of_somebody_else_waits_for_one_answer(server: EmbeddedServer, how: int) -> None:
    with CarlaLaneEnv(host=server.host, port=server.port, timeout=3.0, n_npcs=3) as env:
        env.reset(seed=0)
        os.kill(server.pid, how)
        begun = time.monotonic()
        env.close()
        assert time.monotonic() - begun < 3.0 + 2.0


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


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def connected(server: EmbeddedServer) -> Any:
    """The server's world for another client; the server may still be starting."""
    wait_for(lambda: _answers(server.host, server.port))
    client = carla.Client(server.host, server.port)
    client.set_timeout(10.0)
    return client.get_world()


def kinds(server: EmbeddedServer) -> dict[str, int]:
    """How many cars and sensors a server has."""
    world = connected(server)
    wait_for(lambda: world.get_snapshot().frame > 0)  # the first one comes on a connection of its own
    found = Counter(actor.type_id.partition(".")[0] for actor in world.get_actors())
    return {kind: found[kind] for kind in ("sensor", "vehicle") if found[kind]}


def test_server_that_never_comes_back_is_an_error_after_some_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    with CarlaLaneEnv(timeout=2.0) as env:
        env.reset(seed=0)
        os.kill(server_of(env).pid, signal.SIGKILL)
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(ServerStartError, match=r"exit status 1.*ended without a word"):
            env.reset()
        monkeypatch.undo()
        env.reset()
        assert env.step(STRAIGHT_ON)[3] is False


@contextlib.contextmanager
def another(lost: EmbeddedServer, after: float = 0.0) -> Iterator[None]:
    """A server in the place of a lost one, that comes up so many seconds later; its ports may be taken for a moment."""
    command = shlex.split(OURS.replace("{port}", str(lost.port)))
    script = ["sh", "-c", 'sleep "$0"; until "$@"; do sleep 0.2; done', str(after), *command]
    with subprocess.Popen(script, start_new_session=True) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def test_server_of_somebody_else_is_waited_for(server: EmbeddedServer) -> None:
    """Who restarts it is not our business; that it comes back is enough."""
    with CarlaLaneEnv(host=server.host, port=server.port, timeout=1.0) as env:
        env.reset(seed=0)
        os.kill(server.pid, signal.SIGKILL)
        assert env.step(STRAIGHT_ON)[4]["server_restarted"] is True
        with another(server, after=1.5):
            env.reset()
            assert env.step(STRAIGHT_ON)[3] is False
            env.close()


@pytest.mark.parametrize("lost_at_the_end", [False, True])
def test_server_of_somebody_else_that_was_silent_is_left_as_it_was_found(
    server: EmbeddedServer, lost_at_the_end: bool
) -> None:
    """What a session could not put back, the next one does: the server lives on, and others use it."""
    with CarlaLaneEnv(host=server.host, port=server.port, timeout=1.0, n_npcs=2) as env:
        for times in range(2):
            env.reset(seed=times)
            assert kinds(server) == {"sensor": 2, "vehicle": 3}
            os.kill(server.pid, signal.SIGSTOP)
            assert env.step(STRAIGHT_ON)[4]["server_restarted"] is True
            os.kill(server.pid, signal.SIGCONT)
        if not lost_at_the_end:
            env.reset()
            assert env.step(STRAIGHT_ON)[3] is False
            assert kinds(server) == {"sensor": 2, "vehicle": 3}
    assert kinds(server) == {}
    world = connected(server)
    assert world.get_settings().synchronous_mode is False
    world.wait_for_tick(5.0)


def test_actors_of_a_server_in_the_place_of_a_lost_one_are_not_ours(server: EmbeddedServer) -> None:
    with CarlaLaneEnv(host=server.host, port=server.port, timeout=1.0) as env:
        env.reset(seed=0)
        os.kill(server.pid, signal.SIGKILL)
        assert env.step(STRAIGHT_ON)[4]["server_restarted"] is True
        assert env._remains is not None
        ours = env._remains.actor_ids
        with another(server):
            world = connected(server)
            library, places = world.get_blueprint_library(), world.get_map().get_spawn_points()
            theirs = [world.spawn_actor(library.find("vehicle.audi.a2"), place) for place in places[: max(ours)]]
            assert {actor.id for actor in theirs} & set(ours)
            env.reset()
            assert kinds(server) == {"sensor": 2, "vehicle": 1 + len(theirs)}
            env.close()


def remove_the_car(env: CarlaLaneEnv, server: EmbeddedServer) -> dict[str, Any]:
    """Info of the step that finds it out: a frame that shows the car as destroyed may come first, as in CARLA."""
    assert env._session is not None
    assert connected(server).get_actor(env._session.vehicle.id).destroy()
    for _ in range(2):
        _, reward, terminated, truncated, info = env.step(STRAIGHT_ON)
        assert terminated is False
        if truncated:
            assert reward == 0.0
            break
    return info


def test_car_that_somebody_else_removes_truncates_and_the_next_reset_has_another(server: EmbeddedServer) -> None:
    with CarlaLaneEnv(host=server.host, port=server.port) as env:
        env.reset(seed=0)
        assert remove_the_car(env, server)["end_reason"] == "server_lost"
        env.reset()
        for _ in range(20):
            assert env.step(STRAIGHT_ON)[2:4] == (False, False)
        assert env.vehicle_state.speed > 0.5
        assert kinds(server) == {"sensor": 2, "vehicle": 1}
    assert kinds(server) == {}


def test_car_that_is_removed_from_our_own_server() -> None:
    with CarlaLaneEnv() as env:
        env.reset(seed=0)
        assert remove_the_car(env, server_of(env))["end_reason"] == "server_lost"
        env.reset()
        assert env.step(STRAIGHT_ON)[2:4] == (False, False)


def test_a_new_server_after_so_many_episodes() -> None:
    with CarlaLaneEnv(server_episodes=3) as env:
        pids = []
        for _ in range(7):
            env.reset(seed=1)
            pids.append(server_of(env).pid)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_a_new_server_when_it_takes_too_much_memory() -> None:
    with CarlaLaneEnv(server_memory=0.001) as env:
        env.reset(seed=1)
        first = server_of(env).pid
        env.step(STRAIGHT_ON)
        env.reset()
        assert server_of(env).pid != first
    with CarlaLaneEnv(server_memory=8.0) as env:
        env.reset(seed=1)
        first = server_of(env).pid
        env.reset()
        assert server_of(env).pid == first


def test_supervisor_says_why() -> None:
    supervisor = Supervisor(episodes=1, memory=1e9)
    assert supervisor.begin_episode() is None, "none runs"
    server = supervisor.start("Circuit01")
    assert supervisor.start("Circuit01") is server
    assert supervisor.begin_episode() == "it has served 1 episodes"
    os.kill(server.pid, signal.SIGKILL)
    server._process.wait(5.0)
    assert supervisor.begin_episode() == "it has ended"
    supervisor.close()
    supervisor.close()


def test_losing_servers_leaves_nothing_behind() -> None:
    with CarlaLaneEnv(timeout=1.0) as env:

        def lose(times: int) -> None:
            for _ in range(times):
                env.reset(seed=0)
                os.kill(server_of(env).pid, signal.SIGKILL)
                assert env.step(STRAIGHT_ON)[3] is True

        lose(2)
        before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), children()
        lose(4)
        assert (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), children()) == before
