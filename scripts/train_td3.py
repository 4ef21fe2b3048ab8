#!/usr/bin/env python
"""
The published system's command line for rl-zoo3: prints the equivalent rl-zoo3 command, and runs it.

    python scripts/train_td3.py --scenario 0 --npcs 20 --max-timesteps 5000 --eval-freq 5001 --seed 42 --debug
    python scripts/train_td3.py --host localhost --port 2000 --town Town04       # a real CARLA server
    python scripts/train_td3.py --seed 1 -- -params learning_rate:1e-4           # options after -- go to rl-zoo3
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Any

from sb3_carla.zoo.algorithms import default_config, presets
from sb3_carla.zoo.hyperparameters import read_hyperparameters


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """
    :param argv: arguments; None for those of the process
    :return: parsed options
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", type=_number_or_none, default=None, help="numbered start, or None: random")
    parser.add_argument("--npcs", type=int, help="other cars (default: as in hyperparams/td3.yml)")
    parser.add_argument("--town", nargs="+", help="towns to train in (default: as in hyperparams/td3.yml)")
    parser.add_argument("--max-timesteps", type=int, help="decisions (default: as in hyperparams/td3.yml)")
    parser.add_argument("--eval-freq", type=int, help="decisions between evaluations; -1: none (default: rl-zoo3's)")
    parser.add_argument("--seed", type=int, help="default: a random one")
    parser.add_argument("--debug", action="store_true", help="verbose, and log every episode")
    parser.add_argument("--preset", choices=sorted(presets("td3")), help="hyperparams/td3-WORD.yml")
    parser.add_argument("--host", help="a running CARLA server (default: start the packaged one)")
    parser.add_argument("--port", type=int, default=2000, help="its port (default: 2000)")
    parser.add_argument("--log-folder", default="logs", help="default: logs")
    parser.add_argument("zoo", nargs="*", help="further options of rl_zoo3.train, after --")
    return parser.parse_args(argv)


def zoo_arguments(options: argparse.Namespace) -> list[str]:
    """
    :param options: result of :func:`parse`
    :return: arguments of ``rl_zoo3.train``. Options that are not given stay as in the YAML file, with one exception: a
        running CARLA server (--host) has one world, so it gets one environment, and none for evaluation
    """
    env_kwargs: dict[str, Any] = {"scenario": options.scenario, "n_npcs": options.npcs, "town": options.town}
    if options.host is not None:
        env_kwargs |= {"host": options.host, "port": options.port}
    given = [f"{key}:{value!r}" for key, value in env_kwargs.items() if value is not None]
    # One car instead of the default's many, with as many decisions per update as those make.
    params = [] if options.host is None else ["n_envs:1", f"train_freq:{default_cars()}"]
    # rl-zoo3 uses only the last of a repeated option, so ours and the user's are merged; the last value of a key wins.
    merging = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    merging.add_argument("--env-kwargs", nargs="+", action="extend", default=given)
    merging.add_argument("-params", "--hyperparams", dest="params", nargs="+", action="extend", default=params)
    merged, others = merging.parse_known_args(options.zoo)
    arguments = ["--algo", "td3", "--env", "CarlaLane-v0", "-P", "-f", options.log_folder]
    arguments += ["-tb", os.path.join(options.log_folder, "tensorboard")]
    if options.preset is not None:
        arguments += ["--conf-file", options.preset]
    if options.max_timesteps is not None:
        arguments += ["-n", str(options.max_timesteps)]
    if options.eval_freq is not None or options.host is not None:
        arguments += ["--eval-freq", str(-1 if options.eval_freq is None else options.eval_freq)]
    if options.seed is not None:
        arguments += ["--seed", str(options.seed)]
    if options.debug:
        arguments += ["--verbose", "2", "--log-interval", "1"]
    for option, pairs in (("--env-kwargs", merged.env_kwargs), ("-params", merged.params)):
        if pairs:
            arguments += [option, *pairs]
    return [*arguments, *others]


def default_cars() -> int:
    """
    :return: number of environments in the default hyperparameters
    """
    return int(read_hyperparameters(str(default_config("td3")), "CarlaLane-v0")["n_envs"])


def _number_or_none(text: str) -> int | None:
    return None if text.lower() == "none" else int(text)


def main() -> None:
    """Build the command, print it, replace this process by it."""
    command = [sys.executable, "-m", "rl_zoo3.train", *zoo_arguments(parse())]
    print(shlex.join(command), flush=True)
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
