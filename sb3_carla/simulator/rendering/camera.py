"""
The camera: the town's raster in perspective, with weather over it and boxes in front.

To draw a frame, the ground points that the pixels see are rotated and shifted into the town (one affine map for each
band of rows), ``cv2.remap`` looks up their colours, the weather is applied, and the boxes are painted. Equal arguments
give equal pictures, bit for bit, whatever was rendered before: each cached entry is computed from its (rounded) key.

At these sizes OpenCV's threads only cost time: processes that render should call ``cv2.setNumThreads(1)``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import carla
import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering.ground_polygons import TERRAIN
from sb3_carla.simulator.rendering.inverse_perspective import (
    GroundView,
    Intrinsics,
    PlanePose,
    build_ground_view,
    pose_over_plane,
)
from sb3_carla.simulator.rendering.raster import LEVELS, Raster
from sb3_carla.simulator.rendering.scene import Box, Face, visible_faces
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.rendering.weather_effects import WeatherEffects, build_weather_effects

__all__ = ["Camera"]

MAX_SIZE = 8192
"""Largest width and height of a picture [px]."""
CACHE_SIZE = 32
"""Entries that each cache keeps."""
MAX_DEPTH = 1000.0
"""Depth of the sky in a depth camera's picture [m]; CARLA's far plane."""
SKY = int(carla.CityObjectLabel.Sky)
SUBPIXEL = 4
"""Fractional bits of the coordinates given to ``cv2.fillConvexPoly``."""

STOREY = 4.0
"""A box whose road is lower than the camera's road plane by more than this is hidden [m]."""
BOX_REACH = 150.0
"""On hills, boxes farther away are left out [m]."""

_SCALES = np.exp2(-np.arange(LEVELS))[:, None, None]  # (LEVELS, 1, 1): cells of level k are 2^k times as large
_HALF = np.array((0.0, 0.0, 0.5))  # added to the shift: OpenCV gives the centre of a pixel whole coordinates

Image = NDArray[np.uint8]
Entry = TypeVar("Entry")


class Terrain(Protocol):
    """What a camera needs of a town. :class:`sb3_carla.simulator.town.Town` implements it."""

    @property
    def raster(self) -> Raster:
        """The town from above."""

    @property
    def is_flat(self) -> bool:
        """Whether all lanes have the same height."""

    def ground(self, x: float, y: float, z: float) -> Ground:
        """Road plane at the lane nearest to a point [m]."""


