"""Faces and sprites against projections worked out by hand."""

from __future__ import annotations

import itertools
import math

import carla
import numpy as np
import pytest
from numpy.typing import NDArray
from small_towns import furnished, straight_town

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering.bodies import Body
from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.light import read_weather
from sb3_carla.simulator.rendering.mesh import Mesh, Pattern, Shape
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.scenery.shapes import Look, MeshBuilder
from sb3_carla.simulator.town import Town

FLAT = Ground(0.0)
EYE = Pose(x=50.0, y=1.75, z=2.0)
FOCAL, CENTRE = 42.0, 41.5
"""Of a picture of 84 x 84 pixels and 90 degrees; the horizon lies between rows 41 and 42."""
WALL, TREE, SIGN = (
    int(label) for label in (carla.CityObjectLabel.Walls, carla.CityObjectLabel.Vegetation, carla.CityObjectLabel.Poles)
)
OVERCAST = Weather(cloudiness=100.0)
"""No sun: what stands has the same brightness on all sides."""


@pytest.fixture(scope="module")
def straight() -> Town:
    return straight_town()


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera(84, 84, 0.5 * math.pi)


def wall(distance: float, left: float, right: float, height: float, *, low: float = 0.0, **look: object) -> Mesh:
    """
    A wall across the road that looks back at the camera.

    :param distance: ahead of the camera [m]
    :param left: y of its left edge, as seen from the camera, right of it [m]
    :param right: likewise
    """
    builder = MeshBuilder()
    x = EYE.x + distance
    look = {"tag": WALL, "color": (200.0, 200.0, 200.0), **look}
    builder.panel((x, EYE.y + left, low), (x, EYE.y + right, low), height, Look(**look))  # type: ignore[arg-type]
    return builder.build()


def labels(camera: Camera, town: Town, eye: Pose = EYE, hidden: int = 0) -> NDArray[np.uint8]:
    return camera.render_semantic(town, eye, FLAT, hidden_layers=hidden)[:, :, 2]


def depths(camera: Camera, town: Town, eye: Pose = EYE) -> NDArray[np.float64]:
    """[m]"""
    picture = camera.render_depth(town, eye, FLAT).astype(np.float64)
    return (picture[:, :, 2] + 256.0 * picture[:, :, 1] + 65536.0 * picture[:, :, 0]) / (2**24 - 1) * 1000.0


