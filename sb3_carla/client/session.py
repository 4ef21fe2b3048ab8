"""
One CARLA session: synchronous mode, the agent's car, its cameras and collision sensor.

At its end the session destroys its actors and restores settings and weather; the town stays. CARLA's degrees and
threads end here: results are in SI units and radians, and belong to the frame of the last tick.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import queue
from collections.abc import Mapping, Sequence
from typing import Any

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client import vehicle, world_setup
from sb3_carla.client.camera_stream import CameraMount, CameraStream
from sb3_carla.client.carla_client import connect, translate_client_errors
from sb3_carla.client.cleanup import Leftovers, abandoned_actors, owner_tag
from sb3_carla.errors import VehicleLostError

__all__ = ["CarlaSession"]

logger = logging.getLogger(__name__)

LOAD_TIMEOUT_FACTOR = 3.0
"""The server may take so many times longer to load a town than for any other answer."""
SETTLE_TICKS = 10
"""Ticks after a teleport, at least: the steering returns to its centre and the body settles."""


class CarlaSession:
    """
    A connection to a CARLA 0.9.16 server.

    :param host: name or address
    :param port: RPC port
    :param cameras: mounts of the cameras on the car
    :param timeout: for each answer of the server [s]
    :param delta_seconds: simulated time of a tick [s]
    :param ticks_per_image: ticks between two images that are read; :meth:`place` ends at a tick with an image
    :param packaged: whether it is the packaged server, which renders only these images and opens OpenDRIVE files by
        path. CARLA renders an image each tick, because its ``sensor_tick`` is not exact
    :param leftovers: of an earlier session that lost this server; removed if the server has run on
    :raises ServerTimeoutError: if no server answers
    :raises VersionMismatchError: if the server has another version than the client library
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
        self._owner_pid, self._owner_tag = os.getpid(), owner_tag()
        self._timeout = timeout
        self._ticks_per_image, self._packaged = ticks_per_image, packaged
        self._mounts = tuple(cameras)
        self._actors: list[Any] = []  # in the order of spawning
        self._adopted: list[int] = []
        self._loading = False
        self._streams: dict[CameraMount, CameraStream] = {}
        self._cameras: dict[CameraMount, Any] = {}
        self._idle_cameras: dict[CameraMount, Any] = {}  # those whose first image has not been asked for
        self._collisions: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.client: Any = connect(host, port, timeout)
        with translate_client_errors(f"The CARLA server at {host}:{port} does not answer"):
            self.world: Any = self.client.get_world()
            self._original_settings = self.world.get_settings()
            self._original_weather = self.world.id, self.world.get_weather()
            if leftovers is not None:
                self._take_over(leftovers)
            if not packaged:
                self._remove_abandoned_actors()
        self.vehicle: Any = None
        self.frame = self._first_frame = 0
        self.town = ""
        """The loaded town; for an OpenDRIVE file with its version, see :func:`world_setup.town_version`."""
        self.half_width = 0.0
        self.physics: vehicle.Physics
        """Mass and tyre friction of the car."""

    def _take_over(self, leftovers: Leftovers) -> None:
        """Remove an earlier session's leftovers, unless a new server is not synchronous or has another world."""
        if not self._original_settings.synchronous_mode:
            return
        if self.world.id == leftovers.world_id:
            self._destroy(leftovers.actor_ids)
            self._original_settings = leftovers.settings
            self._original_weather = leftovers.world_id, leftovers.weather
        elif leftovers.loading:  # the new world has replaced the old one with its actors
            self._original_settings = leftovers.settings

    def _remove_abandoned_actors(self) -> None:
        """
        Remove the actors of killed processes, and the synchronous mode that they left on.

        Otherwise their car would stand in a lane for ever, and the server would render their cameras at every tick.
        """
        abandoned = abandoned_actors(self.world, self._timeout)
        if not abandoned:
            return
        logger.warning("Removing %d actors of processes that were killed", len(abandoned))
        self._destroy(abandoned)
        if self._original_settings.synchronous_mode:
            self._original_settings.synchronous_mode = False
            self._original_settings.fixed_delta_seconds = None

    @property
    def leftovers(self) -> Leftovers:
        """What is left behind if the server is lost now."""
        # Sensors are destroyed before the car: the other order leaks streams in CARLA.
        actor_ids = (*self._adopted, *(actor.id for actor in reversed(self._actors)))
        return Leftovers(self.world.id, self._original_settings, self._original_weather[1], actor_ids, self._loading)

    @property
    def is_forked(self) -> bool:
        """Whether this process is a fork of the session's process: it has none of the client's threads."""
        return self._owner_pid != os.getpid()

    # --- the world ---------------------------------------------------------------------------------------------

    def load_town(self, town: str, cameras: Sequence[CameraMount] | None = None) -> bool:
        """
        Load a town and spawn a new car in it, unless the town is loaded already.

        :param town: name that the server knows, or path of an OpenDRIVE file, which may have changed
        :param cameras: mounts of the cameras on the car from now on; None: as before
        :return: whether the town had to be loaded
        :raises TownNotFoundError: if the server does not know the name
        :raises MapError: if the file cannot be read
        """
        version = world_setup.town_version(town)
        if version == self.town:
            if cameras is not None:
                self._remount(tuple(cameras))
            return False
        self.town = ""
        if cameras is not None:
            self._mounts = tuple(cameras)
        with translate_client_errors("The CARLA server did not remove the actors"):
            self._remove_actors()
        self.client.set_timeout(LOAD_TIMEOUT_FACTOR * self._timeout)
        self._loading = True
        if town.endswith(".xodr") and not self._packaged:
            self.world = world_setup.load_opendrive_town(self.client, town)
        else:
            self.world = world_setup.load_named_town(self.client, self.world, town)
        self._loading = False
        self.client.set_timeout(self._timeout)
        world_setup.enable_synchronous_mode(self.world, self.delta_seconds)
        self._spawn_car()
        self.tick()
        self._first_frame = self.frame  # the cameras' first tick
        self.town = version
        return True

    def _spawn_car(self) -> None:
        """Each actor is recorded as soon as it is spawned, because the server may be lost at the next one."""
        self.vehicle = vehicle.spawn_vehicle(self.world)
        self._actors.append(self.vehicle)
        collision_sensor = vehicle.spawn_collision_sensor(self.world, self.vehicle, self._owner_tag)
        self._actors.append(collision_sensor)
        collision_sensor.listen(lambda event: self._collisions.put(event.frame))
        for mount in self._mounts:
            self._spawn_camera(mount)
        self.half_width = self.vehicle.bounding_box.extent.y
        self.physics = vehicle.Physics(self.vehicle)

    def _spawn_camera(self, mount: CameraMount) -> None:
        each_tick = self._ticks_per_image == 1 or not self._packaged
        sensor_tick = None if each_tick else self._ticks_per_image * self.delta_seconds
        on_demand = mount.on_demand and self._packaged
        role_name = "on_demand" if on_demand else self._owner_tag
        camera = vehicle.spawn_camera(self.world, self.vehicle, mount, role_name=role_name, sensor_tick=sensor_tick)
        self._actors.append(camera)
        self._idle_cameras[mount] = self._cameras[mount] = camera
        if not on_demand:
            self._listen(mount)

    def _remount(self, mounts: tuple[CameraMount, ...]) -> None:
        """Replace the cameras whose mounts are no longer wanted; the new ones send their images at the same ticks."""
        if mounts == self._mounts:
            return
        for mount in (old for old in self._mounts if old not in mounts):
            camera = self._cameras.pop(mount)
            self._streams.pop(mount, None)
            if self._idle_cameras.pop(mount, None) is None:
                camera.stop()  # before it is destroyed: the other order leaks streams in CARLA
            self._destroy([camera.id])
            self._actors.remove(camera)
        while (self.frame + 1 - self._first_frame) % self._ticks_per_image:
            self.tick()
        for mount in mounts:
            if mount not in self._mounts:
                self._spawn_camera(mount)
        self._mounts = mounts

    def _listen(self, mount: CameraMount) -> None:
        self._streams[mount] = CameraStream(self._idle_cameras[mount], mount)
        del self._idle_cameras[mount]  # not before: if listen() fails, the camera has not been started

    def set_owner(self, blueprint: Any) -> None:
        """
        Tag the actors of a blueprint with this process, see :func:`owner_tag`.

        Not for the agent's car: other programs find it by the role name "hero".

        :param blueprint: ``carla.ActorBlueprint``
        """
        vehicle.set_role_name(blueprint, self._owner_tag)

    def adopt(self, actor_id: int) -> None:
        """
        Destroy an actor together with the session's own; for actors that were spawned in a batch.

        :param actor_id: of an actor that is no sensor
        """
        self._adopted.append(actor_id)

    def destroy_adopted(self, actor_ids: Sequence[int]) -> None:
        """
        :param actor_ids: of adopted actors that are no longer needed
        :raises RuntimeError: if the server does not answer
        """
        self._destroy(actor_ids)
        self._adopted = [actor_id for actor_id in self._adopted if actor_id not in actor_ids]

    def set_weather(self, weather: str | Mapping[str, float]) -> None:
        """
        :param weather: name of a preset of ``carla.WeatherParameters``, or its parameters by name
        :raises ValueError: if the preset or a parameter is unknown
        """
        self.world.set_weather(world_setup.weather_parameters(weather))

    # --- the car -----------------------------------------------------------------------------------------------

    def place(self, x: float, y: float, z: float, heading: float) -> None:
        """
        Teleport the car to a standstill and let it settle; the last tick is one with an image.

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
        Set the car's inputs for the next tick.

        :param steering: wheel angle as a share of ``MAX_WHEEL_ANGLE``, -1 (left) to 1 (right)
        :param pedal: full brake -1, full throttle 1
        """
        throttle, brake = max(0.0, pedal), max(0.0, -pedal)
        control = carla.VehicleControl(throttle=throttle, steer=steering * self.physics.steering_scale, brake=brake)
        self.vehicle.apply_control(control)

    def tick(self) -> None:
        """
        Advance the world by one frame.

        :raises ServerTimeoutError: if the server does not answer
        :raises VehicleLostError: if the car is not in that frame; the client would go on to report its last pose
        """
        with translate_client_errors():
            self.frame = self.world.tick(self._timeout)
            present = self.world.get_snapshot().has_actor(self.vehicle.id)  # half a microsecond
        if not present:
            raise VehicleLostError(f"The car (actor {self.vehicle.id}) is not in the world any more")

    def image(self, mount: CameraMount) -> NDArray[np.uint8]:
        """
        Image of the last tick, which must come ``ticks_per_image`` ticks after the last one with an image.

        :param mount: one of the session's cameras
        :return: shape (height, width, 4), uint8 BGRA, read-only
        :raises ServerTimeoutError: if the image of this frame does not come
        :raises FrameError: if the image of a later frame, or of another size, comes instead
        """
        if mount in self._idle_cameras:
            with translate_client_errors():
                self._listen(mount)
        return self._streams[mount].image(self.frame, self._timeout)

    def is_listening(self, mount: CameraMount) -> bool:
        """
        :param mount: one of the session's cameras
        :return: whether the camera sends images, which :meth:`image` must then read
        """
        return mount in self._streams

    def state(self) -> vehicle.VehicleState:
        """The car at the last tick."""
        return vehicle.vehicle_state(self.vehicle)

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
        """Destroy actors in one call, so that a server that does not answer is waited for once."""
        self.client.apply_batch_sync([carla.command.DestroyActor(actor_id) for actor_id in actor_ids])

    def _stop_sensors(self) -> None:
        """Close the sensors' streams; the server receives no call."""
        idle = {camera.id for camera in self._idle_cameras.values()}  # the client prints a warning if these are stopped
        self._streams.clear()
        self._cameras.clear()
        self._idle_cameras.clear()
        for actor in self._actors:
            with contextlib.suppress(RuntimeError):
                if hasattr(actor, "stop") and actor.id not in idle:
                    actor.stop()

    def close(self, *, server_lost: bool = False) -> None:
        """
        Destroy the actors and restore the server's settings; the weather too, if the world is still the same one.

        Safe to call again.

        :param server_lost: do not call the server any more
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
                logger.warning("The server's original state was not restored: %s", error)
        self._actors.clear()
        # The client goes last and now. Left to the garbage collector, half of the processes that had lost a server were
        # aborted by the client's own threads ("terminate called without an active exception", carla 0.9.16).
        self.vehicle = None
        self.world = None
        self.client = None
