"""
The camera: the town's picture from above, seen in perspective, with weather over it and boxes in front.

A frame turns and shifts the points that its pixels see into the town (one affine map for each band of rows), looks up
their colours with ``cv2.remap``, then applies the weather, if any, and paints the boxes. Results depend on the
arguments alone, bit for bit, not on what was rendered before: what is cached is computed from the rounded tilt that is
its key.

OpenCV's own threads only cost time at these sizes; processes that render should call ``cv2.setNumThreads(1)``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering.effects import Look, build_look
from sb3_carla.simulator.rendering.raster import LEVELS, Raster
from sb3_carla.simulator.rendering.scene import Box, Face, visible_faces
from sb3_carla.simulator.rendering.strokes import TERRAIN
from sb3_carla.simulator.rendering.view import Optics, Stance, View, build_view, stance
from sb3_carla.simulator.rendering.weather import Weather

__all__ = ["Camera"]

MAX_SIZE = 8192
"""Of a picture [px]."""
CACHE_SIZE = 32
MAX_DEPTH = 1000.0
"""What a depth camera says of the sky [m]."""
SKY = 11
"""``carla.CityObjectLabel.Sky``."""
SUBPIXEL = 4
"""Fractional bits of the coordinates given to OpenCV."""

STOREY = 4.0
"""A box on a road that lies lower than the plane by more is hidden by it [m]."""
BOX_REACH = 150.0
"""On hills, boxes farther away are left out [m]."""

_SCALES = np.exp2(-np.arange(LEVELS))[:, None, None]
_HALF = np.array((0.0, 0.0, 0.5))  # a pixel's middle has whole coordinates

Image = NDArray[np.uint8]
Entry = TypeVar("Entry")


class Terrain(Protocol):
    """What a camera needs to know of a town. :class:`sb3_carla.simulator.town.Town` is one."""

    @property
    def raster(self) -> Raster:
        """The town from above."""

    @property
    def is_flat(self) -> bool:
        """Whether all lanes have one height."""

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
        self.optics = Optics(width, height, 0.5 * width / math.tan(0.5 * fov))
        self._views: OrderedDict[Hashable, View] = OrderedDict()
        self._looks: OrderedDict[Hashable, Look] = OrderedDict()

    def render(self, town: Terrain, pose: Pose, ground: Ground, weather: Weather, boxes: Sequence[Box] = ()) -> Image:
        """
        What the camera sees.

        :param town: where it is
        :param pose: the camera in the world
        :param ground: road plane under it, its height taken at the camera's x and y
        :param weather: light and sight
        :param boxes: other bodies
        :return: shape (height, width, 4), uint8 BGRA, C-contiguous, a fresh array
        """
        raster = town.raster
        raster.show(pose.x, pose.y, pose.yaw, ground)
        over = stance(pose, ground)
        view = self._view(over, raster)
        look = _cached(self._looks, (over.tilt, raster.cell, weather), lambda: build_look(view, weather))
        image: Image = look.sky.copy()
        into_cells = _into_cells(over, raster)
        for group in view.groups:
            target = image[group.first : group.last]
            samples = target
            if group.subrows > 1:
                samples = np.empty((group.subrows * (group.last - group.first), self.width, 4), np.uint8)
            for band in group.bands:
                cv2.remap(  # type: ignore[call-overload]  # the stubs do not know that the second map may be None
                    raster.pyramid[band.level],
                    cv2.transform(band.points, into_cells[band.level]),
                    None,
                    cv2.INTER_LINEAR,
                    dst=samples[band.first : band.last],
                    borderMode=cv2.BORDER_CONSTANT,
                    borderValue=raster.verge,
                )
            if group.subrows > 1:
                cv2.resize(samples, target.shape[1::-1], dst=target, interpolation=cv2.INTER_AREA)
        look.apply(image)
        if view.sky is not None:
            np.copyto(image, look.sky, where=view.sky)
        for face in self._faces(town, pose, ground, boxes):
            _fill(image, face, (*look.tinted(face.color, face.distance), 255), smooth=True)
        look.rain(image, pose)
        return image

    def render_semantic(self, town: Terrain, pose: Pose, ground: Ground, boxes: Sequence[Box] = ()) -> Image:
        """
        Labels of what the camera sees, ``carla.CityObjectLabel`` in the red channel as CARLA sends them.

        :param town: where it is
        :param pose: the camera in the world
        :param ground: road plane under it, its height taken at the camera's x and y
        :param boxes: other bodies
        :return: shape (height, width, 4), uint8 BGRA
        """
        raster = town.raster
        raster.show(pose.x, pose.y, pose.yaw, ground)
        over = stance(pose, ground)
        view = self._view(over, raster)
        cells = cv2.transform(view.points, _into_cells(over, raster)[0])
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
        Distance along the camera's axis in CARLA's 24 bits: (R + 256 G + 65536 B) / (2^24 - 1) * 1000 m.

        :param town: where it is
        :param pose: the camera in the world
        :param ground: road plane under it, its height taken at the camera's x and y
        :param boxes: other bodies
        :return: shape (height, width, 4), uint8 BGRA
        """
        view = self._view(stance(pose, ground), town.raster)
        depth = np.minimum(view.depth, MAX_DEPTH).astype(np.float64)
        for face in self._faces(town, pose, ground, boxes):
            if face.box is not None:
                mask = np.zeros(depth.shape, np.uint8)
                _fill(mask, face, (1,))
                rows, columns = np.nonzero(mask)
                constant, across, down = face.inverse_depth
                inverse = constant + across * columns + down * rows
                depth[rows, columns] = np.clip(1.0 / np.maximum(inverse, 1e-9), 0.0, MAX_DEPTH)
        code = np.rint(depth / MAX_DEPTH * (2**24 - 1)).astype(np.uint32)
        image = np.full((self.height, self.width, 4), 255, np.uint8)
        image[:, :, 2], image[:, :, 1], image[:, :, 0] = code & 255, code >> 8 & 255, code >> 16
        return image

    def _view(self, over: Stance, raster: Raster) -> View:
        key = over.tilt, raster.cell
        return _cached(self._views, key, lambda: build_view(self.optics, over.tilt, raster.cell, LEVELS))

    def _faces(self, town: Terrain, pose: Pose, ground: Ground, boxes: Sequence[Box]) -> list[Face]:
        if not boxes:
            return []
        return visible_faces(pose, boxes if town.is_flat else _on_plane(town, pose, ground, boxes), self.optics)


