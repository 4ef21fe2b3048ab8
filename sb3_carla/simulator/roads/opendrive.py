"""
Roads as plain data, and the OpenDRIVE 1.4 text that describes them.

``scenariogeneration`` is not used: it writes the present time into the header, prints floats in full (so that the last
bit of a platform's sine changes the file), and integrates clothoids with compiled code of its own. Working around these
would take more code than it saves.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field

from sb3_carla.simulator.roads.reference_line import ReferenceLine, sample_points

__all__ = ["CrossSection", "Elevation", "Junction", "Lane", "LaneLink", "Link", "Marking", "Road", "opendrive_text"]

_DATE = "2025-01-01T00:00:00"
_GEO_REFERENCE = "+proj=tmerc +lat_0=0 +lon_0=0 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"


@dataclass(frozen=True, slots=True)
class Marking:
    """
    Painted line.

    :param kind: "solid", "broken", "solid solid" or "none"
    :param color: "white" or "yellow"
    :param width: [m]
    """

    kind: str
    color: str = "white"
    width: float = 0.15


@dataclass(frozen=True, slots=True)
class Lane:
    """
    Lane of a road.

    :param id: negative to the right of the reference line, positive to the left, from 1 outwards
    :param kind: OpenDRIVE lane type: "driving", "parking", "shoulder", "sidewalk", "median" or "special1"
    :param width: [m]
    :param marking: on the edge away from the reference line
    :param predecessor: lane before it at the road's start, None: none
    :param successor: lane after it at the road's end, None: none
    :param end_width: width at the road's end [m], which is reached without a kink; None: as at its start
    """

    id: int
    kind: str
    width: float
    marking: Marking
    predecessor: int | None = None
    successor: int | None = None
    end_width: float | None = None


@dataclass(frozen=True, slots=True)
class CrossSection:
    """
    Cross-section of a road with the same lanes in both directions.

    :param lanes: driving lanes in each direction
    :param lane_width: [m]
    :param shoulder: width of the paved strip outside the edge line [m], 0: none
    :param centre: line between the two directions; with a median: on both its sides
    :param separator: line between lanes of the same direction
    :param edge: line at the outer edge of the driving lanes
    :param sidewalk: width of the sidewalk beyond the shoulder [m], 0: none
    :param parking: width of the strip of parked cars between driving lanes and shoulder [m], 0: none
    :param median: width of the strip between the two directions [m], 0: none
    """

    lanes: int
    lane_width: float
    shoulder: float
    centre: Marking
    separator: Marking
    edge: Marking
    sidewalk: float = 0.0
    parking: float = 0.0
    median: float = 0.0

    @property
    def half_width(self) -> float:
        """From the reference line to the verge [m]."""
        return self.edge_of(self.lanes) + self.parking + self.shoulder + self.sidewalk

    @property
    def first_lane(self) -> int:
        """Magnitude of the OpenDRIVE id of the driving lane next to the middle: a median takes 1."""
        return 2 if self.median else 1

    def edge_of(self, number: int) -> float:
        """Distance from the reference line to the outer edge of a driving lane, from 1; 0: the inner edge [m]."""
        return 0.5 * self.median + number * self.lane_width

    @property
    def roadside(self) -> tuple[tuple[str, float], ...]:
        """OpenDRIVE type and width [m] of the lanes beyond the driving lanes, from the inside."""
        strips = (("parking", self.parking), ("shoulder", self.shoulder), ("sidewalk", self.sidewalk))
        return tuple((kind, width) for kind, width in strips if width)

    def build(self, linked_at_start: bool, linked_at_end: bool) -> tuple[Lane, ...]:
        """
        The lanes of a road.

        :param linked_at_start: whether each lane continues the lane of the same id of the previous road
        :param linked_at_end: whether the lane of the same id of the next road continues it
        :return: all lanes except the centre lane 0, which has no width
        """
        inside = [("median", 0.5 * self.median, self.centre)] if self.median else []
        driving = [("driving", self.lane_width, self.separator)] * (self.lanes - 1)
        driving.append(("driving", self.lane_width, self.edge))
        outside = [(kind, width, Marking("none")) for kind, width in self.roadside]
        result = []
        for side in (1, -1):
            for i, (kind, width, marking) in enumerate([*inside, *driving, *outside], start=1):
                links = (side * i if linked_at_start else None, side * i if linked_at_end else None)
                result.append(Lane(side * i, kind, width, marking, *links))
        return tuple(result)

    @property
    def reference_marking(self) -> Marking:
        """Line on the reference line itself: none with a median."""
        return Marking("none") if self.median else self.centre


@dataclass(frozen=True, slots=True)
class Elevation:
    """Height ``a + b ds + c ds^2 + d ds^3`` [m], ds from a station [m] on, as in OpenDRIVE's ``elevation``."""

    station: float
    a: float
    b: float
    c: float
    d: float


