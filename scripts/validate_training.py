#!/usr/bin/env python
"""
Go or no-go: validate a training by its TensorBoard log.

    python scripts/validate_training.py logs/tensorboard --profile 5k
    python scripts/validate_training.py logs/tensorboard/CarlaLane-v0/TD3_1 --profile 50k --json report.json

Validates every run below the folder. Exit status: 0 if all are good, 1 if one is not, 2 if none is bad but one cannot
be judged (event files missing or damaged, tags missing, too few steps).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sb3_carla.diagnostics.event_logs import find_runs, read_run
from sb3_carla.diagnostics.validation import PROFILES, Limits, Report, validate
from sb3_carla.errors import EventLogError


def validate_run(run: Path, profile: str, limits: Limits) -> Report | None:
    """
    Print the report of a run, or why the run cannot be read.

    :param run: folder or event file of the run
    :param profile: name of the profile
    :param limits: limits of the checks
    :return: the report; None if the run cannot be read
    """
    try:
        report = validate(read_run(run), profile, limits)
    except EventLogError as error:
        print(error, file=sys.stderr)
        return None
    print(f"{report}\n")
    return report


def main() -> None:
    """Validate, print, exit with the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", type=Path, help="event file, a run's folder, or a folder of runs")
    parser.add_argument("--profile", choices=list(PROFILES), required=True)
    parser.add_argument("--actor-limit", type=float, default=Limits.actor_norm, help="largest norm after clipping")
    parser.add_argument("--critic-limit", type=float, default=Limits.critic_norm, help="largest norm after clipping")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the reports there")
    options = parser.parse_args()
    limits = Limits(actor_norm=options.actor_limit, critic_norm=options.critic_limit)
    try:
        runs = find_runs(options.logdir)
    except EventLogError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    reports = [validate_run(run, options.profile, limits) for run in runs]
    if options.json is not None:
        found = [report.to_dict() for report in reports if report is not None]
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    statuses = {2 if report is None else report.status for report in reports}
    sys.exit(1 if 1 in statuses else max(statuses))


if __name__ == "__main__":
    main()
