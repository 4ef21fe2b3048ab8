#!/usr/bin/env python
"""
Drive many episodes in one environment, and exit with status 1 if memory grows or the rate falls.

    MALLOC_MMAP_THRESHOLD_=131072 python benchmarks/soak.py     # 1 000 episodes and at least 200 000 ticks
    python benchmarks/soak.py --episodes 50 --ticks 10000       # a minute

The scripted driver, five other cars, routes of 100 m; town and weather change with each episode. The table has a row
for each tenth of the run: largest resident memory of this process and of its server, and the rate. The first three
tenths are the warm-up: memory is compared with the third, the rate with the second.

Without the variable the C library keeps the memory of messages of CARLA's client, up to 2 MB a town, in arenas that
grow for a while. That looks like a leak, but is none: the memory in use according to ``mallinfo2`` stays the same.
During the warm-up Python's table of interned strings doubles once, by 1 MB.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import psutil

import sb3_carla  # noqa: F401
from sb3_carla.diagnostics.html import markdown_table
from sb3_carla.envs.driver import PurePursuitDriver

TOWNS = ["Circuit01", "Village01", "Village10"]
WEATHERS = ["ClearNoon", "HardRainSunset"]
DRIVING: dict[str, Any] = {
    "action_repeat": 4,
    "control": {"longitudinal": "speed", "lateral_acceleration": 6.0},
}
TENTHS, WARM_UP = 10, 3
MEMORY_GROWTH, SLOWDOWN = 0.01, 0.05
"""Largest relative change that passes [-]."""


@dataclass
class Tenth:
    """A tenth of the run: largest memory of both processes [MB], ticks, episodes and time [s]."""

    ours: float = 0.0
    servers: float = 0.0
    ticks: int = 0
    episodes: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Ticks per second."""
        return self.ticks / self.seconds


def server_process() -> psutil.Process:
    """:return: the server, this process's only child"""
    (server,) = psutil.Process().children()
    return server


def soak(episodes: int, ticks: int) -> Iterator[Tenth]:
    """
    :param episodes: smallest number of episodes, a tenth of them in each part
    :param ticks: smallest number of ticks, a tenth of them in each part
    :return: the tenths, each at its end
    """
    with gym.make("CarlaLane-v0", town=TOWNS, weather=WEATHERS, n_npcs=5, route_length=100.0, **DRIVING) as env:
        env.reset(seed=0)
        server, driver = server_process(), PurePursuitDriver(env)
        for _ in range(TENTHS):
            part, begun = Tenth(), time.perf_counter()
            while part.episodes < episodes / TENTHS or part.ticks < ticks / TENTHS:
                env.reset()
                ended = False
                while not ended:
                    _, _, terminated, truncated, _ = env.step(driver.act())
                    ended, part.ticks = terminated or truncated, part.ticks + DRIVING["action_repeat"]
                part.episodes += 1
                part.ours = max(part.ours, psutil.Process().memory_info().rss / 1e6)
                part.servers = max(part.servers, server.memory_info().rss / 1e6)
            part.seconds = time.perf_counter() - begun
            assert server_process() == server, "the server was replaced"
            yield part


def main() -> None:
    """Parse, drive, print, compare with the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000, help="default: 1000")
    parser.add_argument("--ticks", type=int, default=200_000, help="default: 200 000")
    options = parser.parse_args()
    parts = []
    for part in soak(options.episodes, options.ticks):
        parts.append(part)
        print(f"{len(parts)} tenths: {part.ours:.1f} + {part.servers:.1f} MB, {part.rate:.0f} ticks/s", flush=True)
    rows = [["tenth", "episodes", "ticks", "environment [MB]", "server [MB]", "ticks/s"]]
    for number, part in enumerate(parts, start=1):
        memory = [f"{part.ours:.1f}", f"{part.servers:.1f}"]
        rows.append([str(number), str(part.episodes), str(part.ticks), *memory, f"{part.rate:.0f}"])
    print(markdown_table(rows))
    warm, last = parts[WARM_UP - 1], parts[-1]
    growth = {"environment": last.ours / warm.ours - 1.0, "server": last.servers / warm.servers - 1.0}
    slower = 1.0 - last.rate / parts[1].rate
    print(*(f"{name}: memory {value:+.2%}" for name, value in growth.items()), f"rate: {-slower:+.1%}", sep="; ")
    if max(growth.values()) > MEMORY_GROWTH or slower > SLOWDOWN:
        sys.exit(f"expected at most {MEMORY_GROWTH:.0%} more memory and {SLOWDOWN:.0%} less speed")


if __name__ == "__main__":
    main()
