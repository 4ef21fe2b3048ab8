#!/usr/bin/env python
"""
Render the camera in built-in towns: above in colour, below as the policy's 84 x 84 grey pixels.

    python scripts/camera_pictures.py docs/camera.png
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.geometry import Pose, compose
from sb3_carla.simulator.rendering.bodies import Body
from sb3_carla.simulator.rendering.camera import Camera
from sb3_carla.simulator.rendering.weather import Weather
from sb3_carla.simulator.town import Town

SCENES = (("Circuit01", 1, "ClearNoon", True), ("Village01", 4, "HardRainNoon", False),
          ("Circuit04", 9, "ClearSunset", False), ("Village03", 12, "ClearNoon", True))  # fmt: skip
"""Town, number of the spawn point, weather, whether there are cars."""
MOUNT = Pose(x=1.2, z=2.0, pitch=math.radians(-15.0))
"""Pose of the camera on the car."""
WIDTH = 320


def picture(town: str, place: int, weather: str, cars: bool) -> NDArray[np.uint8]:
    """
    Render one scene.

    :param town: name of a built-in town
    :param place: number of a spawn point
    :param weather: name of a preset
    :param cars: whether two cars are ahead
    :return: shape (200 + 320, 320, 3), uint8 BGR
    """
    loaded = Town.load(town)
    car = loaded.spawn_points[place % len(loaded.spawn_points)]
    ahead = (Pose(x=14.0, z=0.75), (70, 60, 170)), (Pose(x=22.0, y=-3.4, z=0.75, yaw=math.pi), (160, 90, 60))
    boxes = [Body(compose(car, pose), (2.4, 1.0, 0.74), color) for pose, color in ahead] if cars else []
    pose = compose(car, MOUNT)
    ground = loaded.ground(pose.x, pose.y, car.z)
    sky = Weather.preset(weather)
    color = Camera(WIDTH, 200, math.pi / 2.0).render(loaded, pose, ground, sky, boxes)[:, :, :3]
    grey = cv2.cvtColor(Camera(84, 84, math.pi / 2.0).render(loaded, pose, ground, sky, boxes), cv2.COLOR_BGRA2GRAY)
    large = cv2.resize(grey, (WIDTH, WIDTH), interpolation=cv2.INTER_NEAREST)
    return np.vstack([color, cv2.cvtColor(large, cv2.COLOR_GRAY2BGR)])


def main() -> None:
    """Parse the arguments, render, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="PNG file to write")
    options = parser.parse_args()
    cv2.imwrite(str(options.output), np.hstack([picture(*scene) for scene in SCENES]))
    print(f"Written: {options.output}")


if __name__ == "__main__":
    main()
