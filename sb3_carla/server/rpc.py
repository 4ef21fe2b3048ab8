"""
Connections for remote calls: msgpack-rpc as CARLA's client speaks it.

Request ``[0, number, name, parameters]``, response ``[1, number, error, result]``, one after the other without a frame.
``parameters[0]`` is the call's metadata, ``[is asynchronous]``; the arguments follow. Source: rpclib, and LibCarla's
``rpc/Client.h`` and ``rpc/Metadata.h``.
"""

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
"""First field of a msgpack-rpc message."""
MAX_REQUEST = 4 * 2**20
"""Longest request [bytes]: a batch of thousands of spawns fits. As Python objects it may take sixty times as much."""
MAX_LONG_REQUEST = 64 * 2**20
"""Longest request of ``LONG_CALL`` [bytes]: the OpenDRIVE map of a large town fits."""
LONG_CALL = b"copy_opendrive_to_file"
NAME_END = 64
"""The call's name lies within so many bytes from the start of a request."""
MAX_LISTS, MAX_LONG_ARRAY = 1000, 64
"""Lists in a long request, and elements in each: then nothing but text can make it long."""
MAX_ARRAY = 65536
"""Elements of a list in any other request."""
RECEIVE_SIZE = 65536
"""[bytes]"""
LONG_ANSWER = 4096
"""Shorter answers are collected and sent together [bytes]."""
MAX_READS = 16
"""Reads in a row from one connection before it is the others' turn."""
MAX_UNREAD_BYTES = 16 * 2**20
"""A client with more unread answers than this gets no more requests served [bytes]."""
SUBSCRIPTION_TIMEOUT = 0.25
"""How long a tick or a load waits for a stream that the same client is opening [s]."""
QUIET_TIME, QUIET_TIME_ASYNCHRONOUS = 0.01, 0.1
"""A load begins when no client was sent a snapshot for so long, in synchronous and in asynchronous mode [s]."""
LOAD_TIMEOUT = 1.0
"""A load waits no longer than this for the quiet time [s]."""
LOAD = "load_new_episode"


