"""Random colours of a town's objects, and hidden layers of its map: the group ``look`` of ``randomize``."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import carla
import numpy as np
from numpy.typing import NDArray

from sb3_carla.client.session import CarlaSession
from sb3_carla.errors import ServerTimeoutError

__all__ = ["KINDS", "LookPlan", "Paint", "TownPainter", "kind_of"]

logger = logging.getLogger(__name__)

KINDS: dict[str, tuple[str, ...]] = {
    "yellow_paint": ("lines_yellow", "marking_yellow", "yellowline"),
    "white_paint": ("roadline", "marking", "crosswalk"),
    "sidewalk": ("sidewalk", "curb", "kerb", "gutter", "pavement"),
    "verge": ("terrain", "grass", "landscape", "ground"),
    "buildings": ("building", "house", "apartment", "office", "skyscraper", "shop", "garage"),
    "walls": ("wall", "fence", "guardrail", "barrier"),
    "vegetation": ("vegetation", "tree", "bush", "foliage", "hedge"),
    "sky": ("sky",),
    "road": ("road",),
}
"""Kinds of objects, and parts of the names that they have; the first kind that fits a name is the object's."""
GREY = np.array([0.114, 0.587, 0.299])
"""Grey level of blue, green, red: ITU-R BT.601, as OpenCV makes the observation."""
TEXTURE = 16
"""Width and height of a texture [px]."""
LEAST_PAINT_CONTRAST = 15.0
"""Paint is at least this much brighter or darker than the road [grey levels]."""
DARK_PAINT = 0.15
"""Share of the episodes in which paint may have any brightness: worn, dirty, or new on concrete."""
HIDDEN = 0.25
"""Share of the episodes in which a layer is hidden."""
LAYERS = ("Buildings", "Decals", "Foliage", "ParkedVehicles", "Props", "StreetLights", "Walls")
"""Of ``carla.MapLayer``, those that may be hidden. Without ``Ground`` there would be holes beside the road."""
ALL_LAYERS = sum(int(getattr(carla.MapLayer, name)) for name in LAYERS)


class Paint(NamedTuple):
    """
    What objects of one kind are painted with.

    :param color: mean: blue, green, red, 0 to 255
    :param contrast: standard deviation of the grey level
    """

    color: tuple[float, float, float]
    contrast: float


class LookPlan(NamedTuple):
    """
    How a town looks in an episode.

    :param paints: by kind of object
    :param hidden_layers: bits of ``carla.MapLayer``
    :param seed: of the textures
    """

    paints: Mapping[str, Paint]
    hidden_layers: int
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> LookPlan:
        """Brightness and contrast of each kind, independently of each other, so that no contrast has a fixed sign."""
        road = float(rng.uniform(20.0, 200.0))
        levels = {
            "road": road,
            "verge": float(rng.uniform(20.0, 220.0)),
            "sidewalk": float(rng.uniform(30.0, 220.0)),
            "buildings": float(rng.uniform(20.0, 220.0)),
            "walls": float(rng.uniform(20.0, 220.0)),
            "vegetation": float(rng.uniform(15.0, 140.0)),
            "sky": float(rng.uniform(90.0, 245.0)),
        }
        dark = rng.random() < DARK_PAINT
        for kind, low, high in (("white_paint", 120.0, 255.0), ("yellow_paint", 90.0, 230.0)):
            levels[kind] = _paint_level(rng, road, 20.0 if dark else low, high)
        tints = {"road": 8.0, "white_paint": 6.0, "sidewalk": 12.0, "sky": 20.0}
        paints = {
            kind: Paint(_tinted(rng, level, tints.get(kind, 40.0)), 35.0 * float(rng.random() ** 2))
            for kind, level in levels.items()
        }
        paints["yellow_paint"] = paints["yellow_paint"]._replace(color=_yellow(levels["yellow_paint"]))
        for kind in ("white_paint", "yellow_paint", "sky"):  # even, as they are
            paints[kind] = paints[kind]._replace(contrast=paints[kind].contrast / 3.0)
        hidden = [int(getattr(carla.MapLayer, name)) for name in LAYERS if rng.random() < HIDDEN]
        return cls(paints, sum(hidden), int(rng.integers(2**31)))

    def values(self) -> dict[str, float | int | str]:
        """Grey level, contrast and colour ("#rrggbb") by kind, and the hidden layers."""
        values: dict[str, float | int | str] = {}
        for kind, (color, contrast) in self.paints.items():
            values[kind] = float(np.dot(color, GREY))
            values[f"{kind}_contrast"] = contrast
            values[f"{kind}_color"] = "#" + "".join(f"{round(part):02x}" for part in reversed(color))
        return {**values, "hidden_layers": self.hidden_layers}

    def texture(self, kind: str) -> NDArray[np.uint8]:
        """
        :param kind: of object
        :return: shape (16, 16, 3), uint8 blue, green, red, with the kind's mean and contrast, but for clipping
        """
        color, contrast = self.paints[kind]
        rng = np.random.default_rng([self.seed, list(KINDS).index(kind)])
        pattern = rng.standard_normal((TEXTURE, TEXTURE, 1))
        pattern = (pattern - pattern.mean()) / pattern.std()
        # Symmetric, so that clipping does not move the mean.
        room = max(1.0, min(*color, *(255.0 - part for part in color)))
        pattern = np.clip(contrast * pattern, -max(room, contrast), max(room, contrast))
        pixels: NDArray[np.uint8] = np.clip(np.rint(np.array(color) + pattern), 0, 255).astype(np.uint8)
        return pixels


