"""Compiled kernels on disk are thrown away when any of their sources changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT, TESTS

from sb3_carla.simulator.rendering import picture, scene
from sb3_carla.simulator.rendering.ground_shading import GROUND
from sb3_carla.simulator.rendering.rasteriser import FACET, VERSION
from sb3_carla.simulator.rendering.warm_up import warm_up

RENDER = """
import math, small_towns
from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering import rasteriser
from sb3_carla.simulator.rendering.bodies import Body
from sb3_carla.simulator.rendering.camera import Camera
town = small_towns.furnished(small_towns.straight_town())
car = Body(Pose(x=52.5, y=1.75, z=1.0), (2.0, 1.0, 1.0))  # its back is half a metre ahead of the camera
seen = Camera(20, 20, math.pi / 2).render_semantic(town, Pose(x=50.0, y=1.75, z=1.0), Ground(0.0), [car])[:, :, 2]
print(rasteriser.__file__, int((seen == 14).sum()))
"""


def pixels_of_a_car(package: Path, **variables: str) -> int:
    """Pixels that a car half a metre ahead covers in a picture of 20 x 20, drawn by a copy of the package."""
    environment = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{TESTS}", **variables}
    run = subprocess.run([sys.executable, "-c", RENDER], cwd=package, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    path, count = run.stdout.split()
    assert Path(path).is_relative_to(package)
    return int(count)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "sb3_carla", tmp_path / "sb3_carla", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_kernels_that_call_those_of_another_file_get_a_record_that_changes_with_it() -> None:
    warm_up()
    for function, record in ((scene.draw_scene, FACET), (picture.compose_picture, GROUND)):
        (signature,) = function.nopython_signatures
        assert VERSION[0] in record.names
        assert VERSION[0] in str(signature)


@pytest.mark.long
def test_a_change_of_a_kernel_reaches_those_that_call_it(package: Path) -> None:
    assert pixels_of_a_car(package) == 400
    compiled = list((package / "sb3_carla").rglob("scene.draw_scene-*.nbc"))
    assert compiled, "it was kept"
    assert pixels_of_a_car(package) == 400
    source = package / "sb3_carla" / "simulator" / "rendering" / "rasteriser.py"
    text = source.read_text(encoding="utf-8")
    assert "\nNEAR = 0.1\n" in text
    # The near plane moves behind the car's back: all that is left are its sides' edges, seen from inside.
    source.write_text(text.replace("\nNEAR = 0.1\n", "\nNEAR = 9.1\n"), encoding="utf-8")
    assert pixels_of_a_car(package) == 0


@pytest.mark.long
def test_without_a_folder_to_write_to_nothing_is_kept(package: Path) -> None:
    # A file in the place of the folder: no folder can be made, not even by root.
    (package / "sb3_carla" / "simulator" / "rendering" / "__pycache__").touch()
    nowhere = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": "/dev/null/cache"}
    assert pixels_of_a_car(package, **nowhere) == 400
    assert not list(package.rglob("*.nbc"))
