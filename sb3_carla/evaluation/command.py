"""
Evaluate models beside the scripted driver and a random policy, on the same scenarios of towns that they never saw.

    python scripts/evaluate.py                                      # the last run in logs/
    python scripts/evaluate.py --model seed1=a.zip seed2=b.zip --weathers ClearNoon HardRainNoon --npcs 20
    python scripts/evaluate.py --model none                         # only the scripted driver and the random policy
    python scripts/evaluate.py --host localhost --towns Town02      # a real CARLA server
    python scripts/evaluate.py --model a.zip --recording drives/    # on pictures that a CARLA server recorded

Several models count as seeds of one training: the table ends with their mean and spread.

Files are written beside the first model: the scorecard MODEL.evaluation.json, a page .html with every driven path over
its map and, with --video, a film .webm of the first driver's worst episode. What differs from the default evaluation is
part of the name, so that no evaluation overwrites another: CarlaLane-v0.evaluation.Town02.json,
CarlaLane-v0.evaluation.HardRainNoon-npcs20.json. --output names the files itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
from tqdm import tqdm

from sb3_carla.envs.randomization import group_names
from sb3_carla.envs.towns import expand_towns
from sb3_carla.evaluation.episodes import (
    DRAWN_WEATHER,
    FIRST_SEED,
    Case,
    Policy,
    cases,
    model_policy,
    random_policy,
    scripted_policy,
)
from sb3_carla.evaluation.page import page
from sb3_carla.evaluation.recorded_command import evaluate_on_recordings
from sb3_carla.evaluation.report import Evaluation, evaluate
from sb3_carla.evaluation.video import film
from sb3_carla.td3 import weights
from sb3_carla.zoo import run_folders
from sb3_carla.zoo.hyperparameters import merge_env_kwargs

__all__ = ["main"]

DEFAULT_TOWNS, DEFAULT_WEATHERS, DEFAULT_EPISODES = ["held-out"], ["ClearNoon"], 20
LONGEST_NAME = 80
"""Most characters of a file's name that tell what was evaluated."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """
    :param argv: command line without the program; None: the process's own
    :return: its options
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", nargs="+", help="[NAME=]PATH of .zips, 'pretrained', or 'none' (default: the last run in --logs)"
    )
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="rl-zoo3 log folder (default: logs)")
    parser.add_argument("--best", action="store_true", help="the run's best_model.zip instead of its last model")
    parser.add_argument("--algo", default="td3", help="rl-zoo3's name of the algorithm (default: td3)")
    parser.add_argument("--weights-only", action="store_true", help="unpickle nothing: for models you do not trust")
    parser.add_argument("--device", default="auto", help="PyTorch device (default: auto)")
    parser.add_argument("--towns", nargs="+", default=DEFAULT_TOWNS, help="names, paths, training, held-out (default)")
    parser.add_argument(
        "--episodes", type=int, default=DEFAULT_EPISODES, help="in each weather, town after town (default: 20)"
    )
    parser.add_argument("--scenarios", type=int, nargs="+", help="numbers to drive in turn (default: 0, 1, 2, ...)")
    parser.add_argument("--weathers", nargs="+", default=DEFAULT_WEATHERS, help="presets of CARLA (default: ClearNoon)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first episode")
    parser.add_argument("--npcs", type=int, help="other cars (default: as in the model's run)")
    parser.add_argument(
        "--randomize", nargs="+", metavar="GROUP", help="what is random: groups, or all (default: none)"
    )
    parser.add_argument("--host", help="a running CARLA server (default: start the packaged one)")
    parser.add_argument("--port", type=int, default=2000, help="its port (default: 2000)")
    parser.add_argument("--recording", type=Path, nargs="+", help="drive on these folders of scripts/record_drive.py")
    parser.add_argument("--no-control", action="store_true", help="with --recording: no drawn pictures beside it")
    parser.add_argument("--env-kwargs", type=json.loads, default={}, help="""JSON, e.g. '{"target_speed": 6}'""")
    parser.add_argument("--no-baselines", action="store_true", help="the models only")
    parser.add_argument("--video", action="store_true", help="film the worst episode of the first driver")
    parser.add_argument("--output", type=Path, help="JSON file to write, the page beside it (default: see above)")
    options = parser.parse_args(argv)
    if not isinstance(options.env_kwargs, dict):
        parser.error(f"--env-kwargs: expected a JSON object, got {options.env_kwargs!r}")
    if options.video and options.model == ["none"] and options.output is None:
        parser.error("--video: expected --output, as there is no model beside which the film could be written")
    options.evaluated = _evaluated(options)
    options.towns = expand_towns(options.towns)
    try:
        if "weather" in group_names(options.randomize) and options.weathers is DEFAULT_WEATHERS:
            options.weathers = [DRAWN_WEATHER]
    except ValueError as error:
        parser.error(f"--{error}")
    return options


