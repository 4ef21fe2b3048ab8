"""Remote calls that change how the town looks: textures of its objects, and layers of its map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_carla.server.registry import Response, remote_call
from sb3_carla.server.simulation import Simulation
from sb3_carla.server.wire import WireError, layers_from, sequence_from, text_from
from sb3_carla.simulator.rendering.look import OBJECTS

__all__: list[str] = []

DIFFUSE = 2
"""``carla.MaterialParameter.Diffuse``: the colour. The others (normal, roughness, emissive) have no effect here."""
GREY = (0.114, 0.587, 0.299)
"""Grey level of blue, green, red: ITU-R BT.601, as in OpenCV."""
MAX_PIXELS = 4096 * 4096
"""Most pixels of a texture."""


@remote_call("get_names_of_all_objects")
def get_names_of_all_objects(simulation: Simulation) -> list[str]:
    """``world.get_names_of_all_objects``: the same objects in every town."""
    return list(OBJECTS)


@remote_call("apply_color_texture_to_objects", Response.VOID)
def apply_color_texture(simulation: Simulation, names: object, parameter: object, texture: object) -> None:
    """``world.apply_color_texture_to_object(s)``: ``[width, height, [[r, g, b, a], ...]]``, 0 to 255."""
    _paint(simulation, names, parameter, texture, full=255.0)


@remote_call("apply_float_color_texture_to_objects", Response.VOID)
def apply_float_color_texture(simulation: Simulation, names: object, parameter: object, texture: object) -> None:
    """``world.apply_float_color_texture_to_object(s)``: as above, but 0 to 1."""
    _paint(simulation, names, parameter, texture, full=1.0)


def _paint(simulation: Simulation, names: object, parameter: object, texture: object, *, full: float) -> None:
    """Keep the texture's mean colour and the standard deviation of its grey level; unknown names change nothing."""
    wanted = [text_from(name, "name of an object") for name in sequence_from(names, 0, "names of objects")]
    pixels = _pixels_from(texture) * (255.0 / full)  # (n, 3): blue, green, red
    if parameter == DIFFUSE:
        blue, green, red = pixels.mean(axis=0).tolist()
        contrast = float((pixels @ np.array(GREY)).std())
        world = simulation.world
        world.look = world.look.painted(wanted, (blue, green, red), contrast)


def _pixels_from(texture: object) -> NDArray[np.float64]:
    """Blue, green, red of every pixel: shape (n, 3), float64."""
    width, height, rows = sequence_from(texture, 3, "texture")[:3]
    rows = sequence_from(rows, 0, "texture's pixels")
    sizes_fit = type(width) is type(height) is int and width > 0 and width * height == len(rows)
    if not sizes_fit or not 1 <= len(rows) <= MAX_PIXELS:
        raise WireError(f"texture: expected width x height pixels, got {width!r:.20} x {height!r:.20} of {len(rows)}")
    try:
        pixels: NDArray[Any] = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError):
        raise WireError("texture: expected pixels of four numbers") from None
    if pixels.shape != (len(rows), 4) or not np.isfinite(pixels).all():
        raise WireError(f"texture: expected finite pixels of four numbers, got shape {pixels.shape}")
    return pixels[:, 2::-1].clip(0.0, 1e3)


@remote_call("load_map_layer", Response.VOID)
def load_map_layer(simulation: Simulation, layers: object) -> None:
    """``world.load_map_layer``: show these layers again."""
    simulation.world.hidden_layers &= ~layers_from(layers)


@remote_call("unload_map_layer", Response.VOID)
def unload_map_layer(simulation: Simulation, layers: object) -> None:
    """``world.unload_map_layer``: hide these layers."""
    simulation.world.hidden_layers |= layers_from(layers)
