"""The call connections: msgpack-rpc as CARLA's client speaks it."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable

import msgpack

from sb3_carla.server.connection import Connection
from sb3_carla.server.log import report
from sb3_carla.server.registry import execute
from sb3_carla.server.simulation import Simulation
from sb3_carla.server.streams import WORLD_STREAM

__all__ = ["RpcConnection"]

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2
MAX_MESSAGE = 64 * 2**20
"""Longest request [bytes]: an OpenDRIVE map of a large town fits."""
MAX_ARRAY = 65536
RECEIVE_SIZE = 65536
LONG_ANSWER = 4096
"""Shorter answers are gathered and sent together [bytes]."""
MAX_ROUNDS = 16
"""Reads in a row from one connection before the others have their turn."""
MAX_BACKLOG = 16 * 2**20
"""Unread answers beyond which no more requests of that client are served [bytes]."""
SUBSCRIPTION_PATIENCE = 0.25
"""How long a call waits for a stream that the same client is just opening [s]."""
CALM, CALM_ASYNCHRONOUS = 0.01, 0.1
"""How long before a load the clients have had no snapshot, in synchronous and in asynchronous mode [s]."""
LOAD = "load_new_episode"


class RpcConnection(Connection):
    """
    One client's calls, answered in order.

    ``sensor.listen()`` returns before its stream is connected; a tick right after it would lose the first message.
    So a client's tick waits until the streams that it has asked tokens for are there, for a moment at most.

    So does a load, and moreover until the last snapshot is a moment old: having loaded, the client leaves the world's
    stream, and where another of its threads has a snapshot in hand just then, it crashes (carla 0.9.16).

    :param sock: accepted
    :param selector: the server's
    :param simulation: what the calls act on
    """

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector, simulation: Simulation) -> None:
        super().__init__(sock, selector)
        self.read_bound = MAX_BACKLOG
        self.awaited: dict[int, float] = {}
        self.verbose = False
        self._simulation = simulation
        self._held: list[object] | None = None
        self._paused = False
        self._unpacker = msgpack.Unpacker(
            raw=False,
            unicode_errors="replace",
            max_buffer_size=MAX_MESSAGE,
            max_array_len=MAX_ARRAY,
            max_map_len=1024,
            max_ext_len=1024,
        )
        self._pack: Callable[[object], bytes] = msgpack.Packer().pack
        self._answers: list[bytes] = []

    @property
    def deadline(self) -> float | None:
        """When a held call is served in any case (``time.monotonic``), None if none is held."""
        if self._held is None:
            return None
        return max([self._calm_at if self.loading else 0.0, *self.awaited.values()])

    @property
    def loading(self) -> bool:
        """Whether a load is held: no snapshot is to be sent now."""
        return self._held is not None and self._held[2] == LOAD

    @property
    def _calm_at(self) -> float:
        """When a load may begin (``time.monotonic``)."""
        calm = CALM if self._simulation.settings.synchronous else CALM_ASYNCHRONOUS
        return self._simulation.streams.last_snapshot_at + calm

    def handle(self, events: int) -> None:
        """
        Send and receive; requests that waited until the client had read enough answers go on.

        :param events: ``selectors.EVENT_READ`` and ``EVENT_WRITE``
        """
        super().handle(events)
        if self._paused and self.backlog <= MAX_BACKLOG and not self.closed:
            self.resume()

    def resume(self) -> None:
        """Serve requests that were held or paused, then what has arrived since."""
        self._serve()
        self._send_answers()
        self.receive()

    def receive(self) -> None:
        """Read what has arrived and serve it, again and again while there is more."""
        self._receive()
        self._send_answers()

    def _receive(self) -> None:
        for _ in range(MAX_ROUNDS):
            if self._held is not None or self._paused or self.closed:
                return
            try:
                data = self.sock.recv(RECEIVE_SIZE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            try:
                self._unpacker.feed(data)
            except (msgpack.BufferFull, ValueError) as error:
                self._reject(error)
                return
            self._serve()

    def _serve(self) -> None:
        """Serve the requests that are complete."""
        try:
            while not self.closed:
                self._paused = self.backlog > MAX_BACKLOG
                if self._paused:
                    break
                message = self._held if self._held is not None else self._unpacker.unpack()
                if not self._serve_one(message):
                    break
        except msgpack.OutOfData:
            pass
        except Exception as error:  # whatever msgpack makes of foreign bytes
            self._reject(error)

    def _serve_one(self, message: object) -> bool:
        """False if the message must wait."""
        if not isinstance(message, list) or not message:
            raise ValueError(f"expected a msgpack-rpc request, got {type(message).__name__}")
        if message[0] == NOTIFICATION:
            return True
        if len(message) != 4 or message[0] != REQUEST:
            raise ValueError(f"expected a request of 4 fields, got {len(message)} of type {message[0]!r:.20}")
        _, number, name, parameters = message
        if isinstance(number, bool) or not isinstance(number, int) or not isinstance(name, str):
            raise ValueError("expected a request with a number and a name")
        if not isinstance(parameters, list) or not parameters:
            raise ValueError(f"{name:.40}: expected parameters that start with the call's metadata")
        unready = self.awaited and (name == LOAD or _ticks(name, parameters)) and not self._released()
        if unready or (name == LOAD and time.monotonic() < self._calm_at):
            self._held = message
            return False
        self._held = None
        self._answer(number, name, parameters)
        return True

    def _answer(self, number: int, name: str, parameters: list[object]) -> None:
        simulation = self._simulation
        error, result = execute(simulation, name, parameters[1:])
        if self.verbose:
            report(f"{name} {str(parameters[1:])[:120]}")
        if name == "get_sensor_token" and len(parameters) > 1:
            stream_id = parameters[1]
            if isinstance(stream_id, int) and (stream_id == WORLD_STREAM or stream_id in simulation.world.actors):
                self.awaited[stream_id] = time.monotonic() + SUBSCRIPTION_PATIENCE
        answer = self._pack([RESPONSE, number, error, result])
        self._answers.append(answer)
        if simulation.sensors_due:
            # The client has its answer and its snapshot while the pictures are drawn.
            self._send_answers()
            simulation.publish_sensors()
        elif len(answer) > LONG_ANSWER:
            self._send_answers()

    def _released(self) -> bool:
        now = time.monotonic()
        for stream_id in [stream_id for stream_id, deadline in self.awaited.items() if deadline <= now]:
            del self.awaited[stream_id]
        return not self.awaited

    def subscribed(self, stream_id: int) -> bool:
        """
        A stream has been connected.

        :param stream_id: the stream
        :return: whether this client was waiting for it
        """
        return self.awaited.pop(stream_id, None) is not None

    def _send_answers(self) -> None:
        if self._answers:
            answers, self._answers = b"".join(self._answers), []
            self.send(answers)

    def _reject(self, error: Exception) -> None:
        report(f"closed a connection: {type(error).__name__}: {error}")
        self.close()


def _ticks(name: str, parameters: list[object]) -> bool:
    return name == "tick_cue" or (name == "apply_batch" and len(parameters) > 2 and parameters[2] is True)
