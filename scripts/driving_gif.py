#!/usr/bin/env python
"""
A GIF of a driving policy: the 84 x 84 grey pixels that it sees beside the car from behind.

    python scripts/driving_gif.py logs/td3/CarlaLane-v0_1/CarlaLane-v0.zip docs/driving.gif
    python scripts/driving_gif.py scripted docs/driving.gif      # the driver that reads the map

One frame a decision: at five decisions and ten frames a second the GIF is twice as fast as the car.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sb3_carla.errors import CarlaLaneError
from sb3_carla.evaluation import Case, Policy, drive, model_policy, scripted_policy
from sb3_carla.zoo import algorithms, hyperparameters, run_folders

HEIGHT = 168
"""Of the GIF [px]: twice the policy's picture."""
MAX_BYTES = 2_000_000
COLORS = (128, 96, 64, 32)
"""Sizes of the palette: the first one whose GIF is small enough is taken."""


def driver(model: str) -> tuple[Policy, dict[str, Any]]:
    """The policy of a ``.zip``, or "scripted", and the environment of its training, or of the default training."""
    if model != "scripted":
        path = run_folders.find_model(model, Path("logs"))
        return model_policy(run_folders.load_model(path)), run_folders.environment_settings(path)
    entry = hyperparameters.read_hyperparameters(str(algorithms.default_config("td3")), "CarlaLane-v0")
    return scripted_policy, {k: v for k, v in entry["env_kwargs"].items() if k not in run_folders.NOT_TASK_KEYS}


def frame(observation: NDArray[np.uint8], view: Any) -> Image.Image:
    """The newest picture of an observation beside the view of ``render()``, ``HEIGHT`` high."""
    seen = cv2.resize(observation[-1], (HEIGHT, HEIGHT), interpolation=cv2.INTER_NEAREST)
    width = HEIGHT * view.shape[1] // view.shape[0]
    behind = cv2.resize(view, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    return Image.fromarray(np.hstack([cv2.cvtColor(seen, cv2.COLOR_GRAY2RGB), behind]))


def encode(frames: list[Image.Image], fps: float) -> bytes:
    """A GIF that repeats for ever; ValueError if it is larger than ``MAX_BYTES`` even with the fewest colours."""
    for colors in COLORS:
        # One palette for all: what does not move then stays the same, which a GIF keeps once.
        palette = frames[len(frames) // 2].quantize(colors, method=Image.Quantize.MAXCOVERAGE)
        drawn = [image.quantize(colors, palette=palette, dither=Image.Dither.NONE) for image in frames]
        file = io.BytesIO()
        drawn[0].save(file, "GIF", save_all=True, append_images=drawn[1:], duration=round(1000 / fps), loop=0)
        if file.tell() <= MAX_BYTES:
            return file.getvalue()
    raise ValueError(f"{len(frames)} frames take {file.tell()} bytes, more than {MAX_BYTES}: choose fewer --seconds")


def main() -> None:
    """Parse, drive, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="path of a .zip, or 'scripted'")
    parser.add_argument("output", type=Path, help="GIF file to write")
    parser.add_argument("--town", default="Village08", help="default: Village08, which no training sees")
    parser.add_argument("--scenario", type=int, default=3, help="numbered start and route (default: 3)")
    parser.add_argument("--npcs", type=int, default=0, help="other cars (default: 0)")
    parser.add_argument("--skip", type=int, default=10, help="decisions before the first frame (default: 10)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the GIF (default: 8)")
    parser.add_argument("--fps", type=float, default=10.0, help="frames a second (default: 10)")
    options = parser.parse_args()
    policy, kwargs = driver(options.model)
    kwargs |= {"town": options.town, "n_npcs": options.npcs}
    env = gym.make("CarlaLane-v0", disable_env_checker=True, render_mode="rgb_array", **kwargs)
    try:
        steps = drive(env, Case(options.town, options.scenario, seed=0), policy)
        wanted = itertools.islice(steps, options.skip, options.skip + round(options.seconds * options.fps))
        frames = [frame(observation, env.render()) for observation, _, _ in wanted]
        options.output.write_bytes(encode(frames, options.fps))
    finally:
        env.close()
    print(f"Written: {options.output}, {len(frames)} frames, {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, ValueError, CarlaLaneError) as error:
        sys.exit(f"error: {error}")
