"""
What stands where: rows of objects, lines of walls and fences, and scattered plants, for every use of land.

Distances are those of an object's front to the nearest lane (``near="lane"``), or to the nearest lane that is not a
pavement (``near="road"``). The recipes are carried out in order: what comes first takes the place.
"""

from __future__ import annotations

from dataclasses import dataclass

from sb3_carla.simulator.scenery.land_use import LandUse

__all__ = ["RECIPES", "SLOTS", "Line", "Row", "Scatter"]

CITY, RESIDENTIAL, INDUSTRIAL, PARK, COUNTRY, MOTORWAY = LandUse
POST, WALL, BUILDING = 0.75, 1.6, 2.2
"""Least distances to lanes [m]: of posts to the road, of walls and of buildings to all lanes."""
ANY = ("", 0.0, 1.0)
Choice = tuple[str, float, float]
"""Slot and range: a zone draws one number for each slot, and has the row if the number is in the range."""
SLOTS = ("boundary", "parking", "trees", "lights", "edge")


@dataclass(frozen=True, slots=True)
class Row:
    """
    Objects one after the other along the roadside.

    :param kinds: of models
    :param uses: of land
    :param distance: least and greatest distance of the fronts [m]
    :param gap: least and greatest gap between neighbours [m]
    :param near: "road" or "lane"
    :param clear: least distance of the footprint to the lanes that ``near`` names [m]
    :param corner: least distance of its middle to a junction's lanes [m]
    :param facing: "road", "along" (the direction of traffic), or "against"
    :param repeat: up to so many neighbours are of one model
    :param choice: which zones have it
    """

    kinds: tuple[str, ...]
    uses: tuple[LandUse, ...]
    distance: tuple[float, float]
    gap: tuple[float, float]
    near: str = "road"
    clear: float = POST
    corner: float = 3.0
    facing: str = "road"
    repeat: int = 1
    choice: Choice = ANY


@dataclass(frozen=True, slots=True)
class Line:
    """
    Walls, fences or rails along the roadside, in pieces of at most 8 m; a zone has one model.

    :param kinds: of models
    :param uses: of land
    :param distance: [m]
    :param near: as in :class:`Row`
    :param clear: as in :class:`Row`
    :param corner: as in :class:`Row`
    :param openings: share of the pieces that are left out: gates
    :param choice: as in :class:`Row`
    """

    kinds: tuple[str, ...]
    uses: tuple[LandUse, ...]
    distance: float
    near: str = "lane"
    clear: float = WALL
    corner: float = 7.0
    openings: float = 0.1
    choice: Choice = ANY


@dataclass(frozen=True, slots=True)
class Scatter:
    """
    Objects at random places.

    :param kinds: of models
    :param uses: of land
    :param band: least and greatest distance to the lanes [m]
    :param density: objects for each square metre, before those that do not fit are left out
    :param corner: as in :class:`Row`
    :param choice: as in :class:`Row`
    """

    kinds: tuple[str, ...]
    uses: tuple[LandUse, ...]
    band: tuple[float, float]
    density: float
    corner: float = 9.0
    choice: Choice = ANY


