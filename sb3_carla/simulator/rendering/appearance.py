"""How a town looks in one weather: its sky, its light, the tones of its materials; computed once for an episode."""

from __future__ import annotations

from dataclasses import dataclass

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.simulator.rendering.ground_shading import FRAME, GROUND, LAMP_REACH, ground_colors
from sb3_carla.simulator.rendering.inverse_perspective import PlanePose
from sb3_carla.simulator.rendering.light import Color, Light, read_weather
from sb3_carla.simulator.rendering.look import Look
from sb3_carla.simulator.rendering.sky import paint_sky
from sb3_carla.simulator.rendering.weather import Weather

__all__ = ["Appearance", "build_appearance"]

MAX_LAMPS = 6
"""Street lights that light the ground of one picture: the nearest ones."""
LAMP = 0.9
"""Brightness of the ground below a street light at night [-]."""
PIVOT = 110.0
"""Grey level that stays the same when clouds take contrast away."""
_MATERIALS = {
    "Road": ("road",),
    "Sidewalk": ("stone",),
    "RoadLines_White": ("white",),
    "RoadLines_Yellow": ("yellow",),
    "Terrain": ("verge", "verge2"),
}
_LABEL = carla.CityObjectLabel
# Objects of a look: labels of what it tints, and the grey level at which the tint is 1.
_TINTED = {
    "Buildings": ((_LABEL.Buildings,), 130.0),
    "Walls": ((_LABEL.Walls, _LABEL.Fences, _LABEL.GuardRail), 120.0),
    "Vegetation": ((_LABEL.Vegetation,), 80.0),
}


@dataclass(frozen=True)
class Appearance:
    """
    How a town looks in one weather.

    :param light: the weather in numbers
    :param sky: picture of :func:`sb3_carla.simulator.rendering.sky.paint_sky`
    :param lighting: shape (1,), a record of type ``LIGHTING``
    :param ground: shape (1,), a record of type ``GROUND``
    """

    light: Light
    sky: NDArray[np.uint8]
    lighting: NDArray[np.void]
    ground: NDArray[np.void]

    @property
    def sky_words(self) -> NDArray[np.uint32]:
        """The sky, a pixel in a word, row by row: shape (ROWS * (COLUMNS + 1),), uint32."""
        words: NDArray[np.uint32] = self.sky.view(np.uint32).reshape(-1)
        return words

    def frame(
        self, plane_pose: PlanePose, corner: tuple[float, float], cell: float, heading: float
    ) -> NDArray[np.void]:
        """
        Where the camera of one picture is, for the ground and the sky.

        :param plane_pose: of the camera
        :param corner: world x and y of the raster's first corner [m]
        :param cell: size of the raster's finest cells [m]
        :param heading: of :func:`sb3_carla.simulator.rendering.sky.sky_heading`
        :return: shape (1,), a record of type ``FRAME``
        """
        x, y, z = self.light.to_sun
        ahead, right = plane_pose.ahead, plane_pose.right
        sun = x * ahead[0] + y * ahead[1], x * right[0] + y * right[1], z
        height = plane_pose.height_pitch_roll[0]
        return np.array([(plane_pose.foot, ahead, height, sun, corner, 1.0 / cell, heading)], FRAME)

    def lamps_near(self, plane_pose: PlanePose, lamps: NDArray[np.float64]) -> NDArray[np.float64]:
        """
        :param plane_pose: of the camera
        :param lamps: all street lights of the town: shape (n, 3): x, y, height [m]
        :return: the nearest ones in the plane's axes: shape (k, 3): ahead, right, height [m]; none by day
        """
        if self.light.headlights == 0.0 or not len(lamps):
            return np.zeros((0, 3))
        offsets = lamps[:, :2] - plane_pose.foot
        axes = np.array((plane_pose.ahead, plane_pose.right)).T
        squared = (offsets**2).sum(axis=1)
        near = np.argsort(squared, kind="stable")[:MAX_LAMPS]
        near = near[squared[near] < LAMP_REACH**2]
        return np.ascontiguousarray(np.concatenate([offsets[near] @ axes, lamps[near, 2:]], axis=1))


def build_appearance(weather: Weather, look: Look, seed: int) -> Appearance:
    """
    :param weather: the weather
    :param look: tones that differ from the town's own
    :param seed: of the town's own looks
    """
    light = read_weather(weather)
    materials = {
        material: (look.colors[name], look.contrasts.get(name, 8.0))
        for name, materials in _MATERIALS.items()
        if name in look.colors
        for material in materials
    }
    tints: list[tuple[int, Color]] = []
    for name, (labels, neutral) in _TINTED.items():
        if name in look.colors:
            blue, green, red = (value / neutral for value in look.colors[name])
            tints += [(int(label), (blue, green, red)) for label in labels]
    ground = np.zeros(1, GROUND)
    record = ground[0]
    colors, contrasts = ground_colors(seed, materials)
    # The brightness differs from pixel to pixel: the weights of the weather's effects hold it.
    record["colors"] = (PIVOT + light.contrast * (colors - PIVOT)) * light.color_gain
    record["contrasts"] = light.contrast * contrasts
    low_sun = max(0.0, 1.0 - light.to_sun[2] / 0.7) * light.direct
    record["glare"] = (90.0 + 160.0 * light.wet) * low_sun
    record["sharpness"] = 1.0 + 7.0 * light.wet
    record["lamp"] = LAMP * light.headlights
    return Appearance(light, paint_sky(light, seed), light.lighting(tints), ground)
