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

from sb3_carla.simulator.rendering.rasteriser import VERSION, kernel

__all__ = [
    "FRAME", "GROUND", "GROUND_MATERIALS", "NEUTRAL", "NO_GROUND", "grain_levels", "ground_colors", "noise_tile",
    "shade_ground",
]  # fmt: skip

NEUTRAL = 64
"""Value of the raster's third channel for ground that is neither painted white (more) nor dark with tar (less)."""
TILE = 512
"""Side of the noise tile [texels]; a power of two."""
TEXEL = 0.05
"""Size of a texel of the noise tile's finest level [m]."""
LEVELS = 7
COARSE = 5
"""Blotches of the verge are the same noise, 2^COARSE times as large."""
NO_GROUND = 255
"""Level of the noise tile in pixels of sky."""
LAMP_REACH = 45.0
"""Street lights farther away do not light the ground [m]."""

GROUND_MATERIALS = ("verge", "verge2", "road", "stone", "white", "yellow")
"""Grass or soil and its second tone, asphalt, kerbs and pavements, white and yellow paint."""

GROUND = np.dtype(
    [
        VERSION,
        ("colors", "f8", (len(GROUND_MATERIALS), 3)),  # blue, green, red
        ("contrasts", "f8", (len(GROUND_MATERIALS),)),  # standard deviation of the texture [grey levels]
        ("glare", "f8"),  # brightness of the sun's mirror image on the road [grey levels]
        ("sharpness", "f8"),  # of that image: 1 dry, 8 wet
        ("lamp", "f8"),  # brightness of street lights, 0 by day
    ]
)
"""Record: tones of the ground, and light on it."""
FRAME = np.dtype(
    [
        ("foot", "f8", (2,)),  # world x and y of the plane's origin [m]
        ("ahead", "f8", (2,)),  # world axis of the plane's first coordinate
        ("height", "f8"),  # of the camera over the plane [m]
        ("sun", "f8", (3,)),  # unit vector to the sun in the plane's axes: ahead, right, up
        ("corner", "f8", (2,)),  # world x and y of the raster's first corner [m]
        ("cells", "f8"),  # of the raster's finest level in a metre [1/m]
        ("heading", "f8"),  # where the camera looks: columns of the sky's picture
    ]
)
"""Record: where the camera of one picture is."""
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


def grain_levels(depth: NDArray[np.float32], focal: float) -> NDArray[np.uint8]:
    """
    :param depth: shape (height, width), float32 [m]; infinite where there is no ground
    :param focal: focal length [px]
    :return: shape (height, width), uint8: the level of the noise tile whose texels are as wide as the pixel;
        ``NO_GROUND`` where there is none
    """
    wide = depth / (focal * TEXEL)  # texels of level 0 in a pixel
    levels = np.zeros(depth.shape, np.uint8)
    for k in range(LEVELS - 1):
        levels += wide > 1.4 * 2**k
    levels[np.isinf(depth)] = NO_GROUND
    return levels


@kernel
def _grain(tile: NDArray[np.int8], level: int, i: int, j: int) -> float:
    """Noise of one level of the tile; i and j are texels of level 0."""
    mask = (TILE >> level) - 1
    grain: float = tile[level, (i >> level) & mask, (j >> level) & mask] * (1.0 / 40.0)
    return grain


@kernel
def _mixed(ground: Any, road: int, stone: int, bright: int, yellow: int, coarse: float) -> Any:
    """Blue, green, red and contrast of a mixture of materials; ``coarse`` chooses between the verge's tones."""
    blue = green = red = strength = 0.0
    white = (bright - NEUTRAL) * (1.0 / (255.0 - NEUTRAL)) if bright > NEUTRAL else 0.0
    verge = max(1.0 - (road + stone + yellow) * (1.0 / 255.0) - white, 0.0)
    second = verge * min(max(0.5 + 0.6 * coarse, 0.0), 1.0)
    shares = (verge - second, second, road * (1.0 / 255.0), stone * (1.0 / 255.0), white, yellow * (1.0 / 255.0))
    for k in range(6):
        if shares[k] > 0.0:
            blue += shares[k] * ground.colors[k, 0]
            green += shares[k] * ground.colors[k, 1]
            red += shares[k] * ground.colors[k, 2]
            strength += shares[k] * ground.contrasts[k]
    return blue, green, red, strength


@kernel
def shade_ground(
    materials: Any, place: Any, level: int, dark: int, weight: float, tile: NDArray[np.int8], frame: Any, ground: Any,
    lamps: NDArray[np.float64],
) -> Any:  # fmt: skip
    """
    From the shares of materials in a pixel to its colour.

    :param materials: shares of road, stone, white (see ``NEUTRAL``) and yellow, 0 to 255
    :param place: where the pixel meets the ground: ahead and right [m]
    :param level: of :func:`grain_levels`
    :param dark: shadow, 0 to 255
    :param weight: share of the ground's colour that is seen
    :param tile: of :func:`noise_tile`
    :param frame: a record of type ``FRAME``
    :param ground: a record of type ``GROUND``
    :param lamps: shape (k, 3), float64: street lights: ahead, right, height [m]
    :return: blue, green, red, before fog and reflections
    """
    road, stone, bright, yellow = materials
    ahead, right = place
    ahead_x, ahead_y = frame.ahead[0], frame.ahead[1]
    j = math.floor((frame.foot[0] + ahead_x * ahead - ahead_y * right) * (1.0 / TEXEL))
    i = math.floor((frame.foot[1] + ahead_y * ahead + ahead_x * right) * (1.0 / TEXEL))
    coarse = tile[1, (i >> COARSE) & 255, (j >> COARSE) & 255] * (1.0 / 40.0)
    light = 1.0 + 0.06 * coarse
    if road == 255 and bright == NEUTRAL:  # most of the picture
        blue, green, red = ground.colors[2, 0], ground.colors[2, 1], ground.colors[2, 2]
        strength = ground.contrasts[2]
    else:
        blue, green, red, strength = _mixed(ground, road, stone, bright, yellow, coarse)
        if bright < NEUTRAL:
            light *= 1.0 - (NEUTRAL - bright) * (0.8 / NEUTRAL)
    grain = strength * _grain(tile, level, i, j)
    light *= 1.0 - dark * (1.0 / 255.0)
    lit = light * weight
    for k in range(len(lamps)):
        da, dr, height = ahead - lamps[k, 0], right - lamps[k, 1], lamps[k, 2]
        apart = 1.0 + (da * da + dr * dr) / (height * height)
        lit += ground.lamp / (apart * math.sqrt(apart))
    glare = 0.0
    if ground.glare > 0.0:
        away = 1.0 / math.sqrt(ahead * ahead + right * right + frame.height * frame.height)
        # Cosine between the mirrored line of sight and the sun.
        cosine = (ahead * frame.sun[0] + right * frame.sun[1] + frame.height * frame.sun[2]) * away
        if cosine > 0.5:
            glare = ground.glare * light * cosine ** (8.0 * ground.sharpness)
    return (blue + grain) * lit + glare, (green + grain) * lit + glare, (red + grain) * lit + glare
