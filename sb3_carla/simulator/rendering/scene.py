"""
The scene: everything that stands in a town, drawn into a canvas, and its shadows on the ground.

Fixed faces and sprites are found through a grid; moving bodies are few, and all are looked at. Compiled by numba.
Heights are over the road plane under the car, in which the whole town is drawn.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.mesh import Mesh, Pattern
from sb3_carla.simulator.rendering.rasteriser import COLORS, clip_near, darken, fill, kernel

__all__ = ["BODY", "FACE", "LIGHTING", "SPRITE", "TAGS", "StaticScene", "draw_scene", "records", "static_scene"]

CELL = 24.0
"""Cell size of the grid [m]."""
REACH = 150.0
"""What stands farther away is not drawn [m]."""
MARGIN = 0.75 * CELL + 8.0
"""Things in a cell reach so far from its centre [m]."""
SMALLEST = 1.2
"""What is smaller is not drawn [samples]."""
SHADOW_REACH = 60.0
"""Shadows of what stands farther away are not drawn [m]."""
STOREY = 4.0
"""What stands on a road that is so far above or below the camera's road plane is hidden [m]."""
CONTACT = 0.15
"""How far the dark ground below a body reaches beyond it [m]."""
CONTACT_DARKNESS = 170
"""Darkness of the ground below a body, 0 to 255."""
HEADLIGHT_REACH = 30.0
"""Distance at which a car's headlights have fallen to 1/e [m]."""
TAGS = 32
"""More than any ``carla.CityObjectLabel``."""
_BARS, _RAILS, _WINDOWS, _STRIPES = (int(p) for p in (Pattern.BARS, Pattern.RAILS, Pattern.WINDOWS, Pattern.STRIPES))
_PLAIN, _COURSES, _PLANKS, _FOLIAGE = (
    int(p) for p in (Pattern.PLAIN, Pattern.COURSES, Pattern.PLANKS, Pattern.FOLIAGE)
)

_LOOK = [("scale", "f4"), ("color", "f4", (3,)), ("color2", "f4", (3,)), ("glow", "f4"), ("tag", "i4"), ("layer", "i4")]
FACE = np.dtype([("corners", "f4", (4, 3)), ("foot", "f4"), ("extent", "f4", (2,)), ("pattern", "i4"), *_LOOK])
"""Record: a face of a ``Mesh``, and the ``carla.MapLayer`` that it belongs to, 0 for none."""
SPRITE = np.dtype([("place", "f4", (3,)), ("foot", "f4"), ("extent", "f4", (2,)), ("outline", "i4"), *_LOOK])
"""Record: a sprite of a ``Mesh``, likewise."""
BODY = np.dtype(
    [
        ("place", "f8", (3,)),  # of its origin in the world [m]
        ("axes", "f8", (3, 3)),  # rows: forward, right and up axis in the world
        ("first", "i8"),  # its first face, and the face after its last
        ("last", "i8"),
        ("footprint", "f8", (2,)),  # half length and half width [m]
    ]
)
"""Record: a body that moves; its faces are in its own axes."""
LIGHTING = np.dtype(
    [
        ("ambient", "f8", (3,)),  # gains of blue, green, red: light from everywhere
        ("sun", "f8", (3,)),  # what a face straight towards the sun gets in addition
        ("to_sun", "f8", (3,)),  # unit vector in world axes
        ("shadow", "f8", (2,)),  # how far the shadow of something one metre high reaches in x and y [m]
        ("darkness", "i8"),  # of shadows on the ground, 0 (none) to 255
        ("headlights", "f8"),  # brightness of the headlights, 0 by day to 1 by night
        ("windows", "f8", (3,)),  # colour of a lit window; all 0 by day
        ("haze", "f8", (3,)),  # colour of what is far away in fog
        ("extinction", "f8"),  # of the air [1/m]
        ("fog_start", "f8"),  # distance from which on the air is not clear [m]
        ("tints", "f8", (TAGS, 3)),  # gain of all colours of a ``carla.CityObjectLabel``
    ]
)
"""Record: light on what stands."""
GRID = np.dtype([("low", "f8", (2,)), ("columns", "i8"), ("rows", "i8")])
"""Record: corner with the smallest x and y [m], number of cells along x and y."""