def kind_of(name: str) -> str | None:
    """
    :param name: of an object of the server
    :return: its kind; None: of no kind that is painted
    """
    lower = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in lower for part in parts)), None)


class TownPainter:
    """Paints the towns of a server. What a server cannot do is said once in the log, and left undone."""

    def __init__(self) -> None:
        self._refused: set[str] = set()
        self.forget()

    def forget(self) -> None:
        """A town was loaded: its objects and its hidden layers are not known."""
        self._names: dict[str, list[str]] | None = None
        self._hidden_layers = self._shown_layers = ALL_LAYERS  # bits in both: not known

    def apply(self, session: CarlaSession, plan: LookPlan) -> None:
        """
        :param session: with the town loaded
        :param plan: how the town is to look
        :raises ServerTimeoutError: if the server is lost
        """
        world = session.world
        if self._names is None:
            self._names = {}
            for name in self._call("names of objects", world.get_names_of_all_objects) or ():
                kind = kind_of(name)
                if kind is not None:
                    self._names.setdefault(kind, []).append(name)
        for kind, names in self._names.items():
            texture = _carla_texture(plan.texture(kind))
            paint = functools.partial(
                world.apply_color_texture_to_objects, names, carla.MaterialParameter.Diffuse, texture
            )
            self._call("textures of objects", paint)
        self._hide(world, plan.hidden_layers)

    def leave(self, session: CarlaSession) -> None:
        """
        Show all layers again. The colours stay until the server loads a town: CARLA has no call to take them back.

        :param session: with the town that was painted
        """
        if self._names is not None:
            with contextlib.suppress(RuntimeError):
                self._hide(session.world, 0)

    def _hide(self, world: Any, layers: int) -> None:
        shown, hidden = self._hidden_layers & ~layers, self._shown_layers & layers
        if shown:
            self._call("map layers", lambda: world.load_map_layer(carla.MapLayer(shown)))
        if hidden:
            self._call("map layers", lambda: world.unload_map_layer(carla.MapLayer(hidden)))
        self._hidden_layers, self._shown_layers = layers, ALL_LAYERS & ~layers

    def _call(self, what: str, call: Callable[[], Any]) -> Any:
        """Result of a call; None if the server refuses it, now or before."""
        if what in self._refused:
            return None
        try:
            return call()
        except RuntimeError as error:
            if isinstance(error, ServerTimeoutError) or "time-out" in str(error) or "failed to connect" in str(error):
                raise
            self._refused.add(what)
            logger.warning("randomize: this server refuses %s, so these stay as they are: %s", what, error)
            return None


def _carla_texture(pixels: NDArray[np.uint8]) -> Any:
    """``carla.TextureColor`` of shape (height, width, 3), uint8 blue, green, red."""
    height, width, _ = pixels.shape
    texture = carla.TextureColor(width, height)
    for y, row in enumerate(pixels.tolist()):
        for x, (blue, green, red) in enumerate(row):
            texture.set(x, y, carla.Color(red, green, blue, 255))
    return texture


def _paint_level(rng: np.random.Generator, road: float, low: float, high: float) -> float:
    """A grey level that can be told from the road's."""
    while True:
        level = float(rng.uniform(low, high))
        if abs(level - road) >= LEAST_PAINT_CONTRAST:
            return level


def _yellow(level: float) -> tuple[float, float, float]:
    """A yellow of this grey level, as strong as it can be."""
    direction = np.array([-1.0, 0.05, (0.114 - 0.05 * 0.587) / 0.299])  # its own grey level is 0
    blue, green, red = (level + min(0.7 * level, (255.0 - level) / 0.3) * direction).tolist()
    return blue, green, red


def _tinted(rng: np.random.Generator, level: float, tint: float) -> tuple[float, float, float]:
    """A colour of this grey level, its channels within ``tint`` of it."""
    shift = rng.uniform(-0.5, 0.5, 3)
    shift -= np.dot(shift, GREY)
    room = min(level, 255.0 - level) / max(float(np.abs(shift).max()), 1e-9)
    blue, green, red = (level + min(tint, room) * shift).tolist()
    return blue, green, red
