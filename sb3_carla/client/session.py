"""
One CARLA session: synchronous mode, one car, its camera and collision sensor. At the end the actors go and the settings
and the weather come back; the town stays.

This is where CARLA's degrees and threads stop: what comes out is in SI units and radians, and belongs to the frame of
the last tick.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import queue
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount, CameraStream
from sb3_carla.client.cleanup import Leftovers, abandoned_actors, process_mark
from sb3_carla.client.opendrive_file import read_opendrive_file
from sb3_carla.errors import (
    MapError,
    ServerError,
    ServerTimeoutError,
    TownNotFoundError,
    VehicleLostError,
    VersionMismatchError,
)

__all__ = ["CarlaSession", "VehicleState", "translate_client_errors"]

logger = logging.getLogger(__name__)

MAX_WHEEL_ANGLE = math.radians(40.0)
"""Largest wheel angle [rad]; enough for a turn of 3.5 m radius, and finer than CARLA's 70 degrees."""
VEHICLE = "vehicle.tesla.model3"
"""Blueprint of the car."""
WHEELBASE = 2.875
"""Of the car [m]."""
LOAD_FACTOR = 3.0
"""How much longer than any other answer the loading of a town may take."""
SETTLE_TICKS = 10
"""Least ticks after a teleport: long enough for any steering to be back at its centre and for the body to settle."""


@dataclass(frozen=True, slots=True)
class VehicleState:
    """Car at the last tick: position [m], heading [rad], speed in the plane [m/s]."""

    x: float
    y: float
    z: float
    heading: float
    speed: float