class StaticScene(NamedTuple):
    """
    What does not move, found through a grid: cell (i, j) is number i * rows + j.

    :param faces: shape (n,), records of type ``FACE``, sorted by cell
    :param sprites: shape (m,), records of type ``SPRITE``, sorted by cell
    :param starts: shape (2, cells + 1), int64: where a cell's faces and sprites begin
    :param grid: shape (1,), a record of type ``GRID``
    """

    faces: NDArray[np.void]
    sprites: NDArray[np.void]
    starts: NDArray[np.int64]
    grid: NDArray[np.void]


def records(
    mesh: Mesh, face_layer: NDArray[np.uint16] | None = None, sprite_layer: NDArray[np.uint16] | None = None
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """
    :param mesh: faces and sprites
    :param face_layer: shape (n,), uint16: ``carla.MapLayer`` of each face; None: none has one
    :param sprite_layer: shape (m,), uint16: as ``face_layer``
    :return: faces, shape (n,), and sprites, shape (m,), as records
    """
    faces, sprites = np.zeros(len(mesh.base), FACE), np.zeros(len(mesh.sprite_base), SPRITE)
    faces["foot"], faces["extent"] = mesh.base, mesh.size
    sprites["foot"], sprites["extent"], sprites["outline"] = mesh.sprite_base, mesh.sprite_size, mesh.sprite_shape
    for name in ("corners", "pattern", "scale", "color", "color2", "tag", "glow"):
        faces[name] = getattr(mesh, name)
    for name in ("place", "scale", "color", "color2", "tag", "glow"):
        sprites[name] = getattr(mesh, f"sprite_{name}")
    if face_layer is not None:
        faces["layer"] = face_layer
    if sprite_layer is not None:
        sprites["layer"] = sprite_layer
    return faces, sprites


def static_scene(faces: NDArray[np.void], sprites: NDArray[np.void]) -> StaticScene:
    """
    Sort faces and sprites into the grid.

    :param faces: shape (n,), records of type ``FACE``
    :param sprites: shape (m,), records of type ``SPRITE``
    """
    centres = faces["corners"][:, :, :2].mean(axis=1).astype(np.float64)  # (n, 2)
    places = sprites["place"][:, :2].astype(np.float64)  # (m, 2)
    everything = np.concatenate([centres, places, np.zeros((0 if len(centres) + len(places) else 1, 2))])
    low = everything.min(axis=0)
    columns, rows = ((everything.max(axis=0) - low) // CELL).astype(int) + 1

    def cells_of(points: NDArray[np.float64]) -> NDArray[np.int64]:
        cells: NDArray[np.int64] = ((points - low) // CELL).astype(np.int64) @ (rows, 1)
        return cells

    face_cells, sprite_cells = cells_of(centres), cells_of(places)
    starts = [np.searchsorted(np.sort(cells), np.arange(columns * rows + 1)) for cells in (face_cells, sprite_cells)]
    return StaticScene(
        faces[np.argsort(face_cells, kind="stable")],
        sprites[np.argsort(sprite_cells, kind="stable")],
        np.array(starts, np.int64),
        np.array([(low, columns, rows)], GRID),
    )


@kernel
def draw_scene(
    samples: NDArray[np.void],
    spans: NDArray[np.int32],
    shadow: NDArray[np.uint8],
    lenses: NDArray[np.void],
    facets: NDArray[np.void],
    lightings: NDArray[np.void],
    faces: NDArray[np.void],
    sprites: NDArray[np.void],
    starts: NDArray[np.int64],
    grids: NDArray[np.void],
    models: NDArray[np.void],
    bodies: NDArray[np.void],
    hidden_layers: int,
) -> None:
    """
    Draw what stands in a town.

    :param samples: of the canvas that is drawn into
    :param spans: of that canvas
    :param shadow: shape (rows, columns) or (0, 0), uint8, darkness of the ground: is drawn into
    :param lenses: shape (2,), records of type ``LENS``: camera of the canvas, the same camera for the shadow
    :param facets: shape (1,), a record of type ``FACET``, to calculate in
    :param lightings: shape (1,), a record of type ``LIGHTING``
    :param faces: of a ``StaticScene``
    :param sprites: likewise
    :param starts: likewise
    :param grids: likewise
    :param models: shape (f,), records of type ``FACE``: faces of the bodies, in their axes
    :param bodies: shape (k,), records of type ``BODY``: what moves
    :param hidden_layers: ``carla.MapLayer`` bits of what is not drawn
    """
    lens, shade, facet, lighting = lenses[0], lenses[1], facets[0], lightings[0]
    x, y = lens.place[0], lens.place[1]
    grid = grids[0]
    throws = shadow.size > 0 and lighting.darkness > 0
    level = math.hypot(lens.axes[0, 0], lens.axes[0, 1]) + 1e-9
    ahead_x, ahead_y = lens.axes[0, 0] / level, lens.axes[0, 1] / level
    # A camera that looks down or up sees farther to the side than its field of view says.
    spread = (lens.column + 1.0) / lens.focal / max(level - 0.7 * abs(lens.axes[0, 2]), 0.1)
    home_column, home_row = math.floor((x - grid.low[0]) / CELL), math.floor((y - grid.low[1]) / CELL)
    for k in range(len(bodies)):
        body = bodies[k]
        if shadow.size > 0:
            _contact(shadow, shade, facet, body)
        for number in range(body.first, body.last):
            _carry(facet, body, models[number])
            _draw_face(samples, spans, shadow, lens, shade, facet, lighting, models[number], throws)
    # Rings of cells around the camera, the nearest first: what is hidden then costs little.
    for ring in range(math.ceil(REACH / CELL) + 1):
        for column in range(max(home_column - ring, 0), min(home_column + ring, grid.columns - 1) + 1):
            step = 1 if abs(column - home_column) == ring else max(2 * ring, 1)
            for row in range(home_row - ring, home_row + ring + 1, step):
                if row < 0 or row >= grid.rows:
                    continue
                dx, dy = grid.low[0] + (column + 0.5) * CELL - x, grid.low[1] + (row + 0.5) * CELL - y
                squared = dx * dx + dy * dy
                if squared > REACH * REACH:
                    continue
                # A cell that is not seen can still throw a shadow into the picture.
                shaded = throws and squared < SHADOW_REACH * SHADOW_REACH
                ahead, aside = dx * ahead_x + dy * ahead_y, abs(dy * ahead_x - dx * ahead_y)
                seen = ahead > -MARGIN and aside < spread * (ahead + MARGIN) + MARGIN
                if not seen and not shaded:
                    continue
                cell = column * grid.rows + row
                for number in range(starts[0, cell], starts[0, cell + 1]):
                    face = faces[number]
                    if (
                        not face.layer & hidden_layers
                        and _large(lens, face.corners[0, 0], face.corners[0, 1], face.extent[0], face.extent[1])
                        and _stand(lens, facet, face)
                    ):
                        _draw_face(samples, spans, shadow, lens, shade, facet, lighting, face, shaded)
                for number in range(starts[1, cell], starts[1, cell + 1]):
                    sprite = sprites[number]
                    if not sprite.layer & hidden_layers and _large(
                        lens, sprite.place[0], sprite.place[1], sprite.extent[0], sprite.extent[1]
                    ):
                        _draw_sprite(samples, spans, shadow, lens, shade, facet, lighting, sprite, shaded)


@kernel
def _ground(lens: Any, x: float, y: float) -> float:
    """Height of the road plane at a point [m]."""
    height: float = lens.plane[0] + lens.plane[1] * (x - lens.place[0]) + lens.plane[2] * (y - lens.place[1])
    return height


@kernel
def _see(lens: Any, facet: Any, corner: int, x: float, y: float, z: float) -> None:
    """A point of the world as a corner in camera axes."""
    dx, dy, dz = x - lens.place[0], y - lens.place[1], z - lens.place[2]
    for k in range(3):
        facet.seen[corner, k] = lens.axes[k, 0] * dx + lens.axes[k, 1] * dy + lens.axes[k, 2] * dz


@kernel
def _large(lens: Any, x: float, y: float, width: float, height: float) -> bool:
    """Whether something of this size at a point is larger than ``SMALLEST``."""
    dx, dy, size = x - lens.place[0], y - lens.place[1], lens.focal * max(width, height)
    large: bool = (dx * dx + dy * dy) * (SMALLEST * SMALLEST) < size * size
    return large


@kernel
def _stand(lens: Any, facet: Any, face: Any) -> bool:
    """Corners of a fixed face in the world; False if it stands on another storey."""
    for i in range(4):
        x, y = face.corners[i, 0], face.corners[i, 1]
        height = _ground(lens, x, y)
        if abs(height - face.foot) > STOREY:
            return False
        facet.world[i, 0], facet.world[i, 1], facet.world[i, 2] = x, y, height + face.corners[i, 2]
    return True


@kernel
def _carry(facet: Any, body: Any, face: Any) -> None:
    """Corners of a body's face in the world."""
    for i in range(4):
        for k in range(3):
            facet.world[i, k] = body.place[k]
            for axis in range(3):
                facet.world[i, k] += body.axes[axis, k] * face.corners[i, axis]


@kernel
def _in_view(lens: Any, facet: Any) -> bool:
    """Whether a quadrilateral is at least partly in front of the camera, between its left and right edges."""
    spread = (lens.column + 1.0) / lens.focal
    behind = left = right = 0
    for i in range(4):
        reach = spread * facet.seen[i, 0]
        behind += facet.seen[i, 0] < 0.1
        left += facet.seen[i, 1] < -reach
        right += facet.seen[i, 1] > reach
    return behind < 4 and left < 4 and right < 4


@kernel
def _begin(facet: Any, width: float, height: float) -> None:
    """Axes of a facet from its corners in camera axes, and its size [m]."""
    facet.width, facet.height = width, height
    for k in range(3):
        facet.along[k] = (facet.seen[1, k] - facet.seen[0, k]) / width
        facet.up[k] = (facet.seen[3, k] - facet.seen[0, k]) / height


@kernel
def _draw_face(
    samples: NDArray[np.void],
    spans: NDArray[np.int32],
    shadow: NDArray[np.uint8],
    lens: Any,
    shade: Any,
    facet: Any,
    lighting: Any,
    face: Any,
    shaded: bool,
) -> None:
    """Draw the face whose corners are in ``facet.world``, and its shadow if ``shaded``."""
    # Outward normal. The axes are left-handed: seen from its front, (along x up) points away.
    length = facing = towards_sun = 0.0
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        along_i, along_j = facet.world[1, i] - facet.world[0, i], facet.world[1, j] - facet.world[0, j]
        up_i, up_j = facet.world[3, i] - facet.world[0, i], facet.world[3, j] - facet.world[0, j]
        normal = along_j * up_i - along_i * up_j
        length += normal * normal
        facing += normal * (lens.place[k] - facet.world[0, k])
        towards_sun += normal * lighting.to_sun[k]
    thin = face.pattern == _BARS or face.pattern == _RAILS
    if shaded and (towards_sun > 0.0 or thin):
        _shadow_of_face(shadow, shade, facet, lighting)
    if facing <= 0.0 and not thin:
        return
    for i in range(4):
        _see(lens, facet, i, facet.world[i, 0], facet.world[i, 1], facet.world[i, 2])
    if not _in_view(lens, facet) or not clip_near(facet):
        return
    _begin(facet, face.extent[0], face.extent[1])
    facet.pattern, facet.is_sprite, facet.frequency = face.pattern, 0, 1.0 / face.scale
    towards_sun = max(towards_sun, 0.0) / math.sqrt(length + 1e-12)
    _paint(facet, lighting, face, face.pattern, towards_sun)
    fill(samples, spans, lens, facet)


@kernel
def _draw_sprite(
    samples: NDArray[np.void],
    spans: NDArray[np.int32],
    shadow: NDArray[np.uint8],
    lens: Any,
    shade: Any,
    facet: Any,
    lighting: Any,
    sprite: Any,
    shaded: bool,
) -> None:
    """Draw one sprite, and its shadow if ``shaded``."""
    x, y, width, height = sprite.place[0], sprite.place[1], sprite.extent[0], sprite.extent[1]
    ground = _ground(lens, x, y)
    if abs(ground - sprite.foot) > STOREY:
        return
    if shaded:
        _shadow_of_sprite(shadow, shade, facet, lighting, sprite)
    dx, dy = x - lens.place[0], y - lens.place[1]
    distance = math.sqrt(dx * dx + dy * dy)
    if distance < 0.3 or dx * lens.axes[0, 0] + dy * lens.axes[0, 1] < -width:
        return
    # Half the width to the right of the line of sight.
    side_x, side_y = -0.5 * width * dy / distance, 0.5 * width * dx / distance
    low = ground + sprite.place[2]
    _see(lens, facet, 0, x - side_x, y - side_y, low)
    _see(lens, facet, 1, x + side_x, y + side_y, low)
    _see(lens, facet, 2, x + side_x, y + side_y, low + height)
    _see(lens, facet, 3, x - side_x, y - side_y, low + height)
    if not _in_view(lens, facet) or not clip_near(facet):
        return
    _begin(facet, width, height)
    facet.pattern, facet.is_sprite, facet.frequency = sprite.outline, 1, 1.0 / sprite.scale
    _paint(facet, lighting, sprite, _FOLIAGE, 0.5)
    if sprite.outline < 2:  # one colour
        facet.colors[0] = facet.colors[3]
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
    if pattern == _PLAIN:
        facet.colors[0] = _packed(lighting, item, towards_sun, headlight, transmission, 0.0, 1.0, False)
        return
    for i in range(COLORS):
        # Share of the second colour, and brightness.
        part, bright = 0.0, 1.0
        if pattern == _WINDOWS:
            part, bright = (0.0, 1.0 - 0.06 * i) if i < 2 else (1.0, 1.0 + 0.5 * (i == 3))
            part, bright = (0.3, 1.0) if i == 4 else (part, bright)
        elif pattern == _COURSES or pattern == _PLANKS:  # noqa: SIM109
            bright = 0.88 + 0.08 * i if i < 4 else 1.0
        elif pattern == _FOLIAGE:
            part = 1.0 - i / 3.0 if i < 4 else 0.5
        elif pattern == _STRIPES:
            part = i / 3.0 if i < 4 else 0.5
        lit = pattern == _WINDOWS and i == 3
        facet.colors[i] = _packed(lighting, item, towards_sun, headlight, transmission, part, bright, lit)


@kernel
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
        height = max(facet.world[i, 2] - _ground(lens, x, y), 0.0)
        x, y = x + lighting.shadow[0] * height, y + lighting.shadow[1] * height
        _see(lens, facet, i, x, y, _ground(lens, x, y))
    _darken_ground(shadow, lens, facet, lighting.darkness)


@kernel
def _contact(shadow: NDArray[np.uint8], lens: Any, facet: Any, body: Any) -> None:
    """Dark ground below a body."""
    length, width = body.footprint[0] + CONTACT, body.footprint[1] + CONTACT
    for i in range(4):
        ahead, right = length if i < 2 else -length, width if i == 1 or i == 2 else -width
        x = body.place[0] + body.axes[0, 0] * ahead + body.axes[1, 0] * right
        y = body.place[1] + body.axes[0, 1] * ahead + body.axes[1, 1] * right
        _see(lens, facet, i, x, y, _ground(lens, x, y))
    _darken_ground(shadow, lens, facet, CONTACT_DARKNESS)


@kernel
def _darken_ground(shadow: NDArray[np.uint8], lens: Any, facet: Any, strength: int) -> None:
    """Darken the ground within the four corners of ``facet.seen``."""
    if _in_view(lens, facet) and clip_near(facet):
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
        _see(lens, facet, i, x, y, _ground(lens, x, y))
    if _in_view(lens, facet) and clip_near(facet):
        _begin(facet, width, length)
        facet.pattern, facet.is_sprite, facet.frequency = sprite.outline, 1, 1.0 / sprite.scale
        darken(shadow, lens, facet, lighting.darkness)
