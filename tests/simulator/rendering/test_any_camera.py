"""Any camera anywhere draws all three kinds of picture."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_towns import straight_town

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.rendering.bodies import Body
from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.town import Town

TAGS = 30
"""More than any ``carla.CityObjectLabel``."""


@functools.cache
def town(name: str) -> Town:
    if name == "slope":  # 12 % up along a street with houses
        return straight_town(slope=0.12, outer=("sidewalk",))
    return straight_town(outer=("sidewalk",)) if name == "street" else Town.load(name)


angles = st.one_of(st.floats(-math.pi, math.pi), st.sampled_from((0.0, 0.5 * math.pi, -0.5 * math.pi, math.pi)))
percents = st.sampled_from((0.0, 40.0, 100.0))
poses = st.builds(Pose, st.floats(-40.0, 340.0), st.floats(-30.0, 30.0), st.floats(-5.0, 60.0), angles, angles, angles)
weathers = st.builds(
    Weather, percents, percents, percents, percents, st.floats(-360.0, 360.0), st.floats(-90.0, 90.0), percents,
    st.floats(0.0, 100.0), wetness=percents, dust_storm=percents,
)  # fmt: skip
bodies = st.lists(st.builds(Body, poses, st.just((2.4, 1.0, 0.75))), max_size=2)


def check(name: str, size: tuple[int, int], fov: float, pose: Pose, weather: Weather, others: list[Body]) -> None:
    place, camera = town(name), Camera(*size, fov)
    ground = place.ground(pose.x, pose.y, pose.z)
    with np.errstate(invalid="raise", divide="raise"):
        color = camera.render(place, pose, ground, weather, others)
        labels = camera.render_semantic(place, pose, ground, others)
        depth = camera.render_depth(place, pose, ground, others)
    width, height = size
    for picture in (color, labels, depth):
        assert (picture.shape, picture.dtype) == ((height, width, 4), np.uint8)
        assert picture.flags.c_contiguous
        assert (picture[:, :, 3] == 255).all()
    assert (labels[:, :, :2] == 0).all()
    assert labels[:, :, 2].max() < TAGS
    metres = (depth[:, :, :3].astype(float) @ (65536.0, 256.0, 1.0)) / (2**24 - 1) * 1000.0
    # A thing is at least as far away as the near plane, the ground of a low camera 0.05 m below it.
    assert 0.0 <= metres.min() <= metres.max() <= 1000.0
    np.testing.assert_array_equal(Camera(*size, fov).render(place, pose, ground, weather, others), color)


@pytest.mark.parametrize("name", ["street", "slope"])
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.tuples(st.integers(1, 200), st.integers(1, 200)), st.floats(0.01, 3.1), poses, weathers, bodies)
def test_small_towns(
    name: str, size: tuple[int, int], fov: float, pose: Pose, weather: Weather, others: list[Body]
) -> None:
    check(name, size, fov, pose, weather, others)


@pytest.mark.long
@pytest.mark.parametrize("name", ["Circuit04", "Village04", "Circuit09"])
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.tuples(st.integers(1, 200), st.integers(1, 200)), st.floats(0.01, 3.1), poses, weathers, bodies)
def test_built_in_towns(
    name: str, size: tuple[int, int], fov: float, pose: Pose, weather: Weather, others: list[Body]
) -> None:
    check(name, size, fov, pose, weather, others)
