"""
Rasteriser: fills the faces and sprites of a scene into a canvas with a depth buffer. Compiled by numba.

A face lies in a plane, so 1 / depth is linear in column and row, and so are (position along the face) / depth. That
gives every sample its exact depth and its place on the face (perspective-correct interpolation), without any vertex
attributes. Source: Heckbert and Moreton, Interpolation for polygon texture mapping and shading, 1991.

Camera axes are forward, right, up. A sample's line of sight is (1, (column - centre) / focal, (centre - row) / focal).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.mesh import Pattern, Shape

__all__ = [
    "COLORS", "FACET", "LENS", "SAMPLE", "VERSION", "clear", "clip_near", "darken", "fill", "kernel", "make_canvas",
]  # fmt: skip

NEAR = 0.1
"""Depth of the near plane [m]."""
COLORS = 5
"""Colours of a face: four that its pattern chooses from, and their mean for faces far away."""
MEAN = COLORS - 1
HOLE = -1
MAX_CORNERS = 5
"""A quadrilateral that is cut by the near plane has up to five corners."""
STOREY_HEIGHT = 3.0
"""Of ``Pattern.WINDOWS`` [m]."""


Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """
    Compile a function at its first call. The result is kept on disk, where a folder for it can be written to.

    :param function: to compile; divisions by zero give infinity in it, as in numpy
    """
    try:
        return cast(Function, njit(cache=True, error_model="numpy")(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written to
        return cast(Function, njit(error_model="numpy")(function))

PLAIN, WINDOWS, COURSES, PLANKS = (int(p) for p in (Pattern.PLAIN, Pattern.WINDOWS, Pattern.COURSES, Pattern.PLANKS))
FOLIAGE, BARS, RAILS, STRIPES = (int(p) for p in (Pattern.FOLIAGE, Pattern.BARS, Pattern.RAILS, Pattern.STRIPES))
RECTANGLE, ELLIPSE, CROWN, CONE = (int(s) for s in (Shape.RECTANGLE, Shape.ELLIPSE, Shape.CROWN, Shape.CONE))


SAMPLE = np.dtype([("nearness", "f4"), ("color", "u4")])
"""Record: 1 / depth [1/m], 0 where nothing was drawn; blue + 2^8 green + 2^16 red + 2^24 ``carla.CityObjectLabel``."""

# Numba passes a record as one pointer. Tuples of arrays would be copied, word by word, for every face. And its cache on
# disk must not hold classes of this package: a later version of them could not be loaded.
LENS = np.dtype(
    [
        ("focal", "f8"),  # focal length [samples]
        ("column", "f8"),  # of the optical axis [samples]
        ("row", "f8"),
        ("place", "f8", (3,)),  # in the world [m]
        ("axes", "f8", (3, 3)),  # rows: forward, right and up axis in the world
        ("plane", "f8", (3,)),  # road plane: height at the camera's x and y [m], slopes along x and y [-]
    ],
    align=True,
)
"""Record: the camera of a canvas."""

# What numba keeps on disk is thrown away when the function's own file changes, not when a function that it calls does.
_SOURCES = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
VERSION = f"version_{zlib.crc32(_SOURCES):08x}", "i8"
"""
Field without use. Its name changes with any file of this folder: a kernel that gets a record with it is compiled anew.
Kernels that call those of another file must have one.
"""

FACET = np.dtype(
    [
        VERSION,
        ("world", "f8", (4, 3)),  # corners in the world
        ("seen", "f8", (4, 3)),  # corners in camera axes; u = v = 0 at the first one
        ("clipped", "f8", (MAX_CORNERS, 3)),  # those in front of the near plane
        ("count", "i8"),  # their number
        ("along", "f8", (3,)),  # unit vector of u
        ("up", "f8", (3,)),  # vector of v: its length is the metres of v a metre
        ("normal", "f8", (3,)),
        ("width", "f8"),  # u and v of the corner opposite to the first one [m]
        ("height", "f8"),
        ("pattern", "i8"),  # ``Pattern`` of a face, ``Shape`` of a sprite
        ("is_sprite", "i8"),
        ("frequency", "f8"),  # repetitions of the pattern in a metre [1/m]
        ("colors", "u4", (COLORS,)),  # as in ``SAMPLE``
        ("pixels", "f8", (MAX_CORNERS, 2)),  # columns and rows of the corners
        ("nearness", "f8", (3,)),  # 1 / depth of a sample: constant, across, down
        ("u", "f8", (3,)),  # u / depth likewise
        ("v", "f8", (3,)),
        ("start", "f8", (2,)),  # what is to be subtracted from u and v
    ],
    align=True,
)
"""Record: the polygon that is being drawn. One is made for a camera and used for every face in turn."""


def make_canvas(rows: int, columns: int) -> tuple[NDArray[np.void], NDArray[np.int32]]:
    """
    :param rows: height [samples]
    :param columns: width [samples]
    :return: an empty canvas: samples, shape (rows, columns), records of type ``SAMPLE``; spans, shape (rows, 2), int32:
        first and last column of each row in which something was drawn
    """
    return np.zeros((rows, columns), SAMPLE), np.full((rows, 2), (columns, -1), np.int32)


@kernel
def clear(samples: NDArray[np.void], spans: NDArray[np.int32]) -> None:
    """
    :param samples: of a canvas, which is empty afterwards
    :param spans: of that canvas
    """
    for row in range(len(spans)):
        for column in range(spans[row, 0], spans[row, 1] + 1):
            samples[row, column].nearness = 0.0
        spans[row, 0], spans[row, 1] = samples.shape[1], -1


@kernel
def clip_near(facet: Any) -> bool:
    """
    Cut off the part of a polygon that is not in front of the near plane.

    Source: Sutherland and Hodgman, Reentrant polygon clipping, CACM 17, 1974.

    :param facet: ``seen`` is cut; ``clipped`` and ``count`` receive what is left
    :return: whether anything is left
    """
    seen, clipped = facet.seen, facet.clipped
    count = 0
    for i in range(4):
        j = (i + 1) % 4
        here, there = seen[i, 0], seen[j, 0]
        if here >= NEAR:
            for k in range(3):
                clipped[count, k] = seen[i, k]
            count += 1
        if (here >= NEAR) != (there >= NEAR):  # the edge crosses the plane
            share = (NEAR - here) / (there - here)
            for k in range(3):
                clipped[count, k] = seen[i, k] + share * (seen[j, k] - seen[i, k])
            count += 1
    facet.count = count
    return count >= 3


@kernel
def _project(lens: Any, facet: Any, rows: int) -> tuple[int, int]:
    """Columns and rows of the corners into ``facet.pixels``; returns the first and the last row of samples inside."""
    top, bottom = 1e9, -1e9
    for i in range(facet.count):
        scale = lens.focal / facet.clipped[i, 0]
        facet.pixels[i, 0] = lens.column + facet.clipped[i, 1] * scale
        facet.pixels[i, 1] = lens.row - facet.clipped[i, 2] * scale
        top, bottom = min(top, facet.pixels[i, 1]), max(bottom, facet.pixels[i, 1])
    return math.ceil(max(top, 0.0)), math.floor(min(bottom, rows - 1.0))


@kernel
def _span(facet: Any, row: int, columns: int) -> tuple[int, int]:
    """First and last column of a row of samples that lie in the polygon, which is convex."""
    left, right = 1e9, -1e9
    for i in range(facet.count):
        j = i + 1 if i + 1 < facet.count else 0
        above, below = facet.pixels[i, 1] - row, facet.pixels[j, 1] - row
        if (above <= 0.0) != (below <= 0.0):
            column = facet.pixels[i, 0] + (facet.pixels[j, 0] - facet.pixels[i, 0]) * above / (above - below)
            left, right = min(left, column), max(right, column)
    return math.ceil(max(left, 0.0)), math.floor(min(right, columns - 1.0))


@kernel
def _solve_plane(lens: Any, facet: Any) -> bool:
    """
    Find 1 / depth, u / depth and v / depth of a sample as constant + across * column + down * row.

    On the face normal . (depth * line of sight) = normal . origin, so 1 / depth = normal . line / (normal . origin).

    :return: False for a face seen from its edge
    """
    along, up, normal, origin = facet.along, facet.up, facet.normal, facet.seen
    offset = place_u = place_v = 0.0
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        normal[k] = along[i] * up[j] - along[j] * up[i]
        offset += normal[k] * origin[0, k]
        place_u += along[k] * origin[0, k]
        place_v += up[k] * origin[0, k]
    if abs(offset) < 1e-9:
        return False
    for k in range(3):
        normal[k] /= offset
    _linear(lens, normal, facet.nearness)
    _linear(lens, along, facet.u)
    _linear(lens, up, facet.v)
    facet.start[0], facet.start[1] = place_u, place_v
    return True


@kernel
def _linear(lens: Any, vector: NDArray[np.float64], linear: NDArray[np.float64]) -> None:
    """``vector`` times a sample's line of sight, which is linear in its column and row."""
    linear[1], linear[2] = vector[1] / lens.focal, -vector[2] / lens.focal
    linear[0] = vector[0] - linear[1] * lens.column - linear[2] * lens.row


