"""A town: its map, its ground, its raster, and its spawn points."""

from __future__ import annotations

import functools
import hashlib
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.opendrive_file import read_opendrive_file
from sb3_carla.errors import MapError
from sb3_carla.simulator.geometry import Pose, wrap_angle
from sb3_carla.simulator.obstacles import Obstacles
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering.lane_strips import lane_strips
from sb3_carla.simulator.rendering.raster import Raster
from sb3_carla.simulator.rendering.scene import StaticScene
from sb3_carla.simulator.rendering.shared_rasters import Buffer, SharedRasters, paint_privately
from sb3_carla.simulator.roads.built_in_towns import built_in_opendrive
from sb3_carla.simulator.roads.lanes import lane_waypoints
from sb3_carla.simulator.roads.opendrive_check import read_opendrive
from sb3_carla.simulator.scenery.scenery import Scenery, build_scenery
from sb3_carla.simulator.town_scene import TownScene, load_town_scene

__all__ = ["Town"]

SPAWN_STEP, SPAWN_SPACING = 5.0, 50.0
"""Distance of the first spawn point from the start of its lane, and between two spawn points of a lane [m]."""
FLAT = 0.01
"""A town is flat if the heights of its lanes differ by less than this [m]."""


class Town:
    """
    A town from an OpenDRIVE file.

    :param name: shown to clients
    :param opendrive: text of the file
    :param root: the same text, parsed as XML
    :param carla_map: the same text, parsed as ``carla.Map``
    :param shared_rasters: rasters shared with other processes; None: this town paints its own
    :raises MapError: if there are no driving lanes
    """

    def __init__(
        self,
        name: str,
        opendrive: str,
        root: ElementTree.Element,
        carla_map: Any,
        shared_rasters: SharedRasters | None = None,
    ) -> None:
        self._root, self._shared_rasters = root, shared_rasters
        self.name = name
        self.opendrive = opendrive
        self.map = carla_map
        self._waypoints = carla_map.generate_waypoints(2.0)
        if not self._waypoints:
            raise MapError(f"OpenDRIVE map {name!r} has no driving lanes")
        heights = [waypoint.transform.location.z for waypoint in self._waypoints]
        self._flat = Ground(heights[0]) if max(heights) - min(heights) < FLAT else None

    @classmethod
    def load(cls, name_or_path: str, shared_rasters: SharedRasters | None = None) -> Town:
        """
        Load a town by its name, or from a file.

        :param name_or_path: built-in town, or path that ends in ``.xodr``
        :param shared_rasters: see the class
        :raises MapError: if there is no such town, or the file is not OpenDRIVE or has no driving lanes
        """
        if not name_or_path.endswith(".xodr"):
            return cls.from_opendrive(name_or_path, built_in_opendrive(name_or_path), shared_rasters)
        text = read_opendrive_file(name_or_path)
        try:
            return cls.from_opendrive(Path(name_or_path).stem, text, shared_rasters)
        except MapError as error:
            raise MapError(f"{name_or_path}: {error}") from error

    @classmethod
    def from_opendrive(cls, name: str, opendrive: str, shared_rasters: SharedRasters | None = None) -> Town:
        """
        Make a town from the text of an OpenDRIVE file.

        :param name: of the town
        :param opendrive: text of the file
        :param shared_rasters: see the class
        :raises MapError: if it is not OpenDRIVE or has no driving lanes
        """
        root = read_opendrive(name, opendrive)
        try:
            carla_map = carla.Map(name, opendrive)
        except (RuntimeError, IndexError) as error:  # the parser's std::out_of_range is an IndexError
            raise MapError(f"OpenDRIVE map {name!r} cannot be parsed: {error}") from error
        return cls(name, opendrive, root, carla_map, shared_rasters)

    @property
    def is_flat(self) -> bool:
        """Whether all lanes have the same height."""
        return self._flat is not None

    @functools.cached_property
    def raster(self) -> Raster:
        """The town from above; painted at the first use."""
        return Raster(self.map, self._root, self.seed, allocate=self._allocate(b""))

    @functools.cached_property
    def seed(self) -> int:
        """Of scenery and looks: a hash of the OpenDRIVE text."""
        return int.from_bytes(hashlib.sha256(self.opendrive.encode()).digest()[:4], "little")

    @functools.cached_property
    def _scene(self) -> TownScene:
        def build() -> Scenery:
            return build_scenery(lane_strips(self.map, self._root), self.seed)

        return load_town_scene(build, self._allocate(b" scenery"))

    @property
    def scene(self) -> StaticScene:
        """What stands beside the roads; made at the first use."""
        return self._scene.static

    @property
    def lamps(self) -> NDArray[np.float64]:
        """Street lights: shape (k, 3), float64: x, y, height over the ground [m]."""
        return self._scene.lamps

    @functools.cached_property
    def obstacles(self) -> Obstacles:
        """The solid part of the scenery."""
        return Obstacles(self._scene.solids, self._scene.solid_tags)

    def _allocate(self, kind: bytes) -> Callable[[int, Callable[[Buffer], None]], Buffer]:
        """Makes buffers of this town that are shared with other processes, if any are."""
        if self._shared_rasters is None:
            return paint_privately
        return functools.partial(self._shared_rasters.get, self.opendrive.encode() + kind)

    @functools.cached_property
    def spawn_points(self) -> list[Pose]:
        """Poses in the middle of lanes outside junctions: near the start of each lane, then every 50 m."""
        points = []
        for lane in lane_waypoints(self.map, SPAWN_STEP):
            if lane[0].is_junction:
                continue
            for waypoint in lane[1 :: round(SPAWN_SPACING / SPAWN_STEP)]:
                place, rotation = waypoint.transform.location, waypoint.transform.rotation
                pitch, yaw = math.radians(rotation.pitch), math.radians(rotation.yaw)
                points.append(Pose(place.x, place.y, place.z, 0.0, wrap_angle(pitch), wrap_angle(yaw)))
        return _unique(points)

    def ground(self, x: float, y: float, z: float) -> Ground:
        """
        Road plane at the lane nearest to a point.

        :param x: [m]
        :param y: [m]
        :param z: tells roads that lie above each other apart [m]
        :return: height [m] and slopes [-] of the plane at (x, y)
        """
        if self._flat is not None:
            return self._flat
        waypoint = self.map.get_waypoint(carla.Location(x, y, z))
        place, rotation = waypoint.transform.location, waypoint.transform.rotation
        # The lane rises by ``slope`` per metre along its yaw, and is level across.
        yaw, slope = math.radians(rotation.yaw), math.tan(math.radians(rotation.pitch))
        slope_x, slope_y = slope * math.cos(yaw), slope * math.sin(yaw)
        return Ground(place.z + slope_x * (x - place.x) + slope_y * (y - place.y), slope_x, slope_y)


def _unique(points: list[Pose]) -> list[Pose]:
    """Leave out points at which a car would overlap one at an earlier point: lanes of junctions start together."""
    kept: list[Pose] = []
    for point in points:
        if not any(_too_close(other, point) for other in kept):
            kept.append(point)
    return kept


def _too_close(a: Pose, b: Pose) -> bool:
    """Whether ``b`` is within 8 m along and 2.5 m across ``a``, seen in the axes of ``a``."""
    dx, dy = b.x - a.x, b.y - a.y
    if abs(b.z - a.z) > 2.0 or abs(dx) > 10.0 or abs(dy) > 10.0:
        return False
    along = dx * math.cos(a.yaw) + dy * math.sin(a.yaw)
    across = dy * math.cos(a.yaw) - dx * math.sin(a.yaw)
    return abs(along) < 8.0 and abs(across) < 2.5
