"""Servers that the user runs: an environment waits for them, and restores them however it ends."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import carla
import gymnasium as gym
import pytest
from processes import OURS, STRAIGHT_ON, connected, faulty, kinds, server_of, wait_for

from sb3_carla.client import world_setup
from sb3_carla.client.cleanup import is_abandoned, owner_tag
from sb3_carla.client.command_server import CommandServer
from sb3_carla.client.embedded_server import EmbeddedServer
from sb3_carla.client.server_process import ServerProcess
from sb3_carla.client.session import CarlaSession
from sb3_carla.envs.carla_lane import CarlaLaneEnv
from sb3_carla.envs.traffic import Traffic
from sb3_carla.envs.vec_env import SupervisedVecEnv
from sb3_carla.errors import ServerTimeoutError


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
    with gym.make("CarlaLane-v0", host="127.0.0.1", port=1, timeout=60.0) as made:
        begun = time.monotonic()
        with pytest.raises(ServerTimeoutError, match=r"No CARLA server answers at 127\.0\.0\.1:1"):
            made.reset()
        assert time.monotonic() - begun < 30.0


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_leaving_a_lost_server_of_somebody_else_waits_for_one_answer(server: EmbeddedServer, how: int) -> None:
    with CarlaLaneEnv(host=server.host, port=server.port, timeout=4.0, n_npcs=3) as env:
        env.reset(seed=0)
        os.kill(server.pid, how)
        begun = time.monotonic()
        env.close()
        assert time.monotonic() - begun < 2 * 4.0


@contextlib.contextmanager
def another(lost: EmbeddedServer, after: float = 0.0) -> Iterator[None]:
    """Start a server at a lost one's port after some seconds; try again while the port is still taken."""
    command = shlex.split(OURS.replace("{port}", str(lost.port)))
    script = ["sh", "-c", 'sleep "$0"; until "$@"; do sleep 0.2; done', str(after), *command]
    with subprocess.Popen(script, start_new_session=True) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)


@pytest.mark.long
def test_server_of_somebody_else_is_waited_for(server: EmbeddedServer) -> None:
    """Another program restarts the server; the environment only tries to reach it again."""
    with CarlaLaneEnv(host=server.host, port=server.port, timeout=1.0) as env:
        env.reset(seed=0)
        os.kill(server.pid, signal.SIGKILL)
        assert env.step(STRAIGHT_ON)[4]["server_restarted"] is True
        with another(server, after=1.5):
            env.reset()
            assert env.step(STRAIGHT_ON)[3] is False
            env.close()


@pytest.mark.long
@pytest.mark.parametrize("lost_at_the_end", [False, True])
def test_server_of_somebody_else_that_was_silent_is_left_as_it_was_found(
    server: EmbeddedServer, lost_at_the_end: bool
) -> None:
    """The next session restores what an earlier one could not."""
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


@pytest.mark.long
def test_actors_of_a_server_in_the_place_of_a_lost_one_are_not_ours(server: EmbeddedServer) -> None:
    with CarlaLaneEnv(host=server.host, port=server.port, timeout=1.0) as env:
        env.reset(seed=0)
        os.kill(server.pid, signal.SIGKILL)
        assert env.step(STRAIGHT_ON)[4]["server_restarted"] is True
        assert env._connection.leftovers is not None
        ours = env._connection.leftovers.actor_ids
        with another(server):
            world = connected(server)
            library, places = world.get_blueprint_library(), world.get_map().get_spawn_points()
            theirs = [world.spawn_actor(library.find("vehicle.audi.a2"), place) for place in places[: max(ours)]]
            assert {actor.id for actor in theirs} & set(ours)
            env.reset()
            assert kinds(server) == {"sensor": 2, "vehicle": 1 + len(theirs)}
            env.close()


