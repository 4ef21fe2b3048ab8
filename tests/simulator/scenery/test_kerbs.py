"""Kerbs stand on the edges of pavements and face the road."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from small_towns import furnished, straight_town

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.ground_polygons import ROAD_LINES, ROADS, SIDEWALKS, TERRAIN
from sb3_carla.simulator.rendering.lane_strips import lane_strips
from sb3_carla.simulator.rendering.mesh import Mesh
from sb3_carla.simulator.scenery.kerbs import LONGEST, kerbs
from sb3_carla.simulator.town import Town


def kerbs_of(town: Town) -> Mesh | None:
    return kerbs(lane_strips(town.map, town._root), np.random.default_rng(0))


def fronts(mesh: Mesh) -> NDArray[np.float64]:
    """x and y of a unit vector out of each face's front: shape (n, 2)."""
    along = (mesh.corners[:, 1] - mesh.corners[:, 0]).astype(float)
    outwards = np.stack([-along[:, 1], along[:, 0]], axis=1)  # up x along
    return outwards / np.linalg.norm(outwards, axis=1)[:, None]


def test_kerbs_of_a_straight_street() -> None:
    mesh = kerbs_of(straight_town(outer=("sidewalk",)))
    assert mesh is not None
    # Lanes are 3.5 m wide: the pavements begin at y = -3.5 and 3.5 m, on both sides over all 300 m.
    y = mesh.corners[:, :, 1]
    np.testing.assert_allclose(np.abs(y), 3.5, atol=1e-3)
    for side in (-1.0, 1.0):
        own = mesh.corners[y[:, 0] * side > 0.0]
        lengths = np.abs(own[:, 1, 0] - own[:, 0, 0])
        assert lengths.sum() == pytest.approx(300.0, abs=0.01)
        assert lengths.max() <= LONGEST + 1e-3
    np.testing.assert_allclose(fronts(mesh)[:, 1], -np.sign(y[:, 0]), atol=1e-6)
    heights = mesh.corners[:, :, 2]
    assert (heights[:, :2] == 0.0).all()
    assert 0.1 <= heights[0, 2] <= 0.2
    assert (heights[:, 2:] == heights[0, 2]).all()


def test_no_pavement_no_kerb() -> None:
    assert kerbs_of(straight_town(outer=("shoulder",))) is None


@pytest.mark.parametrize("heading", [0.0, math.pi])
def test_both_kerbs_are_seen_from_the_road(heading: float) -> None:
    """Level with the road, pavements cannot be seen; upright faces can."""
    town = straight_town(outer=("sidewalk",))
    camera, mesh = Camera(400, 400, 0.5 * math.pi), kerbs_of(town)
    assert mesh is not None

    def raised(eye: Pose) -> NDArray[np.bool_]:
        depth, bare = (camera.render_depth(furnished(town, one), eye, Ground(0.0)) for one in (mesh, None))
        return (depth != bare).any(axis=2)

    eye = Pose(x=150.0, z=0.3, yaw=heading)
    seen = raised(eye)
    labels = camera.render_semantic(furnished(town, mesh), eye, Ground(0.0))[:, :, 2]
    assert (labels[seen] == SIDEWALKS).all()
    # c columns from the middle a kerb is 200 * 3.5 / c metres away and 200 * height / (200 * 3.5 / c) rows high.
    # 200 columns: height / 3.5 * 200^2 / 2 pixels.
    expected = float(mesh.corners[0, 2, 2]) / 3.5 * 0.5 * 200.0**2
    assert seen[:, :200].sum() == pytest.approx(expected, rel=0.1)
    assert seen[:, 200:].sum() == pytest.approx(expected, rel=0.1)
    # They have one front: from beside the road only the kerb across the road is seen, 8.5 m away.
    aside = raised(Pose(x=150.0, y=5.0, z=0.3, yaw=-0.5 * math.pi))
    assert not aside[210:].any()
    assert aside[200:210].any()


@pytest.mark.parametrize("name", ["Village04", "Village01"])
def test_kerbs_of_a_village_follow_its_pavements(name: str) -> None:
    town = Town.load(name)
    mesh, raster = kerbs_of(town), town.raster
    assert mesh is not None

    def labels(shift: float) -> NDArray[np.uint8]:
        places = mesh.corners[:, :2, :2].mean(axis=1) + shift * fronts(mesh)
        columns, rows = ((places - raster.origin) / raster.cell).astype(int).T
        return raster.labels[rows, columns]

    assert np.isin(labels(0.4), (ROADS, ROAD_LINES)).all(), "before it is the road"
    behind = labels(-0.4)
    # Where a pavement begins it is not yet 0.4 m wide.
    assert np.isin(behind, (SIDEWALKS, TERRAIN)).all(), "no kerb stands across a road"
    assert (behind == SIDEWALKS).mean() > 0.9
