"""
Checks of an OpenDRIVE file before CARLA's parser reads it.

The parser takes text that is not a number for 0, crashes, or tries to build a road of 10^20 metres. For a damaged or
hand-written file the error here says what is wrong, and where.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

from sb3_carla.errors import MapError

__all__ = ["MAX_COORDINATE", "read_opendrive"]

MAX_COORDINATE = 1e5
"""Largest magnitude of any number in a map, coordinates and lengths included [m]."""
_POLYNOMIAL = ("a", "b", "c", "d")
_NUMBERS = {
    "road": ("length",),
    "geometry": ("s", "x", "y", "hdg", "length"),
    "arc": ("curvature",),
    "spiral": ("curvStart", "curvEnd"),
    "laneSection": ("s",),
    "poly3": _POLYNOMIAL,
    "paramPoly3": tuple(power + axis for axis in "UV" for power in _POLYNOMIAL),
    "elevation": ("s", *_POLYNOMIAL),
    "superelevation": ("s", *_POLYNOMIAL),
    "laneOffset": ("s", *_POLYNOMIAL),
    "width": ("sOffset", *_POLYNOMIAL),
    "border": ("sOffset", *_POLYNOMIAL),
    "roadMark": ("sOffset",),
}
_NOT_NEGATIVE = {("road", "length"), ("geometry", "length")}
_INTEGERS = {"road": ("id", "junction"), "lane": ("id",), "junction": ("id",), "laneLink": ("from", "to")}
_MAX_INTEGER = 2**31 - 1
_REQUIRED = {(tag, key) for tag in ("geometry", "arc", "spiral", "laneSection") for key in _NUMBERS[tag]}
_REQUIRED |= {("road", "id"), ("road", "length"), ("lane", "id")}
"""Without these attributes the parser crashes, or there is nothing to draw; it takes other missing ones for 0."""
_SHAPES = ("line", "arc", "spiral", "poly3", "paramPoly3")
_SLACK = 1e-3
"""Greatest s at which the first geometry of a road may begin [m]."""


def read_opendrive(name: str, text: str) -> ElementTree.Element:
    """
    Parse and check the text of an OpenDRIVE file.

    :param name: of the map, for the error
    :param text: of the file
    :return: root of the document
    :raises MapError: if it is not OpenDRIVE, a road lacks an element that every road has, or an attribute is not a
        number in range
    """
    try:
        root = ElementTree.fromstring(text)
        _check(root)
    except ElementTree.ParseError as error:
        raise MapError(f"OpenDRIVE map {name!r} is not well-formed XML: {error}") from error
    except MapError as error:
        raise MapError(f"OpenDRIVE map {name!r}: {error}") from error
    return root


def _check(root: ElementTree.Element) -> None:
    if root.tag != "OpenDRIVE":
        raise MapError(f"the root element is <{root.tag}>, expected <OpenDRIVE>")
    for element in root.iterfind("junction"):
        _check_within(element, f"junction {element.get('id')!r}")
    for road in root.iterfind("road"):
        name = f"road {road.get('id')!r}"
        _check_within(road, name)
        for path in ("planView/geometry", "lanes/laneSection"):
            if road.find(path) is None:
                raise MapError(f"{name} has no <{path.replace('/', '>/<')}>, expected at least one")
        geometries = road.findall("planView/geometry")
        if not all(any(geometry.find(shape) is not None for shape in _SHAPES) for geometry in geometries):
            raise MapError(f"{name} has a <geometry> without a shape, expected one of {', '.join(_SHAPES)}")
        first = min(float(geometry.get("s", "0")) for geometry in geometries)
        if first > _SLACK:
            raise MapError(f"{name}: its first <geometry> begins at {first:g} m, expected 0")
        if any(section.find("center/lane") is None for section in road.iterfind("lanes/laneSection")):
            raise MapError(f"{name} has a <laneSection> without a <center>/<lane>, expected one")


def _check_within(element: ElementTree.Element, name: str) -> None:
    for part in element.iter():
        for key in _NUMBERS.get(part.tag, ()):
            low = 0.0 if (part.tag, key) in _NOT_NEGATIVE else -MAX_COORDINATE
            if not _fits(part, key, float, low, MAX_COORDINATE):
                raise MapError(_message(name, part, key, f"a number from {low:g} to {MAX_COORDINATE:g}"))
        for key in _INTEGERS.get(part.tag, ()):
            if not _fits(part, key, int, -_MAX_INTEGER, _MAX_INTEGER):
                raise MapError(_message(name, part, key, "an integer of 32 bits"))


def _fits(part: ElementTree.Element, key: str, kind: Callable[[str], float], low: float, high: float) -> bool:
    text = part.get(key)
    if text is None:
        return (part.tag, key) not in _REQUIRED
    try:
        return low <= kind(text) <= high  # false for NaN
    except ValueError:
        return False


def _message(name: str, part: ElementTree.Element, key: str, expected: str) -> str:
    found = "none" if part.get(key) is None else repr(part.get(key))
    return f"{name}: {key} of <{part.tag}>: expected {expected}, got {found}"
