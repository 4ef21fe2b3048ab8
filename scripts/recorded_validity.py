#!/usr/bin/env python
"""
Compare success on recordings with success in the environment, on the same routes of the packaged server.

    python scripts/recorded_validity.py --model logs/td3/CarlaLane-v0_1/CarlaLane-v0.zip --towns held-out --routes 5
    python scripts/recorded_validity.py --towns Village03          # the scripted driver alone

The two should differ by less than 5 points. With 25 routes a difference of one route is 4 points.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from sb3_carla.envs.towns import expand_towns
from sb3_carla.errors import CarlaLaneError
from sb3_carla.evaluation import Policy, model_policy, scripted_policy
from sb3_carla.evaluation.recorded_validity import compare_with_environment
from sb3_carla.zoo import run_folders


def main() -> None:
    """Parse, record, drive twice, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="path of a .zip in its run's folder (default: the scripted driver alone)")
    parser.add_argument("--towns", nargs="+", default=["held-out"], help="names, paths, training, held-out (default)")
    parser.add_argument("--routes", type=int, default=5, help="in each town (default: 5)")
    parser.add_argument("--route-length", type=float, default=300.0, help="[m], at most 300 (default)")
    parser.add_argument("--folder", type=Path, help="for the recording (default: a temporary one)")
    options = parser.parse_args()
    if options.routes < 1 or not 20.0 <= options.route_length <= 300.0:
        parser.error(f"expected a route of 20 to 300 m, got {options.routes} routes of {options.route_length:g} m")
    policies: dict[str, Policy] = {}
    kwargs = {"action_repeat": 4, "control": {"longitudinal": "speed", "lateral_acceleration": 6.0}}
    if options.model is not None:
        path = run_folders.find_model(options.model, Path("logs"))
        policies["model"], kwargs = model_policy(run_folders.load_model(path)), run_folders.environment_settings(path)
    policies["scripted"] = scripted_policy
    with tempfile.TemporaryDirectory() as temporary:
        found = compare_with_environment(
            policies, expand_towns(options.towns), options.routes, options.folder or Path(temporary),
            env_kwargs=kwargs, route_length=options.route_length,
        )  # fmt: skip
    print("\n".join(map(str, found)))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, CarlaLaneError) as error:
        sys.exit(f"error: {error}")
