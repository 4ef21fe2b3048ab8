"""
The scene: everything that stands in a town, drawn into a canvas, and its shadows on the ground.

Fixed faces and sprites are found through a grid; moving bodies are few, and all are looked at. Compiled by numba.
Heights are over the road plane under the car, in which the whole town is drawn.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.kernels import kernel
from sb3_carla.simulator.rendering.mesh import Mesh
from sb3_carla.simulator.rendering.rasteriser import clear
from sb3_carla.simulator.rendering.scene_drawing import darken_below, draw_face, draw_sprite
from sb3_carla.simulator.rendering.visibility import in_sight, meet_body_face, meet_fixed_face, meet_sprite

__all__ = ["BODY", "FACE", "LIGHTING", "SPRITE", "TAGS", "StaticScene", "draw_scene", "records", "static_scene"]

CELL = 24.0
"""Cell size of the grid [m]."""
REACH = 150.0
"""What stands farther away is not drawn [m]."""
MARGIN = 0.75 * CELL + 8.0
"""Things in a cell reach so far from its centre [m]."""
SHADOW_REACH = 60.0
"""Shadows of what stands farther away are not drawn [m]."""
TAGS = 32
"""More than any ``carla.CityObjectLabel``."""

_LOOK = [("scale", "f4"), ("color", "f4", (3,)), ("color2", "f4", (3,)), ("glow", "f4"), ("tag", "i4"), ("layer", "i4")]
_BALL = [("centre", "f4", (3,)), ("radius", "f4"), ("normal", "f4", (3,))]
FACE = np.dtype([("corners", "f4", (4, 3)), ("foot", "f4"), ("extent", "f4", (2,)), ("pattern", "i4"), *_LOOK, *_BALL])
"""
Record: a face of a ``Mesh``, and the ``carla.MapLayer`` that it belongs to, 0 for none; a ball around it, and the
unit vector that points out of its front.
"""
SPRITE = np.dtype([("place", "f4", (3,)), ("foot", "f4"), ("extent", "f4", (2,)), ("outline", "i4"), *_LOOK])
"""Record: a sprite of a ``Mesh``, likewise."""
BODY = np.dtype(
    [
        ("place", "f8", (3,)),  # of its origin in the world [m]
        ("axes", "f8", (3, 3)),  # rows: forward, right and up axis in the world
        ("first", "i8"),  # its first face, and the face after its last
        ("last", "i8"),
        ("footprint", "f8", (2,)),  # half length and half width [m]
        ("radius", "f8"),  # of a ball around its origin that it fits in [m]
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
    corners = mesh.corners.astype(np.float64)  # (n, 4, 3)
    faces["centre"] = centres = corners.mean(axis=1)
    faces["radius"] = np.linalg.norm(corners - centres[:, None], axis=2).max(axis=1, initial=0.0)
    # The axes are left-handed: seen from its front, (along x up) points away.
    normals = np.cross(corners[:, 3] - corners[:, 0], corners[:, 1] - corners[:, 0])
    faces["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
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

    :param samples: of the canvas that is drawn into; what was in it is taken away
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
    clear(samples, spans)
    lens, shade, facet, lighting = lenses[0], lenses[1], facets[0], lightings[0]
    x, y = lens.place[0], lens.place[1]
    grid = grids[0]
    throws = shadow.size > 0 and lighting.darkness > 0
    slant = math.sqrt(lighting.shadow[0] ** 2 + lighting.shadow[1] ** 2)
    level = math.hypot(lens.axes[0, 0], lens.axes[0, 1]) + 1e-9
    ahead_x, ahead_y = lens.axes[0, 0] / level, lens.axes[0, 1] / level
    # A camera that looks down or up sees farther to the side than its field of view says.
    spread = (lens.column + 1.0) / lens.focal / max(level - 0.7 * abs(lens.axes[0, 2]), 0.1)
    home_column, home_row = math.floor((x - grid.low[0]) / CELL), math.floor((y - grid.low[1]) / CELL)
    for k in range(len(bodies)):
        body = bodies[k]
        if shadow.size > 0 and in_sight(lens, body.place[0], body.place[1], body.place[2], body.radius):
            darken_below(shadow, shade, facet, body)
        dx, dy = body.place[0] - x, body.place[1] - y
        shaded = throws and dx * dx + dy * dy < SHADOW_REACH * SHADOW_REACH
        if shaded or in_sight(lens, body.place[0], body.place[1], body.place[2], body.radius):
            for number in range(body.first, body.last):
                face = models[number]
                what = meet_body_face(lens, facet, body, face, lighting, slant if shaded else -1.0)
                if what > 0:
                    draw_face(samples, spans, shadow, lens, shade, facet, lighting, face, what)
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
                    if not face.layer & hidden_layers:
                        what = meet_fixed_face(lens, facet, face, lighting, slant if shaded else -1.0)
                        if what > 0:
                            draw_face(samples, spans, shadow, lens, shade, facet, lighting, face, what)
                for number in range(starts[1, cell], starts[1, cell + 1]):
                    sprite = sprites[number]
                    if not sprite.layer & hidden_layers:
                        what = meet_sprite(lens, sprite, lighting, slant if shaded else -1.0)
                        if what > 0:
                            draw_sprite(samples, spans, shadow, lens, shade, facet, lighting, sprite, what)
