"""What happens to checkpoints: damage, kills, copies, full disks, a second process, a training's end."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch as th
from outside_repository import python, run_python
from paths import TESTS
from repeatable import SMALL, PoisonAt90, RepeatableBar, assert_same, envs
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
)
from stable_baselines3.common.save_util import load_from_zip_file
from tiny import STATE_CRITIC

from sb3_carla.callbacks import DivergenceGuard, ExactCheckpointCallback
from sb3_carla.checkpointing.callback_states import restore_callbacks
from sb3_carla.checkpointing.checkpoints import CHUNKS, LATEST, MANIFEST, Checkpoints, is_checkpoint
from sb3_carla.errors import CheckpointError
from sb3_carla.td3.td3 import TD3


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 40 and 80."""
    TD3("LayerNormCnnPolicy", envs(), **SMALL).learn(80, callback=ExactCheckpointCallback(40, tmp_path / "run"))
    return tmp_path / "run"


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def chunks(step: Path) -> list[str]:
    return [name for _, names in json.loads((step / MANIFEST).read_text())["arrays"] for name in names]


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoints of steps 800 and 1600 whose arrays have many chunks."""
    monkeypatch.setattr("sb3_carla.checkpointing.chunk_store.CHUNK_SIZE", 4096)
    arguments = {**SMALL, "buffer_size": 2400, "learning_starts": 10_000}
    model = TD3("LayerNormCnnPolicy", envs(), **arguments, deduplicate_frames=True)
    model.learn(1600, callback=ExactCheckpointCallback(800, tmp_path))
    return tmp_path


@pytest.mark.long
def test_a_damaged_chunk_is_put_aside_and_written_anew(frames: Path) -> None:
    newest, older = Checkpoints(frames).steps()
    own = [name for name in chunks(newest) if name not in chunks(older)]
    damaged = next(frames / CHUNKS / name for name in own if (frames / CHUNKS / name).stat().st_size == 4096)
    spoil(damaged)
    resumed, _ = Checkpoints(frames).resume(TD3, envs())
    assert resumed.num_timesteps == 800
    assert damaged.with_name(f"{damaged.name}.damaged").exists()
    resumed.learn(800, reset_num_timesteps=False, callback=ExactCheckpointCallback(800, frames))
    assert damaged.name in chunks(newest), "the repeat is exact"
    assert Checkpoints(frames).resume(TD3, envs())[0].num_timesteps == 1600
    assert {path.name for path in (frames / CHUNKS).iterdir()} == {*chunks(newest), *chunks(older)}


def test_a_save_finds_damaged_chunks(frames: Path) -> None:
    resumed, _ = Checkpoints(frames).resume(TD3, envs())
    newest, older = Checkpoints(frames).steps()
    spoil(frames / CHUNKS / next(name for name in chunks(newest) if name in chunks(older)))
    resumed.learn(2, reset_num_timesteps=False)
    Checkpoints(frames).save(resumed)
    resumed, _ = Checkpoints(frames).resume(TD3, envs())
    assert resumed.num_timesteps == 1602


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.long
def test_what_is_still_alive_is_not_resumed(tmp_path: Path) -> None:
    """Refused before the guard of the second training writes its weights over those of the first."""
    code = f"""
import sys
from repeatable import SMALL, PoisonAt90, envs
from stable_baselines3.common.callbacks import BaseCallback
from sb3_carla.callbacks import DivergenceGuard, ExactCheckpointCallback
from sb3_carla.td3.td3 import TD3

class Wait(BaseCallback):
    def _on_step(self):
        if self.num_timesteps == 110:
            print("waits", flush=True)
            sys.stdin.read()
        return True

