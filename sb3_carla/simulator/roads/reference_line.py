"""
Reference lines of roads: straights, arcs and clothoids, and corners rounded with them.

Plain ``math`` instead of numpy: numpy picks its sine by the processor at hand, and a town must come out the same
everywhere. Angles and curvatures are positive to the left, as in OpenDRIVE.
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
_SHORTEST_BEND = 15.0
"""Least length of a bend as if it were all arc [m]; less where the radius is at its greatest."""


@dataclass(frozen=True, slots=True)
class Segment:
    """
    Stretch whose curvature changes evenly: a straight, an arc or a clothoid.

    :param length: [m], > 0
    :param start_curvature: [1/m]
    :param end_curvature: [1/m]
    """

    length: float
    start_curvature: float = 0.0
    end_curvature: float = 0.0

    def turned(self, distance: float) -> float:
        """Change of heading over the first ``distance`` metres [rad]."""
        growth = (self.end_curvature - self.start_curvature) / self.length
        return distance * (self.start_curvature + 0.5 * growth * distance)


@dataclass(frozen=True, slots=True)
class ReferenceLine:
    """
    Reference line: segments joined end to end, without a kink.

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
    How to round a corner: clothoid, arc, clothoid, symmetric.

    :param radius: of the arc [m]
    :param spiral_share: share of the turning done by the two clothoids, in [0, 1]
    """

    radius: float
    spiral_share: float

    def segments(self, deflection: float) -> tuple[Segment, ...]:
        """
        The rounded corner.

        :param deflection: change of direction [rad], left positive, not 0
        :return: one segment (no clothoids) to three
        """
        curvature = math.copysign(1.0 / self.radius, deflection)
        # A clothoid turns by half of what an arc of its length and end curvature would.
        spiral = self.spiral_share * abs(deflection) * self.radius
        arc = (1.0 - self.spiral_share) * abs(deflection) * self.radius
        whole = (Segment(spiral, 0.0, curvature), Segment(arc, curvature, curvature), Segment(spiral, curvature, 0.0))
        return tuple(segment for segment in (whole if spiral else whole[1:2]) if segment.length > 0.0)


def pose_along(pose: tuple[float, float, float], segment: Segment, distance: float) -> tuple[float, float, float]:
    """
    Follow a segment.

    :param pose: where the segment starts: x, y [m], heading [rad]
    :param segment: what to follow
    :param distance: how far [m]
    :return: x, y [m], heading [rad] there; error below 1e-9 m for segments that turn by less than pi
    """
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
    Distance from a corner back to where its rounding begins.

    By symmetry the rounding ends at (T + T cos(deflection), T sin(deflection)) when it starts at the origin along x.
    Without clothoids this is the textbook's ``radius * tan(deflection / 2)``.

    :param deflection: change of direction [rad], magnitude below pi
    :param corner: how the corner is rounded
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
        ax, ay = here[0] - before[0], here[1] - before[1]
        bx, by = after[0] - here[0], after[1] - here[1]
        result.append(math.atan2(ax * by - ay * bx, ax * bx + ay * by))
    return result


def min_radius(deflection: float, radii: tuple[float, float]) -> float:
    """
    Least radius at which a corner does not look like a kink: slight ones take a greater one.

    :param deflection: change of direction [rad]
    :param radii: least and greatest radius of the arc [m]
    :return: radius within ``radii`` [m]
    """
    return max(radii[0], min(radii[1], _SHORTEST_BEND / abs(deflection)))


def random_corner(
    rng: np.random.Generator, deflection: float, room: float, radii: tuple[float, float]
) -> Corner | None:
    """
    Random rounding that fits, and that does not look like a kink where the change of direction is small.

    :param rng: source of randomness
    :param deflection: change of direction [rad]
    :param room: greatest tangent length [m]
    :param radii: least and greatest radius of the arc [m]
    :return: a corner, or None where even the least radius does not fit
    """
    share = rng.uniform(0.25, 0.6)
    # Tangent lengths grow in proportion to the radius: one corner of radius 1 tells them all.
    largest = min(radii[1], room / tangent_length(deflection, Corner(1.0, share)))
    smallest = min_radius(deflection, radii)
    if largest < smallest:
        return None
    return Corner(smallest * (largest / smallest) ** rng.uniform(0.0, 1.0), share)


def rounded_polyline(points: Sequence[Point], corners: Sequence[Corner]) -> ReferenceLine:
    """
    Reference line along an open polyline, its inner points rounded.

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

    :param line: what to sample
    :param spacing: greatest distance between two points [m]
    :return: points from the start on, the end left out
    """
    result = []
    for segment, (_, *pose) in zip(line.segments, line.starts(), strict=False):
        count = max(1, math.ceil(segment.length / spacing))
        for i in range(count):
            x, y, _ = pose_along((pose[0], pose[1], pose[2]), segment, segment.length * i / count)
            result.append((x, y))
    return result
