"""
The packaged server with a camera that goes wrong: ``faulty_server.py PORT FAULT FRAME [SECONDS]``.

The fault happens at the FRAME-th picture, or from it on. With "spawn" the server hangs when the first actor is spawned.
With "untold" a new client gets no snapshot before the next tick, as in CARLA. Everything else is the real server.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from sb3_carla.server import server, simulation
from sb3_carla.server.__main__ import main
from sb3_carla.server.streams import WORLD_STREAM
from sb3_carla.simulator.sensors import CameraSensor

PORT, FAULT, FRAME = sys.argv[1], sys.argv[2], int(sys.argv[3])
SECONDS = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
pictures = 0
right = simulation.Simulation._publish_sensor


def wrong(self: Any, sensor: Any) -> None:
    """Publish one camera picture with the fault."""
    global pictures
    if not isinstance(sensor, CameraSensor):
        right(self, sensor)
        return
    pictures += 1
    here = pictures == FRAME
    if FAULT == "late" and here:
        time.sleep(SECONDS)
    if FAULT == "size" and pictures >= FRAME:
        size, sensor.width, sensor.height = (sensor.width, sensor.height), 16, 12
        header = simulation.serializers.image_header(self.world, sensor)
        sensor.width, sensor.height = size
        self.streams.publish(sensor.id, header, bytes(4 * 16 * 12))
    elif FAULT == "early" and here:
        self.world.frame += 1
        right(self, sensor)
        self.world.frame -= 1
    elif not (FAULT == "dropped" and here) and not (FAULT == "never" and pictures >= FRAME):
        for _ in range(3 if FAULT == "twice" else 1):
            right(self, sensor)


def lost(*_: Any) -> None:
    """Hang."""
    time.sleep(1000.0)


def told(self: Any, stream_id: int, connection: Any) -> None:
    """Note new listeners of sensors, but send nothing to those of the world."""
    if stream_id != WORLD_STREAM:
        subscribed(self, stream_id, connection)


subscribed = server.Server._subscribed
if FAULT == "untold":
    server.Server._subscribed = told  # type: ignore[method-assign]
simulation.Simulation._publish_sensor = wrong  # type: ignore[method-assign]
if FAULT == "spawn":
    simulation.World._enter = lost  # type: ignore[method-assign]
sys.exit(main(["--port", PORT]))
