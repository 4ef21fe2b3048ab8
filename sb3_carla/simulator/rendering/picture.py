"""
The picture, pixel by pixel: the mean of what was drawn there, over the ground or the sky. Compiled by numba.

Ground and sky are looked up only where what stands does not hide them. Four bytes are mixed at once: a word of four
bytes is spread to four lanes of 16 bits, in which sums of weighted bytes have room.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.ground_shading import NEUTRAL, NO_GROUND, shade_ground
from sb3_carla.simulator.rendering.inverse_perspective import SUBROWS
from sb3_carla.simulator.rendering.kernels import inlined, kernel
from sb3_carla.simulator.rendering.sky import COLUMNS, ROWS

__all__ = ["compose_picture"]

FRACTION = 4
"""Bits of a place between two texels: the weights of four texels add up to 2^(2 FRACTION) = 256."""
PARTS = 1 << FRACTION
# Unsigned and signed integers together would become floats.
_LOW, _HIGH, _UP = np.uint64(0x00FF00FF), np.uint64(0xFF00FF00), np.uint64(24)
_LANES, _HALF, _EIGHT = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0080008000800080), np.uint64(8)
_TWO, _TWOS = np.uint64(2), np.uint64(0x0002000200020002)
_OPAQUE, _NO_SAMPLES = 255 << 24, np.uint64(0)
VERGE = np.uint64(NEUTRAL << 16)
"""Word of the raster where there is verge only, as everywhere outside."""


@inlined
def _spread(word: Any) -> Any:
    """Bytes 0, 2, 1, 3 of a word in four lanes of 16 bits, from the lowest one."""
    return (np.uint64(word) & _LOW) | ((np.uint64(word) & _HIGH) << _UP)


@inlined
def _lanes(spread: Any) -> tuple[int, int, int, int]:
    """Bytes 0, 1, 2, 3 of a word that was spread."""
    signed = np.int64(spread)
    return signed & 255, (signed >> 32) & 255, (signed >> 16) & 255, (signed >> 48) & 255


@inlined
def _between(texels: NDArray[np.uint32], first: int, pitch: int, across: int, down: int) -> Any:
    """
    Bilinear interpolation.

    :param texels: shape (n,), uint32
    :param first: index of the upper left one of four texels
    :param pitch: texels in a row
    :param across: place between them, 0 to ``PARTS``
    :param down: likewise
    :return: a word that is spread
    """
    one, two = texels[np.uint64(first)], texels[np.uint64(first + 1)]
    three, four = texels[np.uint64(first + pitch)], texels[np.uint64(first + pitch + 1)]
    both = across * down
    mixed = _spread(one) * np.uint64(PARTS * PARTS - PARTS * (across + down) + both)
    mixed += _spread(two) * np.uint64(PARTS * across - both)
    mixed += _spread(three) * np.uint64(PARTS * down - both)
    mixed += _spread(four) * np.uint64(both)
    return ((mixed + _HALF) >> _EIGHT) & _LANES


@inlined
def _find_row(frame: Any, levels: NDArray[np.int64], span: Any) -> Any:
    """
    What the pixels of a row have in common: the level of the raster that they read, and the way to it.

    :return: index of the level's first texel, its rows, its columns; its column and row at the plane's origin; columns
        and rows in a metre ahead
    """
    level = span[2]
    scale = frame.cells * PARTS / (1 << level)
    # OpenCV's centre of a cell has whole coordinates.
    x = (frame.foot[0] - frame.corner[0]) * scale - 0.5 * PARTS
    y = (frame.foot[1] - frame.corner[1]) * scale - 0.5 * PARTS
    return levels[level, 0], levels[level, 1], levels[level, 2], x, y, frame.ahead[0] * scale, frame.ahead[1] * scale


@inlined
def _look_at_ground(texels: NDArray[np.uint32], found: Any, ahead: float, right: float) -> Any:
    """Shares of materials, spread, at a place on the plane. ``found`` comes from :func:`_find_row`."""
    start, rows, columns, x, y, ahead_x, ahead_y = found
    # World x, y = foot + ahead * ahead axis + right * right axis.
    across = math.floor(x + ahead_x * ahead - ahead_y * right)
    down = math.floor(y + ahead_y * ahead + ahead_x * right)
    j, i = across >> FRACTION, down >> FRACTION
    if 0 <= j < columns - 1 and 0 <= i < rows - 1:
        return _between(texels, start + i * columns + j, columns, across & (PARTS - 1), down & (PARTS - 1))
    return _spread(VERGE)


@inlined
def _materials(
    texels: NDArray[np.uint32], found: Any, samples: NDArray[np.float32], span: Any, column: int
) -> tuple[int, int, int, int]:
    """Shares of materials in a pixel: the mean of its sub-rows. ``span`` is its row of ``GroundView.rows``."""
    k = span[0]
    total = _look_at_ground(texels, found, samples[k, column, 0], samples[k, column, 1])
    # Written out: a loop would become gathers of vectors, which are slower.
    if span[1] == SUBROWS:
        total += _look_at_ground(texels, found, samples[k + 1, column, 0], samples[k + 1, column, 1])
        total += _look_at_ground(texels, found, samples[k + 2, column, 0], samples[k + 2, column, 1])
        total += _look_at_ground(texels, found, samples[k + 3, column, 0], samples[k + 3, column, 1])
        total = ((total + _TWOS) >> _TWO) & _LANES
    return _lanes(total)


@inlined
def _drawn(samples: NDArray[np.void], row: int, column: int, factor: int) -> Any:
    """Number of samples of a pixel in which something was drawn, and the sum of their colours, spread."""
    if factor == 1:
        return _one(samples[row, column])
    row, column = 2 * row, 2 * column
    a, b = _one(samples[row, column]), _one(samples[row, column + 1])
    c, d = _one(samples[row + 1, column]), _one(samples[row + 1, column + 1])
    return a[0] + b[0] + c[0] + d[0], a[1] + b[1] + c[1] + d[1]


@inlined
def _one(sample: Any) -> Any:
    return (1, _spread(sample.color)) if sample.nearness > 0.0 else (0, _NO_SAMPLES)


@inlined
def _look_at_sky(sky: NDArray[np.uint32], column: float, row: float) -> tuple[int, int, int, int]:
    """Colour of the sky's picture at a place in it; columns repeat."""
    if column < 0.0:
        column += COLUMNS
    elif column >= COLUMNS:
        column -= COLUMNS
    across, down = int(column * PARTS), int(min(max(row, 0.0), ROWS - 1.0) * PARTS)
    j, i = min(across >> FRACTION, COLUMNS - 1), min(down >> FRACTION, ROWS - 2)
    return _lanes(_between(sky, i * (COLUMNS + 1) + j, COLUMNS + 1, across - j * PARTS, down - i * PARTS))


