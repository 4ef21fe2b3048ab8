"""The server: two listening sockets, one event loop, one clock."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time

from sb3_carla.errors import ServerStartError
from sb3_carla.server import actor_calls as _actors  # noqa: F401
from sb3_carla.server import batch as _batch  # noqa: F401 (the import registers its calls)
from sb3_carla.server import episode_calls as _episode  # noqa: F401
from sb3_carla.server import look_calls as _look  # noqa: F401
from sb3_carla.server import vehicle_calls as _vehicle  # noqa: F401
from sb3_carla.server.buffered_socket import BufferedSocket
from sb3_carla.server.log import log
from sb3_carla.server.rpc import QUIET_TIME_ASYNCHRONOUS, RpcConnection
from sb3_carla.server.simulation import Simulation
from sb3_carla.server.streams import WORLD_STREAM, StreamConnection, Streams, length_word
from sb3_carla.simulator.rendering.shared_rasters import SharedRasters

__all__ = ["Server"]

MAX_CONNECTIONS = 512
MAX_HELD_BYTES = 256 * 2**20
"""Most memory for unread answers, pictures and incomplete requests of all connections together [bytes]."""
PARENT_POLL = 0.25
"""How often the loop checks that its parent is alive [s]."""
LISTEN_BACKLOG = 64
"""Connections that may wait to be accepted."""


class Listener:
    """
    A listening socket.

    :param host: address
    :param port: 0: a free one
    :param selector: of the server's loop
    :param server: that accepted connections are given to
    :raises ServerStartError: if the port is in use or cannot be opened
    """

    def __init__(self, host: str, port: int, selector: selectors.BaseSelector, server: Server) -> None:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self.sock = socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG)
        except (OSError, OverflowError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            what = "is in use" if in_use else "cannot be opened"
            raise ServerStartError(f"port {port} on {host} {what}: {error}") from error
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self._server = server
        # A descriptor to refuse a connection with when the process has no more, see ``_refuse``.
        self._spare = os.open(os.devnull, os.O_RDONLY)
        selector.register(self.sock, selectors.EVENT_READ, self)

    def handle(self, events: int) -> None:
        """
        Accept one connection.

        :param events: of the selector
        """
        try:
            sock, _ = self.sock.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._refuse()
            return
        self._server.accept(self, sock)

    def _refuse(self) -> None:
        """Accept and close a connection with the spare descriptor: waiting, it would wake the loop again and again."""
        log("refused a connection: no file descriptor is left")
        os.close(self._spare)
        with contextlib.suppress(OSError):
            self.sock.accept()[0].close()
        self._spare = os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        """Stop listening."""
        self.sock.close()
        os.close(self._spare)


class Waker:
    """
    Wakes the loop from another thread or a signal handler (the self-pipe trick).

    :param selector: of the server's loop
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.sock, self._other = socket.socketpair()
        self.sock.setblocking(False)
        self._other.setblocking(False)
        selector.register(self.sock, selectors.EVENT_READ, self)

    def wake(self) -> None:
        """End the present wait of the selector, or the next one."""
        with contextlib.suppress(OSError):
            self._other.send(b"!")

    def handle(self, events: int) -> None:
        """
        Read the bytes that ``wake`` has written.

        :param events: of the selector
        """
        with contextlib.suppress(OSError):
            self.sock.recv(4096)

    def close(self) -> None:
        """Close both ends."""
        self.sock.close()
        self._other.close()


