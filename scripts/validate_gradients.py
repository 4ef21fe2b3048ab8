#!/usr/bin/env python
"""
Check that a training's gradients are clipped: the profile "gradients" of validate_training.py, for one event file.

    python scripts/validate_gradients.py logs/tensorboard/CarlaLane-v0/TD3_1/events.out.tfevents.*

Exit status: 0 for go, 1 for no-go, 2 if the file cannot be judged.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sb3_carla.diagnostics.event_logs import read_run
from sb3_carla.diagnostics.validation import validate
from sb3_carla.errors import EventLogError


def main() -> None:
    """Validate, print, exit with the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("event_file", type=Path, help="event file, or a run's folder")
    path = parser.parse_args().event_file
    try:
        report = validate(read_run(path), "gradients")
    except EventLogError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(report)
    sys.exit(report.status)


if __name__ == "__main__":
    main()
