"""Several clients at once: slow ones, dead ones, and ones that send nonsense."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import carla
import msgpack
import numpy as np
import psutil
import pytest
from harness import (
    TOWN,
    Inbox,
    RawClient,
    ServerProcess,
    receive_message,
    run_client,
    spawn_car,
    spawn_sensor,
    subscribe,
)

from sb3_carla.server.rpc import LOAD_TIMEOUT

FUZZ_CASES = 400


@pytest.fixture
def raw(server: ServerProcess) -> Iterator[RawClient]:
    connection = RawClient(server.port)
    yield connection
    connection.close()


def test_any_client_may_tick(server: ServerProcess, world: Any) -> None:
    car = spawn_car(world)
    out = run_client(
        f"""
        world = client.get_world()
        assert world.get_settings().synchronous_mode
        car = world.get_actor({car.id})
        assert car.type_id == "vehicle.tesla.model3"
        car.apply_control(carla.VehicleControl(throttle=1.0))
        # In synchronous mode the client does not wait for its first snapshot: only a tick tells the frame for sure.
        first = world.tick()
        for _ in range(29):
            last = world.tick()
        assert last == first + 29
        print(last, car.get_velocity().length())
        """,
        server.port,
    )
    frame, speed = out.split()
    deadline = time.monotonic() + 30.0
    while world.get_snapshot().frame < int(frame) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert world.get_snapshot().frame == int(frame)
    assert car.get_velocity().length() == pytest.approx(float(speed))


def test_a_client_sees_what_another_one_destroys(server: ServerProcess, world: Any) -> None:
    car = spawn_car(world)
    world.tick()
    place = car.get_location()
    run_client(
        f"""
        world = client.get_world()
        while not world.get_snapshot().has_actor({car.id}):
            pass
        assert world.get_actor({car.id}).destroy()
        """,
        server.port,
    )
    world.tick()
    assert not car.is_alive
    assert car.get_location() == place, "the last pose is kept"


def test_new_listeners_of_the_world_get_the_last_snapshot(server: ServerProcess, world: Any) -> None:
    frame = world.tick()
    with subscribe(server.streaming_port, 1) as listener:
        message = receive_message(listener)
    kind, number = struct.unpack_from("<QQ", message)
    assert (kind, number) == (17, frame)
    assert (len(message) - 84) % 119 == 0


def test_without_descriptors_connections_are_refused_and_the_loop_sleeps(server: ServerProcess, world: Any) -> None:
    pid = server.process.pid
    listed = Path(f"/proc/{pid}/fd")
    most = max(int(path.name) for path in listed.iterdir()) + 20
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10.0))
        world.tick()
        before = processor_seconds(pid)
        time.sleep(1.0)
        assert processor_seconds(pid) - before < 0.1
    world.tick()
    with contextlib.closing(RawClient(server.port)) as late:
        assert late.value("version") == "0.9.16"


def processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def test_nobody_gets_a_snapshot_around_a_load(raw: RawClient, server: ServerProcess) -> None:
    """CARLA's client reconnects its streams then, and crashes if another of its threads is reading a snapshot."""
    raw.call("load_new_episode", TOWN, True, 0)  # asynchronous from here on: 20 snapshots a second
    arrivals: list[float] = []

    def listen() -> None:
        with contextlib.suppress(OSError, AssertionError), subscribe(server.streaming_port, 1) as listener:
            while len(arrivals) < 20:
                receive_message(listener)
                arrivals.append(time.monotonic())

    thread = threading.Thread(target=listen)
    thread.start()
    while len(arrivals) < 10:
        time.sleep(0.01)
    raw.call("load_new_episode", TOWN, True, 0)
    loaded = time.monotonic()
    thread.join(10.0)
    before, after = (max(t for t in arrivals if t < loaded), min(t for t in arrivals if t > loaded))
    assert loaded - before > 0.09
    assert after - loaded > 0.09
    assert np.median(np.diff(arrivals)) < 0.08


def test_a_client_that_ticks_without_a_pause_delays_no_load(raw: RawClient, server: ServerProcess, world: Any) -> None:
    batch = 200  # few enough: a load waits for two of them at most, on a loaded machine too
    asked = msgpack.packb([0, 1, "tick_cue", [[False]]]) * batch
    ticking, loaded, answers = threading.Event(), threading.Event(), [0]

    def tick() -> None:
        """The next batch is there before the last one is answered."""
        unpacker = msgpack.Unpacker()
        other.socket.sendall(asked)
        asked_for = batch
        while answers[0] < asked_for:
            if asked_for - answers[0] <= batch and not loaded.is_set():
                other.socket.sendall(asked)
                asked_for += batch
            unpacker.feed(other.socket.recv(1 << 16))
            answers[0] += sum(1 for _ in unpacker)
            ticking.set()

    with contextlib.closing(RawClient(server.port)) as other, subscribe(server.streaming_port, 1):
        thread = threading.Thread(target=tick)
        thread.start()
        try:
            assert ticking.wait(10.0)
            times = [time.monotonic()]
            for _ in range(5):
                raw.call("load_new_episode", TOWN, False, 0)
                times.append(time.monotonic())
            assert np.diff(times).min() < LOAD_TIMEOUT, "loads began after a quiet time, not after their timeout"
        finally:
            loaded.set()
            thread.join(20.0)
        assert not thread.is_alive(), "the ticks are answered after the load"


