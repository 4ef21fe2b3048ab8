#!/usr/bin/env python
"""
Make the model that ships with the package out of a run's: a small file beside a copy of the run's settings.

    python scripts/export_model.py logs/td3/CarlaLane-v0_1/CarlaLane-v0.zip

The result is a run folder as rl-zoo3 writes one, so that evaluate.py, enjoy and TD3.load find what they need.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from sb3_carla.td3.export import export_model
from sb3_carla.zoo.run_folders import ENV_ID, PRETRAINED


def main() -> None:
    """Parse the arguments, write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help=".zip in its run's folder")
    parser.add_argument("--output", type=Path, default=PRETRAINED.parent, help="folder to write")
    options = parser.parse_args()
    settings = options.model.parent / ENV_ID
    (options.output / ENV_ID).mkdir(parents=True, exist_ok=True)
    for name in ("config.yml", "args.yml", "command.txt"):
        shutil.copy(settings / name, options.output / ENV_ID / name)
    target = options.output / f"{ENV_ID}.zip"
    export_model(options.model, target)
    print(f"Written: {target}, {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
