"""One environment's way to a CARLA server: found, replaced where it is lost, and left as it was found."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Sequence

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.client.cleanup import Leftovers, close_at_exit
from sb3_carla.client.servers import ServerProcess, Supervisor
from sb3_carla.client.session import CarlaSession, translate_client_errors
from sb3_carla.errors import FrameError, ServerError, ServerStartError, ServerTimeoutError, VehicleLostError

__all__ = ["LOST", "ServerConnection"]

logger = logging.getLogger(__name__)

LOST = (ServerTimeoutError, ServerStartError, FrameError, VehicleLostError)
"""What another server, or connecting anew, may cure."""
ATTEMPTS = 3
"""Servers that are tried before an episode is given up, of those that the environment starts."""
RECONNECT, RECONNECT_PAUSE = 120.0, 2.0
"""How long, and how often, to look for a server that somebody else has to start again [s]."""


class ServerConnection:
    """
    The server of an environment and the session with it.

    :param host: of a server that somebody else keeps; None: it is the supervisor's
    :param port: of its calls, with ``host``
    :param supervisor: what keeps a server of ours running; None with a ``host``
    :param mounts: cameras on the car
    :param timeout: for each answer of the server [s]
    :param delta_seconds: simulated time of a tick [s]
    :param ticks_per_image: a camera's pictures are wanted after every so many ticks
    """

    def __init__(
        self,
        host: str | None,
        port: int,
        supervisor: Supervisor | None,
        mounts: Sequence[CameraMount],
        *,
        timeout: float,
        delta_seconds: float,
        ticks_per_image: int,
    ) -> None:
        self._host, self._port = host, port
        self._mounts = mounts
        self._timeout, self._delta_seconds, self._ticks_per_image = timeout, delta_seconds, ticks_per_image
        self._connected = False  # once, at least
        self.supervisor = supervisor
        self.session: CarlaSession | None = None
        """None where there is none at present."""
        self.leftovers: Leftovers | None = None
        """Of a session that lost a server of somebody else."""

    @property
    def is_forked(self) -> bool:
        """Whether this is a fork of the process that has the session."""
        return self.session is not None and self.session.is_forked

    def begin_with_retries(self, begin: Callable[[], None]) -> None:
        """
        Begin an episode, on another server if need be.

        :param begin: asks for a :meth:`session_for` the episode, and prepares it; called anew where that server is lost
        :raises ServerError: if the servers that were tried are all lost
        """
        first = time.monotonic()
        for attempt in itertools.count(1):
            error = self._lost_in(begin)
            if error is None:
                return
            patience = self._connected and time.monotonic() - first < RECONNECT
            if not (attempt < ATTEMPTS if self.supervisor is not None else patience):
                raise error
            logger.warning("The episode begins anew on another server: %s", error)
            time.sleep(0.0 if self.supervisor is not None else RECONNECT_PAUSE)

    def _lost_in(self, begin: Callable[[], None]) -> ServerError | None:
        try:
            with translate_client_errors("The CARLA server stopped answering"):
                begin()
        except LOST as error:
            self.leave(server_lost=True)
            return error
        return None

    def session_for(self, town: str) -> CarlaSession:
        """
        The session of the next episode: the present one, or one with a new server where it is time for that.

        :param town: that a new server of ours begins with; it may be another one that is loaded
        :raises ServerError: if there is no server, or it cannot be started
        :raises MapError: if a new server of ours cannot use the town
        """
        if self.supervisor is None:
            return self.session or self._connect(None)
        why = self.supervisor.begin_episode()
        if why is not None:
            logger.info("The server is replaced: %s", why)
            self.leave(server_lost=False)
        server = self.supervisor.start(town)
        return self.session or self._connect(server)

    def _connect(self, server: ServerProcess | None) -> CarlaSession:
        """A session with our server, or with that of somebody else."""
        host, port = (str(self._host), self._port) if server is None else (server.host, server.port)
        self.session = CarlaSession(
            host, port, self._mounts, timeout=self._timeout, delta_seconds=self._delta_seconds,
            ticks_per_image=self._ticks_per_image, packaged=server is not None and server.packaged,
            leftovers=self.leftovers,
        )  # fmt: skip
        if server is None:
            close_at_exit(self.session)
        self._connected, self.leftovers = True, None
        return self.session

    def leave(self, *, server_lost: bool) -> None:
        """
        Give the server its settings back, and end it if it is ours.

        :param server_lost: it is not asked anything any more
        """
        session, self.session = self.session, None
        if session is not None:
            if server_lost and self.supervisor is None:
                self.leftovers = session.leftovers
            session.close(server_lost=server_lost or self.supervisor is not None)  # ours ends with all that is in it
        if self.supervisor is not None:
            self.supervisor.close()

    def close(self) -> None:
        """:meth:`leave` for good: what a session left that lost its server is cleared up where that answers again."""
        if self.leftovers is not None:
            with contextlib.suppress(ServerError):  # it may have been silent for a while only
                self._connect(None)
        self.leftovers = None
        self.leave(server_lost=False)
