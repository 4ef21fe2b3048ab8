"""
Checkpoints from which a training goes on as if it had never stopped: bit for bit, where the environment is repeatable.

A checkpoint is a folder ``step_000025000``:

| file | holds |
| --- | --- |
| ``model.zip`` | what SB3 saves: networks, targets, optimizers, schedules, counters, noise |
| ``state.pkl`` | random states, the environments' episodes so far, what callbacks keep, the buffer without its arrays |
| ``manifest.json`` | the SHA-256 of these, of the arrays' pieces, and of itself; versions |

The replay buffer's arrays are cut into pieces that lie under their SHA-256 in ``pieces/``, beside the checkpoints: what
has not changed since the last checkpoint is there already, so that saving takes as long as what is new. Folders appear
under their names when they are complete and on the disk, never before.

An episode is not saved but driven again: from the random state before its reset, with the same actions. ``state.pkl``
and ``model.zip`` are pickles: load only what you trust, as with every SB3 model.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import logging
import os
import pickle
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sb3_carla.checkpointing.training_state import restore, save_state
from sb3_carla.checkpointing.versions import versions
from sb3_carla.errors import CheckpointError

__all__ = ["LATEST", "Checkpoints", "is_checkpoint", "restore_callbacks"]

logger = logging.getLogger(__name__)

MODEL, STATE, MANIFEST, PIECES, LATEST = "model.zip", "state.pkl", "manifest.json", "pieces", "latest"
LOCK = "lock"
PIECE = 4 * 2**20
"""Size of the pieces of an array [bytes]."""
FORMAT = 1
STATE_DICT = "state_dict"
CALLBACK_COUNTERS = (
    "n_calls", "n_episodes", "last_time_trigger", "best_mean_reward", "last_mean_reward", "last_best_mean_reward",
    "no_improvement_evals", "evaluations_timesteps", "evaluations_results", "evaluations_length",
    "evaluations_successes",
)  # fmt: skip
"""Attributes of SB3's callbacks that are saved: when they act next, what evaluations gave."""
INNER_CALLBACKS = ("callback", "callback_on_new_best")
"""Attributes of SB3's callbacks under which there are others."""