def test_the_load_of_a_disconnected_client_is_not_executed(raw: RawClient, server: ServerProcess) -> None:
    raw.call("load_new_episode", TOWN, True, 0)  # asynchronous: a load waits for 0.1 s without a snapshot
    episode = raw.value("get_episode_info")[0]
    with subscribe(server.streaming_port, 1) as listener:
        receive_message(listener)
        gone = RawClient(server.port)
        gone.socket.sendall(msgpack.packb([0, 1, "load_new_episode", [[False], TOWN, True, 0]]))
        gone.close()
        for _ in range(5):
            receive_message(listener)
    assert raw.value("get_episode_info")[0] == episode


def test_unknown_streams_are_silent_and_stay_open(server: ServerProcess, world: Any) -> None:
    with subscribe(server.streaming_port, 123456) as listener:
        world.tick()
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.recv(1)


def test_a_dead_listener_costs_neither_time_nor_memory(server: ServerProcess, world: Any) -> None:
    car = spawn_car(world)
    inbox = Inbox(spawn_sensor(world, car, "camera.rgb", image_size_x=640, image_size_y=400))
    world.tick()
    inbox.get()  # now the tick that follows cannot take the dead listener's connection for the client's
    with contextlib.ExitStack() as stack:
        dead = stack.enter_context(subscribe(server.streaming_port, inbox.sensor.id))
        for _ in range(3):
            stack.enter_context(subscribe(server.streaming_port, 1))
        memory = psutil.Process(server.process.pid).memory_info().rss
        longest = 0.0
        for _ in range(100):  # 100 MB, beyond the bound of 64
            start = time.monotonic()
            frame = world.tick()
            assert inbox.get().frame == frame
            longest = max(longest, time.monotonic() - start)
        assert longest < 5.0
        assert psutil.Process(server.process.pid).memory_info().rss - memory < 130e6
        # What the dead listener finds when it wakes up is whole, in order, and ends with the present.
        frames: list[int] = []
        while not frames or frames[-1] != frame:
            message = receive_message(dead)
            assert len(message) == 60 + 640 * 400 * 4
            frames.append(struct.unpack_from("<Q", message, 8)[0])
        assert frames == sorted(frames)
        assert len(frames) < 100
    world.tick()


def test_a_slow_callback_loses_no_frame(server: ServerProcess, world: Any) -> None:
    car = spawn_car(world)
    camera = spawn_sensor(world, car, "camera.rgb")
    seen, ticked = [], threading.Event()

    def slowly(image: Any) -> None:
        ticked.wait(30.0)
        seen.append(image.frame)

    camera.listen(slowly)
    frames = [world.tick() for _ in range(60)]
    assert not seen, "no tick waited for the callback"
    ticked.set()
    deadline = time.monotonic() + 30.0
    while len(seen) < len(frames) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen == frames


def test_unknown_calls_get_an_error_and_the_connection_lives(raw: RawClient) -> None:
    error, result = raw.call("make_coffee", 1, 2)
    assert isinstance(error, str)
    assert "make_coffee" in error
    assert result is None
    assert raw.value("version") == "0.9.16"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("tick_cue", (1, 2)),
        ("spawn_actor", ("x", None)),
        ("spawn_actor", ([0, "vehicle.audi.tt", []], [[float("nan"), 0, 0], [0, 0, 0]])),
        ("spawn_actor", ([0, "vehicle.audi.tt", [["color", 5, "red"]]], [[0, 0, 0], [0, 0, 0]])),
        ("set_episode_settings", ([True] * 3,)),
        ("get_actors_by_id", (7,)),
        ("get_sensor_token", (-1,)),
        ("destroy_actor", (10**9,)),
        ("project_point", ([0, 0, 0], [0, 0, 0], 1.0)),
        ("cast_ray", ([0, 0], [0, 0, 0])),
    ],
)
def test_wrong_arguments_get_an_answer(raw: RawClient, name: str, arguments: tuple[object, ...]) -> None:
    error, result = raw.call(name, *arguments)
    assert error is None
    index, value = result[0]
    assert index == 0
    assert value[0]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("apply_control_to_vehicle", (10**6, [0, 0, 0, False, False, False, 0])),
        ("set_actor_transform", (10, [[0, 0], [0, 0, 0]])),
        ("set_actor_transform", (10, [[1e300, 0, 0], [0, 0, 0]])),
        ("load_new_episode", (7, True, 0)),
        ("load_new_episode", ("../../etc/passwd", True, 0)),
        ("load_new_episode", ("/etc", True, 0)),
        ("load_new_episode", ("/etc/passwd.xodr", True, 0)),
        ("copy_opendrive_to_file", (b"x", [])),
        ("set_weather_parameters", ([1.0],)),
        ("set_weather_parameters", (["a"] * 14,)),
    ],
)
def test_wrong_commands_get_an_answer(raw: RawClient, name: str, arguments: tuple[object, ...]) -> None:
    error, result = raw.call(name, *arguments)
    assert error is None
    assert result[0][0] is True
    assert result[0][1][0]


