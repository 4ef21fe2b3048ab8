"""What a camera sees of a scene: balls around faces and sprites are tried before any corner. Compiled by numba."""

from __future__ import annotations

from typing import Any

from sb3_carla.simulator.rendering.kernels import inlined
from sb3_carla.simulator.rendering.mesh import Pattern

__all__ = [
    "SEEN", "SHADED", "ground_height", "in_sight", "in_view", "meet_body_face", "meet_fixed_face", "meet_sprite", "see",
]  # fmt: skip

SMALLEST = 1.2
"""What is smaller is not drawn [samples]."""
STOREY = 4.0
"""What stands on a road that is so far above or below the camera's road plane is hidden [m]."""
SEEN, SHADED = 1, 2
"""Bits: a face or a sprite is to be drawn; its shadow is."""
_BARS, _RAILS = int(Pattern.BARS), int(Pattern.RAILS)


@inlined
def ground_height(lens: Any, x: float, y: float) -> float:
    """Height of the road plane at a point [m]."""
    height: float = lens.plane[0] + lens.plane[1] * (x - lens.place[0]) + lens.plane[2] * (y - lens.place[1])
    return height


@inlined
def see(lens: Any, facet: Any, corner: int, x: float, y: float, z: float) -> None:
    """A point of the world as a corner in camera axes."""
    dx, dy, dz = x - lens.place[0], y - lens.place[1], z - lens.place[2]
    for k in range(3):
        facet.seen[corner, k] = lens.axes[k, 0] * dx + lens.axes[k, 1] * dy + lens.axes[k, 2] * dz


@inlined
def _large(lens: Any, dx: float, dy: float, size: float) -> bool:
    """Whether something of this size [m], so far away from the camera, is larger than ``SMALLEST``."""
    size *= lens.focal
    large: bool = (dx * dx + dy * dy) * (SMALLEST * SMALLEST) < size * size
    return large


@inlined
def in_sight(lens: Any, x: float, y: float, z: float, radius: float) -> bool:
    """Whether a ball is at least partly in the camera's sight; beside a corner of the picture also if it is not."""
    dx, dy, dz = x - lens.place[0], y - lens.place[1], z - lens.place[2]
    ahead = lens.axes[0, 0] * dx + lens.axes[0, 1] * dy + lens.axes[0, 2] * dz
    right = lens.axes[1, 0] * dx + lens.axes[1, 1] * dy + lens.axes[1, 2] * dz
    up = lens.axes[2, 0] * dx + lens.axes[2, 1] * dy + lens.axes[2, 2] * dz
    return bool(
        ahead > -radius
        and abs(right) < lens.spread[0] * ahead + lens.stretch[0] * radius
        and abs(up) < lens.spread[1] * ahead + lens.stretch[1] * radius
    )


@inlined
def _sides(lens: Any, facet: Any, face: Any, lighting: Any, slant: float, ball: Any, normal: Any) -> int:
    """
    Whether a face is to be drawn (``SEEN``), and its shadow (``SHADED``).

    :param slant: length of the shadow of something one metre high [m]; negative if there is none
    :param ball: centre in the world, its height over the ground [m]
    :param normal: unit vector that points out of the face's front
    """
    x, y, z, height = ball
    normal_x, normal_y, normal_z = normal
    thin = face.pattern == _BARS or face.pattern == _RAILS
    facing = normal_x * (lens.place[0] - x) + normal_y * (lens.place[1] - y) + normal_z * (lens.place[2] - z)
    towards_sun = normal_x * lighting.to_sun[0] + normal_y * lighting.to_sun[1] + normal_z * lighting.to_sun[2]
    facet.towards_sun = max(towards_sun, 0.0)
    what = 0
    if (facing > 0.0 or thin) and in_sight(lens, x, y, z, face.radius):
        what = SEEN
    if slant >= 0.0 and (towards_sun > 0.0 or thin):
        reach = max(height, 0.0)
        x, y = x + lighting.shadow[0] * reach, y + lighting.shadow[1] * reach
        if in_sight(lens, x, y, ground_height(lens, x, y), face.radius * (1.0 + slant)):
            what |= SHADED
    return what


