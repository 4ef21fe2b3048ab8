"""What is placed keeps clear of the lanes and of each other, and depends on the lanes and the seed alone."""

from __future__ import annotations

import dataclasses

import carla
import numpy as np
import pytest
from paths import REAL_MAPS
from scipy.spatial import cKDTree

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.collision import boxes_overlap
from sb3_carla.simulator.rendering.lane_strips import LaneStrip, lane_strips
from sb3_carla.simulator.rendering.mesh import Mesh
from sb3_carla.simulator.roads.built_in_towns import BUILT_IN_TOWNS
from sb3_carla.simulator.scenery.scenery import Scenery, build_scenery
from sb3_carla.simulator.town import Town

LABEL = carla.CityObjectLabel
SAMPLE = ("Village04", "Circuit04", "Circuit09")
"""A village with pavements, a hilly circuit, a circuit of six lanes."""
MAPS = ("Town01", "Town02", "Town04")


def strips_of(town: Town) -> list[LaneStrip]:
    return lane_strips(town.map, town._root)


def places_in(strips: list[LaneStrip]) -> np.ndarray:
    """Places in lanes, up to 0.5 m apart along and a quarter of the width apart across: shape (n, 2)."""
    places = []
    for strip in strips:
        at = np.linspace(0.0, len(strip.inner) - 1.0, 4 * len(strip.inner))
        whole = np.arange(len(strip.inner))
        edges = [
            np.stack([np.interp(at, whole, line[:, axis]) for axis in (0, 1)], axis=1)
            for line in (strip.inner, strip.outer)
        ]
        places += [edges[0] + share * (edges[1] - edges[0]) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return np.concatenate(places)


def outline(solid: np.ndarray) -> np.ndarray:
    """Places in and around a solid, up to 0.7 m apart: shape (n, 2)."""
    x, y, _, yaw, length, width, _ = solid.tolist()
    along, across = (np.linspace(-half, half, 2 + int(2.0 * half / 0.7)) for half in (length, width))
    u, v = (part.ravel() for part in np.meshgrid(along, across))
    return np.stack([x + np.cos(yaw) * u - np.sin(yaw) * v, y + np.sin(yaw) * u + np.cos(yaw) * v], axis=1)


def check_clear_of_lanes(scenery: Scenery, strips: list[LaneStrip]) -> None:
    road = cKDTree(places_in([strip for strip in strips if strip.kind not in ("sidewalk", "walking")]))
    lanes = cKDTree(places_in(strips))
    outlines = [outline(solid) for solid in scenery.solids]
    of_solid = np.repeat(np.arange(len(outlines)), [len(places) for places in outlines])
    places = np.concatenate(outlines)
    to_road, to_lane = (np.full(len(outlines), np.inf) for _ in range(2))
    np.minimum.at(to_road, of_solid, road.query(places)[0])
    np.minimum.at(to_lane, of_solid, lanes.query(places)[0])
    assert to_road.min() > 0.6
    assert to_lane[scenery.solid_tag == int(LABEL.Buildings)].min(initial=np.inf) > 2.0
    assert to_lane[scenery.solid_tag == int(LABEL.Fences)].min(initial=np.inf) > 1.4
    # Nothing hangs over the road either: crowns, arms of street lights, signs.
    radius = 0.5 * scenery.mesh.sprite_size[:, 0]
    high = scenery.mesh.sprite_place[:, 2] > -1.0  # hills are far away, and partly below the ground
    assert (road.query(scenery.mesh.sprite_place[:, :2])[0] - radius)[high].min() > -0.1


def check_no_overlaps(scenery: Scenery) -> None:
    solids = scenery.solids.astype(float)
    radii = np.hypot(solids[:, 4], solids[:, 5])
    for i, j in cKDTree(solids[:, :2]).query_pairs(2.0 * float(radii.max())):
        if np.hypot(*(solids[i, :2] - solids[j, :2])) < radii[i] + radii[j]:
            poses = [Pose(*solids[k, :3].tolist(), yaw=solids[k, 3]) for k in (i, j)]
            extents = [tuple(solids[k, 4:].tolist()) for k in (i, j)]
            assert not boxes_overlap(poses[0], extents[0], poses[1], extents[1]), (solids[i], solids[j])


def scenery_of(town: Town) -> Scenery:
    return build_scenery(strips_of(town), town.seed)


def check(town: Town) -> Scenery:
    scenery, strips = scenery_of(town), strips_of(town)
    check_clear_of_lanes(scenery, strips)
    check_no_overlaps(scenery)
    faces, sprites, solids = len(scenery.face_layer), len(scenery.sprite_layer), len(scenery.solids)
    assert faces == len(scenery.mesh.base)
    assert sprites == len(scenery.mesh.sprite_base)
    assert (len(scenery.solid_layer), len(scenery.solid_tag)) == (solids, solids)
    assert solids > 200
    assert faces + sprites < 30_000
    heights = np.concatenate([strip.heights for strip in strips])
    assert heights.min() - 1e-3 <= scenery.solids[:, 2].min()
    assert scenery.solids[:, 2].max() <= heights.max() + 1e-3
    return scenery


@pytest.mark.parametrize("name", SAMPLE)
def test_built_in_towns(name: str) -> None:
    check(Town.load(name))


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(set(BUILT_IN_TOWNS) - set(SAMPLE)))
def test_all_other_built_in_towns(name: str) -> None:
    check(Town.load(name))


@pytest.mark.long
@pytest.mark.parametrize("name", MAPS)
def test_maps_of_carla(name: str) -> None:
    path = REAL_MAPS / f"{name}.xodr"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    check(Town.load(str(path)))


def test_the_seed_decides() -> None:
    strips = strips_of(Town.load("Circuit01"))
    first, again, other = (build_scenery(strips, seed) for seed in (5, 5, 6))
    for one, two in ((first, again), (first.mesh, again.mesh)):
        for field in dataclasses.fields(one):
            values = [getattr(scenery, field.name) for scenery in (one, two)]
            if not isinstance(values[0], Mesh):
                np.testing.assert_array_equal(*values)
    assert first.solids.shape != other.solids.shape or not np.array_equal(first.solids, other.solids)


def test_streets_are_furnished() -> None:
    scenery = scenery_of(Town.load("Village04"))
    kinds = set(scenery.solid_tag.tolist())
    wanted = (LABEL.Buildings, LABEL.Vegetation, LABEL.Poles, LABEL.TrafficSigns, LABEL.Static, LABEL.Car)
    assert {int(label) for label in wanted} <= kinds
    assert len(scenery.lamps) > 10
    # Street lights are 25 to 40 m apart on each side; those that are nearer stand across the street.
    assert (scenery.lamps[:, 2] > 3.0).all()
    near = cKDTree(scenery.solids[:, :2].astype(float))
    counts = [len(near.query_ball_point((p.x, p.y), 60.0)) for p in Town.load("Village04").spawn_points]
    assert min(counts) >= 15


def test_hills_lift_the_scenery() -> None:
    town = Town.load("Circuit04")
    for x, y, z, *_ in scenery_of(town).solids[::25].tolist():
        assert abs(town.ground(x, y, z).z - z) < 0.6
