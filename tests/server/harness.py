"""Server processes and raw connections for the tests."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import carla
import msgpack

READY = re.compile(r"^sb3_carla\.server listening on 127\.0\.0\.1:(\d+) streaming (\d+)\n$")
TOWN = "Circuit01"
SPAWNED_SENSORS: list[Any] = []
"""Sensors to stop before the next world is loaded; only the handle that called ``listen`` can stop one."""


@dataclass
class ServerProcess:
    """A server that runs as a child."""

    process: subprocess.Popen[str]
    port: int
    streaming_port: int

    def client(self, timeout: float = 10.0) -> Any:
        client = carla.Client("127.0.0.1", self.port)
        client.set_timeout(timeout)
        return client


@contextlib.contextmanager
def running_server(*arguments: str, stderr: int = subprocess.DEVNULL) -> Iterator[ServerProcess]:
    """Start a server on free ports and kill it afterwards; it also ends if the tests crash."""
    command = [sys.executable, "-m", "sb3_carla.server", "--port", "0", "--parent-pid", str(os.getpid()), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        ready = READY.match(line)
        assert ready, f"the server printed {line!r}"
        yield ServerProcess(process, int(ready[1]), int(ready[2]))
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def run_client(code: str, port: int, timeout: float = 30.0) -> str:
    """Run a program with the carla client in a process of its own; it may crash there. Returns what it prints."""
    prelude = """
        import faulthandler, sys
        faulthandler.enable()
        import carla
        client = carla.Client("127.0.0.1", int(sys.argv[1]))
        client.set_timeout(10.0)
    """
    program = textwrap.dedent(prelude) + textwrap.dedent(code)
    command = [sys.executable, "-u", "-c", program, str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class RawClient:
    """Connection for remote calls without CARLA's client."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10.0)
        self._unpacker = msgpack.Unpacker(raw=False)
        self._number = 0

    def call(self, name: str, *arguments: object) -> tuple[object, Any]:
        """Error and result of one call."""
        self._number += 1
        self.socket.sendall(msgpack.packb([0, self._number, name, [[False], *arguments]]))
        while True:
            for kind, number, error, result in self._unpacker:
                assert (kind, number) == (1, self._number)
                return error, result
            data = self.socket.recv(1 << 16)
            assert data, "the server closed the connection"
            self._unpacker.feed(data)

    def value(self, name: str, *arguments: object) -> Any:
        """Value of a call that must succeed."""
        error, result = self.call(name, *arguments)
        assert error is None
        assert result[0][0] == 1, result
        return result[0][1]

    def close(self) -> None:
        self.socket.close()


def subscribe(streaming_port: int, stream_id: int) -> socket.socket:
    """A raw listener of a stream."""
    connection = socket.create_connection(("127.0.0.1", streaming_port), 10.0)
    connection.sendall(struct.pack("<I", stream_id))
    return connection


def receive_exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = connection.recv(min(size - len(data), 1 << 20))
        assert chunk, f"the connection ended after {len(data)} of {size} bytes"
        data += chunk
    return bytes(data)


def receive_message(connection: socket.socket) -> bytes:
    """One message of a stream."""
    (size,) = struct.unpack("<I", receive_exactly(connection, 4))
    return receive_exactly(connection, size)


class Inbox:
    """Messages of one sensor, in order."""

    def __init__(self, sensor: Any) -> None:
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.sensor = sensor
        sensor.listen(self.queue.put)

    def get(self, timeout: float = 5.0) -> Any:
        return self.queue.get(timeout=timeout)


def synchronous(world: Any, delta: float = 0.05) -> None:
    settings = world.get_settings()
    settings.synchronous_mode = True
    settings.fixed_delta_seconds = delta
    world.apply_settings(settings)


def spawn_car(world: Any, place: Any = 0, model: str = "vehicle.tesla.model3") -> Any:
    """A car at a spawn point, by number or as a transform."""
    if isinstance(place, int):
        place = world.get_map().get_spawn_points()[place]
    return world.spawn_actor(world.get_blueprint_library().find(model), place)


def await_snapshot(world: Any, actor: Any) -> None:
    """
    Wait until an actor is in a snapshot.

    Before that, ``is_alive`` is random and ``destroy`` may refuse: ``ActorSnapshot::actor_state`` of LibCarla 0.9.16
    has no initial value.
    """
    deadline = time.monotonic() + 30.0
    while not world.get_snapshot().has_actor(actor.id):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def spawn_sensor(world: Any, car: Any, kind: str, **attributes: object) -> Any:
    blueprint = world.get_blueprint_library().find(f"sensor.{kind}")
    if kind.startswith("camera."):
        attributes = {"image_size_x": 84, "image_size_y": 84, **attributes}
    for name, value in attributes.items():
        blueprint.set_attribute(name, str(value))
    place = carla.Transform(carla.Location(x=1.2, z=2.0), carla.Rotation(pitch=-15.0))
    sensor = world.spawn_actor(blueprint, place, attach_to=car)
    SPAWNED_SENSORS.append(sensor)
    return sensor


def stop_sensors() -> None:
    """Stop every sensor that still listens: the client may crash if the world is replaced while one does."""
    for sensor in SPAWNED_SENSORS:
        if sensor.is_listening():
            sensor.stop()
    SPAWNED_SENSORS.clear()