model = TD3("LayerNormCnnPolicy", envs(), **SMALL, tensorboard_log={str(tmp_path / "tb")!r})
exact = ExactCheckpointCallback(40, {str(tmp_path / "run")!r})
model.learn(200, callback=[DivergenceGuard(save_freq=20), exact, Wait()])
"""
    streams: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=TESTS, **streams) as other:
        assert other.stdout.readline() == "waits\n"
        before = contents(tmp_path)
        with pytest.raises(CheckpointError, match=rf"is in use by a running training \(process {other.pid}\)"):
            Checkpoints(tmp_path / "run").resume(TD3, envs())
        assert contents(tmp_path) == before
        other.kill()
    resumed, _ = Checkpoints(tmp_path / "run").resume(TD3, envs())
    resumed.learn(2, reset_num_timesteps=False, callback=ExactCheckpointCallback(40, tmp_path / "run"))


def test_resuming_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to continue from"):
        Checkpoints(tmp_path / "nowhere").resume(TD3, envs())
    assert not (tmp_path / "nowhere").exists()


def test_a_copy_of_latest_gives_way_to_the_link(run: Path) -> None:
    copy = run.with_name("copy")
    shutil.copytree(run, copy)  # follows links
    assert not (copy / LATEST).is_symlink()
    resumed, _ = Checkpoints(copy).resume(TD3, envs(), copy / LATEST)
    resumed.learn(40, reset_num_timesteps=False, callback=ExactCheckpointCallback(40, copy))
    assert (copy / LATEST).is_symlink()
    assert (copy / LATEST).resolve().name == "step_000000120"
    assert not list(copy.glob(".*"))


def test_a_stale_copy_of_latest_is_the_last_that_is_tried(run: Path) -> None:
    (run / LATEST).unlink()
    newest, older = Checkpoints(run).steps()
    shutil.copytree(older, run / LATEST)
    assert Checkpoints(run).resume(TD3, envs(), run / LATEST)[0].num_timesteps == 80
    shutil.rmtree(newest)
    shutil.rmtree(older)
    assert Checkpoints(run).resume(TD3, envs(), run / LATEST)[0].num_timesteps == 40


def test_a_folder_of_that_name_that_is_no_checkpoint_stays(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    resumed, _ = Checkpoints(run).resume(TD3, envs())
    (run / LATEST).unlink()
    (run / LATEST).mkdir()
    (run / LATEST / "mine").touch()
    Checkpoints(run).save(resumed)
    assert (run / LATEST / "mine").exists()
    assert "Checkpoint without the link 'latest'" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.long),
        pytest.param({"n_steps": 3}, marks=pytest.mark.long),
        {**STATE_CRITIC, "concurrent_updates": True},
    ],
    ids=["sb3-buffer", "n-step", "concurrent_updates"],
)
def test_a_training_that_has_ended_goes_on_exactly(options: dict[str, Any], tmp_path: Path) -> None:
    def make() -> TD3:
        return TD3("LayerNormCnnPolicy", envs(), **{**SMALL, **options})

    through = make().learn(140)
    ended = make().learn(70, callback=ExactCheckpointCallback(60, tmp_path))
    assert [step.name for step in Checkpoints(tmp_path).steps()] == ["step_000000070", "step_000000060"]
    resumed, _ = Checkpoints(tmp_path).resume(TD3, envs())
    resumed.learn(0, reset_num_timesteps=False, callback=ExactCheckpointCallback(60, tmp_path))
    assert_same(resumed, ended)
    resumed, _ = Checkpoints(tmp_path).resume(TD3, envs())
    resumed.learn(70, reset_num_timesteps=False, callback=ExactCheckpointCallback(60, tmp_path))
    assert_same(resumed, through)
    assert [step.name for step in Checkpoints(tmp_path).steps()] == ["step_000000140", "step_000000120"]


SMALL_SAC: dict[str, Any] = {"learning_starts": 20, "batch_size": 16, "buffer_size": 200, "seed": 3, "device": "cpu"}


@pytest.mark.long
def test_a_stock_training_that_has_ended_goes_on_exactly(tmp_path: Path) -> None:
    def make() -> Any:
        return stable_baselines3.SAC("MlpPolicy", envs(), **SMALL_SAC)

    through = make().learn(120)
    make().learn(60, callback=ExactCheckpointCallback(60, tmp_path))
    resumed, _ = Checkpoints(tmp_path).resume(stable_baselines3.SAC, envs())
    resumed.learn(60, reset_num_timesteps=False)
    assert_same(resumed, through)


@pytest.mark.long
@pytest.mark.parametrize("concurrent_updates", [False, True])
def test_a_guard_knows_what_was_before_the_end(concurrent_updates: bool, tmp_path: Path) -> None:
    def callbacks(name: str) -> Any:
        guard = DivergenceGuard(save_freq=30, save_path=str(tmp_path / name))
        return CallbackList([PoisonAt90(), CallbackList([guard, ExactCheckpointCallback(1000, tmp_path / name)])])

    def make() -> TD3:
        return TD3("LayerNormCnnPolicy", envs(), **SMALL, concurrent_updates=concurrent_updates)

    through = make().learn(120, callback=callbacks("through"))
    ended = callbacks("ended")
    make().learn(80, callback=ended)
    assert len(ended.callbacks) == 2
    resumed, kept = Checkpoints(tmp_path / "ended").resume(TD3, envs())
    again = callbacks("ended")
    restore_callbacks(again, kept)
    resumed.learn(120 - 80, reset_num_timesteps=False, callback=again)
    assert again.callbacks[1].callbacks[0].rollbacks == 1
    assert_same(resumed, through)


def test_a_training_that_a_callback_ends_has_no_exact_end(tmp_path: Path) -> None:
    callbacks = [StopTrainingOnMaxEpisodes(4), ExactCheckpointCallback(60, tmp_path)]
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL).learn(200, callback=callbacks)
    assert model.num_timesteps == 80
    assert [step.name for step in Checkpoints(tmp_path).steps()] == ["step_000000060"]


@pytest.mark.parametrize("trouble", ["parent", "lock", "full"])
def test_a_folder_that_cannot_be_locked_is_a_warning(
    trouble: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "parent" / "run"
    if trouble == "parent":
        folder.parent.touch()
    elif trouble == "lock":
        (folder / "lock").mkdir(parents=True)
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    if trouble == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, room[1]))
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL)
    try:
        with caplog.at_level(logging.WARNING):
            model.learn(50, callback=ExactCheckpointCallback(40, folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    assert model.num_timesteps == 50
    assert f"{folder} could not be locked, another training might write there too: [Errno" in caplog.text
    saved = [step.name for step in Checkpoints(folder).steps()]
    assert saved == (["step_000000050", "step_000000040"] if trouble == "lock" else [])
    assert caplog.text.count("No checkpoint at step") == (0 if trouble == "lock" else 2)


def test_a_checkpoint_is_known_by_where_it_lies(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    newest = Checkpoints(run).steps()[0]
    (newest / MANIFEST).unlink()
    link = tmp_path / "elsewhere.zip"
    link.symlink_to(run / LATEST / "model.zip")
    assert is_checkpoint(newest / "model.zip")
    assert is_checkpoint(run / LATEST / "model.zip")
    assert is_checkpoint(link)
    assert not is_checkpoint(run / "model.zip")
    assert Checkpoints(run).resume(TD3, envs(), newest)[0].num_timesteps == 40
    assert f"Checkpoint skipped: {newest} cannot be read: FileNotFoundError" in caplog.text


@pytest.mark.long
def test_latest_holds_when_the_same_step_is_written_again(run: Path) -> None:
    code = f"""
