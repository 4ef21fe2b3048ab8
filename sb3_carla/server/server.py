"""The server: two listening sockets, one loop, one clock."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time

from sb3_carla.errors import ServerStartError
from sb3_carla.server import actor_calls as _actors  # noqa: F401
from sb3_carla.server import batch as _batch  # noqa: F401 (its calls enter the table)
from sb3_carla.server import episode_calls as _episode  # noqa: F401
from sb3_carla.server.buffered_socket import BufferedSocket
from sb3_carla.server.log import log
from sb3_carla.server.rpc import CALM_ASYNCHRONOUS, RpcConnection
from sb3_carla.server.simulation import Simulation
from sb3_carla.server.streams import WORLD_STREAM, StreamConnection, Streams, length_word
from sb3_carla.simulator.rendering.shared_rasters import SharedRasters

__all__ = ["Server"]

MAX_CONNECTIONS = 512
MAX_KEPT = 256 * 2**20
"""What is kept for all connections together, of answers, pictures and unfinished requests [bytes]."""
PARENT_POLL = 0.25
"""How often the loop looks whether its parent lives [s]."""
BACKLOG = 64


class Listener:
    """
    A listening socket.

    :param host: address
    :param port: 0 for a free one
    :param selector: the server's
    :param server: that takes the connections
    :raises ServerStartError: if the port cannot be had
    """

    def __init__(self, host: str, port: int, selector: selectors.BaseSelector, server: Server) -> None:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self.sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            what = "is in use" if in_use else "cannot be opened"
            raise ServerStartError(f"port {port} on {host} {what}: {error}") from error
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]
        self._server = server
        self._spare = os.open(os.devnull, os.O_RDONLY)
        selector.register(self.sock, selectors.EVENT_READ, self)

    def handle(self, events: int) -> None:
        """
        Accept one connection.

        :param events: what the selector has found
        """
        try:
            sock, _ = self.sock.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._refuse()
            return
        self._server.accept(self, sock)

    def _refuse(self) -> None:
        """Hang up on who waits, by the descriptor that was kept for it: left waiting, it would wake the loop again."""
        log("refused a connection: no file descriptor is left")
        os.close(self._spare)
        with contextlib.suppress(OSError):
            self.sock.accept()[0].close()
        self._spare = os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        """Stop listening."""
        self.sock.close()
        os.close(self._spare)


class Alarm:
    """
    Wakes the loop up from its sleep.

    :param selector: the server's
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.sock, self._other = socket.socketpair()
        self.sock.setblocking(False)
        self._other.setblocking(False)
        selector.register(self.sock, selectors.EVENT_READ, self)

    def ring(self) -> None:
        """End the present sleep, or the next one."""
        with contextlib.suppress(OSError):
            self._other.send(b"!")

    def handle(self, events: int) -> None:
        """
        Be ready for the next ring.

        :param events: what the selector has found
        """
        with contextlib.suppress(OSError):
            self.sock.recv(4096)

    def close(self) -> None:
        """Close both ends."""
        self.sock.close()
        self._other.close()


