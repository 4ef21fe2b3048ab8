#!/usr/bin/env python
"""
Render the camera in built-in towns: each scene in colour, and as the policy's 84 x 84 grey pixels beside it.

    python scripts/camera_pictures.py docs/camera.png
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose, compose
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.town import Town
from sb3_carla.simulator.world import World

MOUNT = Pose(x=1.2, z=2.0, pitch=math.radians(-15.0))
"""Pose of the camera on the car."""
HEIGHT, COLUMNS, GAP = 252, 2, 4
"""Height of a picture, scenes side by side, white between them [px]."""


class Scene(NamedTuple):
    """
    :param town: name of a built-in town
    :param place: number of a spawn point
    :param weather: what it is like; its sun's azimuth counts from straight ahead
    :param cars: metres ahead and to the right, and whether it comes towards the camera
    """

    town: str
    place: int
    weather: Weather
    cars: tuple[tuple[float, float, bool], ...] = ()


SCENES = (
    Scene("Village04", 40, Weather(sun_azimuth_angle=120.0), ((14.0, 0.0, False), (22.0, -3.4, True))),
    Scene("Village01", 15, Weather.preset("HardRainNoon"), ((16.0, 0.0, False),)),
    Scene("Circuit04", 18, Weather(sun_altitude_angle=14.0, sun_azimuth_angle=60.0)),
    Scene("Village03", 38, Weather.preset("ClearNight")),
    Scene("Motorway01", 48, Weather(sun_azimuth_angle=100.0, cloudiness=30.0), ((18.0, 0.0, False),)),
    Scene("Village04", 30, Weather(sun_altitude_angle=9.0, sun_azimuth_angle=8.0, wetness=80.0)),
)


def picture(scene: Scene) -> NDArray[np.uint8]:
    """
    Render one scene.

    :param scene: where, when and with whom
    :return: shape (252, 420 + 4 + 252, 3), uint8 BGR: in colour, and in grey, three times as large
    """
    town = Town.load(scene.town)
    start = town.spawn_points[scene.place]
    world = World(town)
    ahead = math.degrees(start.yaw)
    world.weather = replace(scene.weather, sun_azimuth_angle=scene.weather.sun_azimuth_angle + ahead)
    car = world.spawn("vehicle.tesla.model3", {}, start)
    for model, (along, right, oncoming) in zip(
        ("vehicle.audi.tt", "vehicle.jeep.wrangler_rubicon"), scene.cars, strict=False
    ):
        world.spawn(model, {}, compose(start, Pose(x=along, y=right, yaw=math.pi if oncoming else 0.0)))
    color, grey = (
        world.render(
            world.spawn("sensor.camera.rgb", {"image_size_x": str(width), "image_size_y": str(height)}, MOUNT, car.id)
        )[:, :, :3]
        for width, height in ((420, HEIGHT), (84, 84))
    )
    channels = cv2.cvtColor(cv2.cvtColor(grey, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    large = cv2.resize(channels, (HEIGHT, HEIGHT), interpolation=cv2.INTER_NEAREST)
    return np.hstack([color, np.full((HEIGHT, GAP, 3), 255, np.uint8), large])


def main() -> None:
    """Parse the arguments, render, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="PNG file to write")
    options = parser.parse_args()
    pictures = [np.pad(picture(scene), ((0, 2 * GAP), (0, 2 * GAP), (0, 0)), constant_values=255) for scene in SCENES]
    rows = [np.hstack(pictures[first : first + COLUMNS]) for first in range(0, len(pictures), COLUMNS)]
    cv2.imwrite(str(options.output), np.vstack(rows)[: -2 * GAP, : -2 * GAP])
    print(f"Written: {options.output}")


if __name__ == "__main__":
    main()
