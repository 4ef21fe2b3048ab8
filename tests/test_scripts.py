"""The commands: each has a help text, and does what it says."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch as th
from paths import ROOT

COMMANDS = sorted([*(ROOT / "scripts").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
PUBLISHED = "--scenario 0 --npcs 20 --max-timesteps 5000 --eval-freq 5001 --seed 42 --debug"


def load(path: Path) -> ModuleType:
    """Import a script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_help(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(path.parent)  # as Python does for a script
    with pytest.raises(SystemExit) as exit_:
        load(path).main()
    assert exit_.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.name)
def test_scripts_are_thin(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 100


def test_published_command_line() -> None:
    script = load(ROOT / "scripts/train_td3.py")
    arguments = " ".join(script.zoo_arguments(script.parse(PUBLISHED.split())))
    assert arguments == (
        "--algo td3 --env CarlaLane-v0 -P -f logs -tb logs/tensorboard -n 5000 --eval-freq 5001 --seed 42 "
        "--verbose 2 --log-interval 1 --env-kwargs scenario:0 n_npcs:20"
    )


def test_presets_are_picked_by_one_word() -> None:
    script = load(ROOT / "scripts/train_td3.py")
    arguments = " ".join(script.zoo_arguments(script.parse(["--preset", "drqv2"])))
    assert arguments.endswith("--conf-file drqv2")


def test_real_server_gets_one_environment() -> None:
    script = load(ROOT / "scripts/train_td3.py")
    options = script.parse(["--scenario", "None", "--host", "localhost", "--town", "Town04", "--", "--uuid"])
    arguments = script.zoo_arguments(options)
    assert arguments[arguments.index("--env-kwargs") + 1 :] == [
        "town:['Town04']",
        "host:'localhost'",
        "port:2000",
        "-params",
        "n_envs:1",
        "train_freq:16",
        "--uuid",
    ]
    assert arguments[arguments.index("--eval-freq") + 1] == "-1"


def test_options_of_the_zoo_go_over_ours_key_by_key() -> None:
    script = load(ROOT / "scripts/train_td3.py")
    command = (
        "--host localhost --npcs 20 -- --env-kwargs action_repeat:2 -tags a -params learning_rate:1e-4 --save-freq 5"
    )
    command += " --hyperparams n_envs:2 --env-kwargs n_npcs:3 --env CarlaLane-v0"
    arguments = script.zoo_arguments(script.parse(command.split()))
    rest = " ".join(arguments[arguments.index("--env-kwargs") :])
    assert rest == (
        "--env-kwargs n_npcs:20 host:'localhost' port:2000 action_repeat:2 n_npcs:3 "
        "-params n_envs:1 train_freq:16 learning_rate:1e-4 n_envs:2 -tags a --save-freq 5 --env CarlaLane-v0"
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_makefile_explains_itself() -> None:
    out = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    for target in ("setup", "train", "evaluate", "test", "test-all", "lint", "types", "format", "benchmark", "clean"):
        assert f"make {target} " in out


@pytest.mark.skipif(th.cuda.is_available(), reason="there is a CUDA device")
def test_the_gpus_benchmark_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "benchmarks/gpu.py"
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.syspath_prepend(path.parent)
    with pytest.raises(SystemExit, match="finds no CUDA device here"):
        load(path).main()
