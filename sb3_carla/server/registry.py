"""The table of remote calls, and how an answer is wrapped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from sb3_carla.errors import CarlaLaneError
from sb3_carla.server.log import report

if TYPE_CHECKING:
    from sb3_carla.server.simulation import Simulation

__all__ = ["METHODS", "Answer", "execute", "method"]

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Answer(Enum):
    """
    How the client expects the result.

    ``VALUE``: ``Response<T>``; ``VOID``: ``Response<void>``; ``BARE``: as it is.
    """

    VALUE = "value"
    VOID = "void"
    BARE = "bare"


@dataclass(frozen=True, slots=True)
class Method:
    """One remote call."""

    handler: Callable[..., Any]
    answer: Answer


METHODS: dict[str, Method] = {}
"""Every call that the server knows, by name."""


def method(name: str, answer: Answer = Answer.VALUE) -> Callable[[Handler], Handler]:
    """
    Enter a function into the table of calls.

    :param name: on the wire
    :param answer: how its result is wrapped
    """

    def register(handler: Handler) -> Handler:
        METHODS[name] = Method(handler, answer)
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
    entry = METHODS.get(name)
    if entry is None:
        return f"sb3_carla.server has no call {name!r}", None
    try:
        result = entry.handler(simulation, *arguments)
    except CarlaLaneError as error:
        message = str(error)
    except Exception as error:  # a fault in one call must not end the others' session
        report(f"{name} failed: {type(error).__name__}: {error}")
        message = f"{name}: {type(error).__name__}: {error}"
    else:
        if entry.answer is Answer.VALUE:
            return None, [[1, result]]
        return None, [[False]] if entry.answer is Answer.VOID else result
    if entry.answer is Answer.BARE:
        return message, None
    return None, [[True, [message]]] if entry.answer is Answer.VOID else [[0, [message]]]