@inlined
def meet_fixed_face(lens: Any, facet: Any, face: Any, lighting: Any, slant: float) -> int:
    """As :func:`_sides`, and corners of the face in the world; nothing of it if it stands on another storey."""
    x, y = face.centre[0], face.centre[1]
    if not _large(lens, x - lens.place[0], y - lens.place[1], max(face.extent[0], face.extent[1])):
        return 0
    ground = ground_height(lens, x, y)
    if abs(ground - face.foot) > STOREY:
        return 0
    # The face is moved up and down with the road plane, which shears its normal.
    up = face.normal[2]
    normal = face.normal[0] - lens.plane[1] * up, face.normal[1] - lens.plane[2] * up, up
    ball = x, y, ground + face.centre[2], face.centre[2]
    what = _sides(lens, facet, face, lighting, slant, ball, normal)
    if what > 0:
        for i in range(4):
            x, y = face.corners[i, 0], face.corners[i, 1]
            facet.world[i, 0], facet.world[i, 1] = x, y
            facet.world[i, 2] = ground_height(lens, x, y) + face.corners[i, 2]
    return what


@inlined
def _turned(axes: Any, vector: Any, k: int) -> float:
    """Component k in the world of a vector in a body's axes."""
    turned: float = axes[0, k] * vector[0] + axes[1, k] * vector[1] + axes[2, k] * vector[2]
    return turned


@inlined
def meet_body_face(lens: Any, facet: Any, body: Any, face: Any, lighting: Any, slant: float) -> int:
    """As :func:`_sides`, and corners of the body's face in the world."""
    axes, place = body.axes, body.place
    x, y = place[0] + _turned(axes, face.centre, 0), place[1] + _turned(axes, face.centre, 1)
    z = place[2] + _turned(axes, face.centre, 2)
    if not _large(lens, x - lens.place[0], y - lens.place[1], max(face.extent[0], face.extent[1])):
        return 0
    normal = _turned(axes, face.normal, 0), _turned(axes, face.normal, 1), _turned(axes, face.normal, 2)
    what = _sides(lens, facet, face, lighting, slant, (x, y, z, z - ground_height(lens, x, y)), normal)
    if what > 0:
        for i in range(4):
            corner = face.corners[i]
            for k in range(3):
                facet.world[i, k] = place[k] + _turned(axes, corner, k)
    return what


@inlined
def meet_sprite(lens: Any, sprite: Any, lighting: Any, slant: float) -> int:
    """Whether a sprite is to be drawn, and its shadow, as :func:`_sides`."""
    x, y, width, height = sprite.place[0], sprite.place[1], sprite.extent[0], sprite.extent[1]
    dx, dy = x - lens.place[0], y - lens.place[1]
    if not _large(lens, dx, dy, max(width, height)):
        return 0
    ground = ground_height(lens, x, y)
    if abs(ground - sprite.foot) > STOREY:
        return 0
    what, radius = 0, 0.5 * (width + height)
    if dx * dx + dy * dy > 0.09 and in_sight(lens, x, y, ground + sprite.place[2] + 0.5 * height, radius):
        what = SEEN
    if slant >= 0.0:
        middle = sprite.place[2] + 0.5 * height
        x, y = x + lighting.shadow[0] * middle, y + lighting.shadow[1] * middle
        if in_sight(lens, x, y, ground_height(lens, x, y), radius * (1.0 + slant)):
            what |= SHADED
    return what


@inlined
def in_view(lens: Any, facet: Any) -> bool:
    """Whether a quadrilateral is at least partly in front of the camera, between its left and right edges."""
    spread = (lens.column + 1.0) / lens.focal
    behind = left = right = 0
    for i in range(4):
        reach = spread * facet.seen[i, 0]
        behind += facet.seen[i, 0] < 0.1
        left += facet.seen[i, 1] < -reach
        right += facet.seen[i, 1] > reach
    return behind < 4 and left < 4 and right < 4
