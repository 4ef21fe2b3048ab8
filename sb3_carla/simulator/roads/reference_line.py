"""
Reference lines of roads: straights, arcs and clothoids, and polylines whose corners are rounded with them.

Everything uses ``math``, not numpy: numpy's sine depends on the processor, and a town must be the same everywhere.
Angles and curvatures are positive to the left, as in OpenDRIVE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Corner",
    "Point",
    "ReferenceLine",
    "Segment",
    "deflections",
    "pose_along",
    "random_corner",
    "rounded_polyline",
    "sample_points",
    "tangent_length",
]

Point = tuple[float, float]
"""x, y [m]."""

_GAUSS = ((-math.sqrt(0.6), 5.0 / 18.0), (0.0, 8.0 / 18.0), (math.sqrt(0.6), 5.0 / 18.0))
"""Nodes on [-1, 1] and weights that sum to 1: Gauss-Legendre quadrature with three points."""
_PANELS = 16
"""Parts of a segment that are integrated one after the other."""
_SHORTEST_BEND = 15.0
"""Least length of a bend without clothoids [m]; shorter only if the radius is at its greatest."""


@dataclass(frozen=True, slots=True)
class Segment:
    """
    Part of a reference line whose curvature is linear in its length: a straight, an arc or a clothoid.

    :param length: [m], > 0
    :param start_curvature: [1/m]
    :param end_curvature: [1/m]
    """

    length: float
    start_curvature: float = 0.0
    end_curvature: float = 0.0

    def turned(self, distance: float) -> float:
        """Change of heading over the first ``distance`` metres [rad]."""
        # Integral of start + growth * s from 0 to distance.
        growth = (self.end_curvature - self.start_curvature) / self.length
        return distance * (self.start_curvature + 0.5 * growth * distance)


@dataclass(frozen=True, slots=True)
class ReferenceLine:
    """
    Reference line: segments joined end to end without a kink.

    :param x: start [m]
    :param y: start [m]
    :param heading: direction at the start [rad]
    :param segments: at least one
    """

    x: float
    y: float
    heading: float
    segments: tuple[Segment, ...]

    @property
    def length(self) -> float:
        """Total length [m]."""
        return sum(segment.length for segment in self.segments)

    def starts(self) -> list[tuple[float, float, float, float]]:
        """Station [m], x, y [m] and heading [rad] where each segment starts, and where the last one ends."""
        station, pose = 0.0, (self.x, self.y, self.heading)
        result = [(station, *pose)]
        for segment in self.segments:
            pose = pose_along(pose, segment, segment.length)
            station += segment.length
            result.append((station, *pose))
        return result


@dataclass(frozen=True, slots=True)
class Corner:
    """
    Rounding of a corner: clothoid, arc, clothoid, symmetric.

    :param radius: of the arc [m]
    :param spiral_share: share of the turning done by the two clothoids, in [0, 1]
    """

    radius: float
    spiral_share: float

    def segments(self, deflection: float) -> tuple[Segment, ...]:
        """
        Segments of the rounded corner.

        :param deflection: change of direction [rad], left positive, not 0
        :return: three segments, or one if there are no clothoids
        """
        curvature = math.copysign(1.0 / self.radius, deflection)
        # A clothoid turns by half as much as an arc of its length and end curvature.
        spiral = self.spiral_share * abs(deflection) * self.radius
        arc = (1.0 - self.spiral_share) * abs(deflection) * self.radius
        whole = (Segment(spiral, 0.0, curvature), Segment(arc, curvature, curvature), Segment(spiral, curvature, 0.0))
        return tuple(segment for segment in (whole if spiral else whole[1:2]) if segment.length > 0.0)


def pose_along(pose: tuple[float, float, float], segment: Segment, distance: float) -> tuple[float, float, float]:
    """
    Pose at a distance along a segment.

    :param pose: start of the segment: x, y [m], heading [rad]
    :param segment: the segment
    :param distance: from its start [m]
    :return: x, y [m], heading [rad]; error below 1e-9 m for segments that turn by less than pi
    """
    # x = integral of cos(heading(s)), y of sin: Fresnel integrals for a clothoid, hence numerical.
    x, y, heading = pose
    panel = distance / _PANELS
    for i in range(_PANELS):
        for node, weight in _GAUSS:
            angle = heading + segment.turned(panel * (i + 0.5 + 0.5 * node))
            x += panel * weight * math.cos(angle)
            y += panel * weight * math.sin(angle)
    return x, y, heading + segment.turned(distance)


def tangent_length(deflection: float, corner: Corner) -> float:
    """
    Distance from a corner back to the start of its rounding.

    A rounding that starts at the origin along x ends, by symmetry, at (T + T cos(deflection), T sin(deflection)).
    Without clothoids T is ``radius * tan(deflection / 2)``.

    :param deflection: change of direction [rad], magnitude below pi
    :param corner: its rounding
    :return: T [m]
    """
    pose = (0.0, 0.0, 0.0)
    for segment in corner.segments(deflection):
        pose = pose_along(pose, segment, segment.length)
    return pose[0] / (1.0 + math.cos(deflection))


def deflections(points: Sequence[Point]) -> list[float]:
    """
    Change of direction at each inner point of an open polyline.

    :param points: at least three
    :return: ``len(points) - 2`` angles in (-pi, pi] [rad]
    """
    result = []
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        # atan2(cross product, dot product) of the two sides.
        ax, ay = here[0] - before[0], here[1] - before[1]
        bx, by = after[0] - here[0], after[1] - here[1]
        result.append(math.atan2(ax * by - ay * bx, ax * bx + ay * by))
    return result


def min_radius(deflection: float, radii: tuple[float, float]) -> float:
    """
    Least radius at which a corner does not look like a kink: the slighter the corner, the greater the radius.

    :param deflection: change of direction [rad]
    :param radii: least and greatest radius of the arc [m]
    :return: radius within ``radii`` [m]
    """
    return max(radii[0], min(radii[1], _SHORTEST_BEND / abs(deflection)))


def random_corner(
    rng: np.random.Generator, deflection: float, room: float, radii: tuple[float, float]
) -> Corner | None:
    """
    Random rounding that fits, and that does not look like a kink even if the change of direction is small.

    :param rng: source of randomness
    :param deflection: change of direction [rad]
    :param room: greatest tangent length [m]
    :param radii: least and greatest radius of the arc [m]
    :return: a corner, or None if even the least radius does not fit
    """
    share = rng.uniform(0.25, 0.6)
    # The tangent length is proportional to the radius: it is computed for radius 1.
    largest = min(radii[1], room / tangent_length(deflection, Corner(1.0, share)))
    smallest = min_radius(deflection, radii)
    if largest < smallest:
        return None
    # Uniform in the logarithm of the radius.
    return Corner(smallest * (largest / smallest) ** rng.uniform(0.0, 1.0), share)


def rounded_polyline(points: Sequence[Point], corners: Sequence[Corner]) -> ReferenceLine:
    """
    Reference line along an open polyline, rounded at its inner points.

    :param points: at least two
    :param corners: one for each inner point
    :return: from the first point to the last
    :raises ValueError: if two roundings overlap
    """
    turns = deflections(points)
    tangents = [0.0, *(tangent_length(turn, corner) for turn, corner in zip(turns, corners, strict=True)), 0.0]
    segments: list[Segment] = []
    for i in range(len(points) - 1):
        straight = math.dist(points[i], points[i + 1]) - tangents[i] - tangents[i + 1]
        if straight < -1e-9:
            raise ValueError(f"roundings overlap by {-straight:.3f} m between {points[i]} and {points[i + 1]}")
        if straight > 1e-6:
            segments.append(Segment(straight))
        if i < len(corners):
            segments.extend(corners[i].segments(turns[i]))
    (x, y), (next_x, next_y) = points[0], points[1]
    return ReferenceLine(x, y, math.atan2(next_y - y, next_x - x), tuple(segments))


def sample_points(line: ReferenceLine, spacing: float) -> list[Point]:
    """
    Points of a reference line.

    :param line: the line
    :param spacing: greatest distance between two points [m]
    :return: points from the start on, without the end
    """
    result = []
    for segment, (_, *pose) in zip(line.segments, line.starts(), strict=False):
        count = max(1, math.ceil(segment.length / spacing))
        for i in range(count):
            x, y, _ = pose_along((pose[0], pose[1], pose[2]), segment, segment.length * i / count)
            result.append((x, y))
    return result
