#!/usr/bin/env python
"""
Microseconds a picture of 84x84 pixels costs: ours in a few scenes, and Panda3D's software display.

    python benchmarks/rendering.py                      # Panda3D: pip install 'sb3-carla[benchmark]'
    python benchmarks/rendering.py --rounds 9 --output results/rendering.json

Ours draws sky, ground, scenery, cars and their shadows. Panda3D's software display (p3tinydisplay) draws a comparable
street: a textured road, 120 boxes of flat colours beside it, of which the camera sees some 300 polygons; no sky, no
shadows, one sample a pixel. Its picture is copied to a numpy array, as ours is one. Processor time of one process and
one thread; the contenders take turns, so that other work on the machine affects all of them alike.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Draw = Callable[[float], object]
"""Draws one picture, from a place so many metres along the road."""
SIZE = 84
DISTANCE = 0.1
"""From one picture to the next [m]."""


def ours(town_name: str, weather_name: str, cars: int = 0) -> Draw:
    """:return: our engine in a built-in town, with cars ahead"""
    import cv2

    from sb3_carla.simulator.geometry import Pose
    from sb3_carla.simulator.rendering.bodies import Body
    from sb3_carla.simulator.rendering.camera import Camera
    from sb3_carla.simulator.rendering.weather import Weather
    from sb3_carla.simulator.scenery.vehicles import car
    from sb3_carla.simulator.town import Town

    cv2.setNumThreads(1)
    town, camera, weather = Town.load(town_name), Camera(SIZE, SIZE, math.pi / 2.0), Weather.preset(weather_name)
    start, half_extents = town.spawn_points[3], (2.4, 1.0, 0.75)
    model, ahead = car(half_extents, (60, 60, 200)), (math.cos(start.yaw), math.sin(start.yaw))
    places = [(8.0 + 9.0 * number, 3.5 * (number % 2)) for number in range(cars)]  # ahead, to the left [m]
    bodies = [
        Body(
            Pose(start.x + d * ahead[0] + s * ahead[1], start.y + d * ahead[1] - s * ahead[0], start.z + 0.75),
            half_extents, model=model,
        )
        for d, s in places
    ]  # fmt: skip

    def draw(metres: float) -> object:
        x, y = start.x + metres * ahead[0], start.y + metres * ahead[1]
        pose = Pose(x, y, start.z + 2.0, pitch=-math.radians(15.0), yaw=start.yaw)
        return camera.render(town, pose, town.ground(x, y, start.z), weather, bodies)

    return draw


def panda3d() -> Draw:
    """:return: Panda3D's software display before a street of boxes"""
    import numpy as np
    from panda3d import core

    core.load_prc_file_data("", "load-display p3tinydisplay\nwindow-type offscreen\naudio-library-name null")
    core.load_prc_file_data("", "sync-video false\nnotify-level error")
    engine = core.GraphicsEngine.get_global_ptr()
    pipe = core.GraphicsPipeSelection.get_global_ptr().make_module_pipe("p3tinydisplay")
    properties, flags = core.FrameBufferProperties(), core.GraphicsPipe.BF_refuse_window
    properties.set_rgb_color(True)
    properties.set_depth_bits(24)
    size = core.WindowProperties.size(SIZE, SIZE)
    buffer = engine.make_output(pipe, "picture", 0, properties, size, flags)
    texture, root = core.Texture(), core.NodePath("street")
    buffer.add_render_texture(texture, core.GraphicsOutput.RTM_copy_ram)
    camera = root.attach_new_node(core.Camera("camera"))
    camera.node().get_lens().set_fov(90.0, 90.0)
    camera.node().get_lens().set_near_far(0.1, 150.0)
    buffer.make_display_region().set_camera(camera)
    _build_street(root)

    def draw(metres: float) -> object:
        camera.set_pos(0.0, metres, 2.0)
        camera.set_hpr(0.0, -15.0, 0.0)
        engine.render_frame()
        return np.frombuffer(texture.get_ram_image(), np.uint8).reshape(SIZE, SIZE, -1)

    return draw


def _build_street(root: Any) -> None:
    """A textured road of 300 m and a box every 5 m on either side of it."""
    from panda3d import core

    def card(parent: Any, width: float, height: float) -> Any:
        maker = core.CardMaker("card")
        maker.set_frame(-0.5 * width, 0.5 * width, 0.0, height)
        return parent.attach_new_node(maker.generate())

    image = core.PNMImage(64, 64)
    image.perlin_noise_fill(core.StackedPerlinNoise2(8.0, 8.0))
    texture = core.Texture()
    texture.load(image)
    for number in range(30):
        road = card(root, 10.0, 10.0)
        road.set_pos_hpr(0.0, 10.0 * number, 0.0, 0.0, -90.0, 0.0)
        road.set_texture(texture)
    boxes = root.attach_new_node("boxes")
    for number in range(120):
        box = boxes.attach_new_node("box")
        box.set_pos(8.0 if number % 2 else -8.0, 5.0 * (number // 2), 0.0)
        for side in range(4):
            wall = card(box, 3.0, 3.0 + number % 4)
            wall.set_color(0.2 * side + 0.1, 0.1 * (number % 9), 0.5, 1.0)
            wall.set_hpr(90.0 * side, 0.0, 0.0)
            wall.set_pos(wall.get_quat().get_forward() * -1.5)
    boxes.flatten_strong()


CONTENDERS: dict[str, Callable[[], Draw]] = {
    "village, clear noon": lambda: ours("Village08", "ClearNoon"),
    "village, hard rain": lambda: ours("Village08", "HardRainNoon"),
    "village, sunset, ten cars": lambda: ours("Village08", "ClearSunset", 10),
    "city street, clear noon": lambda: ours("Village44", "ClearNoon"),
    "circuit, cloudy noon": lambda: ours("Circuit01", "CloudyNoon"),
    "Panda3D's software display": panda3d,
}


def measure(draws: dict[str, Draw], rounds: int, pictures: int) -> dict[str, list[float]]:
    """
    :param draws: contenders
    :param rounds: number of measurements of each, in turns
    :param pictures: in a measurement
    :return: contender -> processor time a picture in each round [us]: the median of its pictures
    """
    found: dict[str, list[float]] = {name: [] for name in draws}
    for _ in range(rounds):
        for name, draw in draws.items():
            times = []
            for number in range(pictures):
                start = time.process_time_ns()
                draw(DISTANCE * number)
                times.append(time.process_time_ns() - start)
            found[name].append(statistics.median(times) / 1e3)
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument("--pictures", type=int, default=100, help="in a round (default: 100)")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    draws: dict[str, Draw] = {}
    for name, make in CONTENDERS.items():
        try:
            draws[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error} (pip install 'sb3-carla[benchmark]')")
            continue
        draws[name](0.0)
    times = measure(draws, options.rounds, options.pictures)
    print("| | us a picture (median) | range of the rounds' medians |\n| --- | --- | --- |")
    for name, values in times.items():
        print(f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} to {max(values):.0f} |")
    if options.output:
        from sb3_carla.zoo.provenance import provenance

        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({**provenance(), "microseconds": times}, indent=2) + "\n")


if __name__ == "__main__":
    main()
