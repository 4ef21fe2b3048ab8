"""State of the server: one world at a time, its settings, and the publication of its snapshots and sensor data."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from sb3_carla.client.opendrive_file import read_opendrive_file
from sb3_carla.errors import CallError, MapError, TownNotFoundError
from sb3_carla.server import serializers
from sb3_carla.server.buffered_socket import Bytes
from sb3_carla.server.log import log
from sb3_carla.server.streams import WORLD_STREAM, StreamConnection, Streams, length_word
from sb3_carla.server.wire import actor_to, flag_from, number_from, option_from, option_to, sequence_from
from sb3_carla.simulator.actors import Actor, VehicleActor
from sb3_carla.simulator.physics.contacts import Collision
from sb3_carla.simulator.rendering.shared_rasters import SharedRasters
from sb3_carla.simulator.roads.built_in_towns import BUILT_IN_TOWNS
from sb3_carla.simulator.roads.opendrive_check import read_opendrive
from sb3_carla.simulator.sensors import CameraSensor, GnssSensor, ImuSensor, ObstacleSensor, Sensor
from sb3_carla.simulator.town import Town
from sb3_carla.simulator.world import World

__all__ = ["OPENDRIVE_TOWN", "Settings", "Simulation", "available_towns"]

DEFAULT_DELTA = 0.05
"""Simulation step if the client sets none [s]. CARLA measures the wall clock then, which is not reproducible."""
MAX_DELTA = 10.0
"""Longest simulation step [s]."""
OPENDRIVE_TOWN = "OpenDriveMap"
"""Name of the town that ``generate_opendrive_world`` makes, as in CARLA."""
TOWN_CACHE = 64
"""Towns kept in memory, 2 MB each besides the shared raster; loading one takes 10 ms if its raster is shared."""
PARSE_SCRIPT = """
import sys, carla
town = carla.Map("trial", sys.stdin.buffer.read().decode())
town.get_topology(), town.generate_waypoints(2.0)
"""
PARSE_TIMEOUT = 20.0
"""[s]"""


@dataclass(frozen=True, slots=True)
class Settings:
    """
    ``carla.WorldSettings`` in wire order, with CARLA's defaults.

    Only ``synchronous``, ``no_rendering`` and ``fixed_delta`` have an effect here; the others are stored and returned.
    """

    synchronous: bool = False
    no_rendering: bool = False
    fixed_delta: float | None = None
    substepping: bool = True
    max_substep_delta: float = 0.01
    max_substeps: int = 10
    max_culling_distance: float = 0.0
    deterministic_ragdolls: bool = True
    tile_stream_distance: float = 3000.0
    actor_active_distance: float = 2000.0
    spectator_as_ego: bool = True

    @classmethod
    def from_wire(cls, value: object) -> Settings:
        """
        Read ``EpisodeSettings``.

        :raises CallError: if ``fixed_delta_seconds`` is out of range
        """
        fields = sequence_from(value, 11, "episode settings")
        delta = option_from(fields[2], lambda v: number_from(v, "fixed_delta_seconds"))
        if delta is not None and not 0.0 <= delta <= MAX_DELTA:
            raise CallError(f"fixed_delta_seconds: expected 0 (none) to {MAX_DELTA:g} s, got {delta!r}")
        numbers = [number_from(field, "episode settings") for field in (*fields[4:7], *fields[8:10])]
        return cls(
            synchronous=flag_from(fields[0], "synchronous_mode"),
            no_rendering=flag_from(fields[1], "no_rendering_mode"),
            fixed_delta=delta or None,
            substepping=flag_from(fields[3], "substepping"),
            max_substep_delta=numbers[0],
            max_substeps=int(numbers[1]),
            max_culling_distance=numbers[2],
            deterministic_ragdolls=flag_from(fields[7], "deterministic_ragdolls"),
            tile_stream_distance=numbers[3],
            actor_active_distance=numbers[4],
            spectator_as_ego=flag_from(fields[10], "spectator_as_ego"),
        )

    def to_wire(self) -> list[object]:
        """``EpisodeSettings``."""
        fields: list[object] = list(astuple(self))
        fields[2] = option_to(self.fixed_delta)
        return fields

    @property
    def delta(self) -> float:
        """Simulation step [s]."""
        return DEFAULT_DELTA if self.fixed_delta is None else self.fixed_delta


class Simulation:
    """
    World, settings and episode of the server.

    :param town: built-in name or path of an OpenDRIVE file
    :param streams: that snapshots and sensor data are published on
    :param stream_port: port of the streams, for their tokens
    :param seed: of the sensors' noise
    :param shared_rasters: shared with other servers; None: this server paints its own
    :raises TownNotFoundError: if there is no such town
    :raises MapError: if the file cannot be used
    """

    def __init__(
        self,
        town: str,
        streams: Streams,
        stream_port: int,
        *,
        seed: int = 0,
        shared_rasters: SharedRasters | None = None,
    ) -> None:
        self.streams = streams
        self.stream_port = stream_port
        self.settings = Settings()
        self.episode_id = 1
        self.uploaded_opendrive: str | None = None
        self.sensors_due = False
        """Whether the sensors' data of the last step are still to be published."""
        self._seed = seed
        self._shared_rasters = shared_rasters
        self._collisions: Sequence[Collision[Actor]] = ()
        self._towns: OrderedDict[str, Town] = OrderedDict()
        self.world = World(self._town(town), seed)
        self.last_snapshot = self._snapshot()
        self.loaded_at = -math.inf
        """When the last town was loaded (``time.monotonic``)."""

    @property
    def town(self) -> Town:
        """The current town."""
        return self.world.town

    def actor(self, actor_id: object) -> Actor:
        """
        A living actor.

        :raises CallError: if there is none of that id
        """
        actor = self.world.actors.get(actor_id) if isinstance(actor_id, int) else None
        if actor is None:
            raise CallError(f"actor {actor_id!r} not found: it was destroyed, or never lived in this world")
        return actor

    def vehicle(self, actor_id: object) -> VehicleActor:
        """
        A living vehicle.

        :raises CallError: if there is none of that id
        """
        actor = self.actor(actor_id)
        if not isinstance(actor, VehicleActor):
            raise CallError(f"actor {actor_id!r} is no vehicle but {actor.type_id}")
        return actor

    # --- towns ---------------------------------------------------------------------------------------------------

    def _town(self, name: str) -> Town:
        """A town by name or path, from the cache if it was used lately."""
        key = name if name.endswith(".xodr") else name.rsplit("/", 1)[-1]
        if key.endswith(".xodr"):
            if not os.path.isfile(key):
                raise TownNotFoundError(_not_found(name))
            # A file that has changed is another town.
            stamp = os.stat(key)
            entry = f"{os.path.realpath(key)} {stamp.st_mtime_ns} {stamp.st_size}"
        elif key in BUILT_IN_TOWNS:
            entry = key
        else:
            raise TownNotFoundError(_not_found(name))
        town = self._towns.pop(entry, None)
        if town is None:
            if key.endswith(".xodr"):
                _check_opendrive(key, read_opendrive_file(key))
            town = _prepared(Town.load(key, self._shared_rasters))
        self._towns[entry] = town
        while len(self._towns) > TOWN_CACHE:
            self._towns.popitem(last=False)
        return town

    def load(self, name: str, *, reset_settings: bool) -> None:
        """
        Start a new episode; on an error the old one continues.

        :param name: town; "": the current one; ``OPENDRIVE_TOWN``: the map that the client has uploaded
        :param reset_settings: whether to return to asynchronous mode and the default step
        :raises TownNotFoundError: if there is no such town
        :raises MapError: if the map cannot be used
        """
        if name == "":
            town = self.town
        elif name.rsplit("/", 1)[-1] == OPENDRIVE_TOWN:
            if self.uploaded_opendrive is None:
                raise CallError(f"{OPENDRIVE_TOWN}: no OpenDRIVE map was uploaded (copy_opendrive_to_file)")
            _check_opendrive(OPENDRIVE_TOWN, self.uploaded_opendrive)
            town = _prepared(Town.from_opendrive(OPENDRIVE_TOWN, self.uploaded_opendrive, self._shared_rasters))
        else:
            town = self._town(name)
        old = self.world
        self.world = World(town, self._seed, first_id=old.next_id, frame=old.frame)
        self.episode_id += 1
        self.sensors_due = False
        self._collisions = ()
        if reset_settings:
            self.settings = Settings()
        self.last_snapshot = self._snapshot()
        self.loaded_at = time.monotonic()

    # --- time ----------------------------------------------------------------------------------------------------

    def advance(self) -> int:
        """
        Simulate one step and publish the snapshot; ``publish_sensors`` must follow before the next step.

        :return: frame number
        """
        if self.sensors_due:
            self.publish_sensors()
        world = self.world
        self._collisions = world.tick(self.settings.delta)
        self.last_snapshot = self._snapshot()
        self.streams.publish(WORLD_STREAM, self.last_snapshot)
        self.sensors_due = True
        return world.frame

    def _snapshot(self) -> bytearray:
        return serializers.world_snapshot(self.world, self.episode_id, time.time())

    def publish_sensors(self) -> None:
        """Publish the data of the last step of all sensors that have listeners."""
        self.sensors_due = False
        world, streams = self.world, self.streams
        for stream_id in streams.ids():
            sensor = world.actors.get(stream_id)
            if isinstance(sensor, Sensor):
                try:
                    if sensor.due(world.time, world.delta):
                        self._publish_sensor(sensor)
                except Exception as error:  # an error in one sensor must not end all sessions
                    log(f"{sensor.type_id} (actor {sensor.id}) failed: {type(error).__name__}: {error}")

    def send_current_picture(self, stream_id: int, listener: StreamConnection) -> None:
        """
        Send a new listener the present picture, if its stream belongs to a camera with the role "on_demand".

        :param stream_id: any stream that was asked for
        :param listener: the new listener
        """
        camera = self.world.actors.get(stream_id)
        if not isinstance(camera, CameraSensor) or not camera.on_demand or self.settings.no_rendering:
            return
        if self.sensors_due and camera.due(self.world.time, self.world.delta):
            return  # ``publish_sensors`` will send it
        try:
            parts = self._picture(camera)
        except Exception as error:
            log(f"{camera.type_id} (actor {camera.id}) failed: {type(error).__name__}: {error}")
        else:
            listener.publish(length_word(parts), *parts)

    def _picture(self, camera: CameraSensor) -> tuple[Bytes, Bytes]:
        return serializers.image_header(self.world, camera), self.world.render(camera).data

    def _publish_sensor(self, sensor: Sensor) -> None:
        world, publish = self.world, self.streams.publish
        if isinstance(sensor, CameraSensor):
            if not self.settings.no_rendering:
                publish(sensor.id, *self._picture(sensor))
        elif sensor.type_id == "sensor.other.collision":
            self._publish_collisions(sensor)
        elif isinstance(sensor, GnssSensor):
            publish(sensor.id, serializers.gnss_measurement(world, sensor, world.gnss(sensor)))
        elif isinstance(sensor, ImuSensor):
            publish(sensor.id, serializers.imu_measurement(world, sensor, world.imu(sensor)))
        elif isinstance(sensor, ObstacleSensor):
            sighting = world.obstacle(sensor)
            if sighting is not None:
                body, distance = sighting
                mount, other = self.describe(sensor.parent or sensor), self.describe(body)
                publish(sensor.id, serializers.obstacle_detection_event(world, sensor, mount, other, distance))

    def _publish_collisions(self, sensor: Sensor) -> None:
        for collision in self._collisions:
            if collision.actor is sensor.parent:
                mount, other = self.describe(collision.actor), self.describe(collision.other)
                message = serializers.collision_event(self.world, sensor, mount, other, collision.impulse)
                self.streams.publish(sensor.id, message)

    def describe(self, actor: Actor) -> list[object]:
        """``rpc::Actor`` for the client."""
        return actor_to(actor, self.stream_port)