def _evaluated(options: argparse.Namespace) -> str:
    """
    What differs from the default evaluation, as a part of a file's name: empty if nothing does.

    A digest ends a name that is too long, or leaves out the folder of a town's file.
    """
    parts = []
    if options.model is not None and len(options.model) > 1:
        parts.append(f"{len(options.model)}models")
    if options.recording is not None:
        parts.append("recorded_" + "+".join(folder.resolve().name for folder in options.recording))
    if options.towns != DEFAULT_TOWNS:
        parts.append("+".join(Path(town).name for town in options.towns))
    if options.weathers != DEFAULT_WEATHERS:
        parts.append("+".join(options.weathers))
    if options.npcs is not None:
        parts.append(f"npcs{options.npcs}")
    if options.randomize is not None:
        parts.append(f"randomize_{'+'.join(options.randomize)}")
    if options.episodes != DEFAULT_EPISODES:
        parts.append(f"episodes{options.episodes}")
    if options.scenarios is not None:
        parts.append(f"scenarios{'+'.join(map(str, options.scenarios))}")
    if options.seed != FIRST_SEED:
        parts.append(f"seed{options.seed}")
    if options.host is not None:
        parts.append(f"host_{options.host}")
    parts += [f"{key}_{json.dumps(value, sort_keys=True)}" for key, value in sorted(options.env_kwargs.items())]
    name = "-".join(re.sub(r"[^A-Za-z0-9.+-]+", "_", part).strip("_") for part in parts)
    folders = [town for town in options.towns if Path(town).name != town]
    if len(name) <= LONGEST_NAME and not folders:
        return name
    digest = hashlib.sha256("-".join([*parts, *folders]).encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - len(digest) - 1]}-{digest}"


def output_path(options: argparse.Namespace, model: Path | None) -> Path | None:
    """
    :param options: of the command line
    :param model: the first one, beside which the files are written
    :return: the JSON file; None if there is neither ``--output`` nor a model
    """
    output: Path | None = options.output
    if output is not None or model is None:
        return output
    return model.with_suffix(f".evaluation.{options.evaluated}.json" if options.evaluated else ".evaluation.json")


def find_models(options: argparse.Namespace) -> dict[str, Path]:
    """
    :param options: of the command line
    :return: path of a ``.zip`` by the model's name in the table
    """
    if options.model == ["none"]:
        return {}
    if options.model is None:
        return {"model": run_folders.find_model(None, options.logs, algo=options.algo, best=options.best)}
    alone = [Path(given).is_file() or "=" not in given for given in options.model]
    pairs = [("", given) if whole else given.split("=", 1) for given, whole in zip(options.model, alone, strict=True)]
    names = [name or ("model" if len(pairs) == 1 else Path(path).stem) for name, path in pairs]
    if len(set(names)) < len(names):
        sys.exit(f"error: models need different names, got {', '.join(names)}: write NAME=PATH")
    return {name: run_folders.find_model(path, options.logs) for name, (_, path) in zip(names, pairs, strict=True)}