def remove_the_car(env: CarlaLaneEnv, server: EmbeddedServer) -> dict[str, Any]:
    """Destroy the car; return info of the step that notices. As in CARLA, one more frame may show the car before."""
    assert env._session is not None
    world, car = connected(server), env._session.vehicle.id
    wait_for(lambda: world.get_snapshot().has_actor(car))  # before that, the client invents the car's state
    assert world.get_actor(car).destroy()
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
        assert env.simulation.vehicle_state.speed > 0.5
        assert kinds(server) == {"sensor": 2, "vehicle": 1}
    assert kinds(server) == {}


@pytest.mark.long
def test_car_that_is_removed_from_our_own_server() -> None:
    with CarlaLaneEnv() as env:
        env.reset(seed=0)
        assert remove_the_car(env, server_of(env))["end_reason"] == "server_lost"
        env.reset()
        assert env.step(STRAIGHT_ON)[2:4] == (False, False)


# --- leftovers of killed processes ----------------------------------------------------------------------------------

DRIVER = """
import sys, time
import numpy as np
from sb3_carla.envs.carla_lane import CarlaLaneEnv
env = CarlaLaneEnv(host="127.0.0.1", port=int(sys.argv[1]), n_npcs=2, town="Circuit02")
env.reset(seed=0)
print("driving", flush=True)
while True:
    env.step(np.array([0.0, 0.5], np.float32))
"""