def test_odd_numbers_do_not_break_the_tick(raw: RawClient) -> None:
    raw.value("version")
    raw.call("load_new_episode", TOWN, True, 0)
    place = raw.value("get_map_info")[1][0]
    settings = raw.value("get_episode_settings")
    raw.value("set_episode_settings", [True, *settings[1:]])
    car = raw.value("spawn_actor", [0, "vehicle.audi.tt", []], place)[0]
    place[0] = [9e5, -9e5, 9e5]
    for name, argument in (
        ("set_actor_transform", place),
        ("set_actor_target_velocity", [1e6, -1e6, 1e6]),
        ("add_actor_impulse", [1e9, 1e9, 1e9]),
        ("enable_actor_constant_velocity", [1e6, 1e6, 1e6]),
    ):
        raw.call(name, car, argument)
        frame = raw.value("tick_cue")
        assert raw.value("tick_cue") == frame + 1
    raw.call("set_weather_parameters", [-1e6] * 14)
    raw.value("tick_cue")


def nonsense(rng: random.Random) -> bytes:
    """A damaged request, a deep or huge one, or plain noise."""
    names = ["tick_cue", "spawn_actor", "apply_batch", "set_actor_transform", "get_actors_by_id", "draw_debug_shape"]
    valid: bytes = msgpack.packb(
        [0, rng.randrange(1 << 32), rng.choice(names), [[False], value(rng, 3), value(rng, 3)]]
    )
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 200))
    if kind == 1:
        damaged = bytearray(valid)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        return bytes(damaged)
    if kind == 2:
        return valid[: rng.randrange(len(valid))]
    if kind == 3:  # headers that announce gigabytes
        return rng.choice([b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"]) + struct.pack(
            ">I", rng.randrange(1 << 31, 1 << 32)
        )
    if kind == 4:
        return b"\x91" * rng.randrange(1, 3000)
    return valid


def value(rng: random.Random, depth: int) -> object:
    kind = rng.randrange(8 if depth else 6)
    scalars = [None, True, rng.uniform(-1e9, 1e9), rng.randrange(-100, 1000), "x" * rng.randrange(20), b"\x00\xff"]
    if kind < 6:
        return scalars[kind]
    return [value(rng, depth - 1) for _ in range(rng.randrange(6))]


def test_nonsense_harms_nobody_else(server: ServerProcess, world: Any) -> None:
    rng = random.Random(7)
    car = spawn_car(world)
    inbox = Inbox(spawn_sensor(world, car, "camera.rgb"))
    for case in range(FUZZ_CASES):
        port = server.port if case % 4 else server.streaming_port
        with socket.create_connection(("127.0.0.1", port), 5.0) as connection:
            connection.sendall(nonsense(rng))
            if case % 2:
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(5.0)
                try:
                    while connection.recv(1 << 16):
                        pass
                except ConnectionResetError:
                    pass
        if case % 10 == 0:
            frame = world.tick()
            image = inbox.get()
            while image.frame < frame:
                image = inbox.get()
            assert image.frame == frame
    assert server.process.poll() is None
    assert carla.Client("127.0.0.1", server.port).get_server_version() == "0.9.16"


def test_a_client_that_never_reads_is_paused(server: ServerProcess, world: Any) -> None:
    memory = psutil.Process(server.process.pid).memory_info().rss
    request = msgpack.packb([0, 1, "get_map_data", [[False]]])
    with socket.create_connection(("127.0.0.1", server.port), 5.0) as greedy:
        greedy.settimeout(0.3)
        with pytest.raises(TimeoutError):
            greedy.sendall(request * 1_000_000)
        for _ in range(20):
            world.tick()
        assert psutil.Process(server.process.pid).memory_info().rss - memory < 100e6
        # It may go on where it stopped.
        greedy.settimeout(5.0)
        unpacker = msgpack.Unpacker(raw=False)
        answers = 0
        while answers < 100:
            unpacker.feed(greedy.recv(1 << 20))
            answers += sum(1 for _ in unpacker)
    world.tick()


def test_a_token_without_a_connection_holds_only_its_own_tick(
    server: ServerProcess, raw: RawClient, world: Any
) -> None:
    raw.value("get_sensor_token", 1)
    start = time.monotonic()
    for _ in range(10):
        world.tick()
    assert time.monotonic() - start < 0.9, "one tick is held for 0.1 s, not all ten"
    raw.value("get_sensor_token", 1)
    start = time.monotonic()
    raw.value("tick_cue")
    assert 0.1 < time.monotonic() - start < 5.0