class Server:
    """
    CARLA's two ports in front of one simulation, in a single thread: nothing runs at the same time as anything else.

    :param town: built-in name or path of an OpenDRIVE file
    :param host: address to listen on
    :param port: of the calls, 0 for a free one
    :param streaming_port: of the streams, None for the next one (a free one if ``port`` is 0)
    :param parent_pid: the loop ends when this is no longer the parent process
    :param seed: of the sensors' noise
    :param pictures: that this server shares with others
    :param verbose: one line a call on stderr
    :raises ServerStartError: if a port cannot be had
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
        pictures: SharedRasters | None = None,
        verbose: bool = False,
    ) -> None:
        self._selector = selectors.DefaultSelector()
        self._alarm = Alarm(self._selector)
        if streaming_port is None:
            streaming_port = port + 1 if port else 0
        self.streams = Streams()
        self.streams.on_subscribe = self._subscribed
        try:
            self._rpc = Listener(host, port, self._selector, self)
            self._streaming = Listener(host, streaming_port, self._selector, self)
            self.host, self.port, self.streaming_port = host, self._rpc.port, self._streaming.port
            self.simulation = Simulation(town, self.streams, self.streaming_port, seed, pictures)
        except Exception:
            self.close()
            raise
        self.stopping = False
        self._parent_pid = parent_pid
        self._verbose = verbose
        self._clients: list[RpcConnection] = []
        self._connections: list[BufferedSocket] = []  # these and the streams'
        self._next_tick = time.monotonic()
        self._next_look = 0.0

    def accept(self, listener: Listener, sock: socket.socket) -> None:
        """
        Take a new connection in.

        :param listener: where it came from
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
            # In synchronous mode nothing else would tell a new client what there is.
            message = self.simulation.last_snapshot
            connection.publish(length_word([message]), message)
        else:
            self.simulation.show(stream_id, connection)
        next((client for client in self._clients if client.subscribed(stream_id)), None)

    def stop(self) -> None:
        """End ``run``; may be called from a signal handler or another thread."""
        self.stopping = True
        self._alarm.ring()

    def run(self) -> None:
        """Serve until ``stop`` is called or the parent has gone."""
        while not self.stopping:
            for key, events in self._selector.select(self._patience()):
                handler: BufferedSocket | Listener | Alarm = key.data
                handler.handle(events)
            self._clients = [client for client in self._clients if not client.closed]
            self._bound_memory()
            self._serve_held()
            self._run_clock()
            if self._orphaned():
                break

    def _patience(self) -> float | None:
        """How long the loop may sleep [s]."""
        now = time.monotonic()
        ends = [client.deadline for client in self._clients if client.deadline is not None]
        if not self.simulation.settings.synchronous and self._next_load() is None:
            ends.append(self._tick_due)
        if self._parent_pid is not None:
            ends.append(now + PARENT_POLL)
        return max(0.0, min(ends) - now) if ends else None

    def _serve_held(self) -> None:
        """Calls that waited for a stream go on once it is there, or once they have waited long enough."""
        for client in self._clients:
            if client.deadline is not None and client.deadline <= time.monotonic():
                client.resume()

    def _bound_memory(self) -> None:
        """Each connection's queue has a bound of its own, but there may be hundreds: who takes the most has to go."""
        self._connections = [connection for connection in self._connections if not connection.closed]
        kept = sum(connection.kept for connection in self._connections)
        while kept > MAX_KEPT:
            greediest = max(self._connections, key=lambda connection: connection.kept)
            kept -= greediest.kept
            log(f"closed the connection that took the most of {MAX_KEPT} bytes, {greediest.kept}")
            greediest.close()
            self._connections.remove(greediest)

    def _next_load(self) -> float | None:
        """When the next of the loads that are held may begin (``time.monotonic``)."""
        ends = [client.deadline for client in self._clients if client.loading and client.deadline is not None]
        return min(ends) if ends else None

    @property
    def _tick_due(self) -> float:
        """When the next step is due in asynchronous mode: not while a client that has just loaded changes streams."""
        return max(self._next_tick, self.simulation.loaded_at + CALM_ASYNCHRONOUS)

    def _run_clock(self) -> None:
        """In asynchronous mode: a step whenever one is due by the wall clock; steps missed are not made up for."""
        simulation = self.simulation
        if simulation.settings.synchronous:
            return
        now = time.monotonic()
        if now < self._tick_due or self._next_load() is not None:
            return
        try:
            simulation.advance()
            simulation.publish_sensors()
        except Exception as error:  # a fault in one step must not end everybody's session
            log(f"tick failed: {type(error).__name__}: {error}")
        delta = simulation.settings.delta
        self._next_tick = max(self._next_tick + delta, now - delta)

    def _orphaned(self) -> bool:
        if self._parent_pid is None:
            return False
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + PARENT_POLL
        return os.getppid() != self._parent_pid

    def close(self) -> None:
        """Close every socket."""
        for key in list(self._selector.get_map().values()):
            key.data.close()
        self._selector.close()
