"""
The packaged server with a fault: ``faulty_server.py PORT FAULT FRAME [SECONDS]``.

Faults of the camera, at its FRAME-th image: "late" sends it SECONDS later, "early" with the number of the next frame,
"twice" three times, "dropped" not at all. From the FRAME-th image on: "size" sends images of another size, "never"
sends none. Other faults: with "spawn" the server hangs when the first actor is spawned; with "untold" a new client gets
no snapshot before the next tick, as in CARLA. Everything else is the real server, client and connection.
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
images = 0
publish_sensor = simulation.Simulation._publish_sensor


def publish_wrongly(self: Any, sensor: Any) -> None:
    """Send a camera's image with the fault."""
    global images
    if not isinstance(sensor, CameraSensor):
        publish_sensor(self, sensor)
        return
    images += 1
    here = images == FRAME
    if FAULT == "late" and here:
        time.sleep(SECONDS)
    if FAULT == "size" and images >= FRAME:
        size, sensor.width, sensor.height = (sensor.width, sensor.height), 16, 12
        header = simulation.serializers.image_header(self.world, sensor)
        sensor.width, sensor.height = size
        self.streams.publish(sensor.id, header, bytes(4 * 16 * 12))
    elif FAULT == "early" and here:
        self.world.frame += 1
        publish_sensor(self, sensor)
        self.world.frame -= 1
    elif not (FAULT == "dropped" and here) and not (FAULT == "never" and images >= FRAME):
        for _ in range(3 if FAULT == "twice" else 1):
            publish_sensor(self, sensor)


def hang(*_: Any) -> None:
    """Stop answering."""
    time.sleep(1000.0)


def subscribe_to_sensors(self: Any, stream_id: int, connection: Any) -> None:
    """Send a new subscriber no snapshot of the world."""
    if stream_id != WORLD_STREAM:
        subscribed(self, stream_id, connection)


subscribed = server.Server._subscribed
if FAULT == "untold":
    server.Server._subscribed = subscribe_to_sensors  # type: ignore[method-assign]
simulation.Simulation._publish_sensor = publish_wrongly  # type: ignore[method-assign]
if FAULT == "spawn":
    simulation.World._enter = hang  # type: ignore[method-assign]
sys.exit(main(["--port", PORT]))
