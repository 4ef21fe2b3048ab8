"""
``client.apply_batch``: many commands in one call, each with its own result.

Source: LibCarla ``rpc/Command.h``. A command is ``[[index, body]]``, a structure with one variant. Most bodies start
with the actor's id. That of ``SpawnActor`` is ``[description, transform, parent, attachment, socket name, commands]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sb3_carla.errors import CallError, CarlaLaneError
from sb3_carla.server import actor_calls, vehicle_calls
from sb3_carla.server.log import log
from sb3_carla.server.registry import Response, remote_call
from sb3_carla.server.simulation import Simulation
from sb3_carla.server.wire import WireError, option_from, sequence_from

__all__: list[str] = []

SPAWN_ACTOR = 0
FUTURE_ACTOR = 0
"""``carla.command.FutureActor``: in ``then(...)`` the id of the actor that is being spawned."""
MAX_NESTING = 8
"""Depth of ``then(...)`` within ``then(...)``."""
COMMAND_ERRORS = (CarlaLaneError, TypeError, ValueError)
"""Errors that a command with wrong fields causes."""

_COMMANDS: dict[int, Callable[..., Any]] = {
    1: actor_calls.destroy,  # DestroyActor
    2: vehicle_calls.apply_control,  # ApplyVehicleControl
    3: vehicle_calls.apply_ackermann,  # ApplyVehicleAckermannControl
    4: vehicle_calls.not_simulated,  # ApplyWalkerControl
    5: vehicle_calls.apply_physics_control,  # ApplyVehiclePhysicsControl
    6: actor_calls.set_transform,  # ApplyTransform
    7: vehicle_calls.not_simulated,  # ApplyWalkerState
    8: actor_calls.set_velocity,  # ApplyTargetVelocity
    9: actor_calls.set_angular_velocity,  # ApplyTargetAngularVelocity
    10: actor_calls.add_impulse,  # ApplyImpulse
    11: actor_calls.add_force,  # ApplyForce
    12: vehicle_calls.not_simulated,  # ApplyAngularImpulse
    13: vehicle_calls.not_simulated,  # ApplyTorque
    14: actor_calls.set_physics,  # SetSimulatePhysics
    15: actor_calls.set_gravity,  # SetEnableGravity
    16: vehicle_calls.set_autopilot,  # SetAutopilot
    18: vehicle_calls.set_light_state,  # SetVehicleLightState
    19: actor_calls.set_location,  # ApplyLocation
    21: vehicle_calls.not_simulated,  # SetTrafficLightState
}
"""Indices of the variants of ``rpc::Command``, in its order of declaration."""
SHOW_DEBUG_TELEMETRY = 17
"""Accepted without effect: it only draws in Unreal's window."""


@remote_call("apply_batch", Response.BARE)
def apply_batch(simulation: Simulation, commands: object, do_tick: object = False) -> list[list[object]]:
    """``client.apply_batch`` and ``apply_batch_sync``: ``[[1, actor id]]`` or ``[[0, [error]]]`` for each command."""
    results = [_result(simulation, command) for command in sequence_from(commands, 0, "batch")]
    if do_tick is True:
        simulation.advance()
    return results


def _result(simulation: Simulation, command: object) -> list[object]:
    try:
        return [[1, _run(simulation, command, None, 0)]]
    except COMMAND_ERRORS as error:
        return [[0, [_error_text(command, error)]]]


def _error_text(command: object, error: Exception) -> str:
    return str(error) if isinstance(error, CarlaLaneError) else f"command {command!r:.80}: {error}"


def _run(simulation: Simulation, command: object, future: int | None, depth: int) -> int:
    """Execute one command; returns the id of its actor. ``future`` is the actor that is being spawned."""
    index, body = sequence_from(sequence_from(command, 1, "command")[0], 2, "command")[:2]
    if index == SPAWN_ACTOR:
        return _spawn(simulation, body, depth)
    fields = list(sequence_from(body, 1, "command"))
    if fields[0] == FUTURE_ACTOR and future is not None:
        fields[0] = future
    if index != SHOW_DEBUG_TELEMETRY:
        handler = _COMMANDS.get(index) if isinstance(index, int) else None
        if handler is None:
            raise CallError(f"batch command {index!r} is not known to this server")
        handler(simulation, *fields)
    actor_id = fields[0]
    return actor_id if isinstance(actor_id, int) else 0


def _spawn(simulation: Simulation, body: object, depth: int) -> int:
    if depth >= MAX_NESTING:
        raise WireError(f"commands after a spawn: nested deeper than {MAX_NESTING}")
    # Without a parent the client sends uninitialised memory as the attachment (fourth field), so it is not read.
    description, transform, parent, _, _, then = sequence_from(body, 6, "spawn command")[:6]
    parent_id = option_from(parent, lambda value: simulation.actor(value).id)
    actor = actor_calls.spawn(simulation, description, transform, 0 if parent_id is None else parent_id)
    for command in sequence_from(then, 0, "commands after a spawn"):
        _run_after(simulation, command, actor.id, depth + 1)
    return actor.id


def _run_after(simulation: Simulation, command: object, actor_id: int, depth: int) -> None:
    """Execute a command of ``then(...)``. As in CARLA, an error is only logged: the client needs the new actor's id."""
    try:
        _run(simulation, command, actor_id, depth)
    except COMMAND_ERRORS as error:
        log(f"after the spawn of actor {actor_id}: {_error_text(command, error)}")
