"""
Checkpoints from which a training continues as if it had never stopped: bit for bit, if the environment is repeatable.

A checkpoint is a folder ``step_000025000``:

| file | holds |
| --- | --- |
| ``model.zip`` | what SB3 saves: networks, targets, optimizers, schedules, counters, noise |
| ``state.pkl`` | random states, the environments' current episodes, callbacks' states, the buffer without its arrays |
| ``manifest.json`` | SHA-256 of the two files and of itself, the chunks of the arrays, versions |

The replay buffer's arrays lie in ``chunks/``, beside the checkpoints: see
:mod:`sb3_carla.checkpointing.chunk_store`. A chunk that has not changed since the last checkpoint is not written again,
so the time of a save depends on what is new. A checkpoint is written to a hidden folder, flushed to the disk and then
renamed: a folder ``step_...`` is always complete.

The current episode of an environment is not saved but driven again: from the random state before its reset, with the
same actions. ``state.pkl`` and ``model.zip`` are pickles: load them only from a source that you trust, as every SB3
model.
"""

from __future__ import annotations

import io
import json
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

from sb3_carla.checkpointing.callback_states import save_callbacks
from sb3_carla.checkpointing.chunk_store import ChunkStore, flush_to_disk, sha256
from sb3_carla.checkpointing.folder_lock import FolderLock
from sb3_carla.checkpointing.training_state import restore, save_state
from sb3_carla.checkpointing.versions import versions
from sb3_carla.errors import CheckpointError

__all__ = ["LATEST", "Checkpoints", "is_checkpoint"]

logger = logging.getLogger(__name__)

MODEL, STATE, MANIFEST, CHUNKS, LATEST = "model.zip", "state.pkl", "manifest.json", "chunks", "latest"
FORMAT = 1
"""Version of the layout, in the manifest."""


