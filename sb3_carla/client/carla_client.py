"""Connects the client library to a server, and turns its errors into ours."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import carla

from sb3_carla.errors import ServerTimeoutError, VersionMismatchError

__all__ = ["connect", "translate_client_errors"]


def connect(host: str, port: int, timeout: float) -> Any:
    """
    Connect to a server.

    :param host: name or address
    :param port: RPC port
    :param timeout: for each answer of the server [s]
    :return: ``carla.Client``
    :raises ServerTimeoutError: if no server answers
    :raises VersionMismatchError: if the server has another version than the client library
    """
    try:
        # The client would retry a refused connection until its own time-out.
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        raise ServerTimeoutError(
            f"No CARLA server answers at {host}:{port} ({error}). Start one (CarlaUE4.sh, or "
            "python -m sb3_carla.server), or leave out host to use the embedded server"
        ) from error
    client = carla.Client(host, port)
    client.set_timeout(timeout)
    with translate_client_errors(f"Something listens at {host}:{port}, but it does not answer as a CARLA server"):
        server = client.get_server_version()
    expected = client.get_client_version()
    if server != expected:
        raise VersionMismatchError(
            f"The server at {host}:{port} is CARLA {server}, the client library is {expected}: "
            f"start a {expected} server or install carla=={server}"
        )
    return client


@contextlib.contextmanager
def translate_client_errors(message: str = "The CARLA server stopped answering") -> Iterator[None]:
    """
    Turn the client library's ``RuntimeError`` into ours.

    :param message: begins the message of the new error
    :raises ServerTimeoutError: for a ``RuntimeError`` in the block
    """
    try:
        yield
    except RuntimeError as error:
        raise ServerTimeoutError(f"{message}: {error}") from error