class CarlaSession:
    """
    A connection to a CARLA 0.9.16 server.

    :param host: name or address
    :param port: RPC port
    :param cameras: mounts of the cameras on the car
    :param timeout: for every answer of the server [s]
    :param delta_seconds: simulated time of a tick [s]
    :param ticks_per_image: after how many ticks a picture is asked for, every time; :meth:`place` ends with one
    :param packaged: the server is ours: it draws these pictures alone, and reads OpenDRIVE files by their path. CARLA
        draws one each tick, since its ``sensor_tick`` is not exact
    :param leftovers: of a session that lost this server: if the server lives on, they are removed
    :raises ServerTimeoutError: if no server answers
    :raises VersionMismatchError: if it speaks another version
    """

    def __init__(
        self,
        host: str,
        port: int,
        cameras: Sequence[CameraMount],
        *,
        timeout: float = 20.0,
        delta_seconds: float = 0.05,
        ticks_per_image: int = 1,
        packaged: bool = False,
        leftovers: Leftovers | None = None,
    ) -> None:
        self.delta_seconds = delta_seconds
        self._process = os.getpid()
        self._timeout = timeout
        self._ticks_per_image, self._packaged = ticks_per_image, packaged
        self._mounts = tuple(cameras)
        self._actors: list[Any] = []
        self._adopted: list[int] = []
        self._loading = False
        self._mark = process_mark()
        self._streams: dict[CameraMount, CameraStream] = {}
        self._waiting: dict[CameraMount, Any] = {}  # cameras that nobody has looked through yet
        self._collisions: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.client: Any = _connect(host, port, timeout)
        with translate_client_errors(f"The CARLA server at {host}:{port} does not answer"):
            self.world: Any = self.client.get_world()
            self._original_settings = self.world.get_settings()
            self._original_weather = self.world.id, self.world.get_weather()
            if leftovers is not None:
                self._take_over(leftovers)
            if not packaged:
                self._clear_up()
        self.vehicle: Any = None
        self.frame = self._first_frame = 0
        self.town = ""
        """The one that is loaded, and of a file the version."""
        self.half_width = 0.0
        self._steer_scale = 1.0

    def _take_over(self, leftovers: Leftovers) -> None:
        """A server that was started anew is not synchronous any more, or its world has another number."""
        if not self._original_settings.synchronous_mode:
            return
        if self.world.id == leftovers.world_id:
            self._destroy(leftovers.actor_ids)
            self._original_settings = leftovers.settings
            self._original_weather = leftovers.world_id, leftovers.weather
        elif leftovers.loading:  # the actors went with the old world
            self._original_settings = leftovers.settings

    def _clear_up(self) -> None:
        """
        Remove what processes left that were killed, and were the last to drive here.

        Their car would stand in a lane for ever, and their cameras be drawn at every tick; and that the server is
        synchronous is not how they found it.
        """
        left = abandoned_actors(self.world, self._timeout)
        if not left:
            return
        logger.warning("%d actors are removed, of processes that were killed", len(left))
        self._destroy(left)
        if self._original_settings.synchronous_mode:
            self._original_settings.synchronous_mode = False
            self._original_settings.fixed_delta_seconds = None

    @property
    def leftovers(self) -> Leftovers:
        """What is left behind if the server is lost now."""
        # Sensors go before the car: the other way round leaks streams in CARLA.
        actor_ids = (*self._adopted, *(actor.id for actor in reversed(self._actors)))
        return Leftovers(self.world.id, self._original_settings, self._original_weather[1], actor_ids, self._loading)

    @property
    def is_forked(self) -> bool:
        """Whether this is a fork of the process that it belongs to, without the client's threads: it must be let be."""
        return self._process != os.getpid()

    # --- the world ---------------------------------------------------------------------------------------------

    def available_towns(self) -> list[str]:
        """Names of the towns that the server can load, without their folder."""
        with translate_client_errors("The CARLA server did not list its towns"):
            return sorted(Path(name).name for name in self.client.get_available_maps())

    def load_town(self, town: str) -> bool:
        """
        Make a town the current one, with a new car in it; nothing happens if it is that already.

        :param town: name that the server knows, or path of an OpenDRIVE file, which may have been written anew
        :return: whether it had to be loaded
        :raises TownNotFoundError: if the server does not know the name
        :raises MapError: if the file cannot be read
        """
        version = _version(town)
        if version == self.town:
            return False
        self.town = ""
        with translate_client_errors("The CARLA server did not remove the actors"):
            self._remove_actors()
        self.client.set_timeout(LOAD_FACTOR * self._timeout)
        self._loading = True
        if town.endswith(".xodr") and not self._packaged:
            opendrive = read_opendrive_file(town)
            with translate_client_errors(f"The server did not build a world from {town!r}"):
                self.world = self.client.generate_opendrive_world(opendrive, reset_settings=False)
        else:
            self._load_named(town)
        self._loading = False
        self.client.set_timeout(self._timeout)
        self._synchronise()
        self._spawn_car()
        self.tick()
        self._first_frame = self.frame  # from which the cameras count
        self.town = version
        return True

    def _load_named(self, town: str) -> None:
        if not town.endswith(".xodr"):
            with translate_client_errors("The CARLA server did not tell its town"):
                current = Path(self.world.get_map().name).name
            if current == town:
                return
            available = self.available_towns()
            if town not in available:
                raise TownNotFoundError(f"The server has no town {town!r}; it has {', '.join(available)}")
        try:
            self.world = self.client.load_world(town, False)
        except RuntimeError as error:
            if "time-out" in str(error) or "failed to connect" in str(error):  # to the new world, which comes late
                raise ServerTimeoutError(f"The server did not load town {town!r}: {error}") from error
            raise MapError(f"The server cannot load town {town!r}: {error}") from error

    def _synchronise(self) -> None:
        settings = self.world.get_settings()
        settings.synchronous_mode = True
        settings.fixed_delta_seconds = self.delta_seconds
        with translate_client_errors("The CARLA server did not switch to synchronous mode"):
            self.world.apply_settings(settings)

    def _spawn_car(self) -> None:
        """Put the car somewhere free; the first reset moves it to its start."""
        library = self.world.get_blueprint_library()
        blueprint = library.find(VEHICLE)
        blueprint.set_attribute("role_name", "hero")
        places = self.world.get_map().get_spawn_points()
        for place in places:
            try:
                self.vehicle = self.world.spawn_actor(blueprint, place)
                break
            except RuntimeError as error:  # try_spawn_actor() does not tell a taken place from a server that is gone
                if "collision" not in str(error):
                    raise
        else:
            raise ServerError(f"None of the {len(places)} spawn points has room for a {VEHICLE}")
        self._actors.append(self.vehicle)
        blueprint = library.find("sensor.other.collision")
        self.mark(blueprint)
        collision = self.world.spawn_actor(blueprint, carla.Transform(), attach_to=self.vehicle)
        self._actors.append(collision)
        collision.listen(lambda event: self._collisions.put(event.frame))
        for mount in self._mounts:
            self._waiting[mount] = self._spawn_camera(mount)
            if not (mount.on_demand and self._packaged):
                self._listen(mount)
        self.half_width = self.vehicle.bounding_box.extent.y
        lock = max(wheel.max_steer_angle for wheel in self.vehicle.get_physics_control().wheels)
        self._steer_scale = min(1.0, math.degrees(MAX_WHEEL_ANGLE) / max(lock, 1.0))

    def _spawn_camera(self, mount: CameraMount) -> Any:
        blueprint = self.world.get_blueprint_library().find("sensor.camera.rgb")
        attributes: dict[str, Any] = {"image_size_x": mount.width, "image_size_y": mount.height, "fov": mount.fov}
        self.mark(blueprint)
        if self._packaged and self._ticks_per_image > 1:
            attributes["sensor_tick"] = self._ticks_per_image * self.delta_seconds
        if self._packaged and mount.on_demand:
            attributes["role_name"] = "on_demand"
        for name, value in attributes.items():
            blueprint.set_attribute(name, str(value))
        pose = carla.Transform(carla.Location(x=mount.x, z=mount.z), carla.Rotation(pitch=mount.pitch))
        sensor = self.world.spawn_actor(blueprint, pose, attach_to=self.vehicle)
        self._actors.append(sensor)
        return sensor

    def mark(self, blueprint: Any) -> None:
        """
        Have what is spawned from a blueprint tell whose it is; not the car, which others know by the name "hero".

        :param blueprint: ``carla.ActorBlueprint``
        """
        if blueprint.has_attribute("role_name"):
            blueprint.set_attribute("role_name", self._mark)

    def _listen(self, mount: CameraMount) -> None:
        self._streams[mount] = CameraStream(self._waiting[mount], mount)
        del self._waiting[mount]  # only now: a server that is lost here leaves it waiting

    def adopt(self, actor_id: int) -> None:
        """
        Take over an actor that was spawned in a batch: it goes when the session's own go.

        :param actor_id: of no sensor
        """
        self._adopted.append(actor_id)

    def set_weather(self, weather: str | Mapping[str, float]) -> None:
        """
        :param weather: name of a preset of ``carla.WeatherParameters``, or its parameters by name
        :raises ValueError: if the preset or a parameter is unknown
        """
        if isinstance(weather, str):
            preset = getattr(carla.WeatherParameters, weather, None)
            if not isinstance(preset, carla.WeatherParameters):
                known = ", ".join(_weather_presets())
                raise ValueError(f"weather: unknown preset {weather!r}, expected one of {known}")
            parameters = preset
        else:
            parameters = carla.WeatherParameters()
            for name, value in weather.items():
                if not isinstance(getattr(parameters, name, None), float):
                    raise ValueError(f"weather: unknown parameter {name!r} of carla.WeatherParameters")
                setattr(parameters, name, float(value))
        self.world.set_weather(parameters)

    # --- the car -----------------------------------------------------------------------------------------------

    def place(self, x: float, y: float, z: float, heading: float) -> None:
        """
        Teleport the car to a standstill and let it settle; the last tick is one with a picture.

        :param x: [m]
        :param y: [m]
        :param z: height of the road [m]
        :param heading: [rad]
        """
        pose = carla.Transform(carla.Location(x, y, z + 0.2), carla.Rotation(yaw=math.degrees(heading)))
        self.vehicle.apply_control(carla.VehicleControl(brake=1.0, hand_brake=True))
        self.vehicle.set_target_velocity(carla.Vector3D())
        self.vehicle.set_transform(pose)
        for ticks in itertools.count():
            if ticks >= SETTLE_TICKS and (self.frame - self._first_frame) % self._ticks_per_image == 0:
                break
            self.tick()
        self.collisions()

    def steer(self, steering: float, pedal: float) -> None:
        """
        Inputs for the next tick.

        :param steering: wheel angle as a share of ``MAX_WHEEL_ANGLE``, -1 (left) to 1 (right)
        :param pedal: full brake -1, full throttle 1
        """
        self.vehicle.apply_control(
            carla.VehicleControl(throttle=max(0.0, pedal), steer=steering * self._steer_scale, brake=max(0.0, -pedal))
        )

    def tick(self) -> None:
        """
        Advance the world by one frame.

        :raises ServerTimeoutError: if the server does not answer
        :raises VehicleLostError: if the car is not in that frame; the client would go on telling its last pose
        """
        with translate_client_errors("The CARLA server stopped answering"):
            self.frame = self.world.tick(self._timeout)
            present = self.world.get_snapshot().has_actor(self.vehicle.id)  # half a microsecond
        if not present:
            raise VehicleLostError(f"The car (actor {self.vehicle.id}) is not in the world any more")

    def image(self, mount: CameraMount) -> NDArray[np.uint8]:
        """
        What a camera saw at the last tick, which is to be ``ticks_per_image`` after the last one with a picture.

        :param mount: one of the session's cameras
        :return: shape (height, width, 4), uint8 BGRA, read-only
        :raises ServerTimeoutError: if the picture of this frame does not come
        :raises FrameError: if another one comes instead
        """
        if mount in self._waiting:
            with translate_client_errors("The CARLA server stopped answering"):
                self._listen(mount)
        return self._streams[mount].frame(self.frame, self._timeout)

    def is_listening(self, mount: CameraMount) -> bool:
        """
        :param mount: one of the session's cameras
        :return: whether pictures of it come and have to be taken, by :meth:`image`
        """
        return mount in self._streams

    def state(self) -> VehicleState:
        """The car at the last tick."""
        transform, velocity = self.vehicle.get_transform(), self.vehicle.get_velocity()
        place = transform.location
        return VehicleState(
            place.x, place.y, place.z, math.radians(transform.rotation.yaw), math.hypot(velocity.x, velocity.y)
        )

    def collisions(self) -> int:
        """Number of contacts reported since the last call."""
        count = 0
        with contextlib.suppress(queue.Empty):
            while True:
                self._collisions.get_nowait()
                count += 1
        return count

    # --- the end -----------------------------------------------------------------------------------------------

    def _remove_actors(self) -> None:
        """:raises RuntimeError: if the server does not answer"""
        self._stop_sensors()
        self._destroy(self.leftovers.actor_ids)
        self._actors.clear()
        self._adopted.clear()
        self.vehicle = None

    def _destroy(self, actor_ids: Sequence[int]) -> None:
        """In one call, so that a server that does not answer is waited for once."""
        self.client.apply_batch_sync([carla.command.DestroyActor(actor_id) for actor_id in actor_ids])

    def _stop_sensors(self) -> None:
        """End the streams alone: nothing is sent."""
        silent = {camera.id for camera in self._waiting.values()}  # to stop them too would print a warning
        self._streams.clear()
        self._waiting.clear()
        for actor in self._actors:
            with contextlib.suppress(RuntimeError):
                if hasattr(actor, "stop") and actor.id not in silent:
                    actor.stop()

    def close(self, *, server_lost: bool = False) -> None:
        """
        Remove the actors and give the server its settings back, and its world, if it is still the same, its weather;
        safe to call again.

        :param server_lost: do not talk to the server any more
        """
        if self.client is None:
            return
        if server_lost:
            self._stop_sensors()
        else:
            try:
                self._remove_actors()
                world_id, weather = self._original_weather
                if self.world.id == world_id:
                    self.world.set_weather(weather)
                self.world.apply_settings(self._original_settings)
            except RuntimeError as error:
                logger.warning("The server was not left as it was found: %s", error)
        self._actors.clear()
        # The client goes last and now. Left to the garbage collector, half of the processes that had lost a server were
        # aborted by the client's own threads ("terminate called without an active exception", carla 0.9.16).
        self.vehicle = None
        self.world = None
        self.client = None


def _connect(host: str, port: int, timeout: float) -> Any:
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
def translate_client_errors(message: str) -> Iterator[None]:
    """
    Turn the client library's RuntimeError into ours, in one place.

    :param message: what did not work
    :raises ServerTimeoutError: for any RuntimeError inside
    """
    try:
        yield
    except RuntimeError as error:
        raise ServerTimeoutError(f"{message}: {error}") from error


def _version(town: str) -> str:
    """
    What tells apart the towns that are called so.

    :param town: name, or path of an OpenDRIVE file
    :raises MapError: if there is no such file
    """
    if not town.endswith(".xodr"):
        return town
    try:
        stamp = os.stat(town)
    except OSError as error:
        raise MapError(f"OpenDRIVE file {town!r} cannot be read: {error}") from error
    return f"{town} {stamp.st_mtime_ns} {stamp.st_size}"


def _weather_presets() -> list[str]:
    presets = vars(carla.WeatherParameters).items()
    return sorted(name for name, value in presets if isinstance(value, carla.WeatherParameters))