class Checkpoints:
    """
    The checkpoints of one training.

    :param folder: made if it is not there
    :param keep: how many of the newest are kept, at least 1
    """

    def __init__(self, folder: Path | str, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep: expected at least 1, got {keep!r}")
        self.folder, self.keep = Path(folder), keep
        self._claim: weakref.finalize[..., Any] | None = None
        self._sound: set[str] = set()  # pieces that were read or written here

    def claim(self) -> None:
        """
        Keep other processes from writing here, until :meth:`release` or the end of this one. Where that is not
        possible, because the disk is full or knows no locks for instance, a warning says so.

        :raises CheckpointError: if another process writes here
        """
        self.release()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock()
        except OSError as error:
            logger.warning("%s could not be claimed, another training might write there too: %s", self.folder, error)

    def _lock(self) -> None:
        file = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        self._claim = weakref.finalize(self, os.close, file)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            owner = os.read(file, 20).decode().strip()
            self.release()
            raise CheckpointError(
                f"{self.folder} belongs to a training that runs (process {owner}); give this one a folder of its own"
            ) from error
        os.truncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let others write here; safe to call again."""
        if self._claim is not None:
            self._claim()

    def save(self, model: Any, callback: Any = None) -> Path:
        """
        Write a checkpoint, then delete those that are too old, and those ahead of it, which another training left.

        :param model: an SB3 off-policy model, between two updates
        :param callback: the training's callback, what it and those in it keep is saved too
        :return: folder of the checkpoint
        :raises OSError: if the disk is full, for instance; nothing of it is left there
        """
        for draft in self.folder.glob(".step_*"):
            shutil.rmtree(draft)  # of one that was killed
        written: list[Path] = []
        try:
            final = self._write(model, callback, written)
        except BaseException:
            for path in (*self.folder.glob(".step_*"), *written):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            raise
        self._point_to(final)
        self._remove_ahead_of(final)
        self._clean()
        return final

    def _write(self, model: Any, callback: Any, written: list[Path]) -> Path:
        """Write a checkpoint; ``written`` gets the pieces that were not there."""
        name = f"step_{model.num_timesteps:09d}"
        draft = self.folder / f".{name}"
        (self.folder / PIECES).mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        whole = io.BytesIO()  # SB3 leaves a file open that it could not write
        model.save(whole)
        (draft / MODEL).write_bytes(whole.getvalue())
        buffers: list[pickle.PickleBuffer] = []
        stream = io.BytesIO()
        state = save_state(model) | {"callbacks": [_kept_by(each) for each in _callbacks(callback)]}
        pickle.Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(state)
        (draft / STATE).write_bytes(stream.getvalue())
        manifest = {
            "format": FORMAT,
            "versions": versions(),
            "files": {name: _sha256((draft / name).read_bytes()) for name in (MODEL, STATE)},
            "arrays": [self._store(buffer.raw(), written) for buffer in buffers],
        }
        text = json.dumps(manifest)
        (draft / MANIFEST).write_text(json.dumps({**manifest, "sha256": _sha256(text.encode())}) + "\n")
        for path in (*(draft / name for name in (MODEL, STATE, MANIFEST)), draft, self.folder / PIECES):
            _to_disk(path)
        final, before = self.folder / name, draft.with_suffix(".before")
        if final.exists():
            self._point_to(draft)  # so that the link holds whenever this is killed
            final.rename(before)
        draft.rename(final)
        _to_disk(self.folder)
        shutil.rmtree(before, ignore_errors=True)
        return final

    def _store(self, array: memoryview, written: list[Path]) -> list[Any]:
        """Write the pieces of an array that are not there, or damaged; returns its size and their names."""
        names = []
        for start in range(0, array.nbytes, PIECE):
            piece = array[start : start + PIECE]
            name = _sha256(piece)
            path = self.folder / PIECES / name
            if not (path.exists() and (name in self._sound or _is_sound(path))):
                draft = path.with_suffix(".draft")
                written += [draft] if path.exists() else [draft, path]
                draft.write_bytes(piece)
                _to_disk(draft)
                draft.rename(path)
            self._sound.add(name)
            names.append(name)
        return [array.nbytes, names]

    def _point_to(self, newest: Path) -> None:
        """``latest`` is a link to the newest checkpoint, replaced in one go; a copy that followed it is removed."""
        link, latest = self.folder / f".{LATEST}", self.folder / LATEST
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(newest.name)
            if not latest.is_symlink() and (latest / MANIFEST).exists():
                shutil.rmtree(latest)
            link.replace(latest)
        except OSError as error:  # file systems without links
            logger.warning("Checkpoint without the link %r: %s", LATEST, error)

    def _remove_ahead_of(self, newest: Path) -> None:
        """One ahead is another training's, or damaged and passed over; it would be taken for the newest."""
        for step in self.steps():
            if step.name > newest.name:
                logger.warning("Checkpoint removed: %s is ahead of the present %s", step, newest.name)
                shutil.rmtree(step)

    def _clean(self) -> None:
        for old in self.steps()[self.keep :]:
            shutil.rmtree(old)
        try:
            manifests = [json.loads((step / MANIFEST).read_text()) for step in self.steps()]
            needed = {name for manifest in manifests for _, names in manifest["arrays"] for name in names}
        except (OSError, ValueError, KeyError, TypeError):
            return  # a damaged one may need any piece, and still be mended by hand
        for path in (self.folder / PIECES).iterdir():
            if path.name not in needed:
                path.unlink()

    def steps(self) -> list[Path]:
        """Folders of the checkpoints that are there, damaged or not, the newest first."""
        return sorted(self.folder.glob("step_*"), reverse=True)

    def resume(self, algorithm: type[Any], env: Any, first: Path | None = None, **kwargs: Any) -> tuple[Any, list[Any]]:
        """
        Load the newest checkpoint that is whole, and put the environments where it left them.

        :param algorithm: SB3 class of the model
        :param env: new environments, as many as the training had
        :param first: checkpoint to try before the newest ones; a copy of ``latest`` is tried after them
        :param kwargs: of ``algorithm.load``
        :return: the model, whose ``learn(..., reset_num_timesteps=False)`` goes on; what its callbacks kept,
            for ``restore_callbacks``
        :raises CheckpointError: if there is none; it says what is wrong with each; if the training had more or fewer
            environments; or if it still runs, in another process
        """
        if self.folder.exists():
            self.claim()
        try:
            return self._resume(algorithm, env, first, **kwargs)
        finally:
            self.release()  # the training that follows claims it anew

    def _resume(self, algorithm: type[Any], env: Any, first: Path | None, **kwargs: Any) -> tuple[Any, list[Any]]:
        step, content, arrays = self._newest(first)
        state = pickle.loads(content, buffers=arrays)
        had = state["replay_buffer"].n_envs
        if env.num_envs != had:
            raise CheckpointError(
                f"{step}: its training had n_envs: {had}, and goes on with {had} only, got {env.num_envs}"
            )
        model = algorithm.load(step / MODEL, env=env, **kwargs)
        restore(model, state)
        return model, state["callbacks"]

    def _newest(self, first: Path | None) -> tuple[Path, bytes, list[bytearray]]:
        problems, steps = [], self.steps()
        if first is not None:
            steps = [*steps, first] if first.name == LATEST else [first, *steps]
        for step in dict.fromkeys(steps):
            try:
                return step, *_checked(step)
            except CheckpointError as error:  # noqa: PERF203 (of two)
                logger.warning("Checkpoint skipped: %s", error)
                problems.append(str(error))
        raise CheckpointError(f"{self.folder} has no checkpoint to go on from. {' '.join(problems)}".strip())


def is_checkpoint(model: Path | str) -> bool:
    """
    :param model: path of a saved model
    :return: whether it is part of a checkpoint, damaged or not
    """
    folder = Path(model).resolve().parent
    return (folder / MANIFEST).exists() or (folder.parent / PIECES).is_dir()


def _checked(folder: Path) -> tuple[bytes, list[bytearray]]:
    """
    The pickle and the arrays of a checkpoint, every byte of which is as it was written.

    :raises CheckpointError: if something is missing or damaged; it names the file
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        claimed = manifest.pop("sha256")
        if claimed != _sha256(json.dumps(manifest).encode()) or manifest["format"] != FORMAT:
            raise CheckpointError(f"{folder / MANIFEST} is damaged, or of another version.")
        contents = {name: (folder / name).read_bytes() for name in manifest["files"]}
        for name, content in contents.items():
            if _sha256(content) != manifest["files"][name]:
                raise CheckpointError(f"{folder / name} is damaged: its checksum is not that in {MANIFEST}.")
        arrays = [_array(folder.parent / PIECES, size, names) for size, names in manifest["arrays"]]
        now = versions()
        then = {name: manifest["versions"].get(name) for name in now}
        other = [f"{name} {then[name]} (now {now[name]})" for name in now if then[name] not in (None, now[name])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder} cannot be read: {type(error).__name__}: {error}.") from error
    if other:
        logger.warning("%s was written with %s: it may not go on bit for bit", folder, ", ".join(other))
    return contents[STATE], arrays


def _array(folder: Path, size: int, names: list[str]) -> bytearray:
    array, start = bytearray(size), 0
    for name in names:
        piece = (folder / name).read_bytes()
        if _sha256(piece) != name:
            with contextlib.suppress(OSError):  # out of the way, so that the next save writes it anew
                (folder / name).rename(folder / f"{name}.damaged")
            raise CheckpointError(f"{folder / name} is damaged: its checksum is not its name.")
        array[start : start + len(piece)] = piece
        start += len(piece)
    if start != size:
        raise CheckpointError(f"{folder}: an array of {size} bytes has pieces of {start} bytes.")
    return array


def _is_sound(piece: Path) -> bool:
    try:
        return _sha256(piece.read_bytes()) == piece.name
    except OSError:
        return False


def restore_callbacks(callback: Any, kept: list[tuple[str, dict[str, Any]]]) -> None:
    """
    Give callbacks back what they kept, those that are there again: counters, and where they have the methods
    ``state_dict`` and ``load_state_dict``, that.

    :param callback: of the training that goes on, or a list of them
    :param kept: of the one that was saved
    """
    left = list(kept)
    for each in _callbacks(callback):
        found = next((entry for entry in left if entry[0] == type(each).__name__), None)
        if found is not None:
            left.remove(found)
            for name, value in found[1].items():
                if name == STATE_DICT:
                    each.load_state_dict(value)
                else:
                    setattr(each, name, value)


def _callbacks(callback: Any) -> Iterator[Any]:
    """A callback, or several, and those in them."""
    if isinstance(callback, list):
        inner = callback
    elif callback is None:
        inner = []
    else:
        yield callback
        inner = [*getattr(callback, "callbacks", []), *(getattr(callback, name, None) for name in INNER_CALLBACKS)]
    for each in inner:
        yield from _callbacks(each)


def _kept_by(callback: Any) -> tuple[str, dict[str, Any]]:
    kept = {name: value for name, value in getattr(callback, "__dict__", {}).items() if name in CALLBACK_COUNTERS}
    if hasattr(callback, STATE_DICT):
        kept[STATE_DICT] = callback.state_dict()
    return type(callback).__name__, kept


def _sha256(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
