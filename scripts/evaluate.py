#!/usr/bin/env python
"""
Evaluate a model beside the scripted driver and a random policy, on the same scenarios of towns it never saw.

    python scripts/evaluate.py                                  # the last run in logs/
    python scripts/evaluate.py --model logs/td3/CarlaLane-v0_1/best_model.zip --towns Circuit07 --episodes 10
    python scripts/evaluate.py --model none                     # only the scripted driver and the random policy
    python scripts/evaluate.py --host localhost --towns Town02  # a real CARLA server
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
from tqdm import tqdm

import sb3_carla  # noqa: F401  (registers CarlaLane-v0)
from sb3_carla import evaluation, runs
from sb3_carla.errors import CarlaLaneError
from sb3_carla.towns import HELD_OUT_TOWNS


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """
    :param argv: command line without the program; None: the process's own
    :return: its options
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="path of a .zip, or 'none' (default: the last run in --logs)")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="rl-zoo3 log folder (default: logs)")
    parser.add_argument("--best", action="store_true", help="the run's best_model.zip instead of its last model")
    parser.add_argument("--algo", default="td3", help="rl-zoo3's name of the algorithm (default: td3)")
    parser.add_argument("--device", default="auto", help="PyTorch device (default: auto)")
    parser.add_argument("--towns", nargs="+", default=list(HELD_OUT_TOWNS), help="default: the held-out towns")
    parser.add_argument("--episodes", type=int, default=20, help="in all; they go round the towns (default: 20)")
    parser.add_argument("--scenarios", type=int, nargs="+", help="numbers to go through (default: 0, 1, 2, ...)")
    parser.add_argument("--seed", type=int, default=evaluation.FIRST_SEED, help="of the first episode")
    parser.add_argument("--npcs", type=int, help="other cars (default: as in the model's run)")
    parser.add_argument("--host", help="a running CARLA server (default: start the packaged one)")
    parser.add_argument("--port", type=int, default=2000, help="its port (default: 2000)")
    parser.add_argument("--env-kwargs", type=json.loads, default={}, help="""JSON, e.g. '{"weather": "WetSunset"}'""")
    parser.add_argument("--output", type=Path, help="JSON file (default: beside the model)")
    return parser.parse_args(argv)


def environment(options: argparse.Namespace, model: Path | None) -> dict[str, Any]:
    """
    :param options: of the command line
    :param model: whose run tells what the environment was like, None: defaults
    :return: arguments for ``gym.make``
    """
    kwargs = {} if model is None else runs.environment_settings(model)
    if options.npcs is not None:
        kwargs["n_npcs"] = options.npcs
    if options.host is not None:
        kwargs.update(host=options.host, port=options.port)
    return {**kwargs, **options.env_kwargs, "town": options.towns}


def main() -> None:
    """Parse, drive, print."""
    options = parse()
    if options.model == "none":
        model = None
    else:
        model = runs.find_model(options.model, options.logs, algo=options.algo, best=options.best)
    kwargs = environment(options, model)
    policies: dict[str, evaluation.Policy] = {}
    if model is not None:
        policies["model"] = evaluation.model_policy(runs.load_model(model, algo=options.algo, device=options.device))
    policies.update(scripted=evaluation.scripted_policy, random=evaluation.random_policy)
    to_drive = evaluation.cases(options.towns, options.episodes, first_seed=options.seed, scenarios=options.scenarios)
    print(f"{model or 'no model'} in {', '.join(options.towns)}: {kwargs}")
    env = gym.make("CarlaLane-v0", disable_env_checker=True, **kwargs)
    try:
        with tqdm(total=len(policies) * len(to_drive), unit="episode") as bar:
            result = evaluation.evaluate(env, policies, to_drive, on_episode=bar.update)
    finally:
        env.close()
    print(result.table())
    output = options.output or (model and model.with_suffix(".evaluation.json"))
    if output:
        result.settings = {"model": str(model), "algo": options.algo, "env_kwargs": kwargs}
        result.save(output)
        print(f"Written: {output}")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, CarlaLaneError) as error:
        sys.exit(f"error: {error}")
