"""Malformed and hostile input: the server survives, its memory stays bounded, other clients are not disturbed."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import psutil
import pytest
from harness import TOWN, RawClient, ServerProcess, running_server

from sb3_carla.server import server as _server  # noqa: F401 (its calls enter the table)
from sb3_carla.server.registry import REGISTERED_CALLS

SLOW_CASES = 100_000
"""Cases of the slow test; the fast one sends a fiftieth of them."""
GROWTH = 64
"""Growth of the server's memory that is allowed [MB]: each queue and buffer is limited to 64 MiB or less."""
OF_THE_WORLD = {"load_new_episode", "set_episode_settings", "copy_opendrive_to_file", "destroy_actor", "apply_batch"}
"""Calls that would disturb another client's world if their random arguments happened to be valid."""
CALLS = sorted(REGISTERED_CALLS.keys() - OF_THE_WORLD)
NUMBERS = [0, 1, -1, 2**31, 2**32, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 1e308, float("nan"), float("inf"), 0.5]

DRIVER = """
    import os, sys, time
    import carla
    client = carla.Client("127.0.0.1", int(sys.argv[1]))
    client.set_timeout(20.0)
    world = client.load_world(sys.argv[2])
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
    world.apply_settings(settings)
    library = world.get_blueprint_library()
    car = world.spawn_actor(library.find("vehicle.tesla.model3"), world.get_map().get_spawn_points()[0])
    import queue
    images = queue.Queue()
    camera = world.spawn_actor(library.find("sensor.camera.rgb"), carla.Transform(), attach_to=car)
    camera.listen(images.put)
    print("driving", flush=True)
    ticks, slowest = 0, 0.0
    while sys.stdin.readline().strip() != "enough":
        for _ in range(20):
            begun = time.monotonic()
            frame = world.tick(20.0)
            while images.get(timeout=20.0).frame != frame:
                pass
            ticks, slowest = ticks + 1, max(slowest, time.monotonic() - begun)
        print(ticks, slowest, flush=True)
    assert car.is_alive
    camera.stop()
    camera.destroy()
    car.destroy()
    os._exit(0)  # the exit of the client's threads is not tested here
"""


@pytest.fixture(scope="module")
def fortress() -> Iterator[ServerProcess]:
    with running_server("--town", TOWN) as process:
        yield process


def resident(server: ServerProcess) -> float:
    """Memory [MB]."""
    return psutil.Process(server.process.pid).memory_info().rss / 1e6


def answers(server: ServerProcess) -> bool:
    with contextlib.closing(RawClient(server.port)) as raw:
        return raw.call("version")[1] == [[1, "0.9.16"]]


class Driver:
    """A well-behaved client in a process of its own, which drives when it is asked to."""

    def __init__(self, server: ServerProcess) -> None:
        command = [sys.executable, "-c", textwrap.dedent(DRIVER), str(server.port), TOWN]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "driving\n"

    def drive(self) -> tuple[int, float]:
        """Ticks so far, and the time of the slowest [s]."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("on\n")
        self._process.stdin.flush()
        ticks, slowest = self._process.stdout.readline().split()
        return int(ticks), float(slowest)

    def end(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write("enough\n")
        self._process.stdin.close()
        status = self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status


@pytest.fixture(scope="module")
def driver(fortress: ServerProcess) -> Iterator[Driver]:
    made = Driver(fortress)
    yield made
    assert made.end() == 0


# --- what is sent ----------------------------------------------------------------------------------------------------


def value(rng: random.Random, depth: int = 0) -> Any:
    """A random value of any msgpack type."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice([None, True, False])
    if kind == 2:
        return "".join(chr(rng.choice([0, 10, 65, 0x7F, 0x20AC, 0x1F697])) for _ in range(rng.randrange(20)))
    if kind == 3:
        return rng.choice(["vehicle.tesla.model3", "sensor.camera.rgb", "../../etc/passwd", "x" * 5000, TOWN])
    if kind == 4:
        return rng.randbytes(rng.randrange(40))
    if kind == 5:
        return rng.randrange(-100, 1_000_000)
    if kind == 6:
        return {str(rng.randrange(5)): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return [value(rng, depth + 1) for _ in range(rng.randrange(8))]


def request(rng: random.Random) -> bytes:
    """A call that exists, with random arguments."""
    arguments = [[False], *(value(rng) for _ in range(rng.randrange(5)))]
    return bytes(msgpack.packb([0, rng.randrange(1 << 16), rng.choice(CALLS), arguments]))


def mutated(rng: random.Random) -> bytes:
    message = bytearray(request(rng))
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(message))
        if rng.random() < 0.5:
            message[place] ^= 1 << rng.randrange(8)
        else:
            message[place:place] = rng.randbytes(rng.randrange(5))
    return bytes(message[: rng.randrange(1, len(message) + 1)])