@kernel
def _hash(i: int, j: int) -> int:
    """A number from 0 to 255 that looks random; equal numbers give an equal one."""
    mixed = (np.uint32(i) * np.uint32(374761393)) + (np.uint32(j) * np.uint32(668265263))
    mixed = np.uint32((mixed ^ (mixed >> np.uint32(13))) * np.uint32(1274126177))
    return int((mixed >> np.uint32(16)) & np.uint32(255))


@kernel
def _pattern_color(pattern: int, u: float, v: float, frequency: float) -> int:
    """Which of a face's colours a place on it has; ``HOLE`` for none."""
    across, upwards = u * frequency, v * frequency
    column, row = math.floor(across), math.floor(upwards)
    if pattern == WINDOWS:
        height = v * (1.0 / STOREY_HEIGHT)
        storey = math.floor(height)
        part, level = across - column, height - storey
        if 0.22 < part < 0.78 and 0.3 < level < 0.78:
            # A quarter of the windows is brighter or, at night, lit.
            return 3 if _hash(column, storey) < 64 else 2
        return storey & 1
    if pattern == COURSES:
        return _hash(row, math.floor(0.4 * across)) & 3
    if pattern == PLANKS:
        return _hash(column, 3) & 3
    if pattern == FOLIAGE:
        return _hash(column, row) & 3
    if pattern == BARS:
        return 0 if across - column < 0.25 else HOLE
    if pattern == RAILS:
        return 0 if upwards - row > 0.5 else HOLE
    if pattern == STRIPES:
        return 3 * (column & 1)
    return 0


