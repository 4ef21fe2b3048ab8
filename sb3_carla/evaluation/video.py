"""A film of one episode: the car from behind, the camera's image, the actions and the place in the lane."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sb3_carla.evaluation.episodes import Act, Case, Env, Policy, drive

if TYPE_CHECKING:
    from sb3_carla.envs.carla_lane import CarlaLaneEnv

__all__ = ["film"]

FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (60, 60, 230)
INSET = 126
"""Size of the inset with the camera's image [px]."""
FILM_WIDTH = 480
"""[px]; the height keeps the aspect ratio."""
LAST_SECONDS = 1.5
"""How long the film shows its last frame [s]."""


def film(env: Env, case: Case, policy: Policy, path: Path) -> None:
    """
    Drive an episode and film it.

    :param env: a ``CarlaLane-v0`` environment with ``render_mode="rgb_array"``
    :param case: what to drive
    :param policy: the driver
    :param path: of the ``.webm`` (VP8, which browsers play); its folder is made
    :raises OSError: if it cannot be written
    """
    lane: CarlaLaneEnv = env.unwrapped  # type: ignore[assignment]
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = lane.metadata["render_fps"]
    actions: list[NDArray[np.float32]] = [np.zeros(2, np.float32)]

    def recorded(env: Env, case: Case) -> Act:
        act = policy(env, case)

        def act_and_record(observation: NDArray[np.uint8]) -> NDArray[np.float32]:
            actions.append(act(observation))
            return actions[-1]

        return act_and_record

    writer: Any = None
    picture: Any = None
    try:
        for observation, _, info in drive(env, case, recorded):
            view = env.render()
            assert isinstance(view, np.ndarray)
            size = (FILM_WIDTH, FILM_WIDTH * view.shape[0] // view.shape[1])
            picture = cv2.resize(cv2.cvtColor(view, cv2.COLOR_RGB2BGR), size, interpolation=cv2.INTER_AREA)
            _overlay(picture, observation, info, dict(zip(lane.action_names, actions[-1], strict=True)), case)
            if writer is None:
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), rate, size)
                if not writer.isOpened():
                    raise OSError(f"{path} cannot be written: is the folder writable, and does OpenCV have FFmpeg?")
            writer.write(picture)
        for _ in range(round(LAST_SECONDS * rate)):
            writer.write(picture)
    finally:
        if writer is not None:
            writer.release()


def _overlay(
    picture: Any, observation: NDArray[np.uint8], info: dict[str, Any], action: dict[str, float], case: Case
) -> None:
    """Draw text, camera image and bars into the picture, BGR."""
    height, width = picture.shape[:2]
    inset = cv2.resize(observation[-1], (INSET, INSET), interpolation=cv2.INTER_NEAREST)
    picture[8 : 8 + INSET, width - INSET - 8 : width - 8] = inset[:, :, None]
    lines = [
        f"{Path(case.town).stem} {case.scenario}  {case.weather}",
        f"{info['speed_mps']:4.1f} m/s   {info['route_completion']:4.0%}",
        f"offset {info['lateral_offset_m']:+.2f} m   heading {np.degrees(info['heading_error_rad']):+.0f} deg",
        info.get("end_reason", ""),
    ]
    for i, line in enumerate(line for line in lines if line):
        _write(picture, line, (8, 18 + 18 * i), RED if i == 3 and not info["is_success"] else WHITE)
    for i, (name, value) in enumerate(action.items()):
        _bar(picture, name, float(value), (width // 2, height - 34 + 17 * i))


def _write(picture: Any, text: str, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Text on a dark ground, readable on any picture."""
    (width, height), below = cv2.getTextSize(text, FONT, 0.42, 1)
    x, y = place
    cv2.rectangle(picture, (x - 3, y - height - 2), (x + width + 3, y + below), BLACK, -1)
    cv2.putText(picture, text, place, FONT, 0.42, colour, 1, cv2.LINE_AA)


def _bar(picture: Any, name: str, value: float, centre: tuple[int, int]) -> None:
    """A horizontal bar from its centre: 100 px for the value 1."""
    x, y = centre
    end = x + round(100 * value)
    cv2.rectangle(picture, (x - 100, y), (x + 100, y + 11), BLACK, -1)
    cv2.rectangle(picture, (min(x, end), y), (max(x, end), y + 11), RED, -1)
    cv2.line(picture, (x, y), (x, y + 11), WHITE, 1)
    _write(picture, name, (x - 170, y + 10), WHITE)
