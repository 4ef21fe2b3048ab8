"""What each parameter of the weather does to the picture."""

from __future__ import annotations

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
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.town import Town

FLAT = Ground(0.0)
ON_LANE = Pose(x=50.0, y=1.75, z=2.0)
FAR, NEAR = slice(43, 47), slice(60, 84)  # rows that see 15 m to 56 m, and 2 m to 4.5 m ahead


@pytest.fixture(scope="module")
def straight() -> Town:
    return furnished(straight_town())


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera(84, 84, 0.5 * math.pi)


def grey(camera: Camera, town: Town, weather: Weather, pose: Pose = ON_LANE) -> NDArray[np.float64]:
    return camera.render(town, pose, FLAT, weather)[:, :, :3].mean(axis=2)


def contrast(rows: NDArray[np.float64]) -> float:
    """Spread of the grey values within a row, on average: line, road and verge."""
    return float(np.mean(np.percentile(rows, 98, axis=1) - np.percentile(rows, 10, axis=1)))


def test_presets_are_carlas() -> None:
    assert Weather.preset("ClearNoon") == Weather()
    assert Weather.preset("HardRainNoon").precipitation == 100.0
    assert set(Weather.presets) == {name for name in dir(carla.WeatherParameters) if name[0].isupper()}
    with pytest.raises(ValueError, match="unknown weather preset 'Snow', expected one of ClearNight"):
        Weather.preset("Snow")


def test_fog_hides_what_is_far_and_leaves_what_is_near(camera: Camera, straight: Town) -> None:
    clear, fog = grey(camera, straight, Weather()), grey(camera, straight, Weather(fog_density=100.0))
    assert contrast(fog[FAR]) < 0.6 * contrast(clear[FAR])
    assert contrast(fog[NEAR]) > 0.7 * contrast(clear[NEAR])
    late = grey(camera, straight, Weather(fog_density=100.0, fog_distance=70.0))
    np.testing.assert_allclose(late[FAR, 30:54], clear[FAR, 30:54], atol=1.0)


def test_fog_follows_beers_law(camera: Camera, straight: Town) -> None:
    """Twice as far, the share of light that comes through is squared."""
    straight_line = Weather(fog_density=100.0, fog_distance=0.0)
    camera.render(straight, ON_LANE, FLAT, straight_line)
    effects = next(found for key, found in camera._effects.items() if key[-1] == straight_line)  # type: ignore[index]
    through = {distance: effects.weight[round(41.5 + 84.0 / distance), 41] for distance in (12.0, 24.0)}
    assert through[24.0] == pytest.approx(through[12.0] ** 2, abs=0.08)


def test_night_is_dark_and_lit_ahead(camera: Camera, straight: Town) -> None:
    day, night = grey(camera, straight, Weather()), grey(camera, straight, Weather.preset("ClearNight"))
    assert night.mean() < 0.5 * day.mean()
    assert night[70, 41] / day[70, 41] > 1.3 * night[70, 2] / day[70, 2]


def test_evening_is_warm(camera: Camera, straight: Town) -> None:
    noon, evening = (camera.render(straight, ON_LANE, FLAT, Weather(sun_altitude_angle=a)) for a in (45.0, 5.0))
    blue, red = (evening[60:, :, c].mean() / noon[60:, :, c].mean() for c in (0, 2))
    assert blue < 0.9 * red < red < 1.0


def test_wet_road_is_dark_near_by_and_mirrors_the_sky_far_away(camera: Camera, straight: Town) -> None:
    clear, wet = grey(camera, straight, Weather()), grey(camera, straight, Weather(wetness=100.0))
    assert wet[NEAR, 41].mean() < 0.9 * clear[NEAR, 41].mean()
    assert wet[43, 41] > clear[43, 41]


def test_rain_falls_and_falls_the_same_way_at_the_same_place(camera: Camera, straight: Town) -> None:
    rain = Weather(precipitation=90.0)
    here, there = grey(camera, straight, rain), grey(camera, straight, rain, Pose(x=50.02, y=1.75, z=2.0))
    assert np.abs(here - grey(camera, straight, Weather())).max() > 20.0
    assert np.abs(here[:40] - there[:40]).max() > 20.0  # other streaks in the sky
    np.testing.assert_array_equal(grey(Camera(84, 84, 0.5 * math.pi), straight, rain), here)


def test_clouds_take_contrast_away(camera: Camera, straight: Town) -> None:
    clear, cloudy = (grey(camera, straight, Weather(cloudiness=cover)) for cover in (0.0, 100.0))
    assert contrast(cloudy[NEAR]) < 0.9 * contrast(clear[NEAR])


def test_a_car_fades_in_fog_like_the_road_beside_it(camera: Camera, straight: Town) -> None:
    box = Body(Pose(x=92.0, y=1.75, z=0.75), (2.0, 1.0, 0.75), color=(0, 0, 0))
    fog = Weather(fog_density=100.0)
    picture = camera.render(straight, ON_LANE, FLAT, fog, [box])[:, :, :3].astype(float)
    assert np.abs(picture[42, 41] - picture[30, 41]).max() < 30.0


@pytest.mark.parametrize("name", sorted(Weather.presets))
def test_lane_edge_is_seen_in_every_preset(camera: Camera, straight: Town, name: str) -> None:
    """6 m ahead, where a lane keeper looks."""
    row = round(41.5 + 84.0 / 6.0)
    column = round(41.5 + 42.0 * 1.75 / 6.0)
    picture = grey(camera, straight, Weather.presets[name])
    line = picture[row - 1 : row + 2, column - 1 : column + 2].max()
    assert line > picture[row - 2 : row + 3, 38:48].mean() + 8.0