@inlined
def _byte(value: float) -> int:
    return int(min(max(value, 0.0), 255.0))


@kernel
def compose_picture(
    picture: NDArray[np.uint32],
    samples: NDArray[np.void],
    spans: NDArray[np.int32],
    shadow: NDArray[np.uint8],
    texels: NDArray[np.uint32],
    levels: NDArray[np.int64],
    ground_samples: NDArray[np.float32],
    ground_rows: NDArray[np.int64],
    points: NDArray[np.float32],
    grain: NDArray[np.uint8],
    weight: NDArray[np.float32],
    added: NDArray[np.float32],
    tile: NDArray[np.int8],
    frames: NDArray[np.void],
    grounds: NDArray[np.void],
    lamps: NDArray[np.float64],
    sky_columns: NDArray[np.float32],
    sky_rows: NDArray[np.float32],
    sky: NDArray[np.uint32],
) -> None:
    """
    Draw every pixel of a picture.

    :param picture: shape (height, width), uint32: receives blue + 2^8 green + 2^16 red + 2^24 255
    :param samples: of a canvas that is as large as the picture, or twice as wide and high
    :param spans: of that canvas
    :param shadow: shape (height, width), uint8: darkness of the ground
    :param texels: of a ``Raster``
    :param levels: likewise
    :param ground_samples: ``samples`` of a ``GroundView``
    :param ground_rows: ``rows`` of a ``GroundView``
    :param points: of a ``GroundView``
    :param grain: of :func:`sb3_carla.simulator.rendering.ground_shading.grain_levels`
    :param weight: of ``WeatherEffects``
    :param added: likewise
    :param tile: of :func:`sb3_carla.simulator.rendering.ground_shading.noise_tile`
    :param frames: shape (1,), a record of type ``FRAME``
    :param grounds: shape (1,), a record of type ``GROUND``
    :param lamps: shape (k, 3), float64: street lights: ahead, right, height [m]
    :param sky_columns: of a ``SkyView``
    :param sky_rows: likewise
    :param sky: shape (ROWS * (COLUMNS + 1),), uint32: the sky's picture
    """
    rows, columns = picture.shape
    factor = samples.shape[0] // rows
    frame, ground = frames[0], grounds[0]
    share = 1.0 / (factor * factor)
    for row in range(rows):
        first, last = columns, -1
        for k in range(row * factor, (row + 1) * factor):
            if spans[k, 1] >= 0:
                first, last = min(first, spans[k, 0] // factor), max(last, spans[k, 1] // factor)
        found, span = _find_row(frame, levels, ground_rows[row]), ground_rows[row]
        for column in range(columns):
            count, drawn = 0, _NO_SAMPLES
            if first <= column <= last:
                count, drawn = _drawn(samples, row, column, factor)
            blue = green = red = 0
            if count < factor * factor:
                level = grain[row, column]
                if level == NO_GROUND:
                    turned = sky_columns[row, column] + frame.heading
                    blue, green, red, _ = _look_at_sky(sky, turned, sky_rows[row, column])
                else:
                    shares = _materials(texels, found, ground_samples, span, column)
                    place = points[row, column, 0], points[row, column, 1]
                    b, g, r = shade_ground(
                        shares, place, level, shadow[row, column], weight[row, column], tile, frame, ground, lamps
                    )
                    blue = _byte(b + added[row, column, 0] + 0.5)
                    green = _byte(g + added[row, column, 1] + 0.5)
                    red = _byte(r + added[row, column, 2] + 0.5)
            if count > 0:
                rest, signed = 1.0 - count * share, np.int64(drawn)
                blue = int(blue * rest + (signed & 0xFFFF) * share)
                green = int(green * rest + ((signed >> 32) & 0xFFFF) * share)
                red = int(red * rest + ((signed >> 16) & 0xFFFF) * share)
            picture[row, column] = np.uint32(blue | green << 8 | red << 16 | _OPAQUE)
