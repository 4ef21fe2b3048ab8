"""Geometry of the models: sizes and directions of their faces."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sb3_carla.simulator.rendering.mesh import Mesh, Pattern
from sb3_carla.simulator.scenery import models
from sb3_carla.simulator.scenery.catalogue import catalogue
from sb3_carla.simulator.scenery.shapes import Look, MeshBuilder, empty_mesh, placed

PLAIN = Look(3, (100.0, 100.0, 100.0))


def normals(mesh: Mesh) -> np.ndarray:
    """Directions that the faces look in: left edge times lower edge, because the axes are left-handed."""
    lower, left = mesh.corners[:, 1] - mesh.corners[:, 0], mesh.corners[:, 3] - mesh.corners[:, 0]
    out = np.cross(left, lower)
    return out / np.linalg.norm(out, axis=1)[:, None]


def test_faces_of_a_box_by_hand() -> None:
    mesh = models.tower(2.0, 3.0, 10.0, PLAIN, (0.0, 0.0, 0.0))
    # Front, rear, right, left, roof.
    expected = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1)]
    np.testing.assert_allclose(normals(mesh), expected, atol=1e-6)
    # From in front of it, looking back (-x), the viewer's left is +y: y points right for one who looks along +x.
    np.testing.assert_allclose(mesh.corners[0], [(2, 3, 0), (2, -3, 0), (2, -3, 10), (2, 3, 10)])
    np.testing.assert_allclose(mesh.size, [(6, 10), (6, 10), (4, 10), (4, 10), (4, 6)])


@pytest.mark.parametrize(
    "mesh",
    [
        models.house(5.0, 6.0, 6.0, 9.0, PLAIN, PLAIN),
        models.shop(5.0, 6.0, 12.0, PLAIN, PLAIN, PLAIN),
        models.hall(8.0, 12.0, 6.0, PLAIN, PLAIN),
        models.car((2.2, 0.9, 0.75), (10.0, 20.0, 200.0)),
        models.car((2.6, 1.0, 1.1), (10.0, 20.0, 200.0), cabin=(-0.96, 0.75)),
        models.truck((4.0, 1.2, 1.7), (10.0, 20.0, 200.0)),
        models.solid_wall(2.0, 0.3, PLAIN, PLAIN),
        models.bin_(0.6, 1.0, (0.0, 0.0, 0.0)),
    ],
    ids=["house", "shop", "hall", "car", "van", "truck", "wall", "bin"],
)
def test_faces_look_outwards(mesh: Mesh) -> None:
    centre = mesh.corners.reshape(-1, 3).mean(axis=0)
    centre[:2] = 0.0
    outwards = ((mesh.corners.mean(axis=1) - centre) * normals(mesh)).sum(axis=1)
    # The sloping glass of a low cabin may face a little away from the middle of the whole.
    assert (outwards > 0.0).all(), outwards


@pytest.mark.parametrize("half", [(2.396, 1.082, 0.744), (1.8, 0.82, 0.7), (4.23, 1.45, 1.91)])
def test_vehicles_fill_their_boxes(half: tuple[float, float, float]) -> None:
    for mesh in (models.car(half, (0.0, 0.0, 0.0)), models.truck(half, (0.0, 0.0, 0.0))):
        corners = mesh.corners.reshape(-1, 3)
        np.testing.assert_allclose(corners.min(axis=0), (-half[0], -half[1], 0.0), atol=1e-5)
        np.testing.assert_allclose(corners.max(axis=0), (half[0], half[1], 2.0 * half[2]), atol=1e-5)
        assert 12 <= len(mesh.base) <= 24
        assert (mesh.glow > 0.0).sum() == 4, "two head lights, two tail lights"
        lights = mesh.corners[mesh.glow > 0.0].mean(axis=1)
        assert sorted(np.sign(lights[:, 0])) == [-1, -1, 1, 1]


def test_a_fence_is_seen_from_both_sides() -> None:
    bars = models.fence(1.5, Look(5, (0.0, 0.0, 0.0), pattern=Pattern.BARS))
    planks = models.fence(1.5, Look(5, (0.0, 0.0, 0.0), pattern=Pattern.PLANKS))
    assert (len(bars.base), len(planks.base)) == (1, 2)
    np.testing.assert_allclose(normals(planks), [(0, 1, 0), (0, -1, 0)], atol=1e-6)


def test_copies_are_turned_moved_and_stretched() -> None:
    builder = MeshBuilder()
    builder.panel((-0.5, 0.0, 0.0), (0.5, 0.0, 0.0), 2.0, PLAIN)
    builder.sprite((1.0, 0.0, 0.5), 0.4, 3.0, 0, PLAIN)  # type: ignore[arg-type]
    places = np.array([(10.0, 20.0), (0.0, 0.0)])
    mesh = placed(
        builder.build(),
        places,
        yaw=np.array([0.5 * math.pi, 0.0]),
        base=np.array([7.0, 0.0]),
        tint=np.array([(0.5, 1.0, 3.0), (1.0, 1.0, 1.0)]),
        stretch=np.array([8.0, 1.0]),
    )
    # A quarter turn to the right: forward is +y. The panel is 8 m long.
    np.testing.assert_allclose(mesh.corners[0], [(10, 16, 0), (10, 24, 0), (10, 24, 2), (10, 16, 2)], atol=1e-5)
    np.testing.assert_allclose(mesh.size, [(8, 2), (1, 2)], atol=1e-5)
    np.testing.assert_allclose(mesh.sprite_place, [(10, 28, 0.5), (1, 0, 0.5)], atol=1e-5)
    np.testing.assert_allclose(mesh.color[0], (50.0, 100.0, 255.0))
    assert mesh.base.tolist() == mesh.sprite_base.tolist() == [7.0, 0.0]


def test_empty_mesh_joins() -> None:
    box = models.bin_(0.6, 1.0, (0.0, 0.0, 0.0))
    joined = Mesh.joined([empty_mesh(), box, empty_mesh()])
    assert joined.corners.shape == (5, 4, 3)
    assert joined.sprite_place.shape == (0, 3)


def test_every_model_of_a_catalogue_is_sound() -> None:
    for kind, variants in catalogue(np.random.default_rng(3)).items():
        for model in variants:
            mesh = model.mesh
            assert len(mesh.base) + len(mesh.sprite_base) > 0, kind
            assert (mesh.size > 0.0).all(), kind
            for sizes in (mesh.scale, mesh.sprite_scale, mesh.sprite_size):
                assert (sizes > 0.0).all(), kind
            for colors in (mesh.color, mesh.color2, mesh.sprite_color, mesh.sprite_color2):
                assert ((colors >= 0.0) & (colors <= 255.0)).all(), kind
            if len(mesh.base):
                reach = np.abs(mesh.corners[:, :, :2]).reshape(-1, 2).max(axis=0)
                allowed = np.array(model.half_extents[:2]) + max(model.room, 1.0)
                assert (reach <= allowed).all(), kind
