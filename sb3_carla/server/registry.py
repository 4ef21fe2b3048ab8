"""The table of remote calls, and how an answer is wrapped."""

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
    How the client expects the result.

    ``VALUE``: ``Response<T>``; ``VOID``: ``Response<void>``; ``BARE``: as it is.
    """

    VALUE = "value"
    VOID = "void"
    BARE = "bare"


@dataclass(frozen=True, slots=True)
class RemoteCall:
    """One remote call."""

    handler: Callable[..., Any]
    answer: Response


REGISTERED_CALLS: dict[str, RemoteCall] = {}
"""Every call that the server knows, by name."""


def remote_call(name: str, answer: Response = Response.VALUE) -> Callable[[Handler], Handler]:
    """
    Enter a function into the table of calls.

    :param name: on the wire
    :param answer: how its result is wrapped
    """

    def register(handler: Handler) -> Handler:
        REGISTERED_CALLS[name] = RemoteCall(handler, answer)
        return handler

    return register


def execute(simulation: Simulation, name: str, arguments: Sequence[object]) -> tuple[str | None, object]:
    """
    Run one call. Nothing that a client sends raises here.

    :param simulation: what the calls act on
    :param name: of the call
    :param arguments: decoded, without the metadata
    :return: error of the calling layer (None if there is none), and the wrapped result
    """
    entry = REGISTERED_CALLS.get(name)
    if entry is None:
        return f"sb3_carla.server has no call {name!r}", None
    try:
        result = entry.handler(simulation, *arguments)
    except CarlaLaneError as error:
        message = str(error)
    except Exception as error:  # a fault in one call must not end the others' session
        log(f"{name} failed: {type(error).__name__}: {error}")
        message = f"{name}: {type(error).__name__}: {error}"
    else:
        if entry.answer is Response.VALUE:
            return None, [[1, result]]
        return None, [[False]] if entry.answer is Response.VOID else result
    if entry.answer is Response.BARE:
        return message, None
    return None, [[True, [message]]] if entry.answer is Response.VOID else [[0, [message]]]
