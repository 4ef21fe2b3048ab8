"""What lies on the disk: whole, as little as needed, and a damaged checkpoint is found before it is used."""

from __future__ import annotations

import gc
import json
import logging
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stable_baselines3
from repeatable import SMALL, envs

from sb3_carla.callbacks import ExactCheckpointCallback
from sb3_carla.callbacks.checkpoint import ModelCheckpointCallback
from sb3_carla.checkpointing import checkpoints
from sb3_carla.checkpointing.checkpoints import CHUNKS, MANIFEST, Checkpoints, is_checkpoint
from sb3_carla.checkpointing.versions import versions
from sb3_carla.errors import CheckpointError
from sb3_carla.td3.td3 import TD3


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with checkpoints of steps 40, 80 and 120, of which two are kept."""
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL, deduplicate_frames=True)
    model.learn(120, callback=ExactCheckpointCallback(40, tmp_path, keep=2))
    return tmp_path


def test_the_last_ones_are_kept_and_nothing_else(run: Path) -> None:
    assert [step.name for step in Checkpoints(run).steps()] == ["step_000000120", "step_000000080"]
    assert (run / "latest").resolve().name == "step_000000120"
    needed = {
        name
        for step in Checkpoints(run).steps()
        for _, names in json.loads((step / MANIFEST).read_text())["arrays"]
        for name in names
    }
    assert {path.name for path in (run / CHUNKS).iterdir()} == needed
    assert not list(run.glob(".*"))
    assert is_checkpoint(run / "latest" / "model.zip")
    assert not is_checkpoint(run / "model.zip")


@pytest.mark.long
def test_a_second_training_in_the_folder_keeps_its_own(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL, deduplicate_frames=True)
    with caplog.at_level(logging.WARNING):
        model.learn(40, callback=ExactCheckpointCallback(20, run))
    assert [step.name for step in Checkpoints(run).steps()] == ["step_000000040", "step_000000020"]
    assert (run / "latest").resolve().name == "step_000000040"
    assert Checkpoints(run).resume(TD3, envs())[0].num_timesteps == 40
    assert caplog.text.count("Checkpoint removed") == 2
    assert f"{run / 'step_000000120'} is ahead of the present step_000000020" in caplog.text


def test_saving_again_writes_what_is_new_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_carla.checkpointing.chunk_store.CHUNK_SIZE", 4096)
    model = TD3(
        "LayerNormCnnPolicy",
        envs(),
        **{**SMALL, "buffer_size": 2000, "learning_starts": 10_000},
        deduplicate_frames=True,
    )
    model.learn(1000, callback=ExactCheckpointCallback(960, tmp_path))
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / CHUNKS).iterdir()}
    model.learn(40, reset_num_timesteps=False)
    Checkpoints(tmp_path).save(model)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / CHUNKS).iterdir()}
    new = after.keys() - before.keys()
    assert all(after[name] == written for name, written in before.items() if name in after)
    assert 0 < len(new) < 0.25 * len(after)


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.long) for name in ("model.zip", "state.pkl", "chunk", "missing")),
        "manifest.json",
        "cut",
    ],
)
def test_a_damaged_checkpoint_is_skipped_with_a_word(run: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    newest, older = Checkpoints(run).steps()
    if name == "chunk":
        own, others = (
            {n for _, names in json.loads((step / MANIFEST).read_text())["arrays"] for n in names}
            for step in (newest, older)
        )
        spoil(run / CHUNKS / next(iter(own - others)))
    elif name == "missing":
        (newest / "model.zip").unlink()
    elif name == "cut":
        (newest / "manifest.json").write_text((newest / "manifest.json").read_text()[:100])
    else:
        spoil(newest / name)
    with caplog.at_level(logging.WARNING):
        resumed, _ = Checkpoints(run).resume(TD3, envs(), newest)
    assert resumed.num_timesteps == 80
    assert "Checkpoint skipped" in caplog.text
    assert str(run / (CHUNKS if name == "chunk" else newest.name)) in caplog.text


def test_other_versions_are_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Checkpoints(run).resume(TD3, envs())
    assert not caplog.text
    monkeypatch.setattr(checkpoints, "versions", lambda: {**versions(), "torch": "1.0"})
    resumed, _ = Checkpoints(run).resume(TD3, envs())
    assert resumed.num_timesteps == 120
    assert f"was written with torch {versions()['torch']} (now 1.0): it may not continue bit for bit" in caplog.text


def test_nothing_to_go_on_from_says_why(run: Path, tmp_path: Path) -> None:
    for step in Checkpoints(run).steps():
        spoil(step / "model.zip")
    with pytest.raises(CheckpointError, match=r"continue from. .*120/model.zip is damaged.*80/model.zip"):
        Checkpoints(run).resume(TD3, envs())
    with pytest.raises(CheckpointError, match="no checkpoint to continue from"):
        Checkpoints(tmp_path / "nowhere").resume(TD3, envs())
    with pytest.raises(ValueError, match="keep: expected at least 1, got 0"):
        Checkpoints(run, keep=0)
    with pytest.raises(ValueError, match="every: expected at least 1 step, got 0"):
        ExactCheckpointCallback(0, run)


@pytest.mark.long
def test_what_a_crash_left_half_written_is_no_checkpoint(run: Path) -> None:
    (run / ".step_000000160").mkdir()
    (run / ".step_000000160" / "model.zip").write_bytes(b"half")
    (run / CHUNKS / "abc.draft").write_bytes(b"half")
    checkpoints = Checkpoints(run)
    resumed, _ = checkpoints.resume(TD3, envs())
    assert resumed.num_timesteps == 120
    resumed.learn(40, callback=ExactCheckpointCallback(40, run), reset_num_timesteps=False)
    assert checkpoints.steps()[0].name == "step_000000160"
    assert not (run / CHUNKS / "abc.draft").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_does_not_end_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL)
    exact, plain = tmp_path / "exact", tmp_path / "plain"
    callbacks = [ExactCheckpointCallback(40, exact), ModelCheckpointCallback(20, str(plain))]  # 20 steps of two
    model.learn(40, callback=callbacks)
    before = [*tmp_path.rglob("*")]
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, room[1]))
    try:
        model.learn(50, callback=callbacks, reset_num_timesteps=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    for what in ("No checkpoint", "No model saved"):
        assert f"{what} at step 80: [Errno 27] File too large" in caplog.text
    caplog.clear()
    gc.collect()  # SB3 leaves files open that it could not write
    assert [*tmp_path.rglob("*")] == before, "and it is not filled by what failed"
    assert Checkpoints(exact).resume(TD3, envs())[0].num_timesteps == 40


def test_chunks_of_a_checkpoint_that_failed_go(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(run.rglob("*"))
    model, _ = Checkpoints(run).resume(TD3, envs())
    model.learn(20, reset_num_timesteps=False)

    def full(path: Path) -> None:
        if path.suffix != ".draft":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "flush_to_disk", full)
    with pytest.raises(OSError, match="No space left"):
        Checkpoints(run).save(model)
    assert sorted(run.rglob("*")) == before


@pytest.mark.long
def test_two_trainings_do_not_write_to_one_folder(run: Path) -> None:
    code = f"""