class Camera:
    """
    A pinhole camera.

    :param width: of the picture [px], 1 to 8192
    :param height: of the picture [px], 1 to 8192
    :param fov: horizontal field of view [rad], between 0 and pi
    :raises ValueError: if a number is outside its range
    """

    def __init__(self, width: int, height: int, fov: float) -> None:
        for name, size in (("width", width), ("height", height)):
            if not 1 <= size <= MAX_SIZE:
                raise ValueError(f"camera: {name} must be 1 to {MAX_SIZE} px, got {size}")
        if not 0.0 < fov < math.pi:
            raise ValueError(f"camera: the field of view must be between 0 and pi rad, got {fov}")
        self.width, self.height, self.fov = width, height, fov
        self.intrinsics = Intrinsics(width, height, 0.5 * width / math.tan(0.5 * fov))
        self._ground_views: OrderedDict[Hashable, GroundView] = OrderedDict()
        self._weather_effects: OrderedDict[Hashable, WeatherEffects] = OrderedDict()

    def render(self, town: Terrain, pose: Pose, ground: Ground, weather: Weather, boxes: Sequence[Box] = ()) -> Image:
        """
        Colour picture.

        :param town: where the camera is
        :param pose: of the camera in the world
        :param ground: road plane under it, its height taken at the camera's x and y
        :param weather: light and sight
        :param boxes: solid bodies
        :return: shape (height, width, 4), uint8 BGRA, C-contiguous, a fresh array
        """
        raster = town.raster
        raster.select_roads(pose.x, pose.y, pose.yaw, ground)
        plane_pose = pose_over_plane(pose, ground)
        view = self._ground_view(plane_pose, raster)
        effects = _cached(
            self._weather_effects,
            (plane_pose.height_pitch_roll, raster.cell, weather),
            lambda: build_weather_effects(view, weather),
        )
        image: Image = effects.sky.copy()  # (height, width, 4), uint8 BGRA
        self._draw_ground(image, view, raster, _plane_to_cells(plane_pose, raster))
        effects.apply_to_ground(image)
        if view.sky is not None:
            np.copyto(image, effects.sky, where=view.sky)
        for face in self._faces(town, pose, ground, boxes):
            _fill(image, face, (*effects.body_color(face.color, face.distance), 255), smooth=True)
        effects.add_rain(image, pose)
        return image

    def _draw_ground(self, image: Image, view: GroundView, raster: Raster, to_cells: NDArray[np.float64]) -> None:
        """Colours of the ground, from the raster, in all rows that show some."""
        for group in view.groups:
            target = image[group.first : group.last]
            samples = target
            if group.subrows > 1:
                samples = np.empty((group.subrows * (group.last - group.first), self.width, 4), np.uint8)
            for band in group.bands:
                cv2.remap(  # type: ignore[call-overload]  # the stubs do not know that the second map may be None
                    raster.pyramid[band.level],
                    cv2.transform(band.points, to_cells[band.level]),  # (rows, width, 2): column, row in that level
                    None,
                    cv2.INTER_LINEAR,
                    dst=samples[band.first : band.last],
                    borderMode=cv2.BORDER_CONSTANT,
                    borderValue=raster.verge,
                )
            if group.subrows > 1:
                # Same width: the average of the sub-rows of each row.
                cv2.resize(samples, target.shape[1::-1], dst=target, interpolation=cv2.INTER_AREA)

    def render_semantic(self, town: Terrain, pose: Pose, ground: Ground, boxes: Sequence[Box] = ()) -> Image:
        """
        Semantic segmentation: ``carla.CityObjectLabel`` in the red channel, as CARLA sends it.

        :param town: where the camera is
        :param pose: of the camera in the world
        :param ground: road plane under it, its height taken at the camera's x and y
        :param boxes: solid bodies
        :return: shape (height, width, 4), uint8 BGRA
        """
        raster = town.raster
        raster.select_roads(pose.x, pose.y, pose.yaw, ground)
        plane_pose = pose_over_plane(pose, ground)
        view = self._ground_view(plane_pose, raster)
        # (height, width, 2): column and row in level 0. Labels cannot be averaged, so there are no sub-rows.
        cells = cv2.transform(view.points, _plane_to_cells(plane_pose, raster)[0])
        labels: Image = np.empty((self.height, self.width), np.uint8)
        cv2.remap(  # type: ignore[call-overload]
            raster.labels,
            cells,
            None,
            cv2.INTER_NEAREST,
            dst=labels,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=TERRAIN,
        )
        labels[np.isinf(view.depth)] = SKY
        for face in self._faces(town, pose, ground, boxes):
            if face.box is not None:
                _fill(labels, face, (face.box.tag,))
        image = np.zeros((self.height, self.width, 4), np.uint8)
        image[:, :, 2], image[:, :, 3] = labels, 255
        return image

    def render_depth(self, town: Terrain, pose: Pose, ground: Ground, boxes: Sequence[Box] = ()) -> Image:
        """
        Depth: distance along the camera's axis in 24 bits, (R + 256 G + 65536 B) / (2^24 - 1) * 1000 m.

        Source: CARLA's sensor reference, depth camera.

        :param town: where the camera is
        :param pose: of the camera in the world
        :param ground: road plane under it, its height taken at the camera's x and y
        :param boxes: solid bodies
        :return: shape (height, width, 4), uint8 BGRA
        """
        view = self._ground_view(pose_over_plane(pose, ground), town.raster)
        depth = np.minimum(view.depth, MAX_DEPTH).astype(np.float64)
        for face in self._faces(town, pose, ground, boxes):
            if face.box is not None:
                mask = np.zeros(depth.shape, np.uint8)
                _fill(mask, face, (1,))
                rows, columns = np.nonzero(mask)
                # Inverse depth is linear in column and row on a plane; depth is not.
                constant, across, down = face.inverse_depth
                inverse = constant + across * columns + down * rows
                depth[rows, columns] = np.clip(1.0 / np.maximum(inverse, 1e-9), 0.0, MAX_DEPTH)
        code = np.rint(depth / MAX_DEPTH * (2**24 - 1)).astype(np.uint32)
        image = np.full((self.height, self.width, 4), 255, np.uint8)
        image[:, :, 2], image[:, :, 1], image[:, :, 0] = code & 255, code >> 8 & 255, code >> 16
        return image

    def _ground_view(self, plane_pose: PlanePose, raster: Raster) -> GroundView:
        geometry = plane_pose.height_pitch_roll
        return _cached(
            self._ground_views,
            (geometry, raster.cell),
            lambda: build_ground_view(self.intrinsics, geometry, cell=raster.cell, levels=LEVELS),
        )

    def _faces(self, town: Terrain, pose: Pose, ground: Ground, boxes: Sequence[Box]) -> list[Face]:
        if not boxes:
            return []
        return visible_faces(pose, boxes if town.is_flat else _on_plane(town, pose, ground, boxes), self.intrinsics)


