"""Keeps one server running for one environment."""

from __future__ import annotations

from sb3_carla.client.command_server import CommandServer
from sb3_carla.client.embedded_server import EmbeddedServer
from sb3_carla.client.server_process import ServerProcess

__all__ = ["ServerSupervisor", "make_supervisor"]


class ServerSupervisor:
    """
    Keeps one server running for one environment. A server is replaced when it has ended or hangs, and at its limits.

    :param command: command that starts a server, see :class:`CommandServer`; None: the packaged server
    :param max_episodes: episodes after which the server is replaced; None: no limit
    :param max_memory: memory above which the server is replaced before an episode [bytes]; None: no limit
    """

    def __init__(
        self, command: str | None = None, *, max_episodes: int | None = None, max_memory: float | None = None
    ) -> None:
        self._command = command
        self._max_episodes, self._max_memory = max_episodes, max_memory
        self._episodes = 0
        self.server: ServerProcess | None = None
        """The running server; None if there is none."""

    def begin_episode(self) -> str | None:
        """
        Count an episode.

        :return: why the server should be replaced before this episode; None if it should not
        """
        if self.server is None:
            return None
        self._episodes += 1
        self.server.truncate_log()
        memory = self.server.memory if self._max_memory is not None else 0
        if not self.server.alive:
            return "it has ended"
        if self._max_memory is not None and memory > self._max_memory:
            return f"it takes {memory / 2**20:.0f} MiB, more than {self._max_memory / 2**20:.0f}"
        if self._max_episodes is not None and self._episodes > self._max_episodes:
            return f"it has served {self._max_episodes} episodes"
        return None

    def start(self, town: str) -> ServerProcess:
        """
        Start a server if none runs.

        :param town: town with which the packaged server starts
        :return: the running server
        :raises ServerStartError: if the server cannot be started
        :raises TownNotFoundError: if the packaged server has no such town
        :raises MapError: if the packaged server cannot use the map
        """
        if self.server is None:
            self._episodes = 1
            self.server = EmbeddedServer(town) if self._command is None else CommandServer(self._command)
        return self.server

    def close(self) -> None:
        """End the server; safe to call again."""
        if self.server is not None:
            server, self.server = self.server, None
            server.close()


def make_supervisor(
    host: str | None, command: str | None, *, max_episodes: int | None = None, max_memory: float | None = None
) -> ServerSupervisor | None:
    """
    The supervisor of an environment's server.

    :param host: address of a server that the user runs, or None
    :param command: see :class:`ServerSupervisor`
    :param max_episodes: likewise
    :param max_memory: memory above which the server is replaced before an episode [GB]
    :return: None with a ``host``
    :raises ValueError: if there is another argument beside ``host``
    """
    if host is not None:
        if any(value is not None for value in (command, max_episodes, max_memory)):
            raise ValueError("server: expected none of command, max_episodes, max_memory beside host")
        return None
    max_bytes = None if max_memory is None else max_memory * 1e9
    return ServerSupervisor(command, max_episodes=max_episodes, max_memory=max_bytes)
