"""Remote calls about all kinds of actors: spawning, finding and moving them."""

from __future__ import annotations

import math

from sb3_carla.errors import CallError
from sb3_carla.server.registry import Response, remote_call
from sb3_carla.server.simulation import Simulation
from sb3_carla.server.wire import (
    MAX_COORDINATE,
    bounding_box_to,
    description_from,
    flag_from,
    pose_from,
    sequence_from,
    vector_from,
)
from sb3_carla.simulator.actors import Actor, VehicleActor
from sb3_carla.simulator.geometry import Pose

__all__ = [
    "add_impulse",
    "destroy",
    "set_constant_velocity",
    "set_gravity",
    "set_location",
    "set_physics",
    "set_transform",
    "set_velocity",
    "spawn",
]

MAX_IMPULSE = 1e9
"""Greatest component of an impulse [N s] or force [N] that is accepted."""


# --- spawning and finding ------------------------------------------------------------------------------------------


def spawn(simulation: Simulation, description: object, transform: object, parent_id: int = 0) -> Actor:
    """
    Spawn an actor from the arguments of a call.

    :param description: ``rpc::ActorDescription``
    :param transform: ``Transform``, relative to the parent if there is one
    :param parent_id: 0: none
    """
    name, attributes = description_from(description)
    return simulation.world.spawn(name, attributes, pose_from(transform), parent_id)


@remote_call("spawn_actor")
def spawn_actor(simulation: Simulation, description: object, transform: object) -> list[object]:
    """``world.spawn_actor``."""
    return simulation.describe(spawn(simulation, description, transform))


@remote_call("spawn_actor_with_parent")
def spawn_actor_with_parent(
    simulation: Simulation,
    description: object,
    transform: object,
    parent_id: object,
    attachment: object = 0,
    socket_name: object = "",
) -> list[object]:
    """``world.spawn_actor(..., attach_to=...)``; every attachment is rigid here."""
    parent = simulation.actor(parent_id)
    return simulation.describe(spawn(simulation, description, transform, parent.id))


@remote_call("destroy_actor")
def destroy(simulation: Simulation, actor_id: object) -> bool:
    """``actor.destroy``."""
    actor = simulation.actor(actor_id)
    if not simulation.world.destroy(actor.id):
        raise CallError(f"actor {actor.id} ({actor.type_id}) cannot be destroyed")
    return True


@remote_call("get_actors_by_id")
def get_actors_by_id(simulation: Simulation, actor_ids: object) -> list[object]:
    """``world.get_actors``: those of the actors asked for that are alive."""
    actors = simulation.world.actors
    wanted = dict.fromkeys(i for i in sequence_from(actor_ids, 0, "actor ids") if isinstance(i, int))
    return [simulation.describe(actors[i]) for i in wanted if i in actors]


@remote_call("get_spectator")
def get_spectator(simulation: Simulation) -> list[object]:
    """``world.get_spectator``."""
    return simulation.describe(simulation.world.spectator)


@remote_call("get_actor_bounding_box")
def get_actor_bounding_box(simulation: Simulation, actor_id: object) -> list[object]:
    """``actor.bounding_box``."""
    return bounding_box_to(simulation.actor(actor_id))


# --- moving --------------------------------------------------------------------------------------------------------


@remote_call("set_actor_transform", Response.VOID)
def set_transform(simulation: Simulation, actor_id: object, transform: object) -> None:
    """``actor.set_transform``; visible in the next snapshot."""
    simulation.actor(actor_id).teleport(pose_from(transform))


@remote_call("set_actor_location", Response.VOID)
def set_location(simulation: Simulation, actor_id: object, location: object) -> None:
    """``actor.set_location``."""
    actor = simulation.actor(actor_id)
    pose = actor.pose
    actor.teleport(Pose(*vector_from(location, "location"), pose.roll, pose.pitch, pose.yaw))


