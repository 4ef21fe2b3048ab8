"""A town: its map, its ground, its picture from above, and where cars may start."""

from __future__ import annotations

import functools
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import carla

from sb3_carla.client.opendrive_file import read_opendrive_file
from sb3_carla.errors import MapError
from sb3_carla.simulator.geometry import Pose, wrap_angle
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering.raster import Raster
from sb3_carla.simulator.rendering.shared_rasters import SharedRasters, paint_privately
from sb3_carla.simulator.roads.built_in_towns import built_in_opendrive
from sb3_carla.simulator.roads.lanes import lane_waypoints
from sb3_carla.simulator.roads.opendrive_check import read_opendrive

__all__ = ["Town"]

SPAWN_STEP, SPAWN_SPACING = 5.0, 50.0
"""Distance of the first spawn point from the beginning of its lane, and between two on a lane [m]."""
FLAT = 0.01
"""A town whose lanes differ less in height is flat [m]."""


class Town:
    """
    What an OpenDRIVE file says, ready to be driven and looked at.

    :param name: shown to clients
    :param opendrive: text of the file
    :param root: of the same, parsed
    :param carla_map: the parsed ``carla.Map``
    :param pictures: where to look for the town's picture, and to leave it for others
    """

    def __init__(
        self,
        name: str,
        opendrive: str,
        root: ElementTree.Element,
        carla_map: Any,
        pictures: SharedRasters | None = None,
    ) -> None:
        self._root, self._pictures = root, pictures
        self.name = name
        self.opendrive = opendrive
        self.map = carla_map
        self._waypoints = carla_map.generate_waypoints(2.0)
        if not self._waypoints:
            raise MapError(f"OpenDRIVE map {name!r} has no driving lanes")
        heights = [waypoint.transform.location.z for waypoint in self._waypoints]
        self._flat = Ground(heights[0]) if max(heights) - min(heights) < FLAT else None

    @classmethod
    def load(cls, name_or_path: str, pictures: SharedRasters | None = None) -> Town:
        """
        :param name_or_path: built-in town, or path of a file that ends in ``.xodr``
        :param pictures: see the class
        :raises MapError: if there is no such town or the file is of no use
        """
        if not name_or_path.endswith(".xodr"):
            return cls.from_opendrive(name_or_path, built_in_opendrive(name_or_path), pictures)
        text = read_opendrive_file(name_or_path)
        try:
            return cls.from_opendrive(Path(name_or_path).stem, text, pictures)
        except MapError as error:
            raise MapError(f"{name_or_path}: {error}") from error

    @classmethod
    def from_opendrive(cls, name: str, opendrive: str, pictures: SharedRasters | None = None) -> Town:
        """
        :param name: of the town
        :param opendrive: text of an OpenDRIVE file
        :param pictures: see the class
        :raises MapError: if it is not OpenDRIVE or has no driving lanes
        """
        root = read_opendrive(name, opendrive)
        try:
            carla_map = carla.Map(name, opendrive)
        except (RuntimeError, IndexError) as error:  # the parser's std::out_of_range is an IndexError
            raise MapError(f"OpenDRIVE map {name!r} cannot be parsed: {error}") from error
        return cls(name, opendrive, root, carla_map, pictures)

    @property
    def is_flat(self) -> bool:
        """Whether all lanes have one height."""
        return self._flat is not None

    @functools.cached_property
    def raster(self) -> Raster:
        """The town from above; painted at the first use."""
        share = paint_privately
        if self._pictures is not None:
            share = functools.partial(self._pictures.get, self.opendrive.encode())
        return Raster(self.map, self._root, share=share)

    @functools.cached_property
    def spawn_points(self) -> list[Pose]:
        """Starts in the middle of lanes, outside junctions: the beginning of each lane and every 50 m."""
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
        :param z: tells the roads of an interchange apart [m]
        :return: height [m] and slopes [-] of the plane at (x, y)
        """
        if self._flat is not None:
            return self._flat
        waypoint = self.map.get_waypoint(carla.Location(x, y, z))
        place, rotation = waypoint.transform.location, waypoint.transform.rotation
        yaw, slope = math.radians(rotation.yaw), math.tan(math.radians(rotation.pitch))
        slope_x, slope_y = slope * math.cos(yaw), slope * math.sin(yaw)
        return Ground(place.z + slope_x * (x - place.x) + slope_y * (y - place.y), slope_x, slope_y)


def _unique(points: list[Pose]) -> list[Pose]:
    """Leave out points on whose place, or just behind which, an earlier one stands."""
    kept: list[Pose] = []
    for point in points:
        if not any(_in_the_way(other, point) for other in kept):
            kept.append(point)
    return kept


def _in_the_way(a: Pose, b: Pose) -> bool:
    dx, dy = b.x - a.x, b.y - a.y
    if abs(b.z - a.z) > 2.0 or abs(dx) > 10.0 or abs(dy) > 10.0:
        return False
    along = dx * math.cos(a.yaw) + dy * math.sin(a.yaw)
    across = dy * math.cos(a.yaw) - dx * math.sin(a.yaw)
    return abs(along) < 8.0 and abs(across) < 2.5