import sys
from sb3_carla.checkpointing.checkpoints import Checkpoints
checkpoints = Checkpoints({str(run)!r})
checkpoints.lock.acquire()
print("locked", flush=True)
sys.stdin.read()
"""
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL)
    streams: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **streams) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(CheckpointError, match=rf"is in use by a running training \(process {other.pid}\)"):
            model.learn(50, callback=ExactCheckpointCallback(40, run))
        other.kill()
    model.learn(50, callback=ExactCheckpointCallback(40, run))


def test_file_systems_without_links_keep_as_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refused)
    model = TD3("LayerNormCnnPolicy", envs(), **SMALL)
    model.learn(130, callback=ExactCheckpointCallback(40, tmp_path))
    assert "Checkpoint without the link 'latest': [Errno 1]" in caplog.text
    assert len(Checkpoints(tmp_path).steps()) == 2


def test_another_number_of_environments_is_refused(run: Path) -> None:
    with pytest.raises(CheckpointError, match="step_000000120: its training had n_envs: 2; expected as many, got 3"):
        Checkpoints(run).resume(TD3, envs(3))


def test_only_off_policy_algorithms(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected one of SB3's off-policy algorithms, got PPO"):
        stable_baselines3.PPO("MlpPolicy", "Pendulum-v1").learn(10, callback=ExactCheckpointCallback(40, tmp_path))
