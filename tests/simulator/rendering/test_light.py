"""Light and shadow on the ground, and the tones that a client paints it with."""

from __future__ import annotations

import math

import carla
import numpy as np
import pytest
from numpy.typing import NDArray
from small_towns import furnished, straight_town

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering.appearance import build_appearance
from sb3_carla.simulator.rendering.bodies import Body
from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.ground_polygons import ROAD_LINES, ROADS, TERRAIN
from sb3_carla.simulator.rendering.ground_shading import GROUND_MATERIALS
from sb3_carla.simulator.rendering.light import LONGEST_SHADOW, SHADOW_DEPTH
from sb3_carla.simulator.rendering.look import Look
from sb3_carla.simulator.rendering.mesh import Mesh, Shape
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.scenery import shapes
from sb3_carla.simulator.town import Town

FLAT = Ground(0.0)
PLACE = (60.0, 1.75)
ABOVE = Pose(x=PLACE[0], y=PLACE[1], z=20.0, pitch=-0.5 * math.pi)
"""Looks straight down: a pixel of 200 x 200 at 90 degrees is 0.2 m wide; up in the picture is +x, right is +y."""
PIXEL = 0.2
WALL = int(carla.CityObjectLabel.Walls)


@pytest.fixture(scope="module")
def straight() -> Town:
    return straight_town()


@pytest.fixture(scope="module")
def above() -> Camera:
    return Camera(200, 200, 0.5 * math.pi)


def screen(height: float) -> Mesh:
    """A thin wall across the road, 4 m wide, with two fronts."""
    builder, (x, y) = shapes.MeshBuilder(), PLACE
    look = shapes.Look(WALL, (128.0, 128.0, 128.0))
    builder.panel((x, y - 2.0, 0.0), (x, y + 2.0, 0.0), height, look, both_sides=True)
    return builder.build()


def changed(camera: Camera, town: Town, mesh: Mesh | None, weather: Weather, *bodies: Body) -> NDArray[np.bool_]:
    """Pixels of ground that are darker with the mesh and the bodies than without, where neither is seen."""
    bare = camera.render(furnished(town), ABOVE, FLAT, weather).astype(int)
    full = camera.render(furnished(town, mesh), ABOVE, FLAT, weather, bodies).astype(int)
    things = camera.render_depth(town, ABOVE, FLAT, bodies) != camera.render_depth(furnished(town), ABOVE, FLAT)
    return (full < bare - 1).any(axis=2) & ~things.any(axis=2)


def middle(dark: NDArray[np.bool_]) -> tuple[float, float]:
    """x and y of the middle of what is dark, from ``PLACE`` [m]."""
    rows, columns = np.nonzero(dark)
    return float(99.5 - rows.mean()) * PIXEL, float(columns.mean() - 99.5) * PIXEL


@pytest.mark.parametrize(("azimuth", "altitude"), [(0.0, 30.0), (180.0, 30.0), (45.0, 60.0), (-150.0, 20.0)])
def test_shadows_point_away_from_the_sun_and_are_height_over_tangent_long(
    above: Camera, straight: Town, azimuth: float, altitude: float
) -> None:
    weather = Weather(sun_azimuth_angle=azimuth, sun_altitude_angle=altitude)
    dark = changed(above, straight, screen(2.0), weather)
    length = 2.0 / math.tan(math.radians(altitude))
    away = -length * math.cos(math.radians(azimuth)), -length * math.sin(math.radians(azimuth))
    # A parallelogram from the wall's foot: its middle is half the way, its area 4 m times the way along x.
    assert middle(dark) == pytest.approx((0.5 * away[0], 0.5 * away[1]), abs=0.15)
    assert dark.sum() * PIXEL**2 == pytest.approx(4.0 * abs(away[0]), rel=0.1)


def test_a_low_sun_throws_no_endless_shadows(above: Camera, straight: Town) -> None:
    dark = changed(above, straight, screen(1.0), Weather(sun_azimuth_angle=0.0, sun_altitude_angle=4.0))
    assert dark.sum() * PIXEL**2 == pytest.approx(4.0 * LONGEST_SHADOW, rel=0.1)  # 14.3 m without a limit


@pytest.mark.parametrize(
    "weather",
    [Weather(cloudiness=100.0), Weather(sun_altitude_angle=-10.0), Weather(fog_density=100.0, fog_distance=100.0)],
)
def test_no_shadows_under_clouds_at_night_and_in_fog(above: Camera, straight: Town, weather: Weather) -> None:
    assert not changed(above, straight, screen(2.0), weather).any()


def test_the_ground_under_a_car_is_dark_also_under_clouds(above: Camera, straight: Town) -> None:
    car = Body(Pose(*PLACE, z=0.75), (2.4, 1.0, 0.75))
    assert changed(above, straight, None, Weather(cloudiness=100.0), car).any()


def test_a_shadow_takes_the_suns_part_of_the_light(above: Camera, straight: Town) -> None:
    weather = Weather(sun_azimuth_angle=0.0)  # at 45 degrees: the shadow of 2 m reaches to x = -2
    town = furnished(straight)
    bare = above.render(town, ABOVE, FLAT, weather)[105, 90:110, :3].astype(float)
    full = above.render(furnished(town, screen(2.0)), ABOVE, FLAT, weather)[105, 90:110, :3]  # at x = -1.1
    np.testing.assert_allclose(full, bare * (1.0 - SHADOW_DEPTH), atol=1.5)