def _on_plane(town: Terrain, pose: Pose, ground: Ground, boxes: Sequence[Box]) -> list[Box]:
    """Boxes moved up or down with their road, which is painted as if it lay in the plane; none below a bridge."""
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
    """The entry of a key, built if it is new; the oldest one goes where there are too many."""
    entry = cache.get(key)
    if entry is None:
        entry = cache[key] = build()
        if len(cache) > CACHE_SIZE:
            cache.popitem(last=False)
    return entry


def _into_cells(over: Stance, raster: Raster) -> NDArray[np.float64]:
    """Affine maps from points on the ground to the pixels of each level: shape (LEVELS, 2, 3), float64."""
    x, y = over.foot[0] - raster.origin[0], over.foot[1] - raster.origin[1]
    metres = np.array(((over.ahead[0], over.right[0], x), (over.ahead[1], over.right[1], y)))
    cells: NDArray[np.float64] = metres * (_SCALES / raster.cell) - _HALF
    return cells


def _fill(image: Image, face: Face, value: tuple[float, ...], *, smooth: bool = False) -> None:
    points = np.rint(np.clip(face.points, -1e4, 1e4) * (1 << SUBPIXEL)).astype(np.int32)
    cv2.fillConvexPoly(image, points, value, cv2.LINE_AA if smooth else cv2.LINE_8, SUBPIXEL)
