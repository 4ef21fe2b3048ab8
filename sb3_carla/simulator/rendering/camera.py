"""
The camera: sky, ground, and what stands on it, in perspective.

To draw a frame, what stands is rasterised. Where it hides nothing, the ground points that the pixels see are rotated
and shifted into the town, whose raster tells their materials, which become colours in this light and these shadows. The
sky is looked up in its picture. Equal arguments give equal pictures, bit for bit, whatever was rendered before: each
cached entry is computed from its (rounded) key.

At these sizes OpenCV's threads only cost time: processes that render should call ``cv2.setNumThreads(1)``.
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar

import carla
import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose, rotation_matrix
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering import ground_shading, rasteriser
from sb3_carla.simulator.rendering.appearance import Appearance, build_appearance
from sb3_carla.simulator.rendering.bodies import Body, ModelStore
from sb3_carla.simulator.rendering.ground_polygons import TERRAIN
from sb3_carla.simulator.rendering.inverse_perspective import (
    GroundView,
    Intrinsics,
    PlanePose,
    build_ground_view,
    pose_over_plane,
)
from sb3_carla.simulator.rendering.light import read_weather
from sb3_carla.simulator.rendering.look import Look
from sb3_carla.simulator.rendering.picture import compose_picture
from sb3_carla.simulator.rendering.raster import LEVELS, Raster
from sb3_carla.simulator.rendering.scene import StaticScene, draw_scene
from sb3_carla.simulator.rendering.sky import SkyView, sky_heading
from sb3_carla.simulator.rendering.visibility import STOREY
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.rendering.weather_effects import WeatherEffects, build_weather_effects

__all__ = ["Camera", "Terrain"]

MAX_SIZE = 8192
"""Largest width and height of a picture [px]."""
CACHE_SIZE = 32
"""Entries that each cache keeps."""
MAX_DEPTH = 1000.0
"""Depth of the sky in a depth camera's picture [m]; CARLA's far plane."""
SKY = int(carla.CityObjectLabel.Sky)
SMALL = 128 * 128
"""In pictures of at most so many pixels, what stands is drawn with four samples a pixel, in larger ones with one."""
BODY_REACH = 150.0
"""On hills, bodies farther away are left out [m]."""

_HALF = np.array((0.0, 0.0, 0.5))  # taken from the shift: OpenCV gives the centre of a pixel whole coordinates
_NO_SHADOW = np.zeros((0, 0), np.uint8)

Image = NDArray[np.uint8]
Entry = TypeVar("Entry")


class Terrain(Protocol):
    """What a camera needs of a town. :class:`sb3_carla.simulator.town.Town` implements it."""

    @property
    def raster(self) -> Raster:
        """The town from above."""

    @property
    def scene(self) -> StaticScene:
        """What stands in it."""

    @property
    def lamps(self) -> NDArray[np.float64]:
        """Street lights: shape (k, 3): x, y, height over the ground [m]."""

    @property
    def seed(self) -> int:
        """Of its looks."""

    @property
    def is_flat(self) -> bool:
        """Whether all lanes have the same height."""

    def ground(self, x: float, y: float, z: float) -> Ground:
        """Road plane at the lane nearest to a point [m]."""


class _View(NamedTuple):
    ground: GroundView
    sky: SkyView
    grain: NDArray[np.uint8]


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
        self._views: OrderedDict[Hashable, _View] = OrderedDict()
        self._effects: OrderedDict[Hashable, WeatherEffects] = OrderedDict()
        self._appearances: OrderedDict[Hashable, Appearance] = OrderedDict()
        self._models = ModelStore()
        self._factor = 2 if width * height <= SMALL else 1
        self._canvases = {
            factor: rasteriser.make_canvas(height * factor, width * factor) for factor in {1, self._factor}
        }
        self._shadow: Image = np.zeros((height, width), np.uint8)
        self._facet = np.zeros(1, rasteriser.FACET)
        self._lenses = {factor: self._make_lenses(factor) for factor in self._canvases}

    def _make_lenses(self, factor: int) -> NDArray[np.void]:
        """Records of type ``LENS``, shape (2,): with ``factor`` samples a pixel's side, and with one, for shadows."""
        lenses = np.zeros(2, rasteriser.LENS)
        column, row = self.intrinsics.centre
        for lens, k in zip(lenses, (factor, 1), strict=True):
            lens["focal"] = self.intrinsics.focal * k
            lens["column"], lens["row"] = (column + 0.5) * k - 0.5, (row + 0.5) * k - 0.5
            spread = np.array(((column + 1.0) / self.intrinsics.focal, (row + 1.0) / self.intrinsics.focal))
            lens["spread"], lens["stretch"] = spread, np.sqrt(1.0 + spread**2)
        return lenses

    def render(
        self,
        town: Terrain,
        pose: Pose,
        ground: Ground,
        weather: Weather,
        bodies: Sequence[Body] = (),
        *,
        look: Look | None = None,
        hidden_layers: int = 0,
    ) -> Image:
        """
        Colour picture.

        :param town: where the camera is
        :param pose: of the camera in the world
        :param ground: road plane under it, its height taken at the camera's x and y
        :param weather: light and sight
        :param bodies: that are no part of the town
        :param look: tones that differ from the town's own
        :param hidden_layers: ``carla.MapLayer`` bits of what is not drawn
        :return: shape (height, width, 4), uint8 BGRA, C-contiguous, a fresh array
        """
        raster = town.raster
        raster.select_roads(pose.x, pose.y, pose.yaw, ground)
        plane_pose = pose_over_plane(pose, ground)
        view = self._view(plane_pose, raster)
        geometry, look = plane_pose.height_pitch_roll, look or Look()
        appearance = _cached(
            self._appearances, (weather, look, town.seed), lambda: build_appearance(weather, look, town.seed)
        )
        effects = _cached(
            self._effects,
            (geometry, raster.cell, weather),
            lambda: build_weather_effects(view.ground, weather, appearance.light),
        )
        heading = sky_heading(math.atan2(plane_pose.ahead[1], plane_pose.ahead[0]))
        self._shadow[:] = 0
        samples, spans = self._draw(
            town, pose, ground, bodies, appearance.lighting, self._factor, self._shadow, hidden_layers
        )
        words: NDArray[np.uint32] = np.empty((self.height, self.width), np.uint32)
        compose_picture(
            words, samples, spans, self._shadow, raster.texels, raster.levels, view.ground.samples, view.ground.rows,
            view.ground.points, view.grain, effects.weight, effects.added, ground_shading.noise_tile(),
            appearance.frame(plane_pose, raster.origin, raster.cell, heading), appearance.ground,
            appearance.lamps_near(plane_pose, town.lamps), view.sky.columns, view.sky.rows, appearance.sky_words,
        )  # fmt: skip
        image: Image = words.view(np.uint8).reshape(self.height, self.width, 4)
        effects.add_rain(image, pose)
        return image

    def _draw(
        self,
        town: Terrain,
        pose: Pose,
        ground: Ground,
        bodies: Sequence[Body],
        lighting: NDArray[np.void],
        factor: int,
        shadow: Image,
        hidden_layers: int,
    ) -> tuple[NDArray[np.void], NDArray[np.int32]]:
        """Draw what stands into the canvas with ``factor`` samples a pixel's side; shadows into ``shadow``."""
        samples, spans = self._canvases[factor]
        lenses = self._lenses[factor]
        lenses["place"], lenses["axes"] = (pose.x, pose.y, pose.z), rotation_matrix(pose).T
        lenses["plane"] = ground.z, ground.slope_x, ground.slope_y
        placed = self._models.place(bodies if town.is_flat else _on_plane(town, pose, ground, bodies))
        draw_scene(
            samples, spans, shadow, lenses, self._facet, lighting, *town.scene, self._models.faces, placed,
            hidden_layers,
        )  # fmt: skip
        return samples, spans

    def render_semantic(
        self, town: Terrain, pose: Pose, ground: Ground, bodies: Sequence[Body] = (), *, hidden_layers: int = 0
    ) -> Image:
        """
        Semantic segmentation: ``carla.CityObjectLabel`` in the red channel, as CARLA sends it.

        :param town: where the camera is
        :param pose: of the camera in the world
        :param ground: road plane under it, its height taken at the camera's x and y
        :param bodies: that are no part of the town
        :param hidden_layers: ``carla.MapLayer`` bits of what is not drawn
        :return: shape (height, width, 4), uint8 BGRA
        """
        raster = town.raster
        raster.select_roads(pose.x, pose.y, pose.yaw, ground)
        plane_pose = pose_over_plane(pose, ground)
        view = self._view(plane_pose, raster).ground
        # (height, width, 2): column and row in level 0. Labels cannot be averaged, so there are no sub-rows.
        cells = cv2.transform(view.points, _plane_to_cells(plane_pose, raster))
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
        samples, _ = self._draw_plain(town, pose, ground, bodies, hidden_layers)
        labels = np.where(samples["nearness"] > 0.0, samples["color"] >> 24, labels)
        image = np.zeros((self.height, self.width, 4), np.uint8)
        image[:, :, 2], image[:, :, 3] = labels, 255
        return image

    def render_depth(
        self, town: Terrain, pose: Pose, ground: Ground, bodies: Sequence[Body] = (), *, hidden_layers: int = 0
    ) -> Image:
        """
        Depth: distance along the camera's axis in 24 bits, (R + 256 G + 65536 B) / (2^24 - 1) * 1000 m.

        Source: CARLA's sensor reference, depth camera.

        :param town: where the camera is
        :param pose: of the camera in the world
        :param ground: road plane under it, its height taken at the camera's x and y
        :param bodies: that are no part of the town
        :param hidden_layers: ``carla.MapLayer`` bits of what is not drawn
        :return: shape (height, width, 4), uint8 BGRA
        """
        view = self._view(pose_over_plane(pose, ground), town.raster).ground
        nearness = self._draw_plain(town, pose, ground, bodies, hidden_layers)[0]["nearness"].astype(np.float64)
        depth = np.where(nearness > 0.0, 1.0 / np.maximum(nearness, 1e-9), view.depth.astype(np.float64))
        code = np.rint(np.clip(depth, 0.0, MAX_DEPTH) / MAX_DEPTH * (2**24 - 1)).astype(np.uint32)
        image = np.full((self.height, self.width, 4), 255, np.uint8)
        image[:, :, 2], image[:, :, 1], image[:, :, 0] = code & 255, code >> 8 & 255, code >> 16
        return image

    def _draw_plain(
        self, town: Terrain, pose: Pose, ground: Ground, bodies: Sequence[Body], hidden_layers: int
    ) -> tuple[NDArray[np.void], NDArray[np.int32]]:
        """A canvas with one sample a pixel, for labels and depths."""
        return self._draw(town, pose, ground, bodies, _any_light(), 1, _NO_SHADOW, hidden_layers)

    def _view(self, plane_pose: PlanePose, raster: Raster) -> _View:
        geometry = plane_pose.height_pitch_roll

        def build() -> _View:
            ground = build_ground_view(self.intrinsics, geometry, cell=raster.cell, levels=LEVELS)
            return _View(ground, SkyView(ground), ground_shading.grain_levels(ground.depth, self.intrinsics.focal))

        return _cached(self._views, (geometry, raster.cell), build)


