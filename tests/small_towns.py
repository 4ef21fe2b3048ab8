"""Small towns whose pictures can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sb3_carla.simulator.rendering.mesh import Mesh
from sb3_carla.simulator.rendering.scene import records, static_scene
from sb3_carla.simulator.scenery.shapes import empty_mesh
from sb3_carla.simulator.town import Town
from sb3_carla.simulator.town_scene import TownScene

__all__ = ["Road", "furnished", "overpass_town", "straight_town", "town"]

LANE_WIDTH = 3.5


@dataclass(frozen=True)
class Road:
    """
    A straight road with a lane in each direction.

    :param x: where its reference line begins [m], in OpenDRIVE's axes (y to the left)
    :param y: as ``x``
    :param heading: of the reference line [rad]
    :param length: [m]
    :param height: at its beginning [m]
    :param slope: rise per metre [-]
    :param centre: type of the marking on the reference line
    :param edge: type of the marking on the outer edges
    :param outer: types of lanes beyond the driving lane, 2 m wide
    :param width: of the markings, in the file's own words
    :param rule: RHT or LHT
    :param junction: number of its junction
    """

    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0
    length: float = 300.0
    height: float = 0.0
    slope: float = 0.0
    centre: str = "broken"
    edge: str = "solid"
    outer: Sequence[str] = ()
    width: str = 'width="0.2"'
    rule: str = "RHT"
    junction: int = -1

    def xml(self, number: int) -> str:
        """The road as OpenDRIVE writes it."""
        sides = {
            sign: "".join(self._lane(sign * (k + 1), kind) for k, kind in enumerate(("driving", *self.outer)))
            for sign in (1, -1)
        }
        return (
            f'<road name="" length="{self.length}" id="{number}" junction="{self.junction}" rule="{self.rule}"><link/>'
            f'<planView><geometry s="0" x="{self.x!r}" y="{self.y!r}" hdg="{self.heading!r}" length="{self.length}">'
            "<line/></geometry></planView>"
            f'<elevationProfile><elevation s="0" a="{self.height}" b="{self.slope}" c="0" d="0"/></elevationProfile>'
            f'<lateralProfile/><lanes><laneSection s="0"><left>{sides[1]}</left>'
            f'<center><lane id="0" type="none" level="false">{self._mark(self.centre)}</lane></center>'
            f"<right>{sides[-1]}</right></laneSection></lanes></road>"
        )

    def _lane(self, number: int, kind: str) -> str:
        width = LANE_WIDTH if kind == "driving" else 2.0
        mark = self._mark(self.edge) if kind == "driving" else ""
        return (
            f'<lane id="{number}" type="{kind}" level="false"><width sOffset="0" a="{width}" b="0" c="0" d="0"/>'
            f"{mark}</lane>"
        )

    def _mark(self, kind: str) -> str:
        return f'<roadMark sOffset="0" type="{kind}" weight="standard" color="white" {self.width} laneChange="none"/>'


def town(*roads: Road, name: str = "Test") -> Town:
    """:return: a town of nothing but these roads"""
    geo = "<geoReference><![CDATA[+proj=tmerc +lat_0=0 +lon_0=0]]></geoReference>"
    header = (
        f'<header revMajor="1" revMinor="4" name="" version="1" north="0" south="0" east="0" west="0">{geo}</header>'
    )
    body = "".join(road.xml(number) for number, road in enumerate(roads, start=1))
    return Town.from_opendrive(name, f'<?xml version="1.0"?><OpenDRIVE>{header}{body}</OpenDRIVE>')


def furnished(
    town: Town,
    mesh: Mesh | None = None,
    *,
    layers: Sequence[int] | None = None,
    lamps: Sequence[tuple[float, float, float]] = (),
) -> Town:
    """
    :param town: any town
    :param mesh: in world axes; None: nothing stands there
    :param layers: ``carla.MapLayer`` of each of its faces
    :param lamps: street lights: x, y, height [m]
    :return: the same town, with nothing but this beside its roads
    """
    faces, sprites = records(mesh or empty_mesh(), None if layers is None else np.array(layers, np.uint16))
    nothing = np.zeros(0, np.int64)
    town._scene = TownScene(
        static_scene(faces, sprites), np.array(lamps, np.float64).reshape(-1, 3), np.zeros((0, 7)), nothing, nothing
    )
    return town


def straight_town(**details: object) -> Town:
    """One road from the origin towards +x."""
    return town(Road(**details))  # type: ignore[arg-type]


def overpass_town() -> Town:
    """A road along x at height 0, and one along y that crosses it 8 m above, at (150, 0)."""
    return town(Road(), Road(x=150.0, y=-150.0, heading=0.5 * math.pi, height=8.0))