@kernel
def _shape_color(facet: Any, u: float, v: float) -> int:
    """Which of a sprite's colours a place on it has; ``HOLE`` outside its shape."""
    shape = facet.pattern
    if shape == RECTANGLE:
        return 0
    side, height = 2.0 * u / facet.width - 1.0, v / facet.height
    middle = 2.0 * height - 1.0
    radius = side * side + middle * middle
    if shape == ELLIPSE:
        return 0 if radius < 1.0 else HOLE
    leaf = _hash(math.floor(u * facet.frequency), math.floor(v * facet.frequency))
    # Leaves are lighter at the top, where the sun is.
    color = min(3, (leaf >> 7) + int(2.0 * height))
    if shape == CROWN:
        return color if radius < 0.7 + 0.0014 * leaf and leaf > 12 else HOLE
    return color if abs(side) < (1.0 - height) * (0.75 + 0.001 * leaf) else HOLE


@kernel
def fill(samples: NDArray[np.void], spans: NDArray[np.int32], lens: Any, facet: Any) -> None:
    """
    Draw a polygon, where nothing nearer was drawn.

    :param samples: of the canvas that is drawn into
    :param spans: of that canvas
    :param lens: its camera: a record of type ``LENS``
    :param facet: the polygon: a record of type ``FACET``
    """
    rows, columns = samples.shape
    first, last = _project(lens, facet, rows)
    if first > last or not _solve_plane(lens, facet):
        return
    # A pattern finer than two samples is not drawn but its mean.
    depth = 0.5 * (facet.clipped[0, 0] + facet.clipped[2, 0])
    is_sprite, pattern, frequency, colors = facet.is_sprite, facet.pattern, facet.frequency, facet.colors
    plain = is_sprite == 0 and (pattern == PLAIN or lens.focal < 2.0 * depth * frequency)
    only = colors[0 if pattern == PLAIN else MEAN]
    across, u_across, v_across = facet.nearness[1], facet.u[1], facet.v[1]
    start_u, start_v = facet.start[0], facet.start[1]
    for row in range(first, last + 1):
        begin, end = _span(facet, row, columns)
        if begin > end:
            continue
        spans[row, 0] = min(spans[row, 0], begin)
        spans[row, 1] = max(spans[row, 1], end)
        base = facet.nearness[0] + facet.nearness[2] * row
        u_base, v_base = facet.u[0] + facet.u[2] * row, facet.v[0] + facet.v[2] * row
        for column in range(begin, end + 1):
            nearness = base + across * column
            sample = samples[row, column]
            if nearness <= sample.nearness:
                continue
            color = only
            if not plain:
                depth = 1.0 / nearness
                u = (u_base + u_across * column) * depth - start_u
                v = (v_base + v_across * column) * depth - start_v
                chosen = _shape_color(facet, u, v) if is_sprite else _pattern_color(pattern, u, v, frequency)
                if chosen == HOLE:
                    continue
                color = colors[chosen]
            sample.nearness, sample.color = nearness, color


@kernel
def darken(shadow: NDArray[np.uint8], lens: Any, facet: Any, strength: int) -> None:
    """
    Draw a shadow: the darkness of a sample becomes at least ``strength``.

    :param shadow: shape (rows, columns), uint8: is drawn into
    :param lens: as in :func:`fill`
    :param facet: the shadow's outline on the ground; a sprite's shape is cut out
    :param strength: 0 to 255
    """
    rows, columns = shadow.shape
    first, last = _project(lens, facet, rows)
    shaped = facet.is_sprite != 0 and facet.pattern != RECTANGLE
    if first > last or (shaped and not _solve_plane(lens, facet)):
        return
    for row in range(first, last + 1):
        begin, end = _span(facet, row, columns)
        for column in range(begin, end + 1):
            if shadow[row, column] >= strength:
                continue
            if shaped:
                depth = 1.0 / (facet.nearness[0] + facet.nearness[1] * column + facet.nearness[2] * row)
                u = (facet.u[0] + facet.u[1] * column + facet.u[2] * row) * depth - facet.start[0]
                v = (facet.v[0] + facet.v[1] * column + facet.v[2] * row) * depth - facet.start[1]
                if _shape_color(facet, u, v) == HOLE:
                    continue
            shadow[row, column] = strength
