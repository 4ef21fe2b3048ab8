"""
The camera: inverse perspective mapping of the town's picture from above, and boxes painted over it.

Every pixel below the horizon sees a fixed point of the road plane, relative to the camera. These points are worked out
once for a camera's height and tilt; a frame turns and shifts them into the town (one affine map for each level of the
raster's pyramid) and looks the colours up with ``cv2.remap``. Results depend on the arguments alone, not on what was
rendered before: the cached geometry is computed from the rounded height and tilt.

Source: Mallot et al., Inverse perspective mapping simplifies optical flow computation, Biol. Cybern. 64, 1991.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.dynamics import Ground
from sb3_carla.simulator.geometry import Pose, rotation_matrix
from sb3_carla.simulator.raster import LEVELS, Raster
from sb3_carla.simulator.scene import Box, fill, visible_faces
from sb3_carla.simulator.town import Town
from sb3_carla.simulator.weather import Weather

__all__ = ["Camera"]

FAR = 250.0
"""The ground beyond is horizon [m]."""
HAZE_BEGIN = 60.0
"""From here to ``FAR`` the ground fades into the horizon, also in clear air [m]."""
SUBROWS = 2
"""Rows of samples averaged into one row of the picture: rows far ahead cover metres of road."""
HEIGHT_QUANTUM, ANGLE_QUANTUM = 1e-3, 1e-3
"""To which height [m] and tilt [rad] are rounded for the cache; 1/18 of a pixel at 84 pixels and 90 degrees."""
CACHE_SIZE = 32
MAX_DEPTH = 1000.0
"""What a depth camera says of the sky [m]."""
SKY_LABEL = 11
"""``carla.CityObjectLabel.Sky``."""
RAIN_PATTERNS = 16

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class _Band:
    """Rows that are looked up in one level of the pyramid."""

    level: int
    rows: slice
    """In the picture."""
    ground: NDArray[np.float32]
    """Sampled points, forward and right of the camera: shape (SUBROWS * rows, width, 2), float32 [m]."""


@dataclass(frozen=True)
class _View:
    """Geometry of a camera above a plane."""

    bands: tuple[_Band, ...]
    ground: NDArray[np.float32]
    """Points seen by the pixels' middles: shape (height, width, 2), float32 [m]."""
    depth: NDArray[np.float32]
    """Distance along the camera's axis: shape (height, width), float32 [m]; infinite in the sky."""
    distance: NDArray[np.float32]
    """Distance over the ground: shape (height, width), float32 [m]; infinite in the sky."""
    elevation: NDArray[np.float32]
    """Of the line of sight above the horizon: shape (height, width), float32 [rad]."""


