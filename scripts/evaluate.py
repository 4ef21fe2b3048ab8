#!/usr/bin/env python
"""Evaluate models beside the scripted driver and a random policy: see ``--help``."""

from __future__ import annotations

import sys

from sb3_carla.errors import CarlaLaneError
from sb3_carla.evaluation.command import main

if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, ValueError, CarlaLaneError) as error:
        sys.exit(f"error: {error}")