class RpcConnection(BufferedSocket):
    """
    Calls of one client, answered in order.

    ``sensor.listen()`` returns before its stream is connected, so a tick right after it would miss the first message.
    Therefore a tick waits until all streams that the client has asked tokens for are connected, for a moment at most.

    A load waits for the same, and until no snapshot was sent for a moment. After a load the client closes the world's
    stream, and carla 0.9.16 crashes if another of its threads is reading a snapshot just then. While a load waits, the
    ticks of other clients wait too: a client that ticks without a pause would delay the load for ever.

    :param sock: accepted socket
    :param selector: of the server's loop
    :param simulation: that the calls act on
    :param next_load: returns when a waiting load of any client may begin (``time.monotonic``); None: no load waits
    """

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        simulation: Simulation,
        next_load: Callable[[], float | None],
    ) -> None:
        super().__init__(sock, selector)
        self.max_queued_bytes = MAX_UNREAD_BYTES
        self.awaited_streams: dict[int, float] = {}
        self.verbose = False
        self._simulation = simulation
        self._next_load = next_load
        self._held_request: list[object] | None = None
        self._held_request_since = 0.0
        self._paused = False
        self._incoming = bytearray()  # received bytes from the start of the first request that was not served yet
        self._framed_bytes = 0  # length of all requests before it
        self._framer = msgpack.Unpacker(max_buffer_size=MAX_LONG_REQUEST)  # finds the ends of requests
        self._pack: Callable[[object], bytes] = msgpack.Packer().pack
        self._answers: list[bytes] = []

    @property
    def deadline(self) -> float | None:
        """When a waiting call is served at the latest (``time.monotonic``); None if no call waits."""
        if self._held_request is None:
            return None
        load = self._load_allowed_at if self.loading else self._next_load()
        return max([load or 0.0, *self.awaited_streams.values()])

    @property
    def loading(self) -> bool:
        """Whether a load waits, so that no snapshot may be sent."""
        return self._held_request is not None and self._held_request[2] == LOAD

    @property
    def held_bytes(self) -> int:
        """Answers that the client has not read, and incomplete requests [bytes]."""
        return self.queued_bytes + len(self._incoming)

    @property
    def _load_allowed_at(self) -> float:
        """When a load of this client may begin (``time.monotonic``)."""
        quiet = QUIET_TIME if self._simulation.settings.synchronous else QUIET_TIME_ASYNCHRONOUS
        return min(self._simulation.streams.last_snapshot_at + quiet, self._held_request_since + LOAD_TIMEOUT)

    def handle(self, events: int) -> None:
        """
        Send and receive; requests that were paused because of unread answers are resumed.

        :param events: ``selectors.EVENT_READ`` and ``EVENT_WRITE``
        """
        super().handle(events)
        if self._paused and self.queued_bytes <= MAX_UNREAD_BYTES and not self.closed:
            self.resume()

    def resume(self) -> None:
        """Serve requests that waited or were paused, then new ones; nothing of a client that has disconnected."""
        if self._held_request is not None and self._is_disconnected():
            self.close()
            return
        self._serve()
        self._send_answers()
        self.receive()

    def receive(self) -> None:
        """Read and serve requests until there are no more."""
        self._receive()
        self._send_answers()

    def _receive(self) -> None:
        for _ in range(MAX_READS):
            if self._held_request is not None or self._paused or self.closed:
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
                self._framer.feed(data)
                self._incoming += data
                self._serve()
                if len(self._incoming) > MAX_REQUEST and LONG_CALL not in self._incoming[:NAME_END]:
                    raise ValueError(f"expected a request of at most {MAX_REQUEST} bytes")
            except (msgpack.BufferFull, ValueError) as error:
                self._reject(error)

    def _serve(self) -> None:
        """Serve the requests that are complete."""
        try:
            while not self.closed:
                self._paused = self.queued_bytes > MAX_UNREAD_BYTES
                if self._paused:
                    break
                message = self._held_request if self._held_request is not None else self._next_request()
                if not self._serve_one(message):
                    break
        except msgpack.OutOfData:
            pass
        except Exception as error:  # msgpack raises many kinds on bytes that are not msgpack
            self._reject(error)

    def _next_request(self) -> object:
        """
        The next complete request, decoded. Incomplete ones are not: their objects could take any amount of memory.

        :raises msgpack.OutOfData: if no request is complete
        """
        self._framer.skip()
        end = self._framer.tell()
        request = bytes(self._incoming[: end - self._framed_bytes])
        del self._incoming[: end - self._framed_bytes]
        self._framed_bytes = end
        return _unpacked(request)

    def _is_disconnected(self) -> bool:
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    def _serve_one(self, message: object) -> bool:
        """Serve one request; False if it must wait."""
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
        is_tick = _is_tick(name, parameters)
        if name == LOAD or is_tick:
            if self._held_request is None:
                self._held_request_since = time.monotonic()
            unready = self.awaited_streams and not self._streams_ready()
            if unready or (self._next_load() is not None if is_tick else time.monotonic() < self._load_allowed_at):
                self._held_request = message
                return False
        self._held_request = None
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
                self.awaited_streams[stream_id] = time.monotonic() + SUBSCRIPTION_TIMEOUT
        answer = self._pack([RESPONSE, number, error, result])
        self._answers.append(answer)
        if simulation.sensors_due:
            # The client gets its answer and snapshot before the pictures are rendered.
            self._send_answers()
            simulation.publish_sensors()
        elif len(answer) > LONG_ANSWER:
            self._send_answers()

    def _streams_ready(self) -> bool:
        now = time.monotonic()
        for stream_id in [stream_id for stream_id, deadline in self.awaited_streams.items() if deadline <= now]:
            del self.awaited_streams[stream_id]
        return not self.awaited_streams

    def subscribed(self, stream_id: int) -> bool:
        """
        Note that a stream is connected.

        :param stream_id: the stream
        :return: whether this client waited for it
        """
        return self.awaited_streams.pop(stream_id, None) is not None

    def _send_answers(self) -> None:
        if self._answers:
            answers, self._answers = b"".join(self._answers), []
            self.send(answers)

    def _reject(self, error: Exception) -> None:
        log(f"closed a connection: {type(error).__name__}: {error}")
        self.close()


def _unpacked(request: bytes) -> object:
    """
    Decode a request whose objects do not take much more memory than its bytes.

    An empty list is one byte on the wire and 64 bytes in memory, so the number of lists and their lengths are limited.

    :raises ValueError: if it is not msgpack, or exceeds these limits
    """
    lists = 0

    def count(parts: list[object]) -> list[object]:
        nonlocal lists
        lists += 1
        if lists > MAX_LISTS:
            raise ValueError(f"expected a long request of at most {MAX_LISTS} lists")
        return parts

    short = len(request) <= MAX_REQUEST
    return msgpack.unpackb(
        request, raw=False, unicode_errors="replace", max_array_len=MAX_ARRAY if short else MAX_LONG_ARRAY,
        max_map_len=1024 if short else MAX_LONG_ARRAY, max_ext_len=1024, list_hook=None if short else count,
    )  # fmt: skip


def _is_tick(name: str, parameters: list[object]) -> bool:
    return name == "tick_cue" or (name == "apply_batch" and len(parameters) > 2 and parameters[2] is True)