@functools.lru_cache(maxsize=1)
def _any_light() -> NDArray[np.void]:
    """A record of type ``LIGHTING``: labels and depths do not depend on the light."""
    return read_weather(Weather()).lighting()


def _on_plane(town: Terrain, pose: Pose, ground: Ground, bodies: Sequence[Body]) -> list[Body]:
    """
    Bodies moved up or down by as much as their road is away from the camera's road plane.

    The whole town is drawn as if it lay in that plane. Bodies on a road below a bridge are left out.
    """
    moved = []
    for body in bodies:
        x, y, z = body.pose.x, body.pose.y, body.pose.z
        if math.hypot(x - pose.x, y - pose.y) < BODY_REACH:
            plane = ground.z + ground.slope_x * (x - pose.x) + ground.slope_y * (y - pose.y)
            rise = plane - town.ground(x, y, z - body.half_extents[2]).z
            if abs(rise) < STOREY:
                moved.append(replace(body, pose=replace(body.pose, z=z + rise)))
            elif rise < 0.0:
                moved.append(body)
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
    Affine map from points of the plane (ahead, right) [m] to cells (column, row) of the raster's finest level.

    World x, y = foot + ahead * ahead axis + right * right axis; cell = (x, y - origin) / cell size - 1/2.

    :return: shape (2, 3), float64
    """
    x, y = plane_pose.foot[0] - raster.origin[0], plane_pose.foot[1] - raster.origin[1]
    (ahead_x, ahead_y), (right_x, right_y) = plane_pose.ahead, plane_pose.right
    metres = np.array(((ahead_x, right_x, x), (ahead_y, right_y, y)))
    cells: NDArray[np.float64] = metres / raster.cell - _HALF
    return cells