import os
from pathlib import Path
from repeatable import envs
from sb3_carla.checkpointing.checkpoints import Checkpoints
from sb3_carla.td3.td3 import TD3

resumed, _ = Checkpoints({str(run)!r}).resume(TD3, envs())
rename = Path.rename

def killed(path, target):
    if path.name == ".step_000000080":
        os._exit(9)
    return rename(path, target)

Path.rename = killed
Checkpoints({str(run)!r}).save(resumed)
"""
    assert python(TESTS, "-c", code).returncode == 9
    assert (run / LATEST / "model.zip").exists()
    newest = (run / LATEST / "model.zip").resolve().parent
    resumed, _ = Checkpoints(run).resume(TD3, envs(), newest)
    assert resumed.num_timesteps == 80
    final = Checkpoints(run).save(resumed)
    assert (run / LATEST).resolve() == final
    assert not list(run.glob(".*"))
    Checkpoints(run).save(resumed)
    assert (run / LATEST).resolve() == final
    assert not list(run.glob(".*"))


class Same(RepeatableBar):
    """Every episode is worth the same."""

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, 1.0, *rest


class Times(BaseCallback):
    """Keeps when it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def _on_step(self) -> bool:
        self.steps.append(self.num_timesteps)
        return True


class KilledAt110(BaseCallback):
    def _on_step(self) -> bool:
        if self.num_timesteps == 110:
            raise InterruptedError
        return True


