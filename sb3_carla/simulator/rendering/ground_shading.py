"""
Colour of the ground: from the share of each material in a pixel to blue, green and red, in this light. Compiled by
numba.

The raster holds shares, not colours, so that every material's tone can change without painting a town anew.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.rasteriser import kernel

__all__ = ["GROUND", "GROUND_MATERIALS", "NEUTRAL", "ground_colors", "noise_tile", "shade_ground"]

NEUTRAL = 64
"""Value of the raster's third channel for ground that is neither painted white (more) nor dark with tar (less)."""
TILE = 512
"""Side of the noise tile [texels]; a power of two."""
TEXEL = 0.05
"""Size of a texel of the noise tile's finest level [m]."""
LEVELS = 7
COARSE = 5
"""Blotches of the verge are the same noise, 2^COARSE times as large."""
LAMP_REACH = 45.0
"""Street lights farther away do not light the ground [m]."""

GROUND_MATERIALS = ("verge", "verge2", "road", "stone", "white", "yellow")
"""Grass or soil and its second tone, asphalt, kerbs and pavements, white and yellow paint."""

GROUND = np.dtype(
    [
        ("colors", "f8", (len(GROUND_MATERIALS), 3)),  # blue, green, red
        ("contrasts", "f8", (len(GROUND_MATERIALS),)),  # standard deviation of the texture [grey levels]
        ("glare", "f8"),  # brightness of the sun's mirror image on the road [grey levels]
        ("sharpness", "f8"),  # of that image: 1 dry, 8 wet
        ("sun", "f8", (3,)),  # unit vector to the sun in the plane's axes: ahead, right, up
        ("origin", "f8", (2,)),  # world x and y of the plane's origin [m]
        ("ahead", "f8", (2,)),  # world axis of the plane's first coordinate
        ("height", "f8"),  # of the camera over the plane [m]
        ("lamp", "f8"),  # brightness of street lights, 0 by day
        ("pixel", "f8"),  # angle of a pixel [rad]
    ]
)
"""Record: tones of the ground, and light on it."""
_DEFAULT_COLORS: dict[str, tuple[tuple[float, float, float], float]] = {
    "verge": ((58.0, 132.0, 104.0), 20.0),
    "verge2": ((66.0, 116.0, 118.0), 20.0),
    "road": ((96.0, 93.0, 91.0), 6.0),
    "stone": ((136.0, 141.0, 145.0), 7.0),
    "white": ((226.0, 230.0, 230.0), 6.0),
    "yellow": ((60.0, 190.0, 230.0), 6.0),
}


