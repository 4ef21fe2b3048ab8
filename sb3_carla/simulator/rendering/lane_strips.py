"""
Every lane of a map as a strip: the positions of its two edges at a series of cross-sections.

The list of lanes is read from the OpenDRIVE text, because ``carla.Map`` lists driving lanes only. Their positions and
markings come from ``carla.Map``, so that the raster agrees with the waypoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

__all__ = ["PAVEMENTS", "LaneStrip", "Marking", "lane_strips"]

PAVEMENTS = ("sidewalk", "walking")
"""OpenDRIVE lane types that pedestrians walk on, behind a kerb."""
STRAIGHT_STEP, CURVED_STEP = 2.0, 0.5
"""Distance between two cross-sections of a lane [m]; a chord of 0.5 m at 6 m radius is 5 mm off the arc."""
END_GAP = 1e-3
"""Distance of the outermost cross-sections from the ends of a section, where two sections meet [m]."""
DEFAULT_WIDTH = 0.12
"""Width of markings for which the map gives none [m]."""


@dataclass(frozen=True, slots=True)
class Marking:
    """
    Line painted on one edge of a lane.

    :param kind: name in ``carla.LaneMarkingType``
    :param color: name in ``carla.LaneMarkingColor``
    :param width: [m], > 0
    """

    kind: str
    color: str
    width: float


@dataclass(frozen=True)
class LaneStrip:
    """
    One lane of one section, sampled along the road.

    :param kind: OpenDRIVE lane type: driving, shoulder, sidewalk, ...
    :param junction: whether the lane belongs to a connecting road of a junction
    :param stations: shape (n,), float64, s along the road [m], increasing
    :param inner: shape (n, 2), float64, world x and y of the edge towards the reference line [m]
    :param outer: shape (n, 2), float64, world x and y of the other edge [m]
    :param heights: shape (n,), float64, world z [m]
    :param outer_markings: n markings, None where nothing is painted
    :param inner_markings: as ``outer_markings``: the marking of the reference line. Only one of the two lanes beside
        that line has it, so that it is painted once.
    """

    kind: str
    junction: bool
    stations: NDArray[np.float64]
    inner: NDArray[np.float64]
    outer: NDArray[np.float64]
    heights: NDArray[np.float64]
    outer_markings: list[Marking | None]
    inner_markings: list[Marking | None]


def lane_strips(carla_map: Any, root: ElementTree.Element) -> list[LaneStrip]:
    """
    Sample all lanes of a map.

    :param carla_map: ``carla.Map``
    :param root: OpenDRIVE document of the same map
    :return: all lanes but those of type none
    """
    return [strip for road in root.iterfind("road") for strip in _road_strips(carla_map, road)]


def _road_strips(carla_map: Any, road: ElementTree.Element) -> Iterator[LaneStrip]:
    number, length = int(road.get("id", "0")), float(road.get("length", "0"))
    junction = road.get("junction", "-1") != "-1"
    sections = sorted(road.iterfind("lanes/laneSection"), key=lambda section: float(section.get("s", "0")))
    starts = [float(section.get("s", "0")) for section in sections]
    bends = _bends(road)
    for section, start, end in zip(sections, starts, [*starts[1:], length], strict=True):
        stations = _stations(start, end, bends if _is_regular(road, section) else [(start, end)])
        lanes = {int(lane.get("id", "0")): lane.get("type", "none") for lane in section.iter("lane")}
        centre = -1 if lanes.get(-1, "none") != "none" else 1
        for lane_id, kind in lanes.items():
            if lane_id != 0 and kind != "none" and len(stations) > 1:
                waypoints = [carla_map.get_waypoint_xodr(number, lane_id, s) for s in stations]
                if None not in waypoints:
                    yield _strip(waypoints, kind, junction, np.array(stations), lane_id == centre)


def _bends(road: ElementTree.Element) -> list[tuple[float, float]]:
    """Stretches in which a road's reference line is not straight: (start, end) [m]."""
    return [
        (float(geometry.get("s", "0")), float(geometry.get("s", "0")) + float(geometry.get("length", "0")))
        for geometry in road.iterfind("planView/geometry")
        if geometry.find("line") is None
    ]


def _is_regular(road: ElementTree.Element, section: ElementTree.Element) -> bool:
    """Whether the lanes' edges are parallel to the reference line: no width or offset changes along the road."""
    offsets = [*road.iterfind("lanes/laneOffset"), *section.iter("width"), *section.iter("border")]
    return not any(float(offset.get(power, "0")) for offset in offsets for power in "bcd")


def _stations(start: float, end: float, bends: list[tuple[float, float]]) -> list[float]:
    """Stations of the cross-sections [m]: every 2 m, in bends every 0.5 m."""
    first, last = start + END_GAP, end - END_GAP
    stations = []
    station = first
    while station < last:
        stations.append(station)
        bent = any(low - STRAIGHT_STEP <= station < high for low, high in bends)
        station += CURVED_STEP if bent else STRAIGHT_STEP
    return [*stations, last] if stations else []


def _strip(
    waypoints: list[Any], kind: str, junction: bool, stations: NDArray[np.float64], with_centre: bool
) -> LaneStrip:
    rows = np.empty((len(waypoints), 5))  # x, y, z [m], yaw [deg], lane width [m]
    for row, waypoint in zip(rows, waypoints, strict=True):
        transform = waypoint.transform
        place = transform.location
        row[:] = place.x, place.y, place.z, transform.rotation.yaw, waypoint.lane_width
    yaw = np.radians(rows[:, 3])
    # A waypoint's yaw is the direction of travel: the outer edge is right of it in right-hand traffic, else left.
    keeps_right = bool(waypoints[0].is_rht)
    # (n, 2): half the lane's width along the unit vector to the right, (-sin yaw, cos yaw) in CARLA's axes.
    half = np.stack([-np.sin(yaw), np.cos(yaw)], axis=1) * (0.5 * rows[:, 4, None] * (1.0 if keeps_right else -1.0))
    left, right = ([_marking(getattr(w, f"{side}_lane_marking")) for w in waypoints] for side in ("left", "right"))
    inner, outer = (left, right) if keeps_right else (right, left)
    return LaneStrip(
        kind=kind,
        junction=junction,
        stations=stations,
        inner=rows[:, :2] - half,
        outer=rows[:, :2] + half,
        heights=rows[:, 2],
        outer_markings=outer,
        inner_markings=inner if with_centre else [None] * len(inner),
    )


def _marking(marking: Any) -> Marking | None:
    kind = "NONE" if marking is None else marking.type.name
    if kind in ("NONE", "Other", "Grass"):
        return None
    width = float(marking.width)
    return Marking(kind, marking.color.name, width if math.isfinite(width) and width > 0.0 else DEFAULT_WIDTH)