@remote_call("set_actor_target_velocity", Response.VOID)
def set_velocity(simulation: Simulation, actor_id: object, velocity: object) -> None:
    """``actor.set_target_velocity``: world axes [m/s]."""
    actor = simulation.actor(actor_id)
    if isinstance(actor, VehicleActor):
        actor.vehicle.set_velocity(*vector_from(velocity, "velocity"))


@remote_call("set_actor_target_angular_velocity", Response.VOID)
def set_angular_velocity(simulation: Simulation, actor_id: object, velocity: object) -> None:
    """``actor.set_target_angular_velocity`` [deg/s]; the next step of the dynamics replaces it."""
    actor = simulation.actor(actor_id)
    x, y, z = (math.radians(part) for part in vector_from(velocity, "angular velocity"))
    if isinstance(actor, VehicleActor):
        actor.vehicle.angular_velocity = (x, y, z)


@remote_call("enable_actor_constant_velocity", Response.VOID)
def set_constant_velocity(simulation: Simulation, actor_id: object, velocity: object) -> None:
    """``vehicle.enable_constant_velocity``: the car's own axes [m/s]."""
    simulation.vehicle(actor_id).vehicle.constant_velocity = vector_from(velocity, "velocity")


@remote_call("disable_actor_constant_velocity", Response.VOID)
def disable_constant_velocity(simulation: Simulation, actor_id: object) -> None:
    """``vehicle.disable_constant_velocity``."""
    simulation.vehicle(actor_id).vehicle.constant_velocity = None


@remote_call("add_actor_impulse", Response.VOID)
def add_impulse(simulation: Simulation, actor_id: object, impulse: object) -> None:
    """``actor.add_impulse`` [N s] at the centre of mass."""
    _push(simulation, actor_id, vector_from(impulse, "impulse", MAX_IMPULSE))


@remote_call("add_actor_force", Response.VOID)
def add_force(simulation: Simulation, actor_id: object, force: object) -> None:
    """``actor.add_force`` [N], acting for one simulation step."""
    x, y, z = vector_from(force, "force", MAX_IMPULSE)
    delta = simulation.settings.delta
    _push(simulation, actor_id, (x * delta, y * delta, z * delta))


def _push(simulation: Simulation, actor_id: object, impulse: tuple[float, float, float]) -> None:
    actor = simulation.actor(actor_id)
    if not isinstance(actor, VehicleActor) or actor.inverse_mass == 0.0:
        return
    pairs = zip(actor.velocity, impulse, strict=True)
    vx, vy, vz = (v + part * actor.inverse_mass for v, part in pairs)
    actor.vehicle.set_velocity(*vector_from([vx, vy, vz], "velocity", MAX_COORDINATE))


@remote_call("set_actor_simulate_physics", Response.VOID)
def set_physics(simulation: Simulation, actor_id: object, enabled: object) -> None:
    """``actor.set_simulate_physics``; a car without physics stands still unless a client moves it."""
    actor, on = simulation.actor(actor_id), flag_from(enabled, "simulate_physics")
    if isinstance(actor, VehicleActor):
        actor.vehicle.physics_enabled = on
        if not on:
            actor.vehicle.set_velocity(0.0, 0.0, 0.0)
            actor.vehicle.angular_velocity = actor.vehicle.acceleration = (0.0, 0.0, 0.0)


@remote_call("set_actor_enable_gravity", Response.VOID)
def set_gravity(simulation: Simulation, actor_id: object, enabled: object) -> None:
    """``actor.set_enable_gravity``."""
    actor, on = simulation.actor(actor_id), flag_from(enabled, "gravity")
    if isinstance(actor, VehicleActor):
        actor.vehicle.gravity_enabled = on


@remote_call("set_actor_collisions", Response.VOID)
def set_collisions(simulation: Simulation, actor_id: object, enabled: object) -> None:
    """``actor.set_collisions``."""
    simulation.actor(actor_id).collisions_enabled = flag_from(enabled, "collisions")
