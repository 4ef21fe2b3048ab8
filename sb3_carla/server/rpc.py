"""The call connections: msgpack-rpc as CARLA's client speaks it."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable

import msgpack

from sb3_carla.server.buffered_socket import BufferedSocket
from sb3_carla.server.log import log
from sb3_carla.server.registry import execute
from sb3_carla.server.simulation import Simulation
from sb3_carla.server.streams import WORLD_STREAM

__all__ = ["RpcConnection"]

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2
MAX_MESSAGE = 4 * 2**20
"""Longest request [bytes]: a batch of thousands of spawns fits. Its objects may take sixty times as much."""
MAX_LONG_MESSAGE = 64 * 2**20
"""The same for ``LONG_CALL``: an OpenDRIVE map of a large town fits."""
LONG_CALL = b"copy_opendrive_to_file"
HEAD = 64
"""Where in a request its name stands at the latest [bytes]."""
MAX_LISTS, MAX_LONG_ARRAY = 1000, 64
"""Of a long request, so that what is long in it is text: lists in all, and elements in one."""
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
LOAD_PATIENCE = 1.0
"""How long a load waits for that at most [s]."""
LOAD = "load_new_episode"


class RpcConnection(BufferedSocket):
    """
    One client's calls, answered in order.

    ``sensor.listen()`` returns before its stream is connected; a tick right after it would lose the first message.
    So a client's tick waits until the streams that it has asked tokens for are there, for a moment at most.

    So does a load, and moreover until the last snapshot is a moment old: having loaded, the client leaves the world's
    stream, and where another of its threads has a snapshot in hand just then, it crashes (carla 0.9.16). The others'
    ticks wait meanwhile: a client that ticks without a pause would put off the load for ever.

    :param sock: accepted
    :param selector: the server's
    :param simulation: what the calls act on
    :param next_load: when a load of any client that is held may begin (``time.monotonic``), None if there is none
    """

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        simulation: Simulation,
        next_load: Callable[[], float | None],
    ) -> None:
        super().__init__(sock, selector)
        self.read_bound = MAX_BACKLOG
        self.awaited: dict[int, float] = {}
        self.verbose = False
        self._simulation = simulation
        self._next_load = next_load
        self._held: list[object] | None = None
        self._held_since = 0.0
        self._paused = False
        self._incoming = bytearray()  # from the beginning of the first request that was not served yet
        self._measured = 0  # where it begins, in all that came
        self._measure = msgpack.Unpacker(max_buffer_size=MAX_LONG_MESSAGE)
        self._pack: Callable[[object], bytes] = msgpack.Packer().pack
        self._answers: list[bytes] = []

    @property
    def deadline(self) -> float | None:
        """When a held call is served in any case (``time.monotonic``), None if none is held."""
        if self._held is None:
            return None
        load = self._calm_at if self.loading else self._next_load()
        return max([load or 0.0, *self.awaited.values()])

    @property
    def loading(self) -> bool:
        """Whether a load is held: no snapshot is to be sent now."""
        return self._held is not None and self._held[2] == LOAD

    @property
    def kept(self) -> int:
        """What is kept for this client: answers that it has not read, and requests that it has not ended [bytes]."""
        return self.backlog + len(self._incoming)

    @property
    def _calm_at(self) -> float:
        """When a load may begin (``time.monotonic``)."""
        calm = CALM if self._simulation.settings.synchronous else CALM_ASYNCHRONOUS
        return min(self._simulation.streams.last_snapshot_at + calm, self._held_since + LOAD_PATIENCE)

    def handle(self, events: int) -> None:
        """
        Send and receive; requests that waited until the client had read enough answers go on.

        :param events: ``selectors.EVENT_READ`` and ``EVENT_WRITE``
        """
        super().handle(events)
        if self._paused and self.backlog <= MAX_BACKLOG and not self.closed:
            self.resume()

    def resume(self) -> None:
        """Serve requests that were held or paused, then what has arrived since; nothing of a client that has gone."""
        if self._held is not None and self._has_gone():
            self.close()
            return
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
                self._measure.feed(data)
                self._incoming += data
                self._serve()
                if len(self._incoming) > MAX_MESSAGE and LONG_CALL not in self._incoming[:HEAD]:
                    raise ValueError(f"expected a request of at most {MAX_MESSAGE} bytes")
            except (msgpack.BufferFull, ValueError) as error:
                self._reject(error)

    def _serve(self) -> None:
        """Serve the requests that are complete."""
        try:
            while not self.closed:
                self._paused = self.backlog > MAX_BACKLOG
                if self._paused:
                    break
                message = self._held if self._held is not None else self._next_request()
                if not self._serve_one(message):
                    break
        except msgpack.OutOfData:
            pass
        except Exception as error:  # whatever msgpack makes of foreign bytes
            self._reject(error)

    def _next_request(self) -> object:
        """
        The next one that is complete: nothing is made of one that is not, which may be the beginning of anything.

        :raises msgpack.OutOfData: if there is none
        """
        self._measure.skip()
        end = self._measure.tell()
        request = bytes(self._incoming[: end - self._measured])
        del self._incoming[: end - self._measured]
        self._measured = end
        return _unpacked(request)

    def _has_gone(self) -> bool:
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

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
        ticks = _ticks(name, parameters)
        if name == LOAD or ticks:
            if self._held is None:
                self._held_since = time.monotonic()
            unready = self.awaited and not self._released()
            if unready or (self._next_load() is not None if ticks else time.monotonic() < self._calm_at):
                self._held = message
                return False
        self._held = None
        self._answer(number, name, parameters)
        return True

    def _answer(self, number: int, name: str, parameters: list[object]) -> None:
        simulation = self._simulation
        error, result = execute(simulation, name, parameters[1:])
        if self.verbose:
            log(f"{name} {str(parameters[1:])[:120]}")
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
        log(f"closed a connection: {type(error).__name__}: {error}")
        self.close()


def _unpacked(request: bytes) -> object:
    """
    A request as objects, which are not many more than its bytes.

    :raises ValueError: if it is not msgpack, or has more parts than any request
    """
    lists = 0

    def count(parts: list[object]) -> list[object]:
        nonlocal lists
        lists += 1
        if lists > MAX_LISTS:
            raise ValueError(f"expected a long request of at most {MAX_LISTS} lists")
        return parts

    short = len(request) <= MAX_MESSAGE
    return msgpack.unpackb(
        request, raw=False, unicode_errors="replace", max_array_len=MAX_ARRAY if short else MAX_LONG_ARRAY,
        max_map_len=1024 if short else MAX_LONG_ARRAY, max_ext_len=1024, list_hook=None if short else count,
    )  # fmt: skip


def _ticks(name: str, parameters: list[object]) -> bool:
    return name == "tick_cue" or (name == "apply_batch" and len(parameters) > 2 and parameters[2] is True)
