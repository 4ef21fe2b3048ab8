"""
Table of the remote calls that the server knows, and the execution of one call.

To add a call, write a function with ``@remote_call("name_on_the_wire")`` in ``actor_calls``, ``vehicle_calls`` or
``episode_calls``, read its arguments with the functions of ``wire``, and test it with the carla client in
``tests/server``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from sb3_carla.errors import CarlaLaneError
from sb3_carla.server.log import log

if TYPE_CHECKING:
    from sb3_carla.server.simulation import Simulation

__all__ = ["REGISTERED_CALLS", "Response", "execute", "remote_call"]

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Response(Enum):
    """
    How a result is wrapped for the client, after LibCarla's ``rpc::Response``.

    ``VALUE``: ``Response<T>``, ``[[1, value]]`` or ``[[0, [error]]]``.
    ``VOID``: ``Response<void>``, ``[[false]]`` or ``[[true, [error]]]``.
    ``BARE``: not wrapped; an error goes into the error field of the msgpack-rpc response.
    """

    VALUE = "value"
    VOID = "void"
    BARE = "bare"


@dataclass(frozen=True, slots=True)
class RemoteCall:
    """Implementation of one remote call."""

    handler: Callable[..., Any]
    response: Response


REGISTERED_CALLS: dict[str, RemoteCall] = {}
"""All calls, by name on the wire."""


def remote_call(name: str, response: Response = Response.VALUE) -> Callable[[Handler], Handler]:
    """
    Decorator that enters a function into the table of calls.

    The function gets the ``Simulation`` and the arguments as msgpack decoded them; it must not trust their types.

    :param name: of the call on the wire
    :param response: how the result is wrapped
    """

    def register(handler: Handler) -> Handler:
        REGISTERED_CALLS[name] = RemoteCall(handler, response)
        return handler

    return register


def execute(simulation: Simulation, name: str, arguments: Sequence[object]) -> tuple[str | None, object]:
    """
    Execute one call. It never raises, whatever a client sends.

    :param simulation: that the call acts on
    :param name: of the call
    :param arguments: decoded, without the metadata
    :return: error field of the msgpack-rpc response (None: no error), and the wrapped result
    """
    entry = REGISTERED_CALLS.get(name)
    if entry is None:
        return f"sb3_carla.server has no call {name!r}", None
    try:
        result = entry.handler(simulation, *arguments)
    except CarlaLaneError as error:
        message = str(error)
    except Exception as error:  # an error in one client's call must not end the sessions of the others
        log(f"{name} failed: {type(error).__name__}: {error}")
        message = f"{name}: {type(error).__name__}: {error}"
    else:
        if entry.response is Response.VALUE:
            return None, [[1, result]]
        return None, [[False]] if entry.response is Response.VOID else result
    if entry.response is Response.BARE:
        return message, None
    return None, [[True, [message]]] if entry.response is Response.VOID else [[0, [message]]]
