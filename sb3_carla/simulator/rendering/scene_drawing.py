"""Faces, sprites and their shadows, in the light and the air of a weather. Compiled by numba."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.kernels import inlined, kernel
from sb3_carla.simulator.rendering.mesh import Pattern, Shape
from sb3_carla.simulator.rendering.rasteriser import COLORS, MEAN, clip_near, darken, fill, is_coarse, project
from sb3_carla.simulator.rendering.visibility import SEEN, SHADED, ground_height, in_view, see

__all__ = ["HEADLIGHT_REACH", "darken_below", "draw_face", "draw_sprite"]

CONTACT = 0.15
"""How far the dark ground below a body reaches beyond it [m]."""
CONTACT_DARKNESS = 170
"""Darkness of the ground below a body, 0 to 255."""
HEADLIGHT_REACH = 30.0
"""Distance at which a car's headlights have fallen to 1/e [m]."""
_WINDOWS, _STRIPES = int(Pattern.WINDOWS), int(Pattern.STRIPES)
_PLAIN, _COURSES, _PLANKS, _FOLIAGE = (
    int(p) for p in (Pattern.PLAIN, Pattern.COURSES, Pattern.PLANKS, Pattern.FOLIAGE)
)
_RECTANGLE, _ELLIPSE = int(Shape.RECTANGLE), int(Shape.ELLIPSE)


@inlined
def _begin(facet: Any, width: float, height: float) -> None:
    """Axes of a facet from its corners in camera axes, and its size [m]."""
    facet.width, facet.height = width, height
    for k in range(3):
        facet.along[k] = (facet.seen[1, k] - facet.seen[0, k]) / width
        facet.up[k] = (facet.seen[3, k] - facet.seen[0, k]) / height


@kernel
def draw_face(
    samples: NDArray[np.void],
    spans: NDArray[np.int32],
    shadow: NDArray[np.uint8],
    lens: Any,
    shade: Any,
    facet: Any,
    lighting: Any,
    face: Any,
    what: int,
) -> None:
    """Draw the face whose corners are in ``facet.world`` and its shadow, both if ``what`` says so."""
    if what & SHADED:
        _shadow_of_face(shadow, shade, facet, lighting)
    if not what & SEEN:
        return
    for i in range(4):
        see(lens, facet, i, facet.world[i, 0], facet.world[i, 1], facet.world[i, 2])
    if not in_view(lens, facet) or not clip_near(facet) or not project(lens, facet, len(samples)):
        return
    _begin(facet, face.extent[0], face.extent[1])
    facet.pattern, facet.is_sprite, facet.frequency = face.pattern, 0, 1.0 / face.scale
    facet.plain = face.pattern == _PLAIN or is_coarse(lens, facet)
    _paint(facet, lighting, face, face.pattern, facet.towards_sun)
    fill(samples, spans, lens, facet)


@kernel
def draw_sprite(
    samples: NDArray[np.void],
    spans: NDArray[np.int32],
    shadow: NDArray[np.uint8],
    lens: Any,
    shade: Any,
    facet: Any,
    lighting: Any,
    sprite: Any,
    what: int,
) -> None:
    """Draw one sprite and its shadow, both if ``what`` says so."""
    if what & SHADED:
        _shadow_of_sprite(shadow, shade, facet, lighting, sprite)
    if not what & SEEN:
        return
    x, y, width, height = sprite.place[0], sprite.place[1], sprite.extent[0], sprite.extent[1]
    ground = ground_height(lens, x, y)
    dx, dy = x - lens.place[0], y - lens.place[1]
    distance = math.sqrt(dx * dx + dy * dy)
    # Half the width to the right of the line of sight.
    side_x, side_y = -0.5 * width * dy / distance, 0.5 * width * dx / distance
    low = ground + sprite.place[2]
    see(lens, facet, 0, x - side_x, y - side_y, low)
    see(lens, facet, 1, x + side_x, y + side_y, low)
    see(lens, facet, 2, x + side_x, y + side_y, low + height)
    see(lens, facet, 3, x - side_x, y - side_y, low + height)
    if not in_view(lens, facet) or not clip_near(facet) or not project(lens, facet, len(samples)):
        return
    _begin(facet, width, height)
    facet.pattern, facet.is_sprite, facet.frequency = sprite.outline, 1, 1.0 / sprite.scale
    facet.plain = sprite.outline == _RECTANGLE
    if sprite.outline == _ELLIPSE:  # one colour
        _paint(facet, lighting, sprite, _PLAIN, 0.5)
        facet.colors[0] = facet.colors[MEAN]
    else:
        _paint(facet, lighting, sprite, _PLAIN if facet.plain else _FOLIAGE, 0.5)
    fill(samples, spans, lens, facet)