def ground_colors(
    seed: int, look: Mapping[str, tuple[tuple[float, float, float], float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Tones of a town's ground.

    :param seed: of the town: each has its own asphalt and its own verge (grass, dry grass, soil, gravel, sand)
    :param look: colour and contrast of the materials that are not the town's own
    :return: colours, shape (6, 3), and contrasts, shape (6,), in the order of ``GROUND_MATERIALS``
    """
    rng = np.random.default_rng((seed, 3))
    verges = ((58, 132, 104), (70, 120, 128), (88, 104, 120), (122, 128, 132), (120, 158, 178), (46, 98, 74))
    colors = {name: np.array(color) for name, (color, _) in _DEFAULT_COLORS.items()}
    for name in ("verge", "verge2"):
        colors[name] = np.array(verges[int(rng.integers(len(verges)))]) * rng.uniform(0.75, 1.2)
    colors["road"] = colors["road"] * rng.uniform(0.7, 1.5)
    colors["stone"] = colors["stone"] * rng.uniform(0.75, 1.25)
    contrasts = {name: contrast for name, (_, contrast) in _DEFAULT_COLORS.items()}
    for name, (color, contrast) in look.items():
        colors[name], contrasts[name] = np.array(color), contrast
    return (
        np.array([colors[name] for name in GROUND_MATERIALS], np.float64),
        np.array([contrasts[name] for name in GROUND_MATERIALS]),
    )


@functools.lru_cache(maxsize=1)
def noise_tile() -> NDArray[np.int8]:
    """
    Noise with grain of every size that repeats without a seam: its amplitude falls with the root of the frequency.

    White noise is filtered by its Fourier transform, which makes it periodic. Each level of the pyramid averages four
    texels of the one before, as the eye does.

    :return: shape (LEVELS, TILE, TILE), int8; a standard deviation of 40 at level 0. Level k fills TILE >> k texels
    """
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None])
    frequency[0, 0] = np.inf  # no constant part
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((TILE, TILE))) / np.sqrt(frequency), (TILE, TILE))
    level = 40.0 * noise / noise.std()
    tile = np.zeros((LEVELS, TILE, TILE), np.int8)
    for k in range(LEVELS):
        tile[k, : TILE >> k, : TILE >> k] = np.clip(np.rint(level), -127, 127)
        level = level.reshape(len(level) // 2, 2, -1, 2).mean(axis=(1, 3))
    return tile


@kernel
def shade_ground(
    image: NDArray[np.uint8],
    points: NDArray[np.float32],
    depth: NDArray[np.float32],
    shadow: NDArray[np.uint8],
    weight: NDArray[np.float32],
    added: NDArray[np.float32],
    tile: NDArray[np.int8],
    grounds: NDArray[np.void],
    lamps: NDArray[np.float64],
    first: int,
) -> None:
    """
    Turn shares of materials into colours.

    :param image: shape (height, width, 4), uint8: shares of road, stone, white (see ``NEUTRAL``) and yellow in the
        pixels of ground; receives blue, green, red, 255
    :param points: shape (height, width, 2), float32: where the pixels meet the ground: ahead and right [m]
    :param depth: shape (height, width), float32; infinite where there is no ground
    :param shadow: shape (height, width), uint8: darkness
    :param weight: shape (height, width), float32: share of the ground's colour that is seen
    :param added: shape (height, width, 3), float32: fog and reflections
    :param tile: of :func:`noise_tile`
    :param grounds: shape (1,), a record of type ``GROUND``
    :param lamps: shape (k, 3), float64: street lights: ahead, right, height [m]
    :param first: row with which the ground begins
    """
    ground = grounds[0]
    rows, columns = depth.shape
    colors, contrasts = ground.colors, ground.contrasts
    origin_x, origin_y, ahead_x, ahead_y = ground.origin[0], ground.origin[1], ground.ahead[0], ground.ahead[1]
    width = ground.pixel / TEXEL
    for row in range(first, rows):
        for column in range(columns):
            distance = depth[row, column]
            if distance > 1e8:
                continue
            ahead, right = points[row, column, 0], points[row, column, 1]
            j = math.floor((origin_x + ahead_x * ahead - ahead_y * right) * (1.0 / TEXEL))
            i = math.floor((origin_y + ahead_y * ahead + ahead_x * right) * (1.0 / TEXEL))
            # The level whose texels are as wide as the pixel.
            wide, level = distance * width, 0
            while wide > 1.4 and level < LEVELS - 1:
                wide, level = 0.5 * wide, level + 1
            mask = (TILE >> level) - 1
            grain = tile[level, (i >> level) & mask, (j >> level) & mask] * (1.0 / 40.0)
            coarse = tile[1, (i >> COARSE) & 255, (j >> COARSE) & 255] * (1.0 / 40.0)
            road, stone = image[row, column, 0], image[row, column, 1]
            bright, yellow = image[row, column, 2], image[row, column, 3]
            light = 1.0 + 0.06 * coarse
            if road == 255 and bright == NEUTRAL:  # most of the picture
                blue, green, red, strength = colors[2, 0], colors[2, 1], colors[2, 2], contrasts[2]
            else:
                blue = green = red = strength = 0.0
                white = (bright - NEUTRAL) * (1.0 / (255.0 - NEUTRAL)) if bright > NEUTRAL else 0.0
                if bright < NEUTRAL:
                    light *= 1.0 - (NEUTRAL - bright) * (0.8 / NEUTRAL)
                verge = max(1.0 - (road + stone + yellow) * (1.0 / 255.0) - white, 0.0)
                second = verge * min(max(0.5 + 0.6 * coarse, 0.0), 1.0)
                shares = (verge - second, second, road * (1.0 / 255.0), stone * (1.0 / 255.0), white,
                          yellow * (1.0 / 255.0))  # fmt: skip
                for k in range(6):
                    if shares[k] > 0.0:
                        blue += shares[k] * colors[k, 0]
                        green += shares[k] * colors[k, 1]
                        red += shares[k] * colors[k, 2]
                        strength += shares[k] * contrasts[k]
            grain *= strength
            light *= 1.0 - shadow[row, column] * (1.0 / 255.0)
            lit = light * weight[row, column]
            for k in range(len(lamps)):
                da, dr, height = ahead - lamps[k, 0], right - lamps[k, 1], lamps[k, 2]
                apart = 1.0 + (da * da + dr * dr) / (height * height)
                lit += ground.lamp / (apart * math.sqrt(apart))
            glare = 0.0
            if ground.glare > 0.0:
                away = 1.0 / math.sqrt(ahead * ahead + right * right + ground.height * ground.height)
                # Cosine between the mirrored line of sight and the sun.
                cosine = (ahead * ground.sun[0] + right * ground.sun[1] + ground.height * ground.sun[2]) * away
                if cosine > 0.5:
                    glare = ground.glare * light * cosine ** (8.0 * ground.sharpness)
            glare += 0.5
            image[row, column, 0] = int(min(max((blue + grain) * lit + glare + added[row, column, 0], 0.0), 255.0))
            image[row, column, 1] = int(min(max((green + grain) * lit + glare + added[row, column, 1], 0.0), 255.0))
            image[row, column, 2] = int(min(max((red + grain) * lit + glare + added[row, column, 2], 0.0), 255.0))
            image[row, column, 3] = 255


@kernel
def resolve(image: NDArray[np.uint8], samples: Any, spans: NDArray[np.int32], factor: int) -> None:
    """
    Put what was drawn into the picture: a pixel is the mean of its samples.

    :param image: shape (height, width, 4), uint8 BGRA: the ground and the sky; changed
    :param samples: of a canvas, ``factor`` times as wide and as high as the picture
    :param spans: of that canvas
    :param factor: samples along a side of a pixel
    """
    rows, columns, _ = image.shape
    share = 1.0 / (factor * factor)
    for row in range(rows):
        first, last = columns, -1
        for k in range(factor):
            if spans[row * factor + k, 1] >= 0:
                first = min(first, spans[row * factor + k, 0] // factor)
                last = max(last, spans[row * factor + k, 1] // factor)
        for column in range(first, last + 1):
            count = blue = green = red = 0
            for i in range(row * factor, (row + 1) * factor):
                for j in range(column * factor, (column + 1) * factor):
                    sample = samples[i, j]
                    if sample.nearness > 0.0:
                        count += 1
                        blue += sample.color & 255
                        green += (sample.color >> 8) & 255
                        red += (sample.color >> 16) & 255
            if count > 0:
                rest = 1.0 - count * share
                image[row, column, 0] = int(image[row, column, 0] * rest + blue * share)
                image[row, column, 1] = int(image[row, column, 1] * rest + green * share)
                image[row, column, 2] = int(image[row, column, 2] * rest + red * share)
