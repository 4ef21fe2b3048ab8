"""Non-blocking socket with an output queue: base class of the call and stream connections."""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
from collections import deque
from typing import TypeAlias

__all__ = ["BufferedSocket", "Bytes"]

Bytes: TypeAlias = "bytes | bytearray | memoryview"


class BufferedSocket:
    """
    One accepted socket. ``send`` never blocks: bytes that the kernel does not take are copied and queued.

    :param sock: accepted socket; becomes non-blocking, with ``TCP_NODELAY``
    :param selector: of the server's loop; the connection registers itself as the key's data
    """

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.max_queued_bytes = math.inf
        """While more than this is queued for output, nothing is read [bytes]."""
        self.closed = False
        self.queued_bytes = 0
        """In the output queue."""
        self._queue: deque[memoryview] = deque()  # the rest of the first message, then whole messages
        self._first_is_partial = False  # some of the first message was sent already
        self._selector = selector
        self._events = selectors.EVENT_READ
        selector.register(sock, self._events, self)

    @property
    def held_bytes(self) -> int:
        """Memory held for this peer [bytes]."""
        return self.queued_bytes

    def handle(self, events: int) -> None:
        """
        Read or write when the selector says that it is possible.

        :param events: ``selectors.EVENT_READ``, ``EVENT_WRITE``, or both
        """
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ and not self.closed:
            self.receive()

    def receive(self) -> None:
        """Called when there is something to read, or the peer has closed the connection."""
        raise NotImplementedError

    def send(self, *parts: Bytes) -> None:
        """
        Send one message that consists of several buffers; these may be changed afterwards.

        :param parts: buffers, in order
        """
        if self.closed:
            return
        sent = 0
        if not self._queue:
            try:
                sent = self.sock.sendmsg(parts)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                # The selector will report the broken connection; ``receive`` closes it.
                return
        size = sum(memoryview(part).nbytes for part in parts)
        if sent == size:
            return
        rest = memoryview(b"".join(parts))[sent:]
        self._first_is_partial = self._first_is_partial or sent > 0
        self._queue.append(rest)
        self.queued_bytes += len(rest)
        self._watch()

    def drop_oldest(self, max_bytes: int, min_messages: int) -> None:
        """
        Remove the oldest messages from the queue, but never a partly sent one: the peer would read garbage.

        :param max_bytes: stop when no more than this is queued [bytes]
        :param min_messages: keep at least so many messages
        """
        first = 1 if self._first_is_partial else 0
        while self.queued_bytes > max_bytes and len(self._queue) > max(min_messages, first):
            self.queued_bytes -= len(self._queue[first])
            del self._queue[first]

    def _flush(self) -> None:
        while self._queue:
            head = self._queue[0]
            try:
                sent = self.sock.send(head)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.close()
                return
            self.queued_bytes -= sent
            if sent < len(head):
                self._queue[0] = head[sent:]
                self._first_is_partial = True
                break
            self._queue.popleft()
            self._first_is_partial = False
        self._watch()

    def _watch(self) -> None:
        """Tell the selector what to wait for."""
        events = selectors.EVENT_WRITE if self._queue else 0
        if self.queued_bytes <= self.max_queued_bytes:
            events |= selectors.EVENT_READ
        if events != self._events and not self.closed:
            self._events = events
            self._selector.modify(self.sock, events, self)

    def close(self) -> None:
        """Close the socket; may be called again."""
        if self.closed:
            return
        self.closed = True
        self._queue.clear()
        self.queued_bytes = 0
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(self.sock)
        self.sock.close()
