"""The README's examples run, and the files that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from elsewhere import run_python
from paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_example_runs(number: int, tmp_path: Path) -> None:
    run_python(tmp_path, "-c", BLOCKS[number])


def test_a_trained_model_gets_its_environment(tmp_path: Path) -> None:
    """The example that needs a finished run."""
    (block,) = re.findall(r"```py\n(.*?)```", README, flags=re.DOTALL)
    run = tmp_path / "logs" / "td3" / "CarlaLane-v0_1"
    (run / "CarlaLane-v0").mkdir(parents=True)
    (run / "CarlaLane-v0" / "config.yml").write_text("env_kwargs: {action_repeat: 4, speed_control: true}", "utf-8")
    training = BLOCKS[1].replace("model.env.close()", f"model.env.close(); model.save({str(run / 'CarlaLane-v0')!r})")
    assert "model.save" in training
    look = "kwargs = env.spec.kwargs; assert kwargs['action_repeat'] == 4 and kwargs['speed_control'], kwargs"
    for code in (training, f"{block}\n{look}"):
        run_python(tmp_path, "-c", code)


def test_named_files_exist() -> None:
    named = set(re.findall(r"\b((?:scripts|benchmarks|docs)/[\w/]+\.\w+)", README))
    assert {"scripts/evaluate.py", "scripts/validate_training.py", "docs/training.png"} <= named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_presets_and_callbacks_are_the_ones_there_are() -> None:
    from sb3_carla import callbacks
    from sb3_carla.zoo.algorithms import presets

    for word in presets("td3"):
        assert f"`{word}`" in README
    for name in callbacks.__all__:
        assert f"`{name}`" in README or f"{name}(" in README
