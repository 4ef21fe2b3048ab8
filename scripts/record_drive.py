#!/usr/bin/env python
"""
Record drives on a CARLA server with the scripted driver, for scripts/evaluate.py --recording and CarlaRecorded-v0.

    python scripts/record_drive.py --out drives --town Village03 --metres 600          # the packaged server
    python scripts/record_drive.py --out drives --host localhost --town Town02 Town05 --weather ClearNoon HardRainNoon

The folder gets recording.csv and a folder of JPEG files for each sequence. sb3_carla/recordings/table.py defines it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sb3_carla.envs.towns import expand_towns
from sb3_carla.errors import CarlaLaneError
from sb3_carla.evaluation.recorder import CAMERAS, DriveRecorder


def main() -> None:
    """Parse, drive, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not hold a recording")
    parser.add_argument("--host", help="a running CARLA server (default: start the packaged one)")
    parser.add_argument("--port", type=int, default=2000, help="its port (default: 2000)")
    parser.add_argument("--town", nargs="+", default=["Village03"], help="names, paths, training, held-out")
    parser.add_argument("--weather", nargs="+", default=["ClearNoon"], help="presets of CARLA (default: ClearNoon)")
    parser.add_argument("--metres", type=float, default=600.0, help="in each town and weather (default: 600)")
    parser.add_argument("--cameras", default="front", help=f"of {','.join(CAMERAS)} (default: front)")
    parser.add_argument("--speed", type=float, default=8.0, help="on a straight [m/s] (default: 8)")
    parser.add_argument("--timeout", type=float, default=20.0, help="for an answer of the server [s] (default: 20)")
    options = parser.parse_args()
    cameras = options.cameras.split(",")
    if cameras[0] != "front" or not set(cameras) <= CAMERAS.keys():
        parser.error(f"--cameras: expected front, and any of {', '.join(CAMERAS)} after it, got {options.cameras}")
    if not options.metres >= 20.0:
        parser.error(f"--metres: expected at least 20, got {options.metres:g}")
    recorder = DriveRecorder(
        options.out, options.host, options.port, cameras, speed=options.speed, timeout=options.timeout
    )
    rows = recorder.record(
        expand_towns(options.town), options.weather, options.metres,
        on_sequence=lambda name, moments: print(f"{name}: {moments} moments", flush=True),
    )  # fmt: skip
    print(f"Written: {options.out}, {len(rows)} pictures")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, CarlaLaneError) as error:
        sys.exit(f"error: {error}")
