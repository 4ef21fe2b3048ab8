"""Damaged OpenDRIVE maps: each is loaded or refused, and the server survives."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from harness import RawClient, ServerProcess, running_server

from sb3_carla.simulator.roads.built_in_towns import built_in_opendrive

CASES = 500
"""Maps of the slow test; the fast one loads a twenty-fifth of them."""
VALUES = [
    "",
    "nan",
    "-inf",
    "1e308",
    "1e5",
    "-1e5",
    "-1",
    "0",
    "1e-300",
    "abc",
    "9" * 20,
    "-2147483649",
    "0x10",
    "1,5",
    "é",
]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server("--town", "Circuit01") as process:
        yield process


def damaged(rng: random.Random, whole: str) -> str:
    """The map with attributes changed or removed, elements removed, copied or moved, the text cut, or bytes changed."""
    if rng.random() < 0.1:
        return whole[: rng.randrange(len(whole))]
    if rng.random() < 0.1:
        spoilt = bytearray(whole.encode())
        for _ in range(3):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        return spoilt.decode(errors="replace")
    root = ElementTree.fromstring(whole)
    for _ in range(rng.choice([1, 1, 1, 3, 30])):
        parents = {child: parent for parent in root.iter() for child in parent}
        element = rng.choice(list(parents))
        kind = rng.randrange(5)
        if kind < 2 and element.attrib:
            element.set(rng.choice(list(element.attrib)), rng.choice(VALUES))
        elif kind == 2 and element.attrib:
            del element.attrib[rng.choice(list(element.attrib))]
        elif kind == 3:
            parents[element].remove(element)
        else:
            inside = set(element.iter())
            rng.choice([other for other in root.iter() if other not in inside]).append(element)
            if rng.random() < 0.5:
                parents[element].remove(element)
    return ElementTree.tostring(root, encoding="unicode")


def load(server: ServerProcess, cases: int, seed: int) -> tuple[int, set[str]]:
    """Number of maps that could be loaded, and the errors of the others."""
    rng = random.Random(seed)
    whole = built_in_opendrive("Circuit01")
    drivable, complaints = 0, set()
    with contextlib.closing(RawClient(server.port)) as raw:
        raw.socket.settimeout(60.0)
        for case in range(cases):
            assert raw.call("copy_opendrive_to_file", damaged(rng, whole), [])[0] is None
            error, result = raw.call("load_new_episode", "OpenDriveMap", True, 0xFF)
            assert server.process.poll() is None, f"the server died at case {case} of seed {seed}"
            if error is None and result == [[False]]:
                drivable += 1
            else:
                complaints.add(str(error or result))
    return drivable, complaints


def check(server: ServerProcess, cases: int, seed: int) -> None:
    drivable, complaints = load(server, cases, seed)
    assert 0.2 * cases < drivable < 0.95 * cases
    assert all("OpenDRIVE map" in complaint or "lanes reach" in complaint for complaint in complaints), complaints


def test_twenty_damaged_maps(server: ServerProcess) -> None:
    check(server, CASES // 25, seed=1)


@pytest.mark.slow
def test_five_hundred_damaged_maps(server: ServerProcess) -> None:
    check(server, CASES, seed=2)