@dataclass(frozen=True, slots=True)
class Link:
    """
    Predecessor or successor of a road.

    :param element: id of a road or a junction
    :param contact: "start" or "end" of that road; None: it is a junction
    """

    element: int
    contact: str | None = None


@dataclass(frozen=True, slots=True)
class Road:
    """
    OpenDRIVE road with one lane section.

    :param id: unique among roads and junctions
    :param line: reference line
    :param lanes: all lanes except the centre lane 0
    :param centre: marking on the reference line
    :param predecessor: road or junction before its start
    :param successor: road or junction after its end
    :param junction: id of the junction that it belongs to, None: none
    :param elevations: height profile; empty: flat at 0 m
    :param speed_kmh: speed limit [km/h]
    """

    id: int
    line: ReferenceLine
    lanes: tuple[Lane, ...]
    centre: Marking
    predecessor: Link
    successor: Link
    junction: int | None = None
    elevations: tuple[Elevation, ...] = ()
    speed_kmh: int = 40


@dataclass(frozen=True, slots=True)
class LaneLink:
    """A lane that leads into a junction, and the connecting road whose lane -1 continues it."""

    incoming_road: int
    incoming_lane: int
    connecting_road: int


@dataclass(frozen=True, slots=True)
class Junction:
    """OpenDRIVE junction: its id, unique among roads and junctions, and its connections."""

    id: int
    links: tuple[LaneLink, ...] = field(default=())


def opendrive_text(name: str, roads: Sequence[Road], junctions: Sequence[Junction] = ()) -> str:
    """
    OpenDRIVE 1.4, as ``carla.Map`` reads it.

    :param name: of the town
    :param roads: at least one
    :param junctions: all junctions that the roads belong to
    :return: XML; equal arguments give equal text
    """
    root = ET.Element("OpenDRIVE")
    points = [point for road in roads for point in sample_points(road.line, 10.0)]
    header = ET.SubElement(
        root,
        "header",
        revMajor="1",
        revMinor="4",
        name=name,
        version="1",
        date=_DATE,
        north=_number(max(y for _, y in points)),
        south=_number(min(y for _, y in points)),
        east=_number(max(x for x, _ in points)),
        west=_number(min(x for x, _ in points)),
        vendor="sb3_carla",
    )
    ET.SubElement(header, "geoReference").text = _GEO_REFERENCE
    for road in roads:
        _add_road(root, road)
    for junction in junctions:
        _add_junction(root, junction)
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _number(value: float) -> str:
    """Nine decimals: finer than CARLA's float32, coarser than the differences between platforms' sines."""
    text = f"{value:.9f}"
    return "0.000000000" if text == "-0.000000000" else text


def _add_road(root: ET.Element, road: Road) -> None:
    element = ET.SubElement(
        root,
        "road",
        name=f"Road {road.id}",
        length=_number(road.line.length),
        id=str(road.id),
        junction=str(-1 if road.junction is None else road.junction),
    )
    links = ET.SubElement(element, "link")
    for tag, link in (("predecessor", road.predecessor), ("successor", road.successor)):
        if link.contact is None:
            ET.SubElement(links, tag, elementType="junction", elementId=str(link.element))
        else:
            ET.SubElement(links, tag, elementType="road", elementId=str(link.element), contactPoint=link.contact)
    kind = ET.SubElement(element, "type", s=_number(0.0), type="town")
    ET.SubElement(kind, "speed", max=str(road.speed_kmh), unit="km/h")
    _add_line(ET.SubElement(element, "planView"), road.line)
    profile = ET.SubElement(element, "elevationProfile")
    for part in road.elevations or (Elevation(0.0, 0.0, 0.0, 0.0, 0.0),):
        _add_polynomial(profile, "elevation", "s", part.station, (part.a, part.b, part.c, part.d))
    ET.SubElement(element, "lateralProfile")
    _add_lanes(ET.SubElement(element, "lanes"), road)


