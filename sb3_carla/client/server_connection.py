"""One environment's connection to a CARLA server: made, restored when the server is lost, and closed."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Sequence

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.client.carla_client import translate_client_errors
from sb3_carla.client.cleanup import Leftovers, close_at_exit
from sb3_carla.client.server_process import ServerProcess
from sb3_carla.client.server_supervisor import ServerSupervisor
from sb3_carla.client.session import CarlaSession
from sb3_carla.errors import FrameError, ServerError, ServerStartError, ServerTimeoutError, VehicleLostError

__all__ = ["RECOVERABLE_ERRORS", "ServerConnection"]

logger = logging.getLogger(__name__)

RECOVERABLE_ERRORS = (ServerTimeoutError, ServerStartError, FrameError, VehicleLostError)
"""Errors after which a new server, or a new connection, may work."""
MAX_ATTEMPTS = 3
"""How many servers of a supervisor are tried before an episode is given up."""
RECONNECT_TIMEOUT, RECONNECT_INTERVAL = 120.0, 2.0
"""How long, and how often, to try to reach a server again that the user runs [s]."""


class ServerConnection:
    """
    The server of an environment and the session with it.

    :param host: address of a server that the user runs; None: the supervisor starts the server
    :param port: RPC port, with ``host``
    :param supervisor: keeps a server running; None with a ``host``
    :param cameras: mounts of the cameras on the car
    :param timeout: for each answer of the server [s]
    :param delta_seconds: simulated time of a tick [s]
    :param ticks_per_image: ticks between two images that are read
    """

    def __init__(
        self,
        host: str | None,
        port: int,
        supervisor: ServerSupervisor | None,
        cameras: Sequence[CameraMount],
        *,
        timeout: float,
        delta_seconds: float,
        ticks_per_image: int,
    ) -> None:
        self._host, self._port = host, port
        self._cameras = cameras
        self._timeout, self._delta_seconds, self._ticks_per_image = timeout, delta_seconds, ticks_per_image
        self._was_connected = False
        self.supervisor = supervisor
        self.session: CarlaSession | None = None
        """The present session; None if there is none."""
        self.leftovers: Leftovers | None = None
        """What the last session left on a server that the user runs and that was lost."""

    @property
    def is_forked(self) -> bool:
        """Whether this process is a fork of the session's process."""
        return self.session is not None and self.session.is_forked

    def begin_with_retries(self, begin: Callable[[], None]) -> None:
        """
        Begin an episode; try again if the server is lost meanwhile.

        :param begin: calls :meth:`session_for` and prepares the episode; called again after each lost server
        :raises ServerError: if each server that was tried is lost
        """
        start = time.monotonic()
        for attempt in itertools.count(1):
            error = self._try_to_begin(begin)
            if error is None:
                return
            if self.supervisor is not None:
                try_again = attempt < MAX_ATTEMPTS
            else:  # a wrong address fails at once, a server that did answer may be started again
                try_again = self._was_connected and time.monotonic() - start < RECONNECT_TIMEOUT
            if not try_again:
                raise error
            logger.warning("The server was lost while the episode began. Trying again: %s", error)
            time.sleep(0.0 if self.supervisor is not None else RECONNECT_INTERVAL)

    def _try_to_begin(self, begin: Callable[[], None]) -> ServerError | None:
        try:
            with translate_client_errors():
                begin()
        except RECOVERABLE_ERRORS as error:
            self.disconnect(server_lost=True)
            return error
        return None

    def session_for(self, town: str) -> CarlaSession:
        """
        Get the session for the next episode, with a new server if the supervisor replaces the old one.

        :param town: town with which a new server starts; a running server may have another town loaded
        :return: the present session, or a new one
        :raises ServerError: if there is no server, or it cannot be started
        :raises MapError: if a new server cannot use the town
        """
        if self.supervisor is None:
            return self.session or self._connect(None)
        reason = self.supervisor.begin_episode()
        if reason is not None:
            logger.info("The server is replaced: %s", reason)
            self.disconnect(server_lost=False)
        server = self.supervisor.start(town)
        return self.session or self._connect(server)

    def _connect(self, server: ServerProcess | None) -> CarlaSession:
        """A session with a supervised server; with None, with the server that the user runs."""
        host, port = (str(self._host), self._port) if server is None else (server.host, server.port)
        self.session = CarlaSession(
            host, port, self._cameras, timeout=self._timeout, delta_seconds=self._delta_seconds,
            ticks_per_image=self._ticks_per_image, packaged=server is not None and server.packaged,
            leftovers=self.leftovers,
        )  # fmt: skip
        if server is None:
            close_at_exit(self.session)
        self._was_connected, self.leftovers = True, None
        return self.session

    def disconnect(self, *, server_lost: bool) -> None:
        """
        Close the session, and end the server if a supervisor keeps it.

        :param server_lost: do not call the server any more
        """
        session, self.session = self.session, None
        if session is not None:
            if server_lost and self.supervisor is None:
                self.leftovers = session.leftovers
            session.close(server_lost=server_lost or self.supervisor is not None)  # actors end with their server
        if self.supervisor is not None:
            self.supervisor.close()

    def close(self) -> None:
        """Disconnect for good; before that remove what a session has left on a server that it lost, if it answers."""
        if self.leftovers is not None:
            with contextlib.suppress(ServerError):  # the server may have been silent for a while only
                self._connect(None)
        self.leftovers = None
        self.disconnect(server_lost=False)
