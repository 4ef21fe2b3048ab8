"""After the warm-up nothing is left to compile, and servers that start together compile once."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_towns import straight_town

from sb3_carla.simulator.geometry import Pose
from sb3_carla.simulator.physics.dynamics import Ground
from sb3_carla.simulator.rendering import ground_shading, picture, rasteriser, scene
from sb3_carla.simulator.rendering.bodies import Body
from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.warm_up import warm_up
from sb3_carla.simulator.rendering.weather import Weather


def signatures() -> dict[str, int]:
    """Number of compiled forms of each kernel."""
    return {
        f"{module.__name__}.{name}": len(found.nopython_signatures)
        for module in (rasteriser, scene, ground_shading, picture)
        for name, found in vars(module).items()
        if hasattr(found, "nopython_signatures")
    }


def test_nothing_is_left_to_compile() -> None:
    warm_up()
    before = signatures()
    assert before["sb3_carla.simulator.rendering.scene.draw_scene"] == 1
    assert before["sb3_carla.simulator.rendering.picture.compose_picture"] == 1
    town, eye, flat = straight_town(outer=("sidewalk",)), Pose(x=50.0, y=1.75, z=2.0), Ground(0.0)
    body = Body(Pose(x=60.0, y=1.75, z=1.0), (1.0, 1.0, 1.0))
    for camera in (Camera(84, 84, 0.5 * math.pi), Camera(200, 150, 0.5 * math.pi)):
        for altitude in (-30.0, 5.0, 45.0):
            weather = Weather(sun_altitude_angle=altitude, precipitation=50.0, wetness=50.0)
            camera.render(town, eye, flat, weather, [body])
            camera.render(town, eye, flat, weather)
        camera.render_semantic(town, eye, flat, [body])
        camera.render_depth(town, eye, flat)
    assert signatures() == before


@pytest.mark.long
def test_of_several_processes_one_compiles(tmp_path: Path) -> None:
    code = (
        "import time\nfrom sb3_carla.simulator.rendering.warm_up import warm_up\nwarm_up()\nprint(time.process_time())"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    processes = []
    for _ in range(3):
        command = [sys.executable, "-c", code]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        time.sleep(0.1)
    used = sorted(float(process.communicate(timeout=300)[0]) for process in processes)
    assert used[1] < 0.6 * used[2], f"seconds of processor time: {used}"