def _add_line(plan_view: ET.Element, line: ReferenceLine) -> None:
    for segment, (station, x, y, heading) in zip(line.segments, line.starts(), strict=False):
        geometry = ET.SubElement(
            plan_view,
            "geometry",
            s=_number(station),
            x=_number(x),
            y=_number(y),
            hdg=_number(heading),
            length=_number(segment.length),
        )
        if segment.start_curvature != segment.end_curvature:
            start, end = _number(segment.start_curvature), _number(segment.end_curvature)
            ET.SubElement(geometry, "spiral", curvStart=start, curvEnd=end)
        elif segment.start_curvature:
            ET.SubElement(geometry, "arc", curvature=_number(segment.start_curvature))
        else:
            ET.SubElement(geometry, "line")


def _add_lanes(lanes: ET.Element, road: Road) -> None:
    _add_polynomial(lanes, "laneOffset", "s", 0.0, (0.0, 0.0, 0.0, 0.0))
    section = ET.SubElement(lanes, "laneSection", s=_number(0.0))
    # OpenDRIVE lists the lanes of each side from left to right: descending ids.
    left = sorted((lane for lane in road.lanes if lane.id > 0), key=lambda lane: -lane.id)
    right = sorted((lane for lane in road.lanes if lane.id < 0), key=lambda lane: -lane.id)
    if left:
        _add_side(ET.SubElement(section, "left"), left, road.line.length)
    centre = ET.SubElement(ET.SubElement(section, "center"), "lane", id="0", type="none", level="false")
    _add_marking(centre, road.centre)
    if right:
        _add_side(ET.SubElement(section, "right"), right, road.line.length)


def _add_side(side: ET.Element, lanes: Sequence[Lane], length: float) -> None:
    for lane in lanes:
        element = ET.SubElement(side, "lane", id=str(lane.id), type=lane.kind, level="false")
        links = ET.SubElement(element, "link")
        if lane.predecessor is not None:
            ET.SubElement(links, "predecessor", id=str(lane.predecessor))
        if lane.successor is not None:
            ET.SubElement(links, "successor", id=str(lane.successor))
        growth = 0.0 if lane.end_width is None else lane.end_width - lane.width
        # Hermite cubic between both widths, parallel to the reference line at its ends.
        cubic = (lane.width, 0.0, 3.0 * growth / length**2, -2.0 * growth / length**3)
        _add_polynomial(element, "width", "sOffset", 0.0, cubic)
        _add_marking(element, lane.marking)


def _add_polynomial(
    parent: ET.Element, tag: str, key: str, start: float, coefficients: tuple[float, float, float, float]
) -> None:
    names = dict(zip("abcd", map(_number, coefficients), strict=True))
    ET.SubElement(parent, tag, {key: _number(start), **names})


def _add_marking(lane: ET.Element, marking: Marking) -> None:
    ET.SubElement(
        lane,
        "roadMark",
        sOffset=_number(0.0),
        type=marking.kind,
        weight="standard",
        color=marking.color,
        material="standard",
        width=_number(marking.width),
        # CARLA's route planner changes lanes only where this allows it.
        laneChange="both" if marking.kind == "broken" else "none",
    )


def _add_junction(root: ET.Element, junction: Junction) -> None:
    element = ET.SubElement(root, "junction", id=str(junction.id), name=f"Junction {junction.id}")
    for number, link in enumerate(junction.links):
        connection = ET.SubElement(
            element,
            "connection",
            id=str(number),
            incomingRoad=str(link.incoming_road),
            connectingRoad=str(link.connecting_road),
            contactPoint="start",
        )
        ET.SubElement(connection, "laneLink", {"from": str(link.incoming_lane), "to": "-1"})
