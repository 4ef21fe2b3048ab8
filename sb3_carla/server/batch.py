"""``client.apply_batch``: many commands in one call, each with its own result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sb3_carla.errors import CallError, CarlaLaneError
from sb3_carla.server import actor_calls as actors
from sb3_carla.server.log import log
from sb3_carla.server.registry import Response, remote_call
from sb3_carla.server.simulation import Simulation
from sb3_carla.server.wire import WireError, option_from, sequence_from

__all__: list[str] = []

SPAWN = 0
FUTURE_ACTOR = 0
"""Id that commands in ``then(...)`` carry for the actor that is being spawned."""
MAX_NESTING = 8
FAULTS = (CarlaLaneError, TypeError, ValueError)
"""What a command with foreign fields comes to."""

_COMMANDS: dict[int, Callable[..., Any]] = {
    1: actors.destroy,
    2: actors.apply_control,
    3: actors.apply_ackermann,
    4: actors.not_simulated,
    5: actors.apply_physics_control,
    6: actors.set_transform,
    7: actors.not_simulated,
    8: actors.set_velocity,
    9: actors.set_angular_velocity,
    10: actors.add_impulse,
    11: actors.add_force,
    12: actors.not_simulated,
    13: actors.not_simulated,
    14: actors.set_physics,
    15: actors.set_gravity,
    16: actors.set_autopilot,
    18: actors.set_light_state,
    19: actors.set_location,
    21: actors.not_simulated,
}
"""``carla::rpc::Command``'s variants by index; each body starts with the actor's id."""
_IGNORED = {17}
"""ShowDebugTelemetry: draws in Unreal's window only."""


@remote_call("apply_batch", Response.BARE)
def apply_batch(simulation: Simulation, commands: object, do_tick: object = False) -> list[list[object]]:
    """``client.apply_batch`` and ``apply_batch_sync``: a result for each command, in order."""
    results = [_result(simulation, command) for command in sequence_from(commands, 0, "batch")]
    if do_tick is True:
        simulation.advance()
    return results


def _result(simulation: Simulation, command: object) -> list[object]:
    try:
        return [[1, _run(simulation, command, None, 0)]]
    except FAULTS as error:
        return [[0, [_told(command, error)]]]


def _told(command: object, error: Exception) -> str:
    return str(error) if isinstance(error, CarlaLaneError) else f"command {command!r:.80}: {error}"


def _run(simulation: Simulation, command: object, future: int | None, depth: int) -> int:
    """One command; returns the id of the actor that it was for."""
    index, body = sequence_from(sequence_from(command, 1, "command")[0], 2, "command")[:2]
    if index == SPAWN:
        return _spawn(simulation, body, depth)
    fields = list(sequence_from(body, 1, "command"))
    if fields[0] == FUTURE_ACTOR and future is not None:
        fields[0] = future
    if index not in _IGNORED:
        handler = _COMMANDS.get(index) if isinstance(index, int) else None
        if handler is None:
            raise CallError(f"batch command {index!r} is not known to this server")
        handler(simulation, *fields)
    actor_id = fields[0]
    return actor_id if isinstance(actor_id, int) else 0


def _spawn(simulation: Simulation, body: object, depth: int) -> int:
    if depth >= MAX_NESTING:
        raise WireError(f"commands after a spawn: nested deeper than {MAX_NESTING}")
    # The attachment kind (fourth) is uninitialised memory in the client when there is no parent: it is not read.
    description, transform, parent, _, _, then = sequence_from(body, 6, "spawn command")[:6]
    parent_id = option_from(parent, lambda value: simulation.actor(value).id)
    actor = actors.spawn(simulation, description, transform, 0 if parent_id is None else parent_id)
    for command in sequence_from(then, 0, "commands after a spawn"):
        _run_after(simulation, command, actor.id, depth + 1)
    return actor.id


def _run_after(simulation: Simulation, command: object, actor_id: int, depth: int) -> None:
    """As in CARLA, a fault is nobody's: who spawned learns the actor's id, and can destroy it."""
    try:
        _run(simulation, command, actor_id, depth)
    except FAULTS as error:
        log(f"after the spawn of actor {actor_id}: {_told(command, error)}")