RECIPES: tuple[Row | Line | Scatter, ...] = (
    # Rails and barriers of fast roads.
    Line(("guard rail",), (MOTORWAY,), 1.4, "road", POST, 1.5, 0.0, ("boundary", 0.0, 0.55)),
    Line(("barrier",), (MOTORWAY,), 1.5, "road", POST, 1.5, 0.0, ("boundary", 0.55, 0.9)),
    Line(("guard rail",), (COUNTRY, PARK), 1.5, "road", POST, 3.0, 0.0, ("boundary", 0.9, 1.0)),
    Line(("noise wall",), (MOTORWAY,), 5.0, "lane", WALL, 8.0, 0.0, ("edge", 0.0, 0.35)),
    # Buildings.
    Row(("shop", "tower", "shop"), (CITY,), (2.8, 3.6), (0.6, 1.4), "lane", BUILDING, 9.0, repeat=4),
    Row(("house",), (RESIDENTIAL,), (4.5, 9.0), (2.0, 9.0), "lane", BUILDING, 9.0, repeat=3),
    Row(("hall",), (INDUSTRIAL,), (8.0, 14.0), (6.0, 22.0), "lane", BUILDING, 12.0, repeat=2),
    # Boundaries of gardens and yards.
    Line(("garden wall",), (RESIDENTIAL, PARK), 2.3, choice=("boundary", 0.0, 0.25)),
    Line(("hedge",), (RESIDENTIAL, PARK), 2.6, choice=("boundary", 0.25, 0.5)),
    Line(("garden fence",), (RESIDENTIAL,), 2.3, choice=("boundary", 0.5, 0.65)),
    Line(("garden wall", "hedge"), (RESIDENTIAL,), 3.9, choice=("boundary", 0.65, 0.85)),
    Line(("wire fence", "garden wall"), (INDUSTRIAL,), 2.5, openings=0.05, choice=("boundary", 0.0, 0.6)),
    Line(("wire fence", "hedge"), (INDUSTRIAL,), 4.5, openings=0.05, choice=("boundary", 0.6, 0.95)),
    Line(("field fence",), (COUNTRY,), 3.0, openings=0.03, choice=("boundary", 0.0, 0.35)),
    Line(("hedge",), (COUNTRY,), 4.5, openings=0.15, choice=("boundary", 0.35, 0.5)),
    Line(("garden wall",), (CITY,), 2.4, openings=0.2, choice=("boundary", 0.0, 0.5)),
    # Posts.
    Row(("lamp",), (CITY, RESIDENTIAL), (1.2, 1.3), (25.0, 40.0), choice=("lights", 0.0, 0.85), repeat=99),
    Row(("lamp",), (INDUSTRIAL, PARK), (1.5, 1.7), (28.0, 40.0), choice=("lights", 0.0, 0.6), repeat=99),
    Row(("mast",), (MOTORWAY,), (2.4, 2.5), (34.0, 40.0), choice=("lights", 0.0, 0.5), repeat=99),
    Row(("utility pole",), (COUNTRY, INDUSTRIAL), (2.2, 3.5), (30.0, 40.0), facing="along",
        choice=("lights", 0.5, 1.0)),
    Row(("sign",), (CITY, RESIDENTIAL, INDUSTRIAL), (1.2, 1.6), (18.0, 60.0), corner=1.5, facing="against"),
    Row(("sign",), (PARK, COUNTRY), (1.5, 2.2), (50.0, 140.0), corner=1.5, facing="against"),
    Row(("big sign",), (MOTORWAY,), (2.6, 4.0), (90.0, 250.0), clear=1.6, facing="against"),
    # Parked vehicles.
    Row(("car", "car", "car", "van"), (CITY, RESIDENTIAL), (1.2, 1.4), (0.8, 14.0), clear=0.8, corner=9.0,
        facing="along", choice=("parking", 0.0, 0.55)),
    Row(("car", "van", "truck"), (INDUSTRIAL,), (1.6, 2.2), (4.0, 30.0), clear=0.8, corner=10.0,
        facing="along", choice=("parking", 0.0, 0.6)),
    Row(("car", "van"), (RESIDENTIAL,), (4.2, 6.0), (8.0, 26.0), "lane", WALL, 8.0),
    Row(("truck", "goods", "goods"), (INDUSTRIAL,), (3.6, 7.0), (4.0, 20.0), "lane", WALL, 8.0),
    # Street furniture and street trees.
    Row(("tree",), (CITY, RESIDENTIAL), (1.3, 1.9), (9.0, 18.0), corner=8.0, repeat=9, choice=("trees", 0.0, 0.4)),
    Row(("palm",), (CITY, RESIDENTIAL), (1.3, 1.9), (12.0, 20.0), corner=8.0, repeat=9, choice=("trees", 0.9, 1.0)),
    Row(("bollard",), (CITY,), (1.15, 1.2), (2.5, 6.0), corner=2.0, repeat=99, choice=("edge", 0.6, 0.85)),
    Row(("thing",), (CITY, RESIDENTIAL), (1.5, 2.0), (6.0, 30.0), corner=4.0),
    Row(("thing", "bush"), (PARK, INDUSTRIAL), (1.7, 2.6), (14.0, 50.0), corner=4.0),
    # Gardens, and what is behind the first row of buildings.
    Row(("tree", "tree", "bush", "fir"), (RESIDENTIAL,), (2.9, 5.0), (4.0, 14.0), "lane", 1.4, 8.0),
    Row(("bush",), (RESIDENTIAL, INDUSTRIAL, COUNTRY), (2.2, 4.0), (6.0, 25.0), "lane", 1.2, 5.0),
    Row(("tower",), (CITY,), (26.0, 30.0), (4.0, 30.0), "lane", 20.0, 9.0),
    Row(("tree", "fir"), (CITY, RESIDENTIAL, INDUSTRIAL), (24.0, 27.0), (5.0, 16.0), "lane", 10.0, 9.0),
    # Woods and fields.
    Scatter(("tree", "fir", "fir"), (PARK,), (3.2, 18.0), 0.026, choice=("trees", 0.0, 0.7)),
    Scatter(("tree", "palm", "bush"), (PARK,), (3.2, 20.0), 0.012, choice=("trees", 0.7, 1.0)),
    Scatter(("fir", "tree"), (PARK,), (18.0, 40.0), 0.008, choice=("trees", 0.0, 0.7)),
    Scatter(("fir", "tree", "bush"), (MOTORWAY,), (6.0, 36.0), 0.007),
    Scatter(("tree", "fir", "bush", "bush"), (COUNTRY,), (3.5, 40.0), 0.0022),
    Scatter(("bale",), (COUNTRY,), (6.0, 35.0), 0.0006, choice=("edge", 0.0, 0.4)),
    Scatter(("bush",), (CITY, INDUSTRIAL, RESIDENTIAL, PARK), (2.4, 12.0), 0.004),
    Scatter(("hill",), (COUNTRY, MOTORWAY, PARK), (36.0, 48.0), 0.0008, choice=("edge", 0.3, 1.0)),
)  # fmt: skip