@pytest.mark.long
@pytest.mark.parametrize("end", ["episodes", "improvement"])
def test_callbacks_of_sb3_act_when_they_would_have(end: str, tmp_path: Path) -> None:
    def callbacks(name: str) -> list[Any]:
        judge = EvalCallback(
            envs(1, env=Same), n_eval_episodes=1, eval_freq=10, log_path=str(tmp_path / name), verbose=0,
            callback_after_eval=StopTrainingOnNoModelImprovement(6 if end == "improvement" else 100),
            callback_on_new_best=Times(),
        )  # fmt: skip
        episodes = StopTrainingOnMaxEpisodes(8 if end == "episodes" else 100)
        return [judge, EveryNTimesteps(50, Times()), episodes, ExactCheckpointCallback(70, tmp_path / name)]

    first, again = callbacks("through"), callbacks("killed")
    through = TD3("LayerNormCnnPolicy", envs(), **SMALL).learn(300, callback=first)
    with pytest.raises(InterruptedError):
        TD3("LayerNormCnnPolicy", envs(), **SMALL).learn(300, callback=[*callbacks("killed"), KilledAt110()])
    resumed, kept = Checkpoints(tmp_path / "killed").resume(TD3, envs())
    restore_callbacks(again, kept)
    resumed.learn(300 - 70, reset_num_timesteps=False, callback=again)
    assert resumed.num_timesteps == through.num_timesteps == 160
    assert first[1].callback.steps == [50, 100, 150]
    assert again[1].callback.steps == [100, 150]
    assert again[0].callback_on_new_best.n_calls == first[0].callback_on_new_best.n_calls == 1
    one, other = (np.load(tmp_path / name / "evaluations.npz") for name in ("through", "killed"))
    assert one["timesteps"].tolist() == list(range(20, 161, 20))
    for key in ("timesteps", "results", "ep_lengths"):
        assert np.array_equal(one[key], other[key])


@pytest.mark.long
def test_the_zoo_goes_on_whatever_happened_to_the_folder(tmp_path: Path) -> None:
    def train(steps: int, *more: str) -> str:
        arguments = ["--algo", "td3", "--env", "CarlaLane-v0", "-n", str(steps), "--eval-freq", "-1", "-f", "logs"]
        arguments += [
            "--seed",
            "3",
            "--save-freq",
            "60",
            "--env-kwargs",
            "town:'Circuit01'",
            "image_size:(36,36)",
            *more,
        ]
        hyperparams = ["n_envs:2", "learning_starts:20", "batch_size:8", "buffer_size:200", "callback:[]"]
        return run_python(tmp_path, "-m", "rl_zoo3.train", *arguments, "-params", *hyperparams)

    train(90)
    runs = tmp_path / "logs" / "td3"
    shutil.copytree(runs / "CarlaLane-v0_1/checkpoints", tmp_path / "copy")  # follows links
    model = str(tmp_path / "copy" / LATEST / "model.zip")
    assert "Resuming at step 90" in train(120, "-i", model)
    assert "Resuming at step 120" in train(150, "-i", model), "the same command again finds the newest"
    (tmp_path / "copy" / "step_000000150" / MANIFEST).unlink()
    assert "Resuming at step 120" in train(120, "-P", "-i", model), "nothing is left to learn"
    # TD3.load would import rl_zoo3, which changes gymnasium for the tests that follow.
    one, other = (load_from_zip_file(runs / f"CarlaLane-v0_{number}/CarlaLane-v0.zip", False)[1] for number in (2, 4))
    for name, value in one["policy"].items():
        assert th.equal(value, other["policy"][name]), name
    assert os.readlink(tmp_path / "copy" / LATEST) == "step_000000150"