def oversized(rng: random.Random) -> bytes:
    """Huge lengths without data, and endless nesting."""
    claims = [b"\xdd", b"\xdb", b"\xc6", b"\xdf", b"\xc9"]
    choice = rng.randrange(4)
    if choice == 0:
        return rng.choice(claims) + struct.pack(">I", rng.choice([2**32 - 1, 2**31, 70_000]))
    if choice == 1:
        return rng.choice([b"\x91", b"\x81\xa0", b"\xdc\x00\x01"]) * rng.choice([600, 5000, 60_000])
    if choice == 2:
        return b"\x94\x00\x01\xa7version\xdd" + struct.pack(">I", rng.choice([65536, 65537, 2**31]))
    return b"\x94\x00\x01\xdb" + struct.pack(">I", 2**26 + 1) + b"a" * 1000


def noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 3000))


GENERATORS = [request, mutated, oversized, noise]


def sent(server: ServerProcess, data: bytes, port: int) -> None:
    """Send the bytes, read once without waiting, and disconnect."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 20.0) as connection:
        connection.sendall(data)
        connection.setblocking(False)
        connection.recv(65536)


def attack(server: ServerProcess, driver: Driver, cases: int, seed: int) -> tuple[int, float]:
    rng = random.Random(seed)
    found = (0, 0.0)
    for case in range(cases):
        port = server.streaming_port if rng.random() < 0.2 else server.port
        sent(server, rng.choice(GENERATORS)(rng), port)
        if case % max(50, cases // 100) == 0:
            found = driver.drive()
            assert server.process.poll() is None, f"the server died at case {case} of seed {seed}"
    return found


def check(server: ServerProcess, driver: Driver, cases: int, seed: int) -> None:
    attack(server, driver, 300, seed=0)
    before, (ticks_before, _) = resident(server), driver.drive()
    ticks, slowest = attack(server, driver, cases, seed)
    assert ticks > ticks_before
    assert slowest < 10.0, "the well-behaved client was kept waiting"
    assert resident(server) - before < GROWTH
    assert answers(server)
    assert psutil.Process(server.process.pid).num_fds() < 100, "connections that ended are closed"


def test_two_thousand_cases(fortress: ServerProcess, driver: Driver) -> None:
    check(fortress, driver, SLOW_CASES // 50, seed=2)


@pytest.mark.slow
def test_a_hundred_thousand_cases(fortress: ServerProcess, driver: Driver) -> None:
    check(fortress, driver, SLOW_CASES, seed=1)


def test_every_call_answers_whatever_its_arguments_are(fortress: ServerProcess, driver: Driver) -> None:
    """Every readable call gets a response, maybe an error, and the connection stays open."""
    rng = random.Random(5)
    with contextlib.closing(RawClient(fortress.port)) as raw:
        for _ in range(1500):
            error, _ = raw.call(rng.choice(CALLS), *(value(rng) for _ in range(rng.randrange(5))))
            assert error is None or isinstance(error, str)
    driver.drive()


@pytest.mark.long
def test_a_thousand_connections(fortress: ServerProcess, driver: Driver) -> None:
    """Connections beyond the limit are refused; others are not disturbed, and afterwards new ones are accepted."""
    crowd = []
    for number in range(1000):
        port = fortress.streaming_port if number % 2 else fortress.port
        with contextlib.suppress(OSError):
            crowd.append(socket.create_connection(("127.0.0.1", port), 20.0))
    driver.drive()
    for connection in crowd:
        connection.close()
    time.sleep(0.2)
    assert answers(fortress)
    driver.drive()


@pytest.mark.long
def test_a_client_that_does_not_read_delays_nobody(fortress: ServerProcess, driver: Driver) -> None:
    """Unread answers and pictures are limited, and do not disturb the other client."""
    before = resident(fortress)
    lazy = socket.create_connection(("127.0.0.1", fortress.port), 20.0)
    lazy.setblocking(False)
    wanted = bytes(msgpack.packb([0, 1, "get_actor_definitions", [[False]]])) * 2000
    with contextlib.suppress(BlockingIOError):
        lazy.send(wanted)
    deaf = [socket.create_connection(("127.0.0.1", fortress.streaming_port), 20.0) for _ in range(20)]
    for number, connection in enumerate(deaf, start=1):  # the world's, the camera's among them, and unknown ones
        connection.sendall(struct.pack("<I", number))
    for _ in range(20):
        _, slowest = driver.drive()
    assert slowest < 10.0
    assert resident(fortress) - before < 4 * GROWTH
    for connection in (lazy, *deaf):
        connection.close()


def test_many_clients_that_do_not_read_share_one_limit(fortress: ServerProcess, driver: Driver) -> None:
    """One listener may have 64 MB queued, but not a hundred listeners."""
    before = resident(fortress)
    with contextlib.closing(RawClient(fortress.port)) as raw, contextlib.ExitStack() as deaf:
        size = [["image_size_x", 2, "400"], ["image_size_y", 2, "300"]]
        camera = raw.value("spawn_actor", [0, "sensor.camera.rgb", size], [[0.0, 0.0, 50.0], [0.0, 0.0, 0.0]])[0]
        for _ in range(100):
            connection = socket.create_connection(("127.0.0.1", fortress.streaming_port), 20.0)
            deaf.callback(connection.close)
            connection.sendall(struct.pack("<I", camera))
        for _ in range(8):  # 160 pictures of 480 000 bytes for each
            _, slowest = driver.drive()
        assert slowest < 10.0
        assert resident(fortress) - before < 6 * GROWTH
        raw.call("destroy_actor", camera)


HEAD = b"\x94\x00\x01" + msgpack.packb("copy_opendrive_to_file") + b"\x92" + msgpack.packb([False])
"""Of the only call that may be long: what follows is its text."""


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x94\x00\x01\xa7version\xdd\x00\x00\xff\xff" + (b"\xdc\xff\xff" + b"\x90" * 65535) * 900,
        HEAD + b"\xdd\x00\x80\x00\x00" + b"\x90" * 0x800000,
        HEAD + b"\xdc\x00\x40" + (b"\xdc\x00\x40" + (b"\xdc\x00\x40" + (b"\x9f" + b"\x90" * 15) * 64) * 64) * 64,
    ],
    ids=["unfinished", "long array", "many arrays"],
)
def test_a_request_that_decodes_to_much_memory_is_refused(fortress: ServerProcess, driver: Driver, bomb: bytes) -> None:
    """An empty list is one byte on the wire, and 64 in memory."""
    before, highest = resident(fortress), 0.0
    with socket.create_connection(("127.0.0.1", fortress.port), 20.0) as connection:
        try:
            for start in range(0, len(bomb), 1 << 20):
                connection.sendall(bomb[start : start + (1 << 20)])
                highest = max(highest, resident(fortress))
            assert connection.recv(1) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was closed before all of it was sent
    driver.drive()
    assert max(highest, resident(fortress)) - before < 4 * GROWTH


def test_a_long_map_is_taken(fortress: ServerProcess) -> None:
    with contextlib.closing(RawClient(fortress.port)) as raw:
        error, _ = raw.call("copy_opendrive_to_file", "<" * 30_000_000, [])
        assert error is None
        assert raw.call("copy_opendrive_to_file", "", [])[0] is None


@pytest.mark.parametrize("half", [b"\x94", b"\x94\x00\x01\xa7ver", b"\xdb\x00\x01\x00\x00abc"])
def test_incomplete_messages_disturb_nobody(fortress: ServerProcess, driver: Driver, half: bytes) -> None:
    connections = [socket.create_connection(("127.0.0.1", fortress.port), 20.0) for _ in range(20)]
    for connection in connections:
        connection.sendall(half)
    driver.drive()
    for connection in connections:
        connection.close()
    driver.drive()


def test_one_byte_at_a_time_is_a_request_too(fortress: ServerProcess) -> None:
    with contextlib.closing(RawClient(fortress.port)) as raw:
        for byte in msgpack.packb([0, 7, "version", [[False]]]):
            raw.socket.sendall(bytes([byte]))
        assert msgpack.unpackb(raw.socket.recv(4096))[:3] == [1, 7, None]
