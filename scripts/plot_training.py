#!/usr/bin/env python
"""
Plot the log of a training: a PNG file, and an HTML page that needs no other file.

    python scripts/plot_training.py logs/tensorboard/CarlaLane-v0/TD3_1
    python scripts/plot_training.py seed1/ seed2/ seed3/ --output results/three_seeds

All runs below the folders count as seeds of one experiment: of several, mean and standard deviation are drawn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sb3_carla.diagnostics.event_logs import find_runs, read_run
from sb3_carla.diagnostics.plotting import draw, page, save
from sb3_carla.errors import EventLogError


def main() -> None:
    """Read, draw, write ``STEM.png`` and ``STEM.html``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", type=Path, nargs="+", help="event file, a run's folder, or a folder of runs")
    parser.add_argument("--output", type=Path, default=Path("training"), metavar="STEM", help="default: training")
    options = parser.parse_args()
    try:
        runs = [read_run(run) for path in options.logdir for run in find_runs(path)]
    except EventLogError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    figure, left_out = draw(runs)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    picture, text = (options.output.with_name(options.output.name + suffix) for suffix in (".png", ".html"))
    save(figure, picture)
    text.write_text(page(runs, figure, left_out), encoding="utf-8")
    print(f"{len(runs)} runs: {picture} and {text}")


if __name__ == "__main__":
    main()
