"""Sensors: when they fire and what they measure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.errors import SpawnError
from sb3_carla.simulator.actors import Actor, VehicleActor
from sb3_carla.simulator.geometry import Pose, rotation_matrix
from sb3_carla.simulator.physics.dynamics import GRAVITY
from sb3_carla.simulator.rendering.camera import Camera

__all__ = ["CameraSensor", "GnssReading", "GnssSensor", "ImuReading", "ImuSensor", "ObstacleSensor", "Sensor"]

MAX_PIXELS = 4096 * 2160
"""Largest width times height of a camera's picture [px]."""
ON_DEMAND = "on_demand"
"""``role_name`` of a camera that sends a picture at once to a client that begins to listen to it. CARLA has no such."""
EARLY = 1e-3
"""Part of a period by which a sensor may fire early [-]: simulation time is a sum of rounded steps."""
MIN_PERIOD = 1e-6
"""A shorter ``sensor_tick`` means every step [s]: time divided by it might not be a finite number."""


class Sensor(Actor):
    """
    A sensor that fires every ``sensor_tick`` seconds from its first simulation step on, or at every step.

    Collision and lane-invasion sensors need no subclass: the world finds collisions, and CARLA's client computes lane
    invasions itself.
    """

    def __init__(
        self, actor_id: int, type_id: str, attributes: dict[str, str], pose: Pose, parent: Actor | None = None
    ) -> None:
        super().__init__(actor_id, type_id, attributes, pose, parent)
        period = self.number("sensor_tick", 0.0)
        self.period = period if period >= MIN_PERIOD else 0.0
        self._first: float | None = None
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        """
        Restart the sensor's noise.

        :param seed: of the world; the attribute ``noise_seed`` differs between the sensors of one world
        """
        self._random = np.random.default_rng((abs(seed), abs(int(self.attributes.get("noise_seed", "0")))))

    def number(self, name: str, default: float) -> float:
        """A numeric attribute."""
        return float(self.attributes.get(name, default))

    def begin(self, time: float) -> None:
        """
        Start the period: called after the sensor's first simulation step.

        :param time: simulation time at the end of that step [s]
        """
        self._first = time

    def due(self, time: float, delta: float) -> bool:
        """
        Whether the sensor fires at a simulation step. It does not matter whether a client listens.

        :param time: simulation time at its end [s]
        :param delta: its duration [s]
        """
        if self.period == 0.0:
            return True
        if self._first is None:
            return False
        # Whole periods since the first step: a sum of periods would drift away from the world's sum of steps.
        before, now = (math.floor((t - self._first) / self.period + EARLY) for t in (time - delta, time))
        return now > before


class CameraSensor(Sensor):
    """
    ``sensor.camera.*``; with the ``role_name`` "on_demand" it also fires when a client begins to listen to it.

    :raises SpawnError: if the picture's size or field of view is out of range
    """

    def __init__(
        self, actor_id: int, type_id: str, attributes: dict[str, str], pose: Pose, parent: Actor | None = None
    ) -> None:
        super().__init__(actor_id, type_id, attributes, pose, parent)
        self.kind = type_id.rsplit(".", 1)[1]
        self.on_demand = attributes.get("role_name") == ON_DEMAND
        self.width, self.height = int(attributes["image_size_x"]), int(attributes["image_size_y"])
        self.fov = math.radians(float(attributes["fov"]))
        if self.width < 1 or self.height < 1 or self.width * self.height > MAX_PIXELS:
            raise SpawnError(f"camera of {self.width} x {self.height}: expected 1 to {MAX_PIXELS} pixels")
        try:
            self.camera = Camera(self.width, self.height, self.fov)
        except ValueError as error:
            raise SpawnError(str(error)) from error


@dataclass(frozen=True, slots=True)
class GnssReading:
    """Latitude [deg], longitude [deg], altitude [m]."""

    latitude: float
    longitude: float
    altitude: float


