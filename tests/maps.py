"""Small OpenDRIVE maps, written out so that every number in a test can be checked by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import carla

__all__ = ["Geometry", "road_map", "straight_then_bend"]


@dataclass(frozen=True)
class Geometry:
    """Piece of a reference line: length [m] and curvature [1/m], left positive as in OpenDRIVE."""

    length: float
    curvature: float = 0.0


def road_map(*pieces: Geometry, lane_width: float = 3.5, name: str = "Test") -> carla.Map:
    """
    One road with a lane in each direction, starting at the origin towards +x.

    :param pieces: the reference line
    :param lane_width: [m]
    :param name: of the map
    :return: ``carla.Map``
    """
    x = y = heading = station = 0.0
    geometries = []
    for piece in pieces:
        shape = f'<arc curvature="{piece.curvature!r}"/>' if piece.curvature else "<line/>"
        geometries.append(
            f'<geometry s="{station!r}" x="{x!r}" y="{y!r}" hdg="{heading!r}" length="{piece.length!r}">'
            f"{shape}</geometry>"
        )
        if piece.curvature:
            turned = heading + piece.length * piece.curvature
            x += (math.sin(turned) - math.sin(heading)) / piece.curvature
            y -= (math.cos(turned) - math.cos(heading)) / piece.curvature
            heading = turned
        else:
            x += piece.length * math.cos(heading)
            y += piece.length * math.sin(heading)
        station += piece.length
    lane = (
        '<lane id="{id}" type="driving" level="false"><width sOffset="0" a="{width}" b="0" c="0" d="0"/>'
        '<roadMark sOffset="0" type="solid" weight="standard" color="white" width="0.15" laneChange="none"/></lane>'
    )
    text = (
        '<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="4" name="" version="1" '
        'north="0" south="0" east="0" west="0"/>'
        f'<road name="" length="{station!r}" id="1" junction="-1"><link/>'
        f"<planView>{''.join(geometries)}</planView><elevationProfile/><lateralProfile/>"
        '<lanes><laneSection s="0">'
        f"<left>{lane.format(id=1, width=lane_width)}</left>"
        '<center><lane id="0" type="none" level="false">'
        '<roadMark sOffset="0" type="broken" weight="standard" color="white" width="0.15" laneChange="both"/>'
        "</lane></center>"
        f"<right>{lane.format(id=-1, width=lane_width)}</right>"
        "</laneSection></lanes></road></OpenDRIVE>"
    )
    return carla.Map(name, text)


def straight_then_bend() -> carla.Map:
    """200 m straight, then a quarter circle to the left of 40 m radius, then 100 m straight."""
    return road_map(Geometry(200.0), Geometry(20.0 * math.pi, 1.0 / 40.0), Geometry(100.0))
