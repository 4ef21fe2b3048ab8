"""
Re-projection: what a camera sees, drawn from pictures that were taken somewhere else.

The road is a plane, so a pixel below the horizon has one place on the ground and one pixel in a recorded picture. What
is above the horizon is so far away that it is only rotated. Where no picture shows a place of the ground, the nearest
seen place along the car's axis stands for it. Source: Amini et al., VISTA 2.0, ICRA 2022, without its depth maps.

All steps are linear in a pixel's homogeneous coordinates: with the ray d of a pixel in the car's axes (ahead, right,
up) and the camera's height z, a place of the ground is (d_ahead, d_right) * z / w with w = -d_up. So both mappings,
ground and sky, are 3 x 3 matrices. How far an unseen place is moved follows from the picture's four edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.camera_stream import CameraMount
from sb3_carla.recordings.pictures import Lens, focal_length

__all__ = ["Reprojector", "Source"]

FINENESS = 2
"""Samples for a pixel along each axis, which are averaged."""
NEAREST = 1e-3
"""What is nearer to a recording camera's plane than this, as a share of the ray, is not seen [-]."""


class Source(NamedTuple):
    """
    A recorded picture.

    :param picture: shape (height, width) or (height, width, 3), uint8
    :param lens: of the picture
    :param mount: of the camera; gives its place on the car
    :param pose: x, y [m] and heading [rad] of the car
    """

    picture: NDArray[np.uint8]
    lens: Lens
    mount: CameraMount
    pose: tuple[float, float, float]


