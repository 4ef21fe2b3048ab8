#!/usr/bin/env python
"""
Train every variant of the ablation, then make the table and the figures.

    python scripts/ablation.py --minutes 60     # continues where the last call stopped
    python scripts/ablation.py --minutes 0      # only the table and figures of finished runs

A variant is a file in hyperparams/ablation/. Finished runs in --folder are repeated only if their decisions, episodes
or hyperparameters differ from the requested ones.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sb3_carla.ablation.records import read_runs
from sb3_carla.ablation.report import draw, families, table
from sb3_carla.ablation.runner import run_all
from sb3_carla.ablation.variants import load_variant, variant_names


def main() -> None:
    """Parse, run what is missing, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("results/ablation"), help="default: results/ablation")
    parser.add_argument("--variants", nargs="+", default=variant_names(), help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument("--decisions", type=int, help="of each training (default: what the variant says)")
    parser.add_argument("--episodes", type=int, default=20, help="of each evaluation (default: 20)")
    parser.add_argument("--recordings", type=Path, nargs="+", default=[], help="recorded drives, to drive on as well")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, one thread each (default: 2)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no training is begun after them")
    options = parser.parse_args()
    for name in options.variants:
        load_variant(name)  # a mistake in a file is found before hours of training
    left = run_all(
        options.variants, options.seeds, options.folder, episodes=options.episodes, decisions=options.decisions,
        recordings=options.recordings, jobs=options.jobs, minutes=options.minutes,
    )  # fmt: skip
    runs = read_runs(options.folder)
    text = table(runs)
    print(text)
    (options.folder / "ablation.md").write_text(text + "\n", encoding="utf-8")
    pictures = families(runs)
    for family, members in pictures.items():
        draw(members).savefig(options.folder / f"{family}.png", dpi=100)
    print(f"Written: {options.folder}/ablation.md and {', '.join(pictures)} as .png; {left} runs are missing")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