class Server:
    """
    CARLA's two ports in front of one simulation. Everything runs in one thread, so nothing is concurrent.

    :param town: built-in name or path of an OpenDRIVE file
    :param host: address to listen on
    :param port: of the calls, 0: a free one
    :param streaming_port: of the streams, None: the next one (a free one if ``port`` is 0)
    :param parent_pid: the loop ends when this is no longer the parent process
    :param seed: of the sensors' noise
    :param shared_rasters: shared with other servers; None: this server paints its own
    :param verbose: print one line for each call on stderr
    :raises ServerStartError: if a port is in use or cannot be opened
    :raises TownNotFoundError: if there is no such town
    :raises MapError: if the map cannot be used
    """

    def __init__(
        self,
        town: str,
        *,
        host: str = "127.0.0.1",
        port: int = 2000,
        streaming_port: int | None = None,
        parent_pid: int | None = None,
        seed: int = 0,
        shared_rasters: SharedRasters | None = None,
        verbose: bool = False,
    ) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker = Waker(self._selector)
        if streaming_port is None:
            streaming_port = port + 1 if port else 0
        self.streams = Streams()
        self.streams.on_subscribe = self._subscribed
        try:
            self._rpc = Listener(host, port, self._selector, self)
            self._streaming = Listener(host, streaming_port, self._selector, self)
            self.host, self.port, self.streaming_port = host, self._rpc.port, self._streaming.port
            self.simulation = Simulation(
                town, self.streams, self.streaming_port, seed=seed, shared_rasters=shared_rasters
            )
        except Exception:
            self.close()
            raise
        self.stopping = False
        self._parent_pid = parent_pid
        self._verbose = verbose
        self._clients: list[RpcConnection] = []
        self._connections: list[BufferedSocket] = []  # of calls and of streams
        self._next_tick = time.monotonic()
        self._next_parent_check = 0.0

    def accept(self, listener: Listener, sock: socket.socket) -> None:
        """
        Take over a new connection.

        :param listener: that accepted it
        :param sock: the connection
        """
        if len(self._selector.get_map()) > MAX_CONNECTIONS:
            log(f"refused a connection: {MAX_CONNECTIONS} are open")
            sock.close()
        elif listener is self._rpc:
            client = RpcConnection(sock, self._selector, self.simulation, self._next_load)
            client.verbose = self._verbose
            self._clients.append(client)
            self._connections.append(client)
        else:
            self._connections.append(StreamConnection(sock, self._selector, self.streams))

    def _subscribed(self, stream_id: int, connection: StreamConnection) -> None:
        if stream_id == WORLD_STREAM:
            # In synchronous mode the next snapshot may be far away, and the client would know of no actors.
            message = self.simulation.last_snapshot
            connection.publish(length_word([message]), message)
        else:
            self.simulation.send_current_picture(stream_id, connection)
        # The connection does not say which client it belongs to: the first one that waits for this stream gets it.
        next((client for client in self._clients if client.subscribed(stream_id)), None)

    def stop(self) -> None:
        """End ``run``; may be called from a signal handler or from another thread."""
        self.stopping = True
        self._waker.wake()

    def run(self) -> None:
        """Serve until ``stop`` is called or the parent process is gone."""
        while not self.stopping:
            for key, events in self._selector.select(self._select_timeout()):
                handler: BufferedSocket | Listener | Waker = key.data
                handler.handle(events)
            self._clients = [client for client in self._clients if not client.closed]
            self._limit_memory()
            self._resume_waiting()
            self._run_clock()
            if self._orphaned():
                break

    def _select_timeout(self) -> float | None:
        """How long the selector may wait [s]; None: for ever."""
        now = time.monotonic()
        ends = [client.deadline for client in self._clients if client.deadline is not None]
        if not self.simulation.settings.synchronous and self._next_load() is None:
            ends.append(self._tick_due)
        if self._parent_pid is not None:
            ends.append(now + PARENT_POLL)
        return max(0.0, min(ends) - now) if ends else None

    def _resume_waiting(self) -> None:
        """Resume calls whose wait is over, see ``RpcConnection.deadline``."""
        for client in self._clients:
            if client.deadline is not None and client.deadline <= time.monotonic():
                client.resume()

    def _limit_memory(self) -> None:
        """Close the connections that hold the most. Each has a limit of its own, but there may be hundreds of them."""
        self._connections = [connection for connection in self._connections if not connection.closed]
        held_bytes = sum(connection.held_bytes for connection in self._connections)
        while held_bytes > MAX_HELD_BYTES:
            greediest = max(self._connections, key=lambda connection: connection.held_bytes)
            held_bytes -= greediest.held_bytes
            log(f"closed a connection that held {greediest.held_bytes} of at most {MAX_HELD_BYTES} bytes for all")
            greediest.close()
            self._connections.remove(greediest)

    def _next_load(self) -> float | None:
        """When the first of the waiting loads may begin (``time.monotonic``); None if no load waits."""
        ends = [client.deadline for client in self._clients if client.loading and client.deadline is not None]
        return min(ends) if ends else None

    @property
    def _tick_due(self) -> float:
        """When the next asynchronous step is due (``time.monotonic``); after a load the clients first reconnect."""
        return max(self._next_tick, self.simulation.loaded_at + QUIET_TIME_ASYNCHRONOUS)

    def _run_clock(self) -> None:
        """In asynchronous mode, step when the wall clock says so; missed steps are skipped."""
        simulation = self.simulation
        if simulation.settings.synchronous:
            return
        now = time.monotonic()
        if now < self._tick_due or self._next_load() is not None:
            return
        try:
            simulation.advance()
            simulation.publish_sensors()
        except Exception as error:  # an error in one step must not end all sessions
            log(f"tick failed: {type(error).__name__}: {error}")
        delta = simulation.settings.delta
        self._next_tick = max(self._next_tick + delta, now - delta)

    def _orphaned(self) -> bool:
        if self._parent_pid is None:
            return False
        now = time.monotonic()
        if now < self._next_parent_check:
            return False
        self._next_parent_check = now + PARENT_POLL
        return os.getppid() != self._parent_pid

    def close(self) -> None:
        """Close every socket."""
        for key in list(self._selector.get_map().values()):
            key.data.close()
        self._selector.close()