class Reprojector:
    """
    A camera on a car in a plane, which sees recorded pictures.

    :param mount: of the camera
    """

    def __init__(self, mount: CameraMount) -> None:
        self.mount = mount
        self.focal = FINENESS * focal_length(mount)
        """Focal length of the samples [px]; recorded pictures need no more."""
        height, width = FINENESS * mount.height, FINENESS * mount.width
        self._size = height, width
        columns, rows = np.meshgrid(np.arange(width), np.arange(height))
        # (3, height * width): the rays in camera axes (ahead, right, up), whose forward component is 1
        rays = np.stack([
            np.ones(columns.size),
            ((columns - 0.5 * (width - 1)) / self.focal).ravel(),
            ((0.5 * (height - 1) - rows) / self.focal).ravel(),
        ])  # fmt: skip
        rays = _to_car(mount) @ rays
        self._horizon = width * int((rays[2].reshape(height, width) >= 0.0).all(axis=1).sum())
        """Number of samples in the rows of the sky, which come first."""
        self._sky = rays[:, : self._horizon].astype(np.float32)
        ground = rays[:, self._horizon :]
        down = np.maximum(-ground[2], 1e-6)
        # Places of the ground times w: x, y, w
        self._ground = np.stack(
            [mount.x * down + mount.z * ground[0], mount.y * down + mount.z * ground[1], down]
        ).astype(np.float32)  # (3, samples on the ground)

    def view(
        self, sources: Sequence[Source], pose: tuple[float, float, float]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """
        What the camera sees.

        :param sources: recorded pictures, at least one; a later one shows what the earlier ones did not see
        :param pose: x, y [m] and heading [rad] of the car
        :return: picture: shape (height, width) or (height, width, 3), uint8; mask of what was really seen: shape
            (height, width), bool
        """
        picture, seen = self._samples(sources[0], pose)
        for source in sources[1:]:
            if seen.all():
                break
            other, also = self._samples(source, pose)
            fills = also & ~seen
            picture[fills] = other[fills]
            seen |= also
        mount = self.mount
        averaged = cv2.resize(picture, (mount.width, mount.height), interpolation=cv2.INTER_AREA)
        whole = seen.reshape(mount.height, FINENESS, mount.width, FINENESS).all(axis=(1, 3))
        return averaged, whole  # type: ignore[return-value]

    def _samples(self, source: Source, pose: tuple[float, float, float]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Samples of one source, and which of them it saw: of shape (2 height, 2 width)."""
        columns = np.empty(self._size[0] * self._size[1], np.float32)
        rows, seen = np.empty_like(columns), np.empty(columns.size, np.bool_)
        sky, ground = slice(0, self._horizon), slice(self._horizon, None)
        columns[sky], rows[sky], seen[sky] = self._look_at_sky(source, pose)
        columns[ground], rows[ground], seen[ground] = self._look_at_ground(source, pose)
        picture = cv2.remap(
            source.picture, columns.reshape(self._size), rows.reshape(self._size), cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        return picture, seen.reshape(self._size)  # type: ignore[return-value]

    def _look_at_sky(self, source: Source, pose: tuple[float, float, float]) -> tuple[NDArray[np.float32], ...]:
        """Columns, rows, and whether they were seen, for the rays of the sky."""
        to_source = (_to_car(source.mount).T @ _turn(pose[2] - source.pose[2])).astype(np.float32)
        ahead, right, up = to_source @ self._sky
        inside = _edges(source.lens) @ np.stack([ahead, right, up])  # (4, n)
        seen = (inside >= 0.0).all(axis=0) & (ahead > NEAREST)
        # A ray beside the picture is moved to its edge, with the same height over the horizon.
        half = source.lens.width / (2.0 * source.lens.focal_x)
        ahead = np.maximum(np.maximum(ahead, np.abs(right) / half), NEAREST)
        return *_pixels(source.lens, ahead, right, up), seen

    def _look_at_ground(self, source: Source, pose: tuple[float, float, float]) -> tuple[NDArray[np.float32], ...]:
        """Columns, rows, and whether they were seen, for the places on the ground."""
        mount = source.mount
        turned = pose[2] - source.pose[2]
        dx, dy = pose[0] - source.pose[0], pose[1] - source.pose[1]
        cosine, sine = math.cos(source.pose[2]), math.sin(source.pose[2])
        # Our car seen from the recording one, and then from its camera: ahead, right, up
        place = dx * cosine + dy * sine - mount.x, dy * cosine - dx * sine - mount.y, -mount.z
        rotation = _to_car(mount).T
        axes = rotation @ _turn(turned)
        # Columns: what x, y and w of a place become. Its up component is 0.
        matrix = np.stack([axes[:, 0], axes[:, 1], rotation @ np.array(place)], axis=1)
        found = matrix.astype(np.float32) @ self._ground  # (3, n): ahead, right, up, all times w
        along = axes[:, 0]  # the car's axis
        inside = _edges(source.lens) @ found  # (4, n)
        seen = (inside >= 0.0).all(axis=0) & (found[0] > NEAREST * self._ground[2])
        found = np.where(seen, found, _moved_into_view(found, along, _edges(source.lens, inset=0.5)))
        return *_pixels(source.lens, np.maximum(found[0], 1e-6), found[1], found[2]), seen


def _moved_into_view(
    places: NDArray[np.float32], along: NDArray[np.float64], edges: NDArray[np.float32]
) -> NDArray[np.float32]:
    """
    Move places along a line into a picture, as little as possible.

    :param places: shape (3, n), ahead, right, up of the recording camera, each times a number of its own
    :param along: shape (3,), direction of the line in the same axes
    :param edges: shape (4, 3), see :func:`_edges`
    :return: the places, shape (3, n); one whose line misses the picture stops at one of its edges
    """
    # A place p + t * along is in the picture if each edge's function is >= 0, which is linear in t.
    least = np.full(places.shape[1], -np.inf, np.float32)
    most = np.full(places.shape[1], np.inf, np.float32)
    slopes = edges @ along.astype(np.float32)
    for value, slope in zip(edges @ places, slopes.tolist(), strict=True):
        if slope > 1e-6:
            np.maximum(least, -value / slope, out=least)
        elif slope < -1e-6:
            np.minimum(most, -value / slope, out=most)
    move = np.maximum(least, np.minimum(most, np.float32(0.0)))
    return places + along.astype(np.float32)[:, None] * move  # type: ignore[no-any-return]


def _edges(lens: Lens, *, inset: float = 0.0) -> NDArray[np.float32]:
    """
    The picture's left, right, lower and upper edge: shape (4, 3). The product with (ahead, right, up) is >= 0 inside.

    :param lens: |right| / ahead = width / (2 focal) at the outer edge of the outer pixels
    :param inset: distance of the edges from there [px]; the outer pixels' centres have 0.5
    """
    x, y = (0.5 * lens.width - inset) / lens.focal_x, (0.5 * lens.height - inset) / lens.focal_y
    return np.array([[x, 1.0, 0.0], [x, -1.0, 0.0], [y, 0.0, 1.0], [y, 0.0, -1.0]], np.float32)


def _pixels(
    lens: Lens, ahead: NDArray[np.float32], right: NDArray[np.float32], up: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Column and row of rays in camera axes [px], inside the picture."""
    column, row = lens.centre
    columns = np.clip(column + lens.focal_x * right / ahead, 0.0, lens.width - 1.0)
    return columns, np.clip(row - lens.focal_y * up / ahead, 0.0, lens.height - 1.0)


def _to_car(mount: CameraMount) -> NDArray[np.float64]:
    """Camera axes (ahead, right, up) to the car's: shape (3, 3)."""
    pitch = math.radians(mount.pitch)
    cosine, sine = math.cos(pitch), math.sin(pitch)
    pitched = np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])
    return np.asarray(_turn(math.radians(mount.yaw)) @ pitched)


def _turn(angle: float) -> NDArray[np.float64]:
    """Axes that are turned to the right by an angle, to those that are not: shape (3, 3)."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
