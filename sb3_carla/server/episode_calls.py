"""Remote calls about the server, the episode, the map, the weather and the clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple

from sb3_carla.errors import CallError
from sb3_carla.server.registry import Response, remote_call
from sb3_carla.server.simulation import Settings, Simulation, available_towns
from sb3_carla.server.streams import WORLD_STREAM
from sb3_carla.server.wire import (
    actor_id_from,
    definition_to,
    flag_from,
    layers_from,
    number_from,
    pose_to,
    sequence_from,
    text_from,
    token,
    vector_from,
)
from sb3_carla.simulator.blueprints import BLUEPRINTS
from sb3_carla.simulator.rendering.look import LAYERS
from sb3_carla.simulator.rendering.weather import Weather

__all__: list[str] = []

CARLA_VERSION = "0.9.16"
MAX_OPENDRIVE = 32 * 2**20
"""Longest OpenDRIVE map [characters]."""


@remote_call("version")
def version(simulation: Simulation) -> str:
    """``client.get_server_version``."""
    return CARLA_VERSION


@remote_call("get_episode_info")
def get_episode_info(simulation: Simulation) -> list[object]:
    """``rpc::EpisodeInfo``: episode id, and the token of the world's stream."""
    return [simulation.episode_id, [token(WORLD_STREAM, simulation.stream_port)]]


@remote_call("get_sensor_token")
def get_sensor_token(simulation: Simulation, stream_id: object) -> list[bytes]:
    """Token of a stream; the client asks for it before every connection to a stream."""
    return [token(actor_id_from(stream_id), simulation.stream_port)]


@remote_call("get_episode_settings")
def get_episode_settings(simulation: Simulation) -> list[object]:
    """``world.get_settings``."""
    return simulation.settings.to_wire()


@remote_call("set_episode_settings")
def set_episode_settings(simulation: Simulation, settings: object) -> int:
    """``world.apply_settings``: returns the last published frame, because the client waits for the frame returned."""
    simulation.settings = Settings.from_wire(settings)
    return simulation.world.frame


@remote_call("tick_cue")
def tick_cue(simulation: Simulation) -> int:
    """``world.tick``."""
    return simulation.advance()


@remote_call("get_map_info")
def get_map_info(simulation: Simulation) -> list[object]:
    """``rpc::MapInfo``: name and spawn points."""
    town = simulation.town
    return [f"Carla/Maps/{town.name}", [pose_to(pose) for pose in town.spawn_points]]


@remote_call("get_map_data")
def get_map_data(simulation: Simulation) -> str:
    """OpenDRIVE text of the current town."""
    return simulation.town.opendrive


@remote_call("get_available_maps")
def get_available_maps(simulation: Simulation) -> Sequence[str]:
    """``client.get_available_maps``."""
    return available_towns()


@remote_call("load_new_episode", Response.VOID)
def load_new_episode(
    simulation: Simulation, name: object, reset_settings: object = True, layers: object = LAYERS
) -> None:
    """``client.load_world``, ``reload_world``; layers that are not asked for are hidden."""
    shown = layers_from(layers)
    simulation.load(text_from(name, "town"), reset_settings=flag_from(reset_settings, "reset_settings"))
    simulation.world.hidden_layers = LAYERS & ~shown


@remote_call("copy_opendrive_to_file", Response.VOID)
def copy_opendrive_to_file(simulation: Simulation, opendrive: object, parameters: object = None) -> None:
    """First call of ``client.generate_opendrive_world``; the mesh parameters matter to Unreal only."""
    text = text_from(opendrive, "OpenDRIVE")
    if len(text) > MAX_OPENDRIVE:
        raise CallError(f"OpenDRIVE map of {len(text)} characters: at most {MAX_OPENDRIVE} are accepted")
    simulation.uploaded_opendrive = text


@remote_call("get_actor_definitions")
def get_actor_definitions(simulation: Simulation) -> list[object]:
    """``world.get_blueprint_library``."""
    return [definition_to(blueprint) for blueprint in BLUEPRINTS.values()]


@remote_call("get_weather_parameters")
def get_weather_parameters(simulation: Simulation) -> list[float]:
    """``world.get_weather``."""
    return list(astuple(simulation.world.weather))


@remote_call("set_weather_parameters", Response.VOID)
def set_weather_parameters(simulation: Simulation, parameters: object) -> None:
    """``world.set_weather``."""
    fields = sequence_from(parameters, 14, "weather")[:14]
    simulation.world.weather = Weather(*(number_from(field, "weather", 1e6) for field in fields))


@remote_call("project_point")
def project_point(simulation: Simulation, origin: object, direction: object, distance: object) -> list[object]:
    """``world.project_point``, ``ground_projection``: first point on the road or on a box."""
    dx, dy, dz = vector_from(direction, "direction")
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    if length == 0.0:
        raise CallError("project_point: the direction has no length")
    unit = (dx / length, dy / length, dz / length)
    hits = simulation.world.cast_ray(vector_from(origin, "location"), unit, number_from(distance, "distance"))
    if not hits:
        return [False, [[0.0, 0.0, 0.0], 0]]
    point, label = hits[0]
    return [True, [list(point), label]]


@remote_call("cast_ray")
def cast_ray(simulation: Simulation, start: object, end: object) -> list[object]:
    """``world.cast_ray``: all points on the road and on boxes between two points."""
    origin, target = vector_from(start, "location"), vector_from(end, "location")
    length = math.dist(origin, target)
    if length == 0.0:
        return []
    dx, dy, dz = ((b - a) / length for a, b in zip(origin, target, strict=True))
    hits = simulation.world.cast_ray(origin, (dx, dy, dz), length)
    return [[list(point), label] for point, label in hits]


def _empty(*names: str) -> None:
    """Register calls whose result is an empty list here: no lamps, no traffic lights, no files."""

    def empty(simulation: Simulation, *arguments: object) -> list[object]:
        """Return an empty list."""
        return []

    for name in names:
        remote_call(name)(empty)


def _without_effect(*names: str) -> None:
    """Register calls that do nothing: they only draw in Unreal's window, or are about things that do not exist here."""

    def ignore(simulation: Simulation, *arguments: object) -> None:
        """Do nothing."""

    for name in names:
        remote_call(name, Response.VOID)(ignore)


def _refused(reason: str, *names: str) -> None:
    """Register calls that fail, because a client would miss their effect."""

    def refuse(simulation: Simulation, *arguments: object) -> None:
        """
        Refuse the call.

        :raises CallError: always
        """
        raise CallError(reason)

    for name in names:
        remote_call(name)(refuse)


_empty(
    "get_required_files",
    "query_lights_state",
    "get_all_level_BBs",
    "get_environment_objects",
    "get_group_traffic_lights",
    "get_light_boxes",
)
_without_effect(
    "draw_debug_shape",
    "enable_environment_objects",
    "freeze_all_traffic_lights",
    "reset_all_traffic_lights",
    "update_lights_state",
    "update_day_night_cycle",
    "show_vehicle_debug_telemetry",
    "destroy_traffic_manager",
)
_refused(
    "this server has no traffic manager and no autopilot: apply controls, or move vehicles in batches",
    "is_traffic_manager_running",
    "get_traffic_manager_running",
    "add_traffic_manager_running",
)
_refused(
    "this server has no recorder",
    "start_recorder",
    "stop_recorder",
    "replay_file",
    "stop_replayer",
    "show_recorder_file_info",
    "show_recorder_collisions",
    "show_recorder_actors_blocked",
)
_refused("this server has no files to download", "request_file")
_refused("this server has no console", "console_command")
