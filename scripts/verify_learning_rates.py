#!/usr/bin/env python
"""
Check that the optimizers use the learning rates of the hyperparameter file, also after the schedule's updates.

    python scripts/verify_learning_rates.py                    # hyperparams/td3.yml
    python scripts/verify_learning_rates.py --preset drqv2
    python scripts/verify_learning_rates.py --config my.yml

Builds the real model on the real environment. Exit status: 0 if all agree, 1 if one does not, 2 if the file cannot be
used.
"""

from __future__ import annotations

import argparse
import sys

import gymnasium as gym

from sb3_carla.zoo import algorithms
from sb3_carla.zoo.hyperparameters import read_hyperparameters
from sb3_carla.zoo.learning_rates import build, verify


def main() -> None:
    """Build, compare, print, exit with the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CarlaLane-v0", help="default: CarlaLane-v0")
    parser.add_argument("--algo", default="td3", help="rl-zoo3's name of the algorithm (default: td3)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--preset", choices=sorted(algorithms.presets("td3")), help="hyperparams/td3-WORD.yml")
    which.add_argument("--config", help="another hyperparameter file")
    options = parser.parse_args()
    path = (
        options.config
        or algorithms.presets(options.algo).get(options.preset)
        or algorithms.default_config(options.algo)
    )
    if path is None:
        parser.error(f"there is no hyperparameter file for {options.algo}: pass one with --config")
    try:
        entry = read_hyperparameters(str(path), options.env)
        env = gym.make(options.env, **entry.get("env_kwargs", {}))
        try:
            checks = verify(build(algorithms.algorithm(options.algo), entry, env), entry)
        finally:
            env.close()
    except (ValueError, TypeError, gym.error.Error) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"{path}\n\n| group | progress left | in the file | in the optimizer | |\n| --- | --- | --- | --- | --- |")
    for check in checks:
        verdict = "pass" if check.passed else "FAIL"
        print(f"| {check.group} | {check.progress:g} | {check.expected:g} | {check.found:g} | {verdict} |")
    sys.exit(0 if all(check.passed for check in checks) else 1)


if __name__ == "__main__":
    main()