def _prepared(town: Town) -> Town:
    """Paint the raster, place the scenery and find the spawn points during the load, not in the first tick."""
    _ = town.raster, town.obstacles, town.spawn_points
    return town


def _check_opendrive(name: str, opendrive: str) -> None:
    """
    Check a map that is not built in, and parse it in another process: CARLA's parser crashes on some maps.

    Errors that the parser raises are left to ``Town``, which parses the map again.

    :param name: of the map, for the error
    :param opendrive: its text
    :raises MapError: if it is damaged, or the parser crashes or takes longer than ``PARSE_TIMEOUT``
    """
    read_opendrive(name, opendrive)
    command = [sys.executable, "-c", PARSE_SCRIPT]
    try:
        done = subprocess.run(command, input=opendrive.encode(), capture_output=True, timeout=PARSE_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise MapError(f"OpenDRIVE map {name!r} cannot be parsed within {PARSE_TIMEOUT:g} s") from None
    if done.returncode < 0:
        raise MapError(f"OpenDRIVE map {name!r} crashes CARLA's parser (signal {-done.returncode})")


def _not_found(name: str) -> str:
    return f"Town not found: {name!r}; available: {', '.join(BUILT_IN_TOWNS)}, or the path of an .xodr file"


def available_towns() -> Sequence[str]:
    """Built-in towns as ``client.get_available_maps`` names them."""
    return [f"/Game/Carla/Maps/{name}" for name in BUILT_IN_TOWNS]
