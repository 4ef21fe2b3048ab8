"""Sensor streams: the listeners of each stream, and what happens to those that do not keep up."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence

from sb3_carla.server.buffered_socket import BufferedSocket, Bytes

__all__ = ["WORLD_STREAM", "StreamConnection", "Streams", "length_word"]

WORLD_STREAM = 1
"""Id of the stream of world snapshots; the id of a sensor's stream is its actor id."""
MAX_QUEUED_BYTES = 64 * 2**20
"""
A listener with more than this in its queue loses its oldest messages [bytes]. It holds 2 300 pictures of 84 x 84 or 34
of 800 x 600, so that a callback of 50 ms loses nothing over hundreds of ticks. The newest messages are kept, so a
synchronous client still gets the picture of the frame that it waits for.
"""
MIN_QUEUED_MESSAGES = 4
"""The newest messages that are kept whatever their size."""
# LibCarla ``streaming::detail::tcp``: the client sends 4 bytes once, the server a length word before each message.
STREAM_ID = struct.Struct("<I")  # u32, little-endian: id of the stream that the client wants
LENGTH = struct.Struct("<I")  # u32, little-endian: bytes of the payload that follows


class StreamConnection(BufferedSocket):
    """
    One listener of one stream. The client sends the stream's id once and nothing afterwards.

    :param sock: accepted socket
    :param selector: of the server's loop
    :param streams: the connection subscribes there when it has read the id
    """

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector, streams: Streams) -> None:
        super().__init__(sock, selector)
        self.stream_id: int | None = None
        self._streams = streams
        self._greeting = b""

    def receive(self) -> None:
        """Read the stream's id; later bytes are ignored."""
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
        Send one message, or queue it and drop older ones if the queue is too long.

        :param parts: its length word, then its payload in pieces
        """
        if self.stream_id == WORLD_STREAM:
            self._streams.last_snapshot_at = time.monotonic()
        self.send(*parts)
        if self.queued_bytes > MAX_QUEUED_BYTES:
            self.drop_oldest(MAX_QUEUED_BYTES, MIN_QUEUED_MESSAGES)

    def close(self) -> None:
        """Close the socket and leave the stream."""
        super().close()
        self._streams.unsubscribe(self)


class Streams:
    """
    All listeners, by stream.

    Unknown ids are accepted and get no messages: a client whose stream is closed reconnects at once, again and again.
    """

    def __init__(self) -> None:
        self.last_snapshot_at = 0.0
        """When a client was last sent a snapshot (``time.monotonic``)."""
        self.on_subscribe: Callable[[int, StreamConnection], None] = lambda stream_id, connection: None
        self._listeners: dict[int, list[StreamConnection]] = {}

    def subscribe(self, stream_id: int, connection: StreamConnection) -> None:
        """
        Add a listener.

        :param stream_id: the stream that it asked for
        :param connection: the listener
        """
        self._listeners.setdefault(stream_id, []).append(connection)
        self.on_subscribe(stream_id, connection)

    def unsubscribe(self, connection: StreamConnection) -> None:
        """Remove a listener; does nothing if it is none."""
        listeners = self._listeners.get(-1 if connection.stream_id is None else connection.stream_id)
        if listeners is not None and connection in listeners:
            listeners.remove(connection)
            if not listeners:
                del self._listeners[connection.stream_id or 0]

    def ids(self) -> list[int]:
        """Sorted ids of the streams with listeners; other cameras are not rendered."""
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
        if len(listeners) > 1:  # joined once, not by each listener that has to queue it
            length, parts = b"".join((length, *parts)), ()
        for connection in listeners:
            connection.publish(length, *parts)


def length_word(parts: Sequence[Bytes]) -> bytes:
    """
    Length word that precedes a message.

    :param parts: its payload, in pieces
    """
    return LENGTH.pack(sum(memoryview(part).nbytes for part in parts))
