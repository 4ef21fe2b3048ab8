"""What is installed, who imports whom, and that hyperparameters are data."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import yaml
from paths import ROOT

import sb3_carla
from sb3_carla.checks import from_mapping
from sb3_carla.envs.options import ControlOptions, ServerOptions
from sb3_carla.zoo.algorithms import ALGORITHMS

FOLDERS = {"policies": "sb3_carla.policies", "callbacks": "sb3_carla.callbacks", "hyperparams": "sb3_carla.hyperparams"}
BASICS = {"sb3_carla.errors", "sb3_carla.checks"}
"""Leaves that every room may import."""
# Room -> what else it may import, by prefix; the first prefix that fits a module says its room ("Rooms" in the design).
# Rooms that are not listed (ablation, evaluation and the package itself) stand on top.
MAY_IMPORT: dict[str, set[str]] = {
    "sb3_carla.simulator.roads": {"sb3_carla.simulator.geometry"},
    "sb3_carla.simulator.physics": {"sb3_carla.simulator.geometry"},
    "sb3_carla.simulator.rendering": {
        "sb3_carla.simulator.geometry",
        "sb3_carla.simulator.physics",
        "sb3_carla.simulator.roads",
    },
    "sb3_carla.simulator.scenery": {
        "sb3_carla.simulator.geometry",
        "sb3_carla.simulator.rendering.lane_strips",
        "sb3_carla.simulator.rendering.mesh",
    },
    "sb3_carla.simulator": {"sb3_carla.client.opendrive_file"},
    "sb3_carla.server": {"sb3_carla.simulator", "sb3_carla.client.opendrive_file"},
    "sb3_carla.client": set(),
    "sb3_carla.recordings": {"sb3_carla.client"},
    "sb3_carla.envs": {"sb3_carla.client", "sb3_carla.recordings"},
    "sb3_carla.policies": set(),
    "sb3_carla.td3": {"sb3_carla.policies"},
    "sb3_carla.checkpointing": {"sb3_carla.td3"},
    "sb3_carla.diagnostics": set(),
    "sb3_carla.callbacks": {"sb3_carla.checkpointing", "sb3_carla.diagnostics", "sb3_carla.td3.schedules"},
    "sb3_carla.zoo": {"sb3_carla.callbacks", "sb3_carla.checkpointing", "sb3_carla.envs", "sb3_carla.td3"},
    "sb3_carla.evaluation": {
        "sb3_carla.client",
        "sb3_carla.diagnostics",
        "sb3_carla.envs",
        "sb3_carla.recordings",
        "sb3_carla.td3",
        "sb3_carla.zoo",
    },
    "sb3_carla.ablation": {
        "sb3_carla.callbacks",
        "sb3_carla.diagnostics",
        "sb3_carla.envs",
        "sb3_carla.evaluation",
        "sb3_carla.policies",
        "sb3_carla.td3",
        "sb3_carla.zoo",
    },
}


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of the package: the name that it is imported by, and its file."""
    for folder, package in {"sb3_carla": "sb3_carla", **FOLDERS}.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), path


def imports(path: Path) -> Iterator[str]:
    """Absolute names of all that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str | None:
    return next((room for room in MAY_IMPORT if f"{module}.".startswith(f"{room}.")), None)


def test_dependency_directions() -> None:
    for module, path in sources():
        room = room_of(module)
        for name in imports(path):
            if room is not None and name.startswith("sb3_carla."):
                allowed = {room, *BASICS, *MAY_IMPORT[room]}
                assert any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed), f"{module} imports {name}"
            if not module.startswith(("sb3_carla.simulator", "sb3_carla.server")):
                assert not re.match(r"sb3_carla\.(simulator|server)\b", name), f"{module} imports {name}"
            assert "rl_zoo3" not in name, f"{module} imports {name}: only sb3_carla.zoo.hooks knows rl-zoo3, by name"
            assert name.split(".")[0] not in FOLDERS, f"{module} imports {name}: write sb3_carla.{name}"


def test_no_circle_among_modules() -> None:
    modules = {module: set(imports(path)) for module, path in sources()}
    reach = {
        module: {
            other
            for other in modules
            if other != module
            and other != "sb3_carla"
            and (other in names or any(name.rpartition(".")[0] == other for name in names))
        }
        for module, names in modules.items()
    }
    while reach:  # take away whoever imports nothing that is left
        leaves = [module for module, others in reach.items() if not others & reach.keys()]
        assert leaves, f"a circle among {sorted(reach)}"
        for leaf in leaves:
            del reach[leaf]


def test_light_import() -> None:
    heavy = {"torch", "stable_baselines3", "carla", "cv2", "rl_zoo3"}
    assert not heavy & set(imports(ROOT / "sb3_carla/__init__.py"))
    with pytest.raises(AttributeError, match="no attribute 'TD4'"):
        _ = sb3_carla.TD4


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_every_package_is_installed() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    there = {module for module, path in sources() if path.name == "__init__.py"} - {"sb3_carla.zoo_hook"}
    assert listed == there | {"custom_envs"}  # zoo_hook installs as custom_envs
    assert project["project"]["version"] == sb3_carla.__version__
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE))
    pinned = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    wanted = {re.split(r"[<>=]", text)[0] for text in project["project"]["dependencies"]}
    assert wanted <= set(pinned)
    assert pinned["torch"] == "2.13.0"


def entries() -> list[tuple[str, str, dict[str, Any]]]:
    files = sorted((ROOT / "hyperparams").glob("*.yml"))
    return [(f.stem, env, entry) for f in files for env, entry in yaml.safe_load(f.read_text()).items()]


def plain_values(value: Any) -> Iterator[Any]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not isinstance(value, (dict, list)):
        yield value
    for child in children:
        yield from plain_values(child)


@pytest.mark.parametrize(
    ("algo", "env_id", "entry"), entries(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_hyperparameters_are_data(algo: str, env_id: str, entry: dict[str, Any]) -> None:
    assert env_id in gym.registry
    assert algo.partition("-")[0] in ALGORITHMS
    assert "n_timesteps" in entry
    for key in ("policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "normalize", "monitor_kwargs"):
        assert not isinstance(entry.get(key), str), f"{key}: rl-zoo3 would eval the string {entry[key]!r}"
    assert entry.get("autocast") is not True, "whether bfloat16 pays is the processor's"
    for value in plain_values(entry):
        assert value is None or isinstance(value, (bool, int, float, str)), value
        assert not isinstance(value, str) or "(" not in value, f"looks like code: {value!r}"
    accepted = gym.spec(env_id).kwargs.keys() | _arguments(env_id)
    env_kwargs = entry.get("env_kwargs", {})
    assert set(env_kwargs) <= accepted
    for name, options in {"control": ControlOptions, "server": ServerOptions}.items():
        from_mapping(options, name, env_kwargs.get(name))


def _arguments(env_id: str) -> set[str]:
    import inspect

    entry_point = gym.spec(env_id).entry_point
    assert isinstance(entry_point, str)
    return set(inspect.signature(gym.envs.registration.load_env_creator(entry_point)).parameters)


def test_no_held_out_town_in_training() -> None:
    from sb3_carla.envs.towns import HELD_OUT_TOWNS, expand_towns

    towns = [entry["env_kwargs"]["town"] for _, env_id, entry in entries() if env_id == "CarlaLane-v0"]
    assert len(towns) >= 5
    assert not set(HELD_OUT_TOWNS) & {name for town in towns for name in expand_towns(town)}
