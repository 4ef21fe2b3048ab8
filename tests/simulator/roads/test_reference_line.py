"""Reference lines against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sb3_carla.simulator.roads.reference_line import (
    Corner,
    ReferenceLine,
    Segment,
    deflections,
    min_radius,
    pose_along,
    random_corner,
    rounded_polyline,
    sample_points,
    tangent_length,
)


@pytest.mark.parametrize("degrees", [-120.0, -30.0, 45.0, 90.0])
@pytest.mark.parametrize("radius", [12.0, 60.0])
def test_tangent_length_of_an_arc_is_the_textbooks(degrees: float, radius: float) -> None:
    deflection = math.radians(degrees)
    expected = radius * math.tan(0.5 * abs(deflection))
    assert tangent_length(deflection, Corner(radius, spiral_share=0.0)) == pytest.approx(expected, abs=1e-9)


def test_tangent_length_of_a_corner_that_is_all_clothoid() -> None:
    # 60 degrees: two clothoids of length L = R * 60 deg, each turning 30 degrees; x and y are Fresnel's series.
    radius, half = 20.0, math.radians(30.0)
    length = 2.0 * half * radius
    x = length * (1.0 - half**2 / 10.0 + half**4 / 216.0 - half**6 / 9360.0 + half**8 / 685440.0)
    y = length * (half / 3.0 - half**3 / 42.0 + half**5 / 1320.0 - half**7 / 75600.0)
    expected = x + y * math.tan(half)
    assert tangent_length(2.0 * half, Corner(radius, spiral_share=1.0)) == pytest.approx(expected, abs=1e-8)


def test_quarter_circle_to_the_left() -> None:
    x, y, heading = pose_along((1.0, 2.0, 0.0), Segment(10.0 * math.pi, 0.05, 0.05), 10.0 * math.pi)
    assert (x, y, heading) == pytest.approx((21.0, 22.0, math.pi / 2.0), abs=1e-9)


def test_corner_turns_by_its_deflection() -> None:
    for share in (0.0, 0.4, 1.0):
        segments = Corner(15.0, share).segments(-1.2)
        assert sum(segment.turned(segment.length) for segment in segments) == pytest.approx(-1.2)
        assert max(abs(segment.end_curvature) for segment in segments) == pytest.approx(1.0 / 15.0)


def test_deflection_is_positive_to_the_left() -> None:
    assert deflections([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (2.0, 1.0)]) == pytest.approx(
        [math.pi / 2.0, -math.pi / 2.0]
    )


def test_rounded_polyline_ends_where_the_polyline_does() -> None:
    points = [(0.0, 0.0), (100.0, 0.0), (140.0, 80.0), (60.0, 160.0)]
    line = rounded_polyline(points, [Corner(30.0, 0.5), Corner(20.0, 0.3)])
    _, x, y, heading = line.starts()[-1]
    assert (x, y) == pytest.approx(points[-1], abs=1e-9)
    assert heading == pytest.approx(math.atan2(80.0, -80.0))


def test_overlapping_roundings_are_refused() -> None:
    # Two right angles of 20 m radius need 20 m each, the side between them has 30 m.
    with pytest.raises(ValueError, match=r"overlap by 10\.000 m"):
        rounded_polyline([(-50.0, 0.0), (0.0, 0.0), (0.0, 30.0), (50.0, 30.0)], [Corner(20.0, 0.0), Corner(20.0, 0.0)])


def test_samples_are_evenly_spaced() -> None:
    line = ReferenceLine(0.0, 0.0, 0.0, (Segment(10.0), Segment(7.0)))
    xs, ys = zip(*sample_points(line, 4.0), strict=True)
    assert xs == pytest.approx([0.0, 10.0 / 3.0, 20.0 / 3.0, 10.0, 13.5])
    assert ys == pytest.approx([0.0] * 5)


def test_slight_corners_take_a_greater_radius() -> None:
    assert min_radius(1.5, (12.0, 60.0)) == 12.0
    assert min_radius(-0.5, (12.0, 60.0)) == 30.0
    assert min_radius(0.1, (12.0, 60.0)) == 60.0


def test_drawn_corner_fits() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        corner = random_corner(rng, 1.5, 25.0, (12.0, 60.0))
        assert corner is not None
        assert corner.radius >= 12.0
        assert tangent_length(1.5, corner) <= 25.0 + 1e-9
    assert random_corner(rng, 1.5, 10.0, (12.0, 60.0)) is None