def edges(seen: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """First and last row, first and last column."""
    rows, columns = np.nonzero(seen)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_a_wall_covers_the_pixels_between_its_projected_corners(camera: Camera, straight: Town) -> None:
    # 10 m ahead a metre is 4.2 px: columns 41.5 +- 4.2, and rows from the horizon (2 m high) to 41.5 + 8.4.
    town = furnished(straight, wall(10.0, -1.0, 1.0, 2.0))
    seen = labels(camera, town) == WALL
    assert edges(seen) == (42, 49, 38, 45)
    assert seen.sum() == 8 * 8
    depth = depths(camera, town)
    np.testing.assert_allclose(depth[seen], 10.0, atol=1e-3)
    np.testing.assert_allclose(depth[50], FOCAL * 2.0 / (50 - CENTRE), rtol=1e-3)  # the ground in front of it


def test_depth_on_a_slanted_wall(camera: Camera, straight: Town) -> None:
    """From (10, -1) to (20, 3) m: depth d = 10 + 2.5 (y + 1) with y = k d, so d = 12.5 / (1 - 2.5 k)."""
    builder = MeshBuilder()
    builder.panel((60.0, 0.75, 0.0), (70.0, 4.75, 0.0), 4.0, Look(WALL, (200.0, 200.0, 200.0)))
    town = furnished(straight, builder.build())
    seen = labels(camera, town) == WALL
    columns = np.flatnonzero(seen[41])
    assert (columns.min(), columns.max()) == (38, 47)  # 41.5 - 4.2 to 41.5 + 42 * 3 / 20
    np.testing.assert_allclose(
        depths(camera, town)[41, columns], 12.5 / (1.0 - 2.5 * (columns - CENTRE) / FOCAL), rtol=1e-5
    )


def test_the_nearer_face_hides_the_farther_one_in_any_order(camera: Camera, straight: Town) -> None:
    meshes = [wall(10.0, -1.0, 1.0, 2.0), wall(20.0, -6.0, 6.0, 6.0, tag=SIGN), wall(15.0, -3.0, 0.0, 3.0, tag=TREE)]
    pictures = [
        (labels(camera, furnished(straight, Mesh.joined(order))), camera.render(straight, EYE, FLAT, Weather()))
        for order in itertools.permutations(meshes)
    ]
    for seen, picture in pictures:
        np.testing.assert_array_equal(seen, pictures[0][0])
        np.testing.assert_array_equal(picture, pictures[0][1])
    seen = pictures[0][0]
    # Row 44 at the left: 15 m ahead the near edge of the tree is in column 41.5 - 42 * 3 / 15 = 33.1.
    assert seen[44, [33, 34, 38, 45, 46]].tolist() == [SIGN, TREE, WALL, WALL, SIGN]


def test_walls_that_cross_hide_each_other_in_part(camera: Camera, straight: Town) -> None:
    parts = []
    for (near, left), (far, right) in (((10.0, -2.0), (14.0, 2.0)), ((14.0, -2.0), (10.0, 2.0))):
        builder = MeshBuilder()
        ends = (EYE.x + near, EYE.y + left, 0.0), (EYE.x + far, EYE.y + right, 0.0)
        builder.panel(*ends, 3.0, Look(WALL, (200.0, 200.0, 200.0)))
        parts.append(builder.build())
    alone = [depths(camera, furnished(straight, part)) for part in parts]
    both = depths(camera, furnished(straight, Mesh.joined(parts)))
    np.testing.assert_array_equal(both, np.minimum(*alone))
    assert (alone[0] < alone[1]).any()
    assert (alone[1] < alone[0]).any()


@pytest.mark.parametrize("pattern", list(Pattern))
def test_only_bars_and_rails_are_seen_from_behind(camera: Camera, straight: Town, pattern: Pattern) -> None:
    town = furnished(straight, wall(10.0, -2.0, 2.0, 3.0, pattern=pattern))
    behind = Pose(x=EYE.x + 20.0, y=EYE.y, z=EYE.z, yaw=math.pi)
    assert (labels(camera, town) == WALL).any()
    assert (labels(camera, town, behind) == WALL).any() == (pattern in (Pattern.BARS, Pattern.RAILS))


def test_a_wall_beside_the_camera_is_cut_at_the_near_plane(camera: Camera, straight: Town) -> None:
    """2 m to the right, from 10 m behind to 30 m ahead: it is seen in column c at depth 42 * 2 / (c - 41.5)."""
    builder = MeshBuilder()
    builder.panel((80.0, 3.75, 0.0), (40.0, 3.75, 0.0), 4.0, Look(WALL, (200.0, 200.0, 200.0)))
    town = furnished(straight, builder.build())
    row = labels(camera, town)[42]
    columns = np.flatnonzero(row == WALL)
    np.testing.assert_array_equal(columns, np.arange(45, 84))  # from 41.5 + 42 * 2 / 30 = 44.3
    np.testing.assert_allclose(depths(camera, town)[42, columns], FOCAL * 2.0 / (columns - CENTRE), rtol=1e-4)


@pytest.mark.parametrize("distance", [-0.5, 0.05, 0.09])
def test_nothing_nearer_than_the_near_plane_is_seen(camera: Camera, straight: Town, distance: float) -> None:
    assert (labels(camera, furnished(straight, wall(distance, -3.0, 3.0, 4.0))) != WALL).all()


def test_bars_have_holes(camera: Camera, straight: Town) -> None:
    town = furnished(straight, wall(10.0, -2.0, 2.0, 4.0, pattern=Pattern.BARS, scale=1.0))
    columns = np.arange(34, 50)  # 41.5 +- 8.4
    along = 2.0 + 10.0 * (columns - CENTRE) / FOCAL  # [m] from the left edge
    np.testing.assert_array_equal(labels(camera, town)[44, columns] == WALL, along % 1.0 < 0.25)


def test_rails_have_holes(camera: Camera, straight: Town) -> None:
    town = furnished(straight, wall(10.0, -2.0, 2.0, 4.0, pattern=Pattern.RAILS, scale=1.0))
    rows = np.arange(34, 50)
    height = 2.0 - 10.0 * (rows - CENTRE) / FOCAL
    np.testing.assert_array_equal(labels(camera, town)[rows, 41] == WALL, height % 1.0 > 0.5)


def test_windows_are_where_the_pattern_says(straight: Town) -> None:
    """One every 3 m, storeys of 3 m; a window fills 22 to 78 % of the width and 30 to 78 % of the storey."""
    large = Camera(420, 420, 0.5 * math.pi)  # 21 px a metre at 10 m; one sample a pixel
    look = {"pattern": Pattern.WINDOWS, "scale": 3.0, "color2": (20.0, 20.0, 20.0)}
    town = furnished(straight, wall(10.0, -6.0, 6.0, 6.0, **look))
    grey = large.render(town, EYE, FLAT, OVERCAST)[:, :, 0]
    rows, columns = np.arange(130, 250), np.arange(90, 330)
    height = 2.0 - 10.0 * (rows - 209.5) / 210.0
    along = (6.0 + 10.0 * (columns - 209.5) / 210.0) / 3.0
    part, level = along % 1.0, height / 3.0 % 1.0
    window = ((level > 0.3) & (level < 0.78))[:, None] & ((part > 0.22) & (part < 0.78))
    np.testing.assert_array_equal(grey[np.ix_(rows, columns)] < 60, window)


def test_colours_of_a_wall_under_clouds_are_its_own_times_the_light(camera: Camera, straight: Town) -> None:
    town = furnished(straight, wall(10.0, -2.0, 2.0, 4.0, color=(120.0, 80.0, 40.0)))
    light = read_weather(OVERCAST)
    assert light.direct == 0.0
    expected = [int(value * light.ambient * gain) for value, gain in zip((120, 80, 40), light.color_gain, strict=True)]
    assert camera.render(town, EYE, FLAT, OVERCAST)[41, 41].tolist() == [*expected, 255]


def test_a_wall_that_looks_at_the_sun_is_brighter_than_one_that_does_not(camera: Camera, straight: Town) -> None:
    town = furnished(straight, wall(10.0, -2.0, 2.0, 4.0, color=(90.0, 90.0, 90.0)))
    behind, ahead = (
        camera.render(town, EYE, FLAT, Weather(sun_azimuth_angle=azimuth, sun_altitude_angle=30.0))[41, 41, 2]
        for azimuth in (180.0, 0.0)
    )
    light = read_weather(Weather(sun_altitude_angle=30.0))
    ambient, sun = (1.0 - 0.75 * light.direct), 1.3 * light.direct * math.cos(math.radians(30.0))
    assert ahead == int(90.0 * light.ambient * light.color_gain[2] * ambient)
    assert behind == int(90.0 * light.ambient * light.color_gain[2] * (ambient + sun))


@pytest.mark.parametrize("yaw", [0.0, 0.5 * math.pi, math.pi, -2.0])
def test_sprites_turn_towards_the_camera(camera: Camera, straight: Town, yaw: float) -> None:
    builder = MeshBuilder()
    builder.sprite((100.0, 1.75, 0.0), 2.0, 2.0, Shape.RECTANGLE, Look(TREE, (60.0, 90.0, 60.0)))
    eye = Pose(100.0 - 10.0 * math.cos(yaw), 1.75 - 10.0 * math.sin(yaw), 2.0, yaw=yaw)
    seen = labels(camera, furnished(straight, builder.build()), eye) == TREE
    assert edges(seen) == (42, 49, 38, 45)
    assert seen.sum() == 8 * 8


def test_shapes_are_cut_out_of_sprites(straight: Town) -> None:
    """Shares of a rectangle: an ellipse has pi / 4, a triangle about a half, a ragged crown less than the ellipse."""
    large, shares = Camera(420, 420, 0.5 * math.pi), {}
    for shape in Shape:
        builder = MeshBuilder()
        builder.sprite((60.0, 1.75, 0.0), 6.0, 6.0, shape, Look(TREE, (60.0, 90.0, 60.0), scale=0.3))
        shares[shape] = (labels(large, furnished(straight, builder.build())) == TREE).sum() / (6.0 * 21.0) ** 2
    assert shares[Shape.RECTANGLE] == pytest.approx(1.0, abs=0.01)
    assert shares[Shape.ELLIPSE] == pytest.approx(math.pi / 4.0, abs=0.01)
    assert 0.6 < shares[Shape.CROWN] < math.pi / 4.0
    assert shares[Shape.CONE] == pytest.approx(0.5 * (0.75 + 0.001 * 127), abs=0.04)  # 0 to 255: 127 in the mean


def test_hidden_layers_are_not_drawn(camera: Camera, straight: Town) -> None:
    mesh = Mesh.joined([wall(10.0, -3.0, -1.0, 2.0), wall(10.0, 1.0, 3.0, 2.0, tag=SIGN), wall(10.0, -1.0, 1.0, 1.0)])
    town = furnished(straight, mesh, layers=[1, 4, 0])
    body = Body(Pose(x=57.0, y=5.0, z=0.5), (0.5, 0.5, 0.5))
    for hidden, first, second in ((0, True, True), (1, False, True), (4, True, False), (5, False, False)):
        seen = labels(camera, town, hidden=hidden)
        assert (seen[44, 34] == WALL, seen[44, 48] == SIGN) == (first, second)
        assert seen[48, 41] == WALL, "it belongs to no layer"
    picture = camera.render_semantic(town, EYE, FLAT, [body], hidden_layers=0xFFFF)[:, :, 2]
    assert (picture == int(carla.CityObjectLabel.Car)).any(), "what moves belongs to none"


def test_a_street_of_another_storey_is_hidden(camera: Camera, straight: Town) -> None:
    mesh = wall(10.0, -1.0, 1.0, 2.0)
    for base, seen in ((0.0, True), (3.9, True), (-3.9, True), (4.1, False), (-4.1, False)):
        mesh.base[:] = base
        assert (labels(camera, furnished(straight, mesh)) == WALL).any() == seen


def test_what_is_smaller_than_a_pixel_is_left_out(camera: Camera, straight: Town) -> None:
    """A wall 0.5 m high and wide: 1.2 samples at 42 * 0.5 / 1.2 = 17.5 m in a depth picture of one sample a pixel."""
    for distance, seen in ((17.0, True), (18.0, False)):
        town = furnished(straight, wall(distance, -0.25, 0.25, 0.5, low=1.75))
        assert (labels(camera, town) == WALL).any() == seen