def environment(options: argparse.Namespace, models: list[Path]) -> dict[str, Any]:
    """
    :param options: of the command line
    :param models: their run folders say how the environment was set up; without models: defaults
    :return: arguments for ``gym.make``
    """
    settings = [run_folders.environment_settings(model) for model in models] or [{}]
    if any(other != settings[0] for other in settings):
        sys.exit(f"error: the models were trained in different environments: {settings}")
    kwargs = dict(settings[0])
    if options.npcs is not None:
        kwargs["n_npcs"] = options.npcs
    if options.randomize is not None:
        kwargs["randomize"] = options.randomize
    if options.host is not None:
        kwargs.update(host=options.host, port=options.port)
    return {**merge_env_kwargs(kwargs, options.env_kwargs), "town": options.towns}


def _loaded(path: Path, options: argparse.Namespace) -> Any:
    if options.weights_only:
        return weights.load_policy(path, options.device)
    return run_folders.load_model(path, algo=options.algo, device=options.device)


def main(argv: list[str] | None = None) -> None:
    """
    Parse the command line, drive, print the scorecard, write the files.

    :param argv: command line without the program; None: the process's own
    :raises FileNotFoundError: if there is no such model
    :raises CarlaLaneError: if the server cannot be started or reached, or has no such town
    """
    options = parse(argv)
    models = find_models(options)
    kwargs = environment(options, list(models.values()))
    policies = {name: model_policy(_loaded(path, options)) for name, path in models.items()}
    if options.recording is not None:
        output = output_path(options, next(iter(models.values()), None))
        settings = {"models": {name: str(path) for name, path in models.items()}, "algo": options.algo}
        evaluate_on_recordings(policies, options.recording, kwargs, output, settings=settings,
                               control=not options.no_control, video=options.video)  # fmt: skip
        return
    if not options.no_baselines or not policies:
        policies |= {"scripted": scripted_policy, "random": random_policy}
    to_drive = cases(
        options.towns, options.episodes, first_seed=options.seed, scenarios=options.scenarios, weathers=options.weathers
    )
    print(f"{', '.join(map(str, models.values())) or 'no model'} in {', '.join(options.towns)}: {kwargs}")
    try:
        env = gym.make("CarlaLane-v0", disable_env_checker=True, **kwargs)
    except TypeError as error:  # an argument that it does not have
        sys.exit(f"error: {error}")
    try:
        with tqdm(total=len(policies) * len(to_drive), unit="episode") as bar:
            result = evaluate(env, policies, to_drive, models=list(models), on_episode=bar.update)
    finally:
        env.close()
    print(result.table())
    output = output_path(options, next(iter(models.values()), None))
    if output is not None:
        result.settings = {
            "models": {name: str(path) for name, path in models.items()}, "algo": options.algo, "env_kwargs": kwargs,
        }  # fmt: skip
        result.save(output)
        video = film_worst(result, policies, kwargs, output.with_suffix(".webm")) if options.video else None
        output.with_suffix(".html").write_text(page(result, video), encoding="utf-8")
        print(f"Written: {output} and {output.with_suffix('.html').name}")


def film_worst(result: Evaluation, policies: dict[str, Policy], kwargs: dict[str, Any], path: Path) -> Path:
    """
    Drive the first driver's worst episode again, and film it.

    :param result: the evaluation
    :param policies: the drivers
    :param kwargs: arguments of the environment
    :param path: of the film
    :return: the same path
    """
    name, policy = next(iter(policies.items()))
    worst = result.worst(name)
    env = gym.make("CarlaLane-v0", disable_env_checker=True, render_mode="rgb_array", **kwargs)
    try:
        film(env, Case(worst.town, worst.scenario, worst.seed, worst.weather), policy, path)
    finally:
        env.close()
    return path