@contextlib.contextmanager
def driving(server: ServerProcess) -> Iterator[subprocess.Popen[str]]:
    """Another process drives on the server; it is killed at the end of the block."""
    command = [sys.executable, "-c", DRIVER, str(server.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "driving\n"
        yield process
        process.kill()


def check_left_free(server: ServerProcess) -> None:
    """The server has no actors of ours, and is asynchronous."""
    wait_for(lambda: not kinds(server))
    world = connected(server)
    settings = world.get_settings()
    assert (settings.synchronous_mode, settings.fixed_delta_seconds) == (False, None)
    world.wait_for_tick(5.0)


def test_the_next_process_clears_up_after_one_that_was_killed(server: EmbeddedServer) -> None:
    with driving(server) as process:
        pass
    assert process.wait() == -signal.SIGKILL
    assert kinds(server) == {"sensor": 2, "vehicle": 3}
    with CarlaLaneEnv(host=server.host, port=server.port) as env:
        env.reset(seed=0)
        assert kinds(server) == {"sensor": 2, "vehicle": 1}
    check_left_free(server)


@pytest.mark.long
def test_a_server_that_tells_of_its_actors_at_the_next_tick_only_is_cleared_up_as_well() -> None:
    """CARLA does so, and the packaged server if its stream connects slowly. No other client ticks any more."""
    with contextlib.closing(CommandServer(faulty("untold 0"))) as server:
        with driving(server) as process:
            pass
        assert process.wait() == -signal.SIGKILL
        with CarlaLaneEnv(host=server.host, port=server.port) as env:
            env.reset(seed=0)
        check_left_free(server)


VECTOR = """
from functools import partial
from sb3_carla.envs.vec_env import SupervisedVecEnv
env.close()
envs = SupervisedVecEnv([partial(CarlaLaneEnv, host="127.0.0.1", port=int(sys.argv[1]))])
envs.reset()
"""


@pytest.mark.long
@pytest.mark.parametrize("end", ["", "1 / 0", VECTOR], ids=["end", "exception", "vector"])
def test_a_script_that_ends_without_closing_leaves_the_server_free(server: EmbeddedServer, end: str) -> None:
    command = [sys.executable, "-c", DRIVER.partition("while True")[0] + end, str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (end == "1 / 0", "driving\n"), done.stderr
    check_left_free(server)


def test_whose_process_lives_is_let_be(server: EmbeddedServer) -> None:
    with driving(server) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with contextlib.closing(CarlaSession(server.host, server.port, [])):
            assert kinds(server) == {"sensor": 2, "vehicle": 3}


def test_owner_tags() -> None:
    assert not is_abandoned(owner_tag())
    assert is_abandoned(owner_tag() + "1")  # an earlier process with this process id
    ended = subprocess.run(
        [sys.executable, "-c", "from sb3_carla.client.cleanup import owner_tag; print(owner_tag())"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert is_abandoned(ended)
    numbering = ended.split("/")[1]
    for other in ("", "hero", "sb3_carla", ended.replace(numbering, "elsewhere"), f"sb3_carla/{numbering}/x/1"):
        assert not is_abandoned(other)


@pytest.mark.parametrize(
    "how", ["interrupt", *(pytest.param(end, marks=pytest.mark.long) for end in ("terminate", "kill the parent"))]
)
def test_processes_of_a_vector_leave_the_server_free(server: EmbeddedServer, how: str) -> None:
    """Ctrl-C and a shutdown's SIGTERM reach all processes; a killed parent closes nothing."""
    envs = SupervisedVecEnv([partial(CarlaLaneEnv, host=server.host, port=server.port)])
    envs.reset()
    assert kinds(server) == {"sensor": 2, "vehicle": 1}
    if how == "interrupt":
        os.kill(envs.processes[0].pid, signal.SIGINT)
        envs.close()
    elif how == "terminate":
        os.kill(envs.processes[0].pid, signal.SIGTERM)
    else:
        envs.remotes[0].close()  # as the kernel does when the parent is killed
    check_left_free(server)
    envs.processes[0].join(5.0)
    envs.close()


# --- towns and cars that come late -------------------------------------------------------------------------------


@pytest.mark.long
def test_town_that_comes_after_all_is_no_reason_to_stay_synchronous(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer with the new world's id came too late: the session knows the old id."""
    load = world_setup.load_named_town

    def load_late(client: Any, world: Any, town: str) -> Any:
        client.set_timeout(0.05)  # the server takes some tenths of a second
        monkeypatch.undo()
        return load(client, world, town)

    with CarlaLaneEnv(host=server.host, port=server.port, timeout=2.0) as env:
        env.reset(seed=0)
        before = connected(server).id
        monkeypatch.setattr(world_setup, "load_named_town", load_late)
        env.reset(options={"town": "Village01"})
        assert env.step(STRAIGHT_ON)[3] is False
        assert connected(server).id > before
    check_left_free(server)


@pytest.mark.long
def test_world_that_cannot_be_joined_yet_is_no_fault_of_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """CARLA's client reports this if a town takes longer to load than its time-out."""
    fresh = CarlaSession.__init__
    patience = [True]

    class Impatient:
        def __init__(self, client: Any) -> None:
            self._client = client

        def __getattr__(self, name: str) -> Any:
            return getattr(self._client, name)

        def load_world(self, *arguments: Any) -> Any:
            if patience and patience.pop():
                raise RuntimeError("failed to connect to newly created map")
            return self._client.load_world(*arguments)

    def impatient(session: CarlaSession, *arguments: Any, **named: Any) -> None:
        fresh(session, *arguments, **named)
        session.client = Impatient(session.client)

    monkeypatch.setattr(CarlaSession, "__init__", impatient)
    with CarlaLaneEnv(town="Village01") as env:
        env.reset(seed=0)
        env.reset(options={"town": "Circuit02"})
        assert not patience
        assert env.step(STRAIGHT_ON)[3] is False


def test_cars_that_were_spawned_before_the_server_fell_silent_are_known(server: EmbeddedServer) -> None:
    with contextlib.closing(CarlaSession(server.host, server.port, [])) as session:
        session.load_town("Circuit01")
        client, batches = session.client, []

        class Silent:
            def __getattr__(self, name: str) -> Any:
                return getattr(client, name)

            def apply_batch_sync(self, commands: Any) -> Any:
                batches.append(commands)
                if len(batches) == 4:
                    raise RuntimeError("time-out of 2000ms while waiting for the simulator")
                return client.apply_batch_sync(commands)

        session.client = Silent()
        with pytest.raises(RuntimeError, match="time-out"):
            Traffic(session, 10, 8.0)
        session.client = client
        session.tick()
        spawned = kinds(server)["vehicle"]
        assert spawned >= 3
        assert len(session.leftovers.actor_ids) == spawned + 1  # and the collision sensor
    assert kinds(server) == {}