class GnssSensor(Sensor):
    """``sensor.other.gnss``: the map's projection, with seeded Gaussian noise if its attributes ask for it."""

    def __init__(
        self, actor_id: int, type_id: str, attributes: dict[str, str], pose: Pose, parent: Actor | None = None
    ) -> None:
        super().__init__(actor_id, type_id, attributes, pose, parent)
        self._noise = [
            (self.number(f"noise_{axis}_bias", 0.0), self.number(f"noise_{axis}_stddev", 0.0))
            for axis in ("lat", "lon", "alt")
        ]

    def read(self, to_geolocation: Callable[[carla.Location], carla.GeoLocation]) -> GnssReading:
        """
        Present position on the globe.

        :param to_geolocation: the map's projection
        """
        pose = self.pose
        place = to_geolocation(carla.Location(pose.x, pose.y, pose.z))
        values = (place.latitude, place.longitude, place.altitude)
        return GnssReading(*(v + _noise(self._random, *n) for v, n in zip(values, self._noise, strict=True)))


@dataclass(frozen=True, slots=True)
class ImuReading:
    """Specific force [m/s^2] and angular velocity [rad/s] in the sensor's axes, compass [rad] clockwise from -y."""

    accelerometer: tuple[float, float, float]
    gyroscope: tuple[float, float, float]
    compass: float


class ImuSensor(Sensor):
    """
    ``sensor.other.imu``, with seeded Gaussian noise if its attributes ask for it.

    Source: CARLA ``InertialMeasurementUnit.cpp``. Differs: the acceleration is that of the parent, not of the sensor's
    own positions, so there is no lever arm.
    """

    def __init__(
        self, actor_id: int, type_id: str, attributes: dict[str, str], pose: Pose, parent: Actor | None = None
    ) -> None:
        super().__init__(actor_id, type_id, attributes, pose, parent)
        self._accel = [(0.0, self.number(f"noise_accel_stddev_{a}", 0.0)) for a in "xyz"]
        self._gyro = [
            (self.number(f"noise_gyro_bias_{a}", 0.0), self.number(f"noise_gyro_stddev_{a}", 0.0)) for a in "xyz"
        ]

    def read(self) -> ImuReading:
        """Present measurement."""
        root, pose = self.root, self.pose
        to_sensor: NDArray[np.float64] = rotation_matrix(pose).T
        ax, ay, az = root.acceleration
        # An accelerometer at rest measures the ground's reaction, +g upwards.
        force = (to_sensor @ (ax, ay, az + GRAVITY)).tolist()
        spin = (to_sensor @ root.angular_velocity).tolist()
        fx, fy, fz = (v + _noise(self._random, *n) for v, n in zip(force, self._accel, strict=True))
        gx, gy, gz = (v + _noise(self._random, *n) for v, n in zip(spin, self._gyro, strict=True))
        return ImuReading((fx, fy, fz), (gx, gy, gz), (pose.yaw + 0.5 * math.pi) % (2.0 * math.pi))


class ObstacleSensor(Sensor):
    """``sensor.other.obstacle``: distance to the next body ahead, on a ray of radius ``hit_radius`` [m]."""

    def __init__(
        self, actor_id: int, type_id: str, attributes: dict[str, str], pose: Pose, parent: Actor | None = None
    ) -> None:
        super().__init__(actor_id, type_id, attributes, pose, parent)
        self.distance = self.number("distance", 5.0)
        self.radius = self.number("hit_radius", 0.5)
        self.only_dynamics = attributes.get("only_dynamics", "False").lower() == "true"

    def sees(self, body: Actor) -> bool:
        """Whether the sensor reports bodies of this kind; never the one that it is attached to."""
        return body.root is not self.root and (isinstance(body, VehicleActor) or not self.only_dynamics)


def _noise(random: np.random.Generator, bias: float, deviation: float) -> float:
    return bias + (float(random.normal(0.0, deviation)) if deviation > 0.0 else 0.0)