@dataclass(frozen=True)
class _Air:
    """What is between the camera and the ground, for one view and weather."""

    sky: Image
    clear: NDArray[np.float32]
    """Share of the ground's colour: shape (height, width), float32."""
    hidden: NDArray[np.float32]
    """Share of the sky's colour."""
    rain: Image | None
    """Streaks: shape (patterns, height, width, 4), uint8."""


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
            if not 1 <= size <= 8192:
                raise ValueError(f"camera: {name} must be 1 to 8192 px, got {size}")
        if not 0.0 < fov < math.pi:
            raise ValueError(f"camera: the field of view must be between 0 and pi rad, got {fov}")
        self.width, self.height, self.fov = width, height, fov
        self.focal = 0.5 * width / math.tan(0.5 * fov)
        self._centre = 0.5 * width - 0.5, 0.5 * height - 0.5
        self._views: OrderedDict[tuple[float, ...], _View] = OrderedDict()
        self._airs: OrderedDict[tuple[object, ...], _Air] = OrderedDict()

    def render(self, town: Town, pose: Pose, ground: Ground, weather: Weather, boxes: Sequence[Box] = ()) -> Image:
        """
        What the camera sees.

        :param town: where it is
        :param pose: the camera in the world
        :param ground: road plane under it
        :param weather: light and sight
        :param boxes: other bodies
        :return: shape (height, width, 4), uint8 BGRA, a fresh array
        """
        key = _tilt(pose, ground)
        view = self._view(key, town.raster.cell)
        air = self._air(key, view, weather)
        raster = town.raster
        pyramid = raster.pyramids[raster.layer(pose.x, pose.y, ground)]
        image = air.sky.copy()
        for band in view.bands:
            colors = _sampled(pyramid[band.level], band.ground, _affine(pose, raster, band.level), cv2.INTER_LINEAR)
            rows = band.rows.stop - band.rows.start
            cv2.resize(colors, (self.width, rows), dst=image[band.rows], interpolation=cv2.INTER_AREA)
        table = weather.color_table()
        if table is not None:
            image = cv2.LUT(image, table)  # type: ignore[assignment]
        image = cv2.blendLinear(image, air.sky, air.clear, air.hidden)  # type: ignore[assignment]
        if boxes:
            self._paint_boxes(image, view, air, pose, weather, boxes)
        if air.rain is not None:
            image = cv2.add(image, air.rain[_pattern(pose)])  # type: ignore[assignment]
        return image

    def render_semantic(self, town: Town, pose: Pose, ground: Ground, boxes: Sequence[Box] = ()) -> Image:
        """
        Labels of what the camera sees, ``carla.CityObjectLabel`` in the red channel as CARLA sends them.

        :return: shape (height, width, 4), uint8 BGRA
        """
        view = self._view(_tilt(pose, ground), town.raster.cell)
        raster = town.raster
        source = raster.labels[raster.layer(pose.x, pose.y, ground)]
        labels = _sampled(source, view.ground, _affine(pose, raster, 0), cv2.INTER_NEAREST)
        labels[np.isinf(view.depth)] = SKY_LABEL
        for face in visible_faces(boxes, pose, self.focal, self._centre, FAR):
            fill(labels, face, (face.box.tag,))
        image = np.zeros((self.height, self.width, 4), np.uint8)
        image[:, :, 2], image[:, :, 3] = labels, 255
        return image

    def render_depth(self, town: Town, pose: Pose, ground: Ground, boxes: Sequence[Box] = ()) -> Image:
        """
        Distance along the camera's axis, in CARLA's 24 bits: (R + 256 G + 65536 B) / (2^24 - 1) * 1000 m.

        :return: shape (height, width, 4), uint8 BGRA
        """
        depth = np.minimum(self._view(_tilt(pose, ground), town.raster.cell).depth, MAX_DEPTH)
        for face in visible_faces(boxes, pose, self.focal, self._centre, MAX_DEPTH):
            mask = np.zeros(depth.shape, np.uint8)
            fill(mask, face, (1,))
            rows, columns = np.nonzero(mask)
            rays = self._rays(rows.astype(np.float64), columns.astype(np.float64))
            # Painted from far to near, and a face never lies behind the ground that it stands on.
            depth[rows, columns] = np.clip(face.offset / np.minimum(rays @ face.normal, -1e-9), 0.0, MAX_DEPTH)
        code = np.rint(depth.astype(np.float64) / MAX_DEPTH * (2**24 - 1)).astype(np.uint32)
        image = np.full((self.height, self.width, 4), 255, np.uint8)
        image[:, :, 2], image[:, :, 1], image[:, :, 0] = code & 255, code >> 8 & 255, code >> 16
        return image

    # --- geometry ----------------------------------------------------------------------------------------------

    def _rays(self, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Lines of sight in camera axes (1, right, up): shape (..., 3), float64."""
        right = (columns - self._centre[0]) / self.focal
        up = -(rows - self._centre[1]) / self.focal
        return np.stack([np.ones_like(right), right, up], axis=-1)

    def _view(self, key: tuple[float, float, float], cell: float) -> _View:
        full_key = (*key, cell)
        view = self._views.get(full_key)
        if view is None:
            view = self._views[full_key] = self._build_view(*key, cell)
            if len(self._views) > CACHE_SIZE:
                self._views.popitem(last=False)
        return view

    def _build_view(self, height: float, pitch: float, roll: float, cell: float) -> _View:
        turn = rotation_matrix(Pose(pitch=pitch, roll=roll))
        columns = np.arange(self.width, dtype=np.float64)
        subrows = (np.arange(self.height * SUBROWS) + 0.5) / SUBROWS - 0.5
        sampled, _, _ = self._ground_points(*np.meshgrid(subrows, columns, indexing="ij"), turn, height)
        middle, depth, distance = self._ground_points(
            *np.meshgrid(np.arange(self.height, dtype=np.float64), columns, indexing="ij"), turn, height
        )
        directions = self._rays(*np.meshgrid(np.arange(self.height, dtype=np.float64), columns, indexing="ij")) @ turn.T
        elevation = np.arctan2(directions[..., 2], np.hypot(directions[..., 0], directions[..., 1]))
        return _View(
            tuple(self._bands(sampled, depth, cell)),
            middle.astype(np.float32),
            depth.astype(np.float32),
            distance.astype(np.float32),
            elevation.astype(np.float32),
        )

    def _ground_points(
        self, rows: NDArray[np.float64], columns: NDArray[np.float64], turn: NDArray[np.float64], height: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Points of the plane (forward, right), depth and distance over ground; depth is infinite in the sky."""
        directions = self._rays(rows, columns) @ turn.T  # (h, w, 3), level axes
        down = np.maximum(-directions[..., 2], 1e-9)
        depth = max(height, 0.01) / down
        points = directions[..., :2] * depth[..., None]
        distance = np.hypot(points[..., 0], points[..., 1])
        beyond = (distance > FAR) | (directions[..., 2] >= 0.0)
        points[beyond] *= (FAR / np.maximum(distance[beyond], 1e-9))[:, None]
        return points, np.where(beyond, np.inf, depth), np.where(beyond, np.inf, distance)

    def _bands(self, sampled: NDArray[np.float64], depth: NDArray[np.float64], cell: float) -> list[_Band]:
        """Rows grouped by the level whose cells are about as wide as their pixels."""
        nearest = depth.min(axis=1)  # (height,)
        levels = np.full(self.height, -1)
        seen = np.isfinite(nearest)
        footprint = nearest[seen] / self.focal / cell
        levels[seen] = np.clip(np.floor(np.log2(np.maximum(footprint, 1e-6)) + 0.5), 0, LEVELS - 1)
        edges = np.flatnonzero(np.diff(levels)) + 1
        bands = []
        for first, last in zip([0, *edges], [*edges, self.height], strict=True):
            if levels[first] >= 0:
                points = sampled[first * SUBROWS : last * SUBROWS].astype(np.float32)
                bands.append(_Band(int(levels[first]), slice(int(first), int(last)), np.ascontiguousarray(points)))
        return bands

    # --- air ---------------------------------------------------------------------------------------------------

    def _air(self, key: tuple[float, float, float], view: _View, weather: Weather) -> _Air:
        full_key = (key, weather)
        air = self._airs.get(full_key)
        if air is None:
            air = self._airs[full_key] = self._build_air(view, weather)
            if len(self._airs) > CACHE_SIZE:
                self._airs.popitem(last=False)
        return air

    def _build_air(self, view: _View, weather: Weather) -> _Air:
        zenith, horizon = weather.sky_colors()
        height = np.clip(view.elevation / 0.6, 0.0, 1.0)[..., None]
        sky = np.full((self.height, self.width, 4), 255, np.uint8)
        sky[..., :3] = np.clip((1.0 - height) * horizon + height * zenith, 0, 255)
        distance = np.minimum(view.distance, FAR)
        clear = 1.0 - np.clip((distance - HAZE_BEGIN) / (FAR - HAZE_BEGIN), 0.0, 1.0)
        clear = clear * np.exp(-distance / weather.visibility)
        # A wet road mirrors the sky at flat angles.
        wet = min(weather.wetness / 100.0, 1.0)
        clear = clear * (1.0 - 0.35 * wet * (1.0 - np.exp(-distance / 40.0)))
        return _Air(sky, clear.astype(np.float32), (1.0 - clear).astype(np.float32), self._build_rain(weather))

    def _build_rain(self, weather: Weather) -> Image | None:
        amount = min(weather.precipitation / 100.0, 1.0)
        if amount <= 0.0:
            return None
        rng = np.random.default_rng(int(weather.precipitation * 10))
        shape = RAIN_PATTERNS, self.height, self.width
        drops = (rng.random(shape) < 0.02 * amount).astype(np.float32)
        length = max(2, self.height // 20)
        streaks = np.stack([cv2.blur(pattern, (1, length)) * length for pattern in drops])
        rain = np.zeros((*shape, 4), np.uint8)
        rain[..., :3] = np.clip(45.0 * weather.daylight * streaks, 0, 255)[..., None]
        return rain

    def _paint_boxes(
        self, image: Image, view: _View, air: _Air, pose: Pose, weather: Weather, boxes: Sequence[Box]
    ) -> None:
        _, horizon = weather.sky_colors()
        for face in visible_faces(boxes, pose, self.focal, self._centre, FAR):
            color = np.array(face.box.color) * face.shade * weather.daylight
            clear = math.exp(-face.distance / weather.visibility)
            clear *= 1.0 - min(max((face.distance - HAZE_BEGIN) / (FAR - HAZE_BEGIN), 0.0), 1.0)
            mixed = clear * color + (1.0 - clear) * horizon
            fill(image, face, (*(float(channel) for channel in mixed), 255.0), smooth=True)


def _tilt(pose: Pose, ground: Ground) -> tuple[float, float, float]:
    """
    Height [m], pitch and roll [rad] of a camera relative to the road plane, rounded.

    On a slope the plane is taken as level and the camera as tilted by so much less; for the slopes of roads (below
    10 %) the difference is under a tenth of a pixel.
    """
    cos_yaw, sin_yaw = math.cos(pose.yaw), math.sin(pose.yaw)
    rise = math.atan(ground.slope_x * cos_yaw + ground.slope_y * sin_yaw)
    lean = math.atan(ground.slope_x * sin_yaw - ground.slope_y * cos_yaw)
    height = (pose.z - ground.z) * math.cos(rise)
    return (
        round(height / HEIGHT_QUANTUM) * HEIGHT_QUANTUM,
        round((pose.pitch - rise) / ANGLE_QUANTUM) * ANGLE_QUANTUM,
        round((pose.roll - lean) / ANGLE_QUANTUM) * ANGLE_QUANTUM,
    )


def _sampled(source: Image, points: NDArray[np.float32], affine: NDArray[np.float64], interpolation: int) -> Image:
    """Colours of points (forward, right) of the camera: shape (rows, columns[, channels]), uint8."""
    return cv2.remap(  # type: ignore[call-overload, no-any-return]  # the stubs forbid map2=None, the manual does not
        source, cv2.transform(points, affine), None, interpolation, borderMode=cv2.BORDER_REPLICATE
    )


def _affine(pose: Pose, raster: Raster, level: int) -> NDArray[np.float64]:
    """Affine map from points (forward, right) of the camera to pixels of a level: shape (2, 3), float64."""
    scale = 1.0 / (raster.cell * (1 << level))
    cos_yaw, sin_yaw = math.cos(pose.yaw) * scale, math.sin(pose.yaw) * scale
    x = (pose.x - float(raster.origin[0])) * scale - 0.5
    y = (pose.y - float(raster.origin[1])) * scale - 0.5
    return np.array([[cos_yaw, -sin_yaw, x], [sin_yaw, cos_yaw, y]])


def _pattern(pose: Pose) -> int:
    """Number of a rain pattern, from the place alone, so that one place always looks the same."""
    return (int(pose.x * 97.0) + int(pose.y * 89.0)) % RAIN_PATTERNS
