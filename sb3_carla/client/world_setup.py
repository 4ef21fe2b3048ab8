"""Prepares a server's world: its town, its synchronous mode, its weather."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import carla

from sb3_carla.client.carla_client import translate_client_errors
from sb3_carla.client.opendrive_file import read_opendrive_file
from sb3_carla.errors import MapError, ServerTimeoutError, TownNotFoundError

__all__ = [
    "available_towns",
    "enable_synchronous_mode",
    "load_named_town",
    "load_opendrive_town",
    "town_version",
    "weather_parameters",
]


def available_towns(client: Any) -> list[str]:
    """
    :param client: ``carla.Client``
    :return: names of the towns that the server can load, without their folder
    """
    with translate_client_errors("The CARLA server did not list its towns"):
        return sorted(Path(name).name for name in client.get_available_maps())


def town_version(town: str) -> str:
    """
    Tell apart the versions of an OpenDRIVE file that is written again.

    :param town: name, or path of an OpenDRIVE file
    :return: the name; of a file its path, time of modification and size
    :raises MapError: if there is no such file
    """
    if not town.endswith(".xodr"):
        return town
    try:
        stat = os.stat(town)
    except OSError as error:
        raise MapError(f"OpenDRIVE file {town!r} cannot be read: {error}") from error
    return f"{town} {stat.st_mtime_ns} {stat.st_size}"


def load_opendrive_town(client: Any, path: str) -> Any:
    """
    Have the server build a world from the text of an OpenDRIVE file.

    :param client: ``carla.Client``
    :param path: of the file
    :return: ``carla.World``
    :raises MapError: if the file cannot be read
    :raises ServerTimeoutError: if the server does not answer
    """
    opendrive = read_opendrive_file(path)
    with translate_client_errors(f"The server did not build a world from {path!r}"):
        return client.generate_opendrive_world(opendrive, reset_settings=False)


def load_named_town(client: Any, world: Any, town: str) -> Any:
    """
    Load a town, unless it is the present one already.

    :param client: ``carla.Client``
    :param world: the present ``carla.World``
    :param town: name of a town; for the packaged server also the path of an OpenDRIVE file, which is always loaded
    :return: ``carla.World``
    :raises TownNotFoundError: if the server does not know the name
    :raises MapError: if the server cannot load the town
    :raises ServerTimeoutError: if the server does not answer
    """
    if not town.endswith(".xodr"):
        with translate_client_errors("The CARLA server did not name its town"):
            current = Path(world.get_map().name).name
        if current == town:
            return world
        towns = available_towns(client)
        if town not in towns:
            raise TownNotFoundError(f"The server has no town {town!r}; it has {', '.join(towns)}")
    try:
        return client.load_world(town, False)
    except RuntimeError as error:
        # The second message comes when the new world takes longer to load than the client waits.
        if "time-out" in str(error) or "failed to connect" in str(error):
            raise ServerTimeoutError(f"The server did not load town {town!r}: {error}") from error
        raise MapError(f"The server cannot load town {town!r}: {error}") from error


def enable_synchronous_mode(world: Any, delta_seconds: float) -> None:
    """
    :param world: ``carla.World``
    :param delta_seconds: simulated time of a tick [s]
    """
    settings = world.get_settings()
    settings.synchronous_mode = True
    settings.fixed_delta_seconds = delta_seconds
    with translate_client_errors("The CARLA server did not switch to synchronous mode"):
        world.apply_settings(settings)


def weather_parameters(weather: str | Mapping[str, float]) -> Any:
    """
    :param weather: name of a preset of ``carla.WeatherParameters``, or its parameters by name
    :return: ``carla.WeatherParameters``
    :raises ValueError: if the preset or a parameter is unknown
    """
    if isinstance(weather, str):
        presets = {k: v for k, v in vars(carla.WeatherParameters).items() if isinstance(v, carla.WeatherParameters)}
        if weather not in presets:
            raise ValueError(f"weather: unknown preset {weather!r}, expected one of {', '.join(sorted(presets))}")
        return presets[weather]
    parameters = carla.WeatherParameters()
    for name, value in weather.items():
        if not isinstance(getattr(parameters, name, None), float):
            raise ValueError(f"weather: unknown parameter {name!r} of carla.WeatherParameters")
        setattr(parameters, name, float(value))
    return parameters
