"""What stands beside the roads of a town, made from its lanes and a seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.lane_strips import LaneStrip
from sb3_carla.simulator.rendering.mesh import Mesh
from sb3_carla.simulator.scenery.catalogue import catalogue
from sb3_carla.simulator.scenery.kerbs import kerbs
from sb3_carla.simulator.scenery.land_use import divide
from sb3_carla.simulator.scenery.lane_grid import LaneGrid
from sb3_carla.simulator.scenery.placement import Placed, Site
from sb3_carla.simulator.scenery.recipes import RECIPES
from sb3_carla.simulator.scenery.shapes import empty_mesh, placed

__all__ = ["Scenery", "build_scenery"]

LIGHTEST, DARKEST = 1.15, 0.8
"""Factors of the colours of copies of one model."""


@dataclass(frozen=True)
class Scenery:
    """
    Everything that stands beside the roads of a town.

    :param mesh: n faces and m sprites, in world axes
    :param face_layer: shape (n,), uint16, ``carla.MapLayer`` of every face
    :param sprite_layer: shape (m,), uint16, likewise of every sprite
    :param solids: shape (k, 7), float32: x, y, z of the middle of the base, yaw, half length, half width, half height
        [m, rad]: boxes that a car can hit
    :param solid_layer: shape (k,), uint16, ``carla.MapLayer``
    :param solid_tag: shape (k,), uint8, ``carla.CityObjectLabel``
    :param lamps: shape (l, 3), float32: x, y and height over the ground of street lights [m]
    """

    mesh: Mesh
    face_layer: NDArray[np.uint16]
    sprite_layer: NDArray[np.uint16]
    solids: NDArray[np.float32]
    solid_layer: NDArray[np.uint16]
    solid_tag: NDArray[np.uint8]
    lamps: NDArray[np.float32]


def build_scenery(strips: Sequence[LaneStrip], seed: int) -> Scenery:
    """
    Decide what stands beside the roads of a town. Equal lanes and seeds give equal scenery.

    :param strips: lanes of the town, at least one
    :param seed: >= 0
    :return: things that keep clear of all lanes but pavements, and of each other
    """
    random = np.random.default_rng(seed)
    grid = LaneGrid(strips)
    models = catalogue(random)
    site = Site(grid, divide(grid, random), models, random)
    groups: dict[int, list[Placed]] = {}  # by model
    for recipe in RECIPES:
        for group in site.place(recipe):
            groups.setdefault(id(group.model), []).append(group)
    return _assembled([_joined(parts) for parts in groups.values()], grid, random, kerbs(strips, random))


def _joined(groups: Sequence[Placed]) -> Placed:
    """Copies of one model as one group."""
    parts = ((group.places, group.yaw, group.stretch, group.trim) for group in groups)
    return Placed(groups[0].model, *(np.concatenate(part) for part in zip(*parts, strict=True)))


def _assembled(
    groups: Sequence[Placed], grid: LaneGrid, random: np.random.Generator, kerb_mesh: Mesh | None
) -> Scenery:
    meshes, face_layers, sprite_layers, solids, solid_layers, solid_tags, lamps = [empty_mesh()], [], [], [], [], [], []
    bases = np.split(
        grid.height(np.concatenate([np.empty((0, 2))] + [group.places for group in groups])),
        np.cumsum([len(group.places) for group in groups])[:-1],
    )
    for group, base in zip(groups, bases, strict=False):
        model = group.model
        tint = DARKEST + (LIGHTEST - DARKEST) * random.random((len(base), 1)) * np.ones(3)
        mesh = placed(model.mesh, group.places, group.yaw, base, tint, group.stretch)
        meshes.append(mesh)
        face_layers.append(np.full(len(mesh.base), model.layer, np.uint16))
        sprite_layers.append(np.full(len(mesh.sprite_base), model.layer, np.uint16))
        if model.solid:
            solids.append(_solids(group, base))
            solid_layers.append(np.full(len(base), model.layer, np.uint16))
            solid_tags.append(np.full(len(base), model.tag, np.uint8))
        if model.lamp:
            lamps.append(_lamps(group))
    if kerb_mesh is not None:
        meshes.append(kerb_mesh)
        face_layers.append(np.zeros(len(kerb_mesh.base), np.uint16))  # part of the street: never hidden
    return Scenery(
        mesh=Mesh.joined(meshes),
        face_layer=np.concatenate([np.empty(0, np.uint16), *face_layers]),
        sprite_layer=np.concatenate([np.empty(0, np.uint16), *sprite_layers]),
        solids=np.concatenate([np.empty((0, 7), np.float32), *solids]),
        solid_layer=np.concatenate([np.empty(0, np.uint16), *solid_layers]),
        solid_tag=np.concatenate([np.empty(0, np.uint8), *solid_tags]),
        lamps=np.concatenate([np.empty((0, 3), np.float32), *lamps]),
    )


def _solids(group: Placed, base: NDArray[np.float64]) -> NDArray[np.float32]:
    """Boxes of all copies: shape (k, 7)."""
    length, width, height = group.model.half_extents
    boxes = np.empty((len(base), 7), np.float32)
    boxes[:, :2], boxes[:, 2], boxes[:, 3] = group.places, base, group.yaw
    boxes[:, 4] = np.maximum(length * group.stretch - group.trim, 0.05)
    boxes[:, 5:] = width, height
    return boxes


def _lamps(group: Placed) -> NDArray[np.float32]:
    """Street lights of all copies: shape (k, 3)."""
    arm = group.model.arm * np.stack([np.cos(group.yaw), np.sin(group.yaw)], axis=1)
    height = np.full((len(arm), 1), group.model.lamp)
    return np.concatenate([group.places + arm, height], axis=1).astype(np.float32)
