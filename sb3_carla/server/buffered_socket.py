"""A non-blocking socket with an output queue: what the call and the stream connections share."""

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
    One accepted socket. ``send`` never blocks: what the kernel does not take is copied and queued.

    :param sock: accepted, becomes non-blocking, without Nagle's delay
    :param selector: that the server waits on; its data is the connection itself
    """

    def __init__(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.read_bound = math.inf
        """With more than this in the output queue nothing more is read [bytes]."""
        self.closed = False
        self.backlog = 0
        self._queue: deque[memoryview] = deque()
        self._started = False
        self._selector = selector
        self._events = selectors.EVENT_READ
        selector.register(sock, self._events, self)

    @property
    def kept(self) -> int:
        """What is kept for this peer [bytes]."""
        return self.backlog

    def handle(self, events: int) -> None:
        """
        Do what the selector has found possible.

        :param events: ``selectors.EVENT_READ`` and ``EVENT_WRITE``
        """
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ and not self.closed:
            self.receive()

    def receive(self) -> None:
        """There is something to read, or the peer has gone."""
        raise NotImplementedError

    def send(self, *parts: Bytes) -> None:
        """
        Send one message made of several buffers; they may be reused afterwards.

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
                # The selector reports the broken connection, which is closed there.
                return
        size = sum(memoryview(part).nbytes for part in parts)
        if sent == size:
            return
        rest = memoryview(b"".join(parts))[sent:]
        self._started = self._started or sent > 0
        self._queue.append(rest)
        self.backlog += len(rest)
        self._watch()

    def drop_queued(self, bound: int, keep: int) -> None:
        """
        Forget the oldest whole messages; the one that is partly sent stays.

        :param bound: until no more than this is queued [bytes]
        :param keep: but not fewer messages than this
        """
        first = 1 if self._started else 0
        while self.backlog > bound and len(self._queue) > max(keep, first):
            self.backlog -= len(self._queue[first])
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
            self.backlog -= sent
            if sent < len(head):
                self._queue[0] = head[sent:]
                self._started = True
                break
            self._queue.popleft()
            self._started = False
        self._watch()

    def _watch(self) -> None:
        events = selectors.EVENT_WRITE if self._queue else 0
        if self.backlog <= self.read_bound:
            events |= selectors.EVENT_READ
        if events != self._events and not self.closed:
            self._events = events
            self._selector.modify(self.sock, events, self)

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        if self.closed:
            return
        self.closed = True
        self._queue.clear()
        self.backlog = 0
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(self.sock)
        self.sock.close()