class Checkpoints:
    """
    The checkpoints of one training.

    ``lock`` keeps other processes from writing there; :class:`sb3_carla.callbacks.ExactCheckpointCallback` holds it
    during a training.

    :param folder: made if it is missing
    :param keep: number of checkpoints to keep, the newest, at least 1
    """

    def __init__(self, folder: Path | str, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep: expected at least 1, got {keep!r}")
        self.folder, self.keep = Path(folder), keep
        self.lock = FolderLock(self.folder)
        self._chunks = ChunkStore(self.folder / CHUNKS)

    def save(self, model: Any, callback: Any = None) -> Path:
        """
        Write a checkpoint, then delete older ones beyond ``keep``, and those of later steps, which are from another
        training.

        :param model: an SB3 off-policy model, between two updates
        :param callback: of the training; its state and those of the callbacks inside are saved too
        :return: folder of the checkpoint
        :raises OSError: if the disk is full, for example; nothing of the checkpoint is left then
        """
        self._delete_drafts()  # of a process that was killed
        try:
            final = self._write(model, callback)
        except BaseException:
            self._delete_drafts()
            self._chunks.roll_back()
            raise
        self._chunks.commit()
        self._point_latest_to(final)
        self._delete_later_than(final)
        self._delete_old()
        return final

    def _delete_drafts(self) -> None:
        for draft in self.folder.glob(".step_*"):
            shutil.rmtree(draft)

    def _write(self, model: Any, callback: Any) -> Path:
        name = f"step_{model.num_timesteps:09d}"
        draft = self.folder / f".{name}"
        (self.folder / CHUNKS).mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        whole = io.BytesIO()  # given a path, SB3 would leave the file open after an error
        model.save(whole)
        (draft / MODEL).write_bytes(whole.getvalue())
        # Protocol 5 hands out the arrays' memory instead of copying it into the stream (PEP 574).
        buffers: list[pickle.PickleBuffer] = []
        stream = io.BytesIO()
        state = save_state(model) | {"callbacks": save_callbacks(callback)}
        pickle.Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(state)
        (draft / STATE).write_bytes(stream.getvalue())
        manifest = {
            "format": FORMAT,
            "versions": versions(),
            "files": {name: sha256((draft / name).read_bytes()) for name in (MODEL, STATE)},
            "arrays": [self._chunks.write(buffer.raw()) for buffer in buffers],
        }
        text = json.dumps(manifest)
        (draft / MANIFEST).write_text(json.dumps({**manifest, "sha256": sha256(text.encode())}) + "\n")
        for path in (*(draft / name for name in (MODEL, STATE, MANIFEST)), draft, self.folder / CHUNKS):
            flush_to_disk(path)
        final, before = self.folder / name, draft.with_suffix(".before")
        if final.exists():
            self._point_latest_to(draft)  # whenever this process is killed, the link leads to a whole checkpoint
            final.rename(before)
        draft.rename(final)
        flush_to_disk(self.folder)
        shutil.rmtree(before, ignore_errors=True)
        return final

    def _point_latest_to(self, newest: Path) -> None:
        """Replace the link ``latest`` atomically. A copy of the folder may have a folder there: it is removed."""
        link, latest = self.folder / f".{LATEST}", self.folder / LATEST
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(newest.name)
            if not latest.is_symlink() and (latest / MANIFEST).exists():
                shutil.rmtree(latest)
            link.replace(latest)
        except OSError as error:  # file systems without links
            logger.warning("Checkpoint without the link %r: %s", LATEST, error)

    def _delete_later_than(self, newest: Path) -> None:
        """A later step is another training's, or was damaged and skipped. Left there, it would count as the newest."""
        for step in self.steps():
            if step.name > newest.name:
                logger.warning("Checkpoint removed: %s is ahead of the present %s", step, newest.name)
                shutil.rmtree(step)

    def _delete_old(self) -> None:
        for old in self.steps()[self.keep :]:
            shutil.rmtree(old)
        try:
            manifests = [json.loads((step / MANIFEST).read_text()) for step in self.steps()]
            needed = {name for manifest in manifests for _, names in manifest["arrays"] for name in names}
        except (OSError, ValueError, KeyError, TypeError):
            return  # a damaged checkpoint may need any chunk, and might be repaired by hand
        self._chunks.delete_all_but(needed)

    def steps(self) -> list[Path]:
        """Folders of all checkpoints, damaged ones included, the newest first."""
        return sorted(self.folder.glob("step_*"), reverse=True)

    def resume(self, algorithm: type[Any], env: Any, first: Path | None = None, **kwargs: Any) -> tuple[Any, list[Any]]:
        """
        Load the newest intact checkpoint, and bring the environments to where they were.

        :param algorithm: SB3 class of the model
        :param env: new environments, as many as the training had
        :param first: checkpoint to try before the newest ones; a copy of ``latest`` is tried after them
        :param kwargs: of ``algorithm.load``
        :return: the model, to be continued by ``learn(..., reset_num_timesteps=False)``; its callbacks' states, for
            ``restore_callbacks``
        :raises CheckpointError: if there is no intact checkpoint (the message names each problem), if the number of
            environments differs, or if the training still runs in another process
        """
        if self.folder.exists():
            self.lock.acquire()
        try:
            return self._resume(algorithm, env, first, **kwargs)
        finally:
            self.lock.release()  # the training that follows acquires it again

    def _resume(self, algorithm: type[Any], env: Any, first: Path | None, **kwargs: Any) -> tuple[Any, list[Any]]:
        step, content, arrays = self._newest_intact(first)
        state = pickle.loads(content, buffers=arrays)
        expected = state["replay_buffer"].n_envs
        if env.num_envs != expected:
            raise CheckpointError(f"{step}: its training had n_envs: {expected}; expected as many, got {env.num_envs}")
        model = algorithm.load(step / MODEL, env=env, **kwargs)
        restore(model, state)
        return model, state["callbacks"]

    def _newest_intact(self, first: Path | None) -> tuple[Path, bytes, list[bytearray]]:
        problems, steps = [], self.steps()
        if first is not None:
            steps = [*steps, first] if first.name == LATEST else [first, *steps]
        for step in dict.fromkeys(steps):
            try:
                return step, *_read_verified(step)
            except CheckpointError as error:  # noqa: PERF203 (of two)
                logger.warning("Checkpoint skipped: %s", error)
                problems.append(str(error))
        raise CheckpointError(f"{self.folder} has no checkpoint to continue from. {' '.join(problems)}".strip())


def is_checkpoint(model: Path | str) -> bool:
    """
    :param model: path of a saved model
    :return: whether it is part of a checkpoint, intact or not
    """
    folder = Path(model).resolve().parent
    return (folder / MANIFEST).exists() or (folder.parent / CHUNKS).is_dir()


def _read_verified(folder: Path) -> tuple[bytes, list[bytearray]]:
    """
    :return: content of ``state.pkl``, and the arrays, after comparing the checksum of every file
    :raises CheckpointError: naming the file that is missing or damaged
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        claimed = manifest.pop("sha256")
        if claimed != sha256(json.dumps(manifest).encode()) or manifest["format"] != FORMAT:
            raise CheckpointError(f"{folder / MANIFEST} is damaged, or of another version.")
        contents = {name: (folder / name).read_bytes() for name in manifest["files"]}
        for name, content in contents.items():
            if sha256(content) != manifest["files"][name]:
                raise CheckpointError(f"{folder / name} is damaged: its checksum is not that in {MANIFEST}.")
        chunks = ChunkStore(folder.parent / CHUNKS)
        arrays = [chunks.read(size, names) for size, names in manifest["arrays"]]
        now = versions()
        then = {name: manifest["versions"].get(name) for name in now}
        other = [f"{name} {then[name]} (now {now[name]})" for name in now if then[name] not in (None, now[name])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder} cannot be read: {type(error).__name__}: {error}.") from error
    if other:
        logger.warning("%s was written with %s: it may not continue bit for bit", folder, ", ".join(other))
    return contents[STATE], arrays