def _on_plane(town: Terrain, pose: Pose, ground: Ground, boxes: Sequence[Box]) -> list[Box]:
    """
    Boxes moved up or down by as much as their road is away from the camera's road plane.

    The whole raster is drawn as if it lay in that plane. Boxes on a road below a bridge are left out.
    """
    moved = []
    for box in boxes:
        x, y, z = box.pose.x, box.pose.y, box.pose.z
        if math.hypot(x - pose.x, y - pose.y) < BOX_REACH:
            plane = ground.z + ground.slope_x * (x - pose.x) + ground.slope_y * (y - pose.y)
            rise = plane - town.ground(x, y, z - box.half_extents[2]).z
            if abs(rise) < STOREY:
                moved.append(replace(box, pose=replace(box.pose, z=z + rise)))
            elif rise < 0.0:
                moved.append(box)
    return moved


def _cached(cache: OrderedDict[Hashable, Entry], key: Hashable, build: Callable[[], Entry]) -> Entry:
    """The entry of a key, built if there is none; the oldest entry is removed from a full cache."""
    entry = cache.get(key)
    if entry is None:
        entry = cache[key] = build()
        if len(cache) > CACHE_SIZE:
            cache.popitem(last=False)
    return entry


def _plane_to_cells(plane_pose: PlanePose, raster: Raster) -> NDArray[np.float64]:
    """
    Affine maps from points of the plane (ahead, right) [m] to pixels (column, row) of each level of the raster.

    World x, y = foot + ahead * ahead axis + right * right axis; cell = (x, y - origin) / cell size - 1/2.

    :return: shape (LEVELS, 2, 3), float64
    """
    x, y = plane_pose.foot[0] - raster.origin[0], plane_pose.foot[1] - raster.origin[1]
    (ahead_x, ahead_y), (right_x, right_y) = plane_pose.ahead, plane_pose.right
    metres = np.array(((ahead_x, right_x, x), (ahead_y, right_y, y)))
    cells: NDArray[np.float64] = metres * (_SCALES / raster.cell) - _HALF
    return cells


def _fill(image: Image, face: Face, value: tuple[float, ...], *, smooth: bool = False) -> None:
    points = np.rint(np.clip(face.points, -1e4, 1e4) * (1 << SUBPIXEL)).astype(np.int32)
    cv2.fillConvexPoly(image, points, value, cv2.LINE_AA if smooth else cv2.LINE_8, SUBPIXEL)
