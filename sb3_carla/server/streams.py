"""Sensor streams: who listens to what, and what happens to listeners that do not keep up."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence

from sb3_carla.server.buffered_socket import BufferedSocket, Bytes

__all__ = ["WORLD_STREAM", "StreamConnection", "Streams", "length_word"]

WORLD_STREAM = 1
"""Stream of the world's snapshots; every other stream has its sensor's actor id."""
BACKLOG_BOUND = 64 * 2**20
"""
Queued bytes beyond which a listener loses its oldest messages: 2 300 pictures of 84 x 84 or 34 of 800 x 600, so that
a callback of 50 ms loses nothing over hundreds of ticks. The newest messages are kept: a synchronous client still gets
the picture of the frame that it waits for.
"""
BACKLOG_MESSAGES = 4
"""Messages that are kept whatever their size."""
STREAM_ID = struct.Struct("<I")
LENGTH = struct.Struct("<I")


class StreamConnection(BufferedSocket):
    """
    One listener of one stream. It sends the stream's id once, then nothing.

    :param sock: accepted
    :param selector: the server's
    :param streams: where it signs up once its id is known
    """

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector, streams: Streams) -> None:
        super().__init__(sock, selector)
        self.stream_id: int | None = None
        self._streams = streams
        self._greeting = b""

    def receive(self) -> None:
        """Read the stream's id; anything later is ignored, the end of the connection is not."""
        try:
            data = self.sock.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        elif self.stream_id is None:
            self._greeting += data[: STREAM_ID.size]
            if len(self._greeting) >= STREAM_ID.size:
                self.stream_id = STREAM_ID.unpack_from(self._greeting)[0]
                self._streams.subscribe(self.stream_id, self)

    def publish(self, *parts: Bytes) -> None:
        """
        Send one message, or queue it at the cost of older ones.

        :param parts: its length word, and its payload in pieces
        """
        if self.stream_id == WORLD_STREAM:
            self._streams.last_snapshot_at = time.monotonic()
        self.send(*parts)
        if self.backlog > BACKLOG_BOUND:
            self.drop_queued(BACKLOG_BOUND, BACKLOG_MESSAGES)

    def close(self) -> None:
        """Close, and leave the stream."""
        super().close()
        self._streams.unsubscribe(self)


class Streams:
    """
    All listeners by stream.

    Unknown ids are accepted and stay silent: a client that is refused dials again at once, and so on.
    """

    def __init__(self) -> None:
        self.last_snapshot_at = 0.0
        """When somebody was sent a snapshot last (``time.monotonic``)."""
        self.on_subscribe: Callable[[int, StreamConnection], None] = lambda stream_id, connection: None
        self._listeners: dict[int, list[StreamConnection]] = {}

    def subscribe(self, stream_id: int, connection: StreamConnection) -> None:
        """
        Add a listener.

        :param stream_id: that it has asked for
        :param connection: the listener
        """
        self._listeners.setdefault(stream_id, []).append(connection)
        self.on_subscribe(stream_id, connection)

    def unsubscribe(self, connection: StreamConnection) -> None:
        """Remove a listener, if it is one."""
        listeners = self._listeners.get(-1 if connection.stream_id is None else connection.stream_id)
        if listeners is not None and connection in listeners:
            listeners.remove(connection)
            if not listeners:
                del self._listeners[connection.stream_id or 0]

    def ids(self) -> list[int]:
        """Streams that somebody listens to, in order: pictures that nobody sees are not drawn."""
        return sorted(self._listeners)

    def publish(self, stream_id: int, *parts: Bytes) -> None:
        """
        Send one message to every listener of a stream.

        :param stream_id: the stream
        :param parts: payload, in pieces
        """
        listeners = self._listeners.get(stream_id)
        if listeners is None:
            return
        length = length_word(parts)
        if len(listeners) > 1:  # one copy for all that do not take it at once
            length, parts = b"".join((length, *parts)), ()
        for connection in listeners:
            connection.publish(length, *parts)


def length_word(parts: Sequence[Bytes]) -> bytes:
    """
    What stands before every message.

    :param parts: its payload, in pieces
    """
    return LENGTH.pack(sum(memoryview(part).nbytes for part in parts))
