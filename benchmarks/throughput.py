#!/usr/bin/env python
"""
Steps per second with a camera picture, of ours and of two other driving environments with 84x84 grey pictures.

    make benchmark                                          # installs the extra [benchmark] first
    python benchmarks/throughput.py --repeats 5 --seconds 4 --output results/throughput.json

Each contender runs in its own process, for a few seconds at a time and in turns, so that other work on the machine
affects all of them alike; the table has medians. Random actions, no traffic, one environment.

- engine: ``sb3_carla.simulator`` alone: one vehicle, one 84x84 camera, tick and render, no server.
- CarlaLane-v0: the environment, with its server behind a socket, no action repeat.
- CarlaLane-v0, decisions: as in training, with four simulation steps and one picture per decision; counts decisions.
- CarRacing-v3: Gymnasium's, cropped, resized to 84x84, grey.
- racetrack-v0: highway-env's, its own 84x84 grey observation. SDL_VIDEODRIVER=offscreen: with "dummy" it draws black
  pictures, and is too fast.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tqdm import tqdm

Step = Callable[[], object]


def engine() -> Step:
    """:return: one step of the packaged simulator, without server and client"""
    from sb3_carla.simulator.geometry import Pose
    from sb3_carla.simulator.town import Town
    from sb3_carla.simulator.world import World

    town = Town.load("Circuit01")
    world = World(town)
    start = town.spawn_points[0]
    car = world.spawn("vehicle.tesla.model3", {}, start)
    size = {"image_size_x": "84", "image_size_y": "84"}
    camera = world.spawn("sensor.camera.rgb", size, Pose(x=1.5, z=1.7), parent_id=car.id)

    def step() -> None:
        world.tick(0.05)
        if not world.render(camera).any():
            raise AssertionError("the engine draws black pictures")

    return step


def gymnasium_steps(make: Callable[[], Any]) -> Step:
    """
    :param make: makes the environment
    :return: one step with a random action, resetting where an episode ends
    """
    env = make()
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)

    def step() -> None:
        nonlocal observation
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()

    for _ in range(20):
        step()
    if not observation.any():
        raise AssertionError(f"{env} draws black pictures: its speed would mean nothing")
    return step


def carla_lane(**arguments: Any) -> Any:
    """:return: ours, as ``gym.make`` makes it"""
    import gymnasium as gym

    import sb3_carla  # noqa: F401

    return gym.make("CarlaLane-v0", **arguments)


def car_racing() -> Any:
    """:return: CarRacing-v3 with the usual wrappers"""
    import gymnasium as gym
    from gymnasium.wrappers import GrayscaleObservation, ResizeObservation

    return ResizeObservation(GrayscaleObservation(gym.make("CarRacing-v3")), (84, 84))


def racetrack() -> Any:
    """:return: highway-env's racetrack with its grey picture observation"""
    import gymnasium as gym
    import highway_env

    gym.register_envs(highway_env)
    observation = {
        "type": "GrayscaleObservation",
        "observation_shape": (84, 84),
        "stack_size": 1,
        "weights": [0.2989, 0.5870, 0.1140],
        "scaling": 1.75,
    }
    return gym.make("racetrack-v0", config={"observation": observation})


CONTENDERS: dict[str, Callable[[], Step]] = {
    "engine": engine,
    "CarlaLane-v0": lambda: gymnasium_steps(carla_lane),
    "CarlaLane-v0, decisions": lambda: gymnasium_steps(lambda: carla_lane(action_repeat=4)),
    "CarRacing-v3": lambda: gymnasium_steps(car_racing),
    "racetrack-v0": lambda: gymnasium_steps(racetrack),
}


def serve(name: str, pipe: Connection) -> None:
    """Child process: measure for the number of seconds that the pipe sends, until it sends 0."""
    warnings.simplefilter("ignore")
    try:
        step = CONTENDERS[name]()
        pipe.send(None)
    except ImportError as error:
        pipe.send(str(error))
        return
    while seconds := pipe.recv():
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            step()
            count += 1
        pipe.send(count / elapsed)


def measure(names: list[str], repeats: int, seconds: float) -> dict[str, list[float]]:
    """
    :param names: contenders
    :param repeats: number of measurements of each, in turns
    :param seconds: length of a measurement [s]
    :return: contender -> steps per second; without those that are not installed
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in names:
        pipe, child = context.Pipe()
        context.Process(target=serve, args=(name, child), daemon=False).start()
        child.close()
        missing = pipe.recv()
        if missing is None:
            pipes[name] = pipe
        else:
            print(f"{name} is left out: {missing} (pip install 'sb3-carla[benchmark]')")
    rates: dict[str, list[float]] = {name: [] for name in pipes}
    for turn in tqdm(range(repeats * len(pipes)), unit="run"):
        name = list(pipes)[turn % len(pipes)]
        pipes[name].send(seconds)
        rates[name].append(pipes[name].recv())
    for pipe in pipes.values():
        pipe.send(0)
    return rates


def table(rates: dict[str, list[float]]) -> str:
    """
    :param rates: contender -> steps per second
    :return: Markdown: medians, ranges, and the speed of CarlaLane-v0 relative to each other environment
    """
    lines = ["| | steps/s (median) | range | CarlaLane-v0 is |", "| --- | --- | --- | --- |"]
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        comparable = "CarlaLane-v0" in rates and name in ("CarRacing-v3", "racetrack-v0")
        ratio = f"{medians['CarlaLane-v0'] / medians[name]:.1f} times as fast" if comparable else ""
        lines.append(f"| {name} | {medians[name]:.0f} | {min(values):.0f} to {max(values):.0f} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, default=5, help="default: 5")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each repeat (default: 3)")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    os.environ["SDL_VIDEODRIVER"] = "offscreen"
    rates = measure(options.only, options.repeats, options.seconds)
    print(table(rates))
    if options.output:
        from sb3_carla.zoo.provenance import provenance

        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({**provenance(), "steps_per_second": rates}, indent=2) + "\n")


if __name__ == "__main__":
    main()