@kernel
def _paint(facet: Any, lighting: Any, item: Any, pattern: int, towards_sun: float) -> None:
    """Colours of a face or sprite in this light and at this distance, for its pattern to choose from."""
    distance = math.sqrt(facet.seen[0, 0] ** 2 + facet.seen[0, 1] ** 2 + facet.seen[0, 2] ** 2)
    # Koschmieder: c = transmission * c0 + (1 - transmission) * haze, with Beer and Lambert's transmission.
    transmission = 1.0
    if lighting.extinction > 0.0:
        transmission = math.exp(-lighting.extinction * max(distance - lighting.fog_start, 0.0))
    headlight = 0.0
    if lighting.headlights > 0.0:
        headlight = lighting.headlights * math.exp(-((distance / HEADLIGHT_REACH) ** 2))
    if facet.plain or pattern == _PLAIN:
        part = 0.0
        if pattern == _WINDOWS:
            part = 0.3
        elif pattern == _FOLIAGE or pattern == _STRIPES:  # noqa: SIM109
            part = 0.5
        facet.colors[MEAN] = _packed(lighting, item, towards_sun, headlight, transmission, part, 1.0, False)
        return
    for i in range(COLORS - 1):
        # Share of the second colour, and brightness.
        part, bright = 0.0, 1.0
        if pattern == _WINDOWS:
            part, bright = (0.0, 1.0 - 0.06 * i) if i < 2 else (1.0, 1.0 + 0.5 * (i == 3))
        elif pattern == _COURSES or pattern == _PLANKS:  # noqa: SIM109
            bright = 0.88 + 0.08 * i
        elif pattern == _FOLIAGE:
            part = 1.0 - i / 3.0
        elif pattern == _STRIPES:
            part = i / 3.0
        lit = pattern == _WINDOWS and i == 3
        facet.colors[i] = _packed(lighting, item, towards_sun, headlight, transmission, part, bright, lit)


@inlined
def _packed(
    lighting: Any,
    item: Any,
    towards_sun: float,
    headlight: float,
    transmission: float,
    part: float,
    bright: float,
    lit: bool,
) -> int:
    """One colour as in ``SAMPLE``: ``part`` of the second one, ``bright`` times as bright, in this light and air."""
    packed: int = item.tag << 24
    for k in range(3):
        light = min(lighting.ambient[k] + lighting.sun[k] * towards_sun + headlight, 1.5)
        own = bright * lighting.tints[item.tag, k] * (item.color[k] + part * (item.color2[k] - item.color[k]))
        value = own * (item.glow + (1.0 - item.glow) * light)
        if lit:
            value = max(value, lighting.windows[k])
        value = lighting.haze[k] + transmission * (value - lighting.haze[k])
        packed |= int(min(value, 255.0)) << (8 * k)
    return packed


@kernel
def _shadow_of_face(shadow: NDArray[np.uint8], lens: Any, facet: Any, lighting: Any) -> None:
    for i in range(4):
        x, y = facet.world[i, 0], facet.world[i, 1]
        height = max(facet.world[i, 2] - ground_height(lens, x, y), 0.0)
        x, y = x + lighting.shadow[0] * height, y + lighting.shadow[1] * height
        see(lens, facet, i, x, y, ground_height(lens, x, y))
    _darken_ground(shadow, lens, facet, lighting.darkness)


@kernel
def darken_below(shadow: NDArray[np.uint8], lens: Any, facet: Any, body: Any) -> None:
    """Dark ground below a body."""
    length, width = body.footprint[0] + CONTACT, body.footprint[1] + CONTACT
    for i in range(4):
        ahead, right = length if i < 2 else -length, width if i == 1 or i == 2 else -width
        x = body.place[0] + body.axes[0, 0] * ahead + body.axes[1, 0] * right
        y = body.place[1] + body.axes[0, 1] * ahead + body.axes[1, 1] * right
        see(lens, facet, i, x, y, ground_height(lens, x, y))
    _darken_ground(shadow, lens, facet, CONTACT_DARKNESS)


@kernel
def _darken_ground(shadow: NDArray[np.uint8], lens: Any, facet: Any, strength: int) -> None:
    """Darken the ground within the four corners of ``facet.seen``."""
    if in_view(lens, facet) and clip_near(facet):
        facet.is_sprite = 0
        darken(shadow, lens, facet, strength)


@kernel
def _shadow_of_sprite(shadow: NDArray[np.uint8], lens: Any, facet: Any, lighting: Any, sprite: Any) -> None:
    width, height = sprite.extent[0], sprite.extent[1]
    slant = math.sqrt(lighting.shadow[0] ** 2 + lighting.shadow[1] ** 2) + 1e-6
    # Unit vector away from the sun.
    away_x, away_y = lighting.shadow[0] / slant, lighting.shadow[1] / slant
    # A crown is as deep as it is wide, so that its shadow is at least as long.
    depth = width if sprite.outline > 1 else 0.0
    length = height * slant + depth
    reach = sprite.place[2] * slant - 0.5 * depth
    for i in range(4):
        ahead = reach if i < 2 else reach + length
        right = 0.5 * width if i == 1 or i == 2 else -0.5 * width
        x = sprite.place[0] + away_x * ahead - away_y * right
        y = sprite.place[1] + away_y * ahead + away_x * right
        see(lens, facet, i, x, y, ground_height(lens, x, y))
    if in_view(lens, facet) and clip_near(facet):
        _begin(facet, width, length)
        facet.pattern, facet.is_sprite, facet.frequency = sprite.outline, 1, 1.0 / sprite.scale
        darken(shadow, lens, facet, lighting.darkness)