def test_shadows_of_sprites_have_their_shape(above: Camera, straight: Town) -> None:
    """The shadow of a round sign, 2 m wide and high at 45 degrees, is a circle: pi square metres."""
    builder = shapes.MeshBuilder()
    builder.sprite((*PLACE, 3.0), 2.0, 2.0, Shape.ELLIPSE, shapes.Look(WALL, (128.0, 128.0, 128.0)))
    dark = changed(above, straight, builder.build(), Weather(sun_azimuth_angle=90.0))
    assert middle(dark) == pytest.approx((0.0, -4.0), abs=0.1)
    assert dark.sum() * PIXEL**2 == pytest.approx(math.pi, rel=0.1)


PAINTED = Look(
    {"Road": (200.0, 190.0, 180.0), "Terrain": (10.0, 20.0, 30.0), "RoadLines_White": (40.0, 50.0, 60.0)},
    dict.fromkeys(("Road", "Terrain", "RoadLines_White"), 0.0),
)
"""A bright road between dark lines and a darker verge."""


def test_looks_are_the_grounds_colours_in_clear_daylight() -> None:
    colors = build_appearance(Weather(), PAINTED, 7).ground[0]["tones"][:, :3]
    found = dict(zip(GROUND_MATERIALS, colors.tolist(), strict=True))
    assert found["road"] == pytest.approx([200.0, 190.0, 180.0])
    assert found["verge"] == found["verge2"] == pytest.approx([10.0, 20.0, 30.0])
    assert found["white"] == pytest.approx([40.0, 50.0, 60.0])
    own = build_appearance(Weather(), Look(), 7).ground[0]["tones"][:, :3]
    np.testing.assert_array_equal(colors[3], own[3])  # pavements keep the town's own stone


def test_looks_are_the_pictures_colours(above: Camera, straight: Town) -> None:
    town = furnished(straight)
    picture = above.render(town, ABOVE, FLAT, Weather(), look=PAINTED)[:, :, :3]
    seen = above.render_semantic(town, ABOVE, FLAT)[:, :, 2]
    for label, color in ((ROADS, (200, 190, 180)), (TERRAIN, (10, 20, 30))):
        # Large blotches are up to some 12 % brighter or darker.
        np.testing.assert_allclose(np.median(picture[seen == label], axis=0), color, rtol=0.12)
    assert picture[seen == ROAD_LINES].mean() < 100.0 < 180.0 < picture[seen == ROADS].mean()


def test_contrast_of_a_look_is_the_spread_of_the_grey_levels(straight: Town) -> None:
    """Half a metre above the road, 5 mm a pixel: finer than the finest grain."""
    town, near = furnished(straight), Camera(200, 200, 0.5 * math.pi)
    # The middle of the lane, without tracks: 1 m a side.
    eyes = [Pose(x=20.0 + 10.0 * k, y=1.75, z=0.5, pitch=-0.5 * math.pi) for k in range(20)]

    def spread(contrast: float) -> float:
        look = Look({"Road": (128.0, 128.0, 128.0)}, {"Road": contrast})
        pictures = [near.render(town, eye, FLAT, Weather(), look=look)[:, :, 0].astype(float) for eye in eyes]
        return float(np.median([picture.std() for picture in pictures]))

    assert spread(0.0) < 3.0
    assert spread(20.0) == pytest.approx(20.0, rel=0.35)
    assert spread(40.0) == pytest.approx(2.0 * spread(20.0), rel=0.1)


def test_tints_colour_what_stands(straight: Town) -> None:
    builder = shapes.MeshBuilder()
    building = shapes.Look(int(carla.CityObjectLabel.Buildings), (130.0, 130.0, 130.0))
    builder.panel((70.0, -2.0, 0.0), (70.0, 6.0, 0.0), 6.0, building)
    town, eye = furnished(straight, builder.build()), Pose(x=60.0, y=1.75, z=2.0)
    overcast, camera = Weather(cloudiness=100.0), Camera(84, 84, 0.5 * math.pi)
    plain = camera.render(town, eye, FLAT, overcast)[38, 41, :3].astype(int)
    look = Look({"Buildings": (65.0, 130.0, 26.0)}, {})  # half, once and a fifth of the neutral grey 130
    tinted = camera.render(town, eye, FLAT, overcast, look=look)[38, 41, :3]
    np.testing.assert_allclose(tinted, plain * (0.5, 1.0, 0.2), atol=1.0)


def test_street_lights_light_the_ground_at_night_only(above: Camera, straight: Town) -> None:
    """Light falls with the cube of the distance from the lamp: at a height's distance aside by sqrt(8)."""
    light = (*PLACE, 5.0)
    for weather, lit in ((Weather(sun_altitude_angle=-40.0), True), (Weather(), False)):
        dark = above.render(furnished(straight), ABOVE, FLAT, weather, look=PAINTED).astype(float)
        bright = above.render(furnished(straight, lamps=[light]), ABOVE, FLAT, weather, look=PAINTED).astype(float)
        gain = (bright - dark)[:, 99, 0]
        assert (gain[99] > 50.0) == lit
        if lit:
            # The road at x = 5 m, and as bright below the lamp: lane middle, the same paint.
            assert gain[99] / gain[74] == pytest.approx(math.sqrt(8.0), rel=0.1)
        else:
            assert not gain.any()


def test_a_low_sun_dazzles_who_drives_towards_it(straight: Town) -> None:
    town, eye = furnished(straight), Pose(x=50.0, y=1.75, z=2.0)
    camera = Camera(84, 84, 0.5 * math.pi)
    towards, away = (
        camera.render(town, eye, FLAT, Weather(sun_altitude_angle=8.0, sun_azimuth_angle=azimuth))[:, :, 1].astype(int)
        for azimuth in (0.0, 180.0)
    )
    assert towards[20:41, 30:54].mean() > away[20:41, 30:54].mean() + 50.0  # the sky around it
    assert towards[50, 41] > away[50, 41] + 10  # and its mirror image on the road
