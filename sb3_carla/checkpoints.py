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

import errno
import fcntl
import hashlib
import io
import json
import logging
import os
import pickle
import random
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import configure_logger

from sb3_carla.errors import CheckpointError
from sb3_carla.provenance import versions

__all__ = ["LATEST", "Checkpoints", "is_checkpoint", "restore", "restore_callbacks", "save_state"]

logger = logging.getLogger(__name__)

MODEL, STATE, MANIFEST, PIECES, LATEST = "model.zip", "state.pkl", "manifest.json", "pieces", "latest"
LOCK = "lock"
PIECE = 4 * 2**20
"""Size of the pieces of an array [bytes]."""
FORMAT = 1
STATE_DICT = "state_dict"
CALLBACK_COUNTERS = ("n_calls", "best_mean_reward", "last_mean_reward")
"""Attributes of callbacks that are saved: when they act next, what the best model was worth."""


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

    def claim(self) -> None:
        """
        Keep other processes from writing here, until :meth:`release` or the end of this one.

        :raises CheckpointError: if another process writes here
        """
        self.release()
        self.folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        self._claim = weakref.finalize(self, os.close, file)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(file, 20).decode().strip()
            self.release()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # a file system that knows no locks
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
        model.save(draft / MODEL)
        buffers: list[pickle.PickleBuffer] = []
        stream = io.BytesIO()
        pickle.Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(save_state(model, callback))
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
        final = self.folder / name
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        _to_disk(self.folder)
        return final

    def _store(self, array: memoryview, written: list[Path]) -> list[Any]:
        """Write the pieces of an array that are not there; returns its size and their names."""
        names = []
        for start in range(0, array.nbytes, PIECE):
            piece = array[start : start + PIECE]
            name = _sha256(piece)
            path = self.folder / PIECES / name
            if not path.exists():
                draft = path.with_suffix(".draft")
                written += draft, path
                draft.write_bytes(piece)
                _to_disk(draft)
                draft.rename(path)
            names.append(name)
        return [array.nbytes, names]

    def _point_to(self, newest: Path) -> None:
        """``latest`` is a link to the newest checkpoint, replaced in one go."""
        link = self.folder / f".{LATEST}"
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(newest.name)
            link.replace(self.folder / LATEST)
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
        :param first: checkpoint to try before the newest ones
        :param kwargs: of ``algorithm.load``
        :return: the model, whose ``learn(..., reset_num_timesteps=False)`` goes on; what its callbacks kept,
            for ``restore_callbacks``
        :raises CheckpointError: if there is none; it says what is wrong with each; or if the training had more or fewer
            environments
        """
        step, content, arrays = self._newest(first)
        state = pickle.loads(content, buffers=arrays)
        had = state["replay_buffer"].n_envs
        if env.num_envs != had:
            raise CheckpointError(
                f"{step}: its training had n_envs: {had}, and goes on with {had} only, got {env.num_envs}"
            )
        model = algorithm.load(step / MODEL, env=env, **kwargs)
        restore(model, state)
        _continue_log(model, state.get("log"))
        return model, state["callbacks"]

    def _newest(self, first: Path | None) -> tuple[Path, bytes, list[bytearray]]:
        problems = []
        for step in dict.fromkeys([*([] if first is None else [first]), *self.steps()]):
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
    return (Path(model).parent / MANIFEST).exists()


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
            raise CheckpointError(f"{folder / name} is damaged: its checksum is not its name.")
        array[start : start + len(piece)] = piece
        start += len(piece)
    if start != size:
        raise CheckpointError(f"{folder}: an array of {size} bytes has pieces of {start} bytes.")
    return array


def save_state(model: Any, callback: Any = None) -> dict[str, Any]:
    """
    :param model: SB3 off-policy model, between two updates
    :param callback: of its training
    :return: all that SB3's own file lacks
    """
    env = model.env
    repeatable = env.has_attr("episode_so_far")
    normalizer = model.get_vec_normalize_env()
    frames = getattr(model.replay_buffer, "_frames", None)
    return {
        "random": {
            "python": random.getstate(),
            "numpy": np.random.get_state(),  # noqa: NPY002 (SB3 draws from it)
            "torch": th.get_rng_state(),
            "cuda": th.cuda.get_rng_state_all() if th.cuda.is_available() else [],
            "actions": model.action_space.np_random.bit_generator.state,
        },
        "episodes": env.get_attr("episode_so_far") if repeatable else None,
        "returns": [list(rewards) for rewards in env.get_attr("rewards")] if env.has_attr("rewards") else None,
        "last_obs": model._last_obs,
        # What is pickled of it lacks the returns of the episodes so far.
        "normalizer": None if normalizer is None else {**normalizer.__getstate__(), "returns": normalizer.returns},
        "due": getattr(model, "_due", None),
        "log": model.logger.get_dir() if hasattr(model, "_logger") else None,
        "callbacks": [_kept_by(each) for each in _callbacks(callback)],
        "replay_buffer": model.replay_buffer,
        # Frames that the buffer keeps in a file, which goes on changing.
        "frames": np.asarray(frames) if isinstance(frames, np.memmap) else None,
    }


def restore(model: Any, state: dict[str, Any]) -> None:
    """
    Put a loaded model, and the environments that it has, where a checkpoint left them.

    :param model: loaded from the checkpoint's ``model.zip``, with environments
    :param state: from :func:`save_state`
    """
    model.replay_buffer = state["replay_buffer"]
    model.replay_buffer.device = model.device
    if state["frames"] is not None:
        model.replay_buffer.put_back(state["frames"])
    if isinstance(model.replay_buffer, HerReplayBuffer):
        model.replay_buffer.set_env(model.env)
    _restore_episodes(model, state)
    if state["due"] is not None:
        model._due = state["due"]
    random.setstate(state["random"]["python"])
    np.random.set_state(state["random"]["numpy"])  # noqa: NPY002 (SB3 draws from it)
    th.set_rng_state(state["random"]["torch"])
    if th.cuda.is_available():
        th.cuda.set_rng_state_all(state["random"]["cuda"][: th.cuda.device_count()])
    model.action_space.np_random.bit_generator.state = state["random"]["actions"]


def _continue_log(model: Any, folder: str | None) -> None:
    """
    Have a model go on with its own log, or begin one: SB3 would go on with that of the newest training beside it.

    :param folder: of the log that it had, if any
    """
    if model.tensorboard_log is None:
        return
    if folder is not None and Path(folder).resolve().parent == Path(model.tensorboard_log).resolve():
        formats = ["stdout", "tensorboard"] if model.verbose >= 1 else ["tensorboard"]
        model.set_logger(configure(folder, formats))
    else:
        name = type(model).__name__
        model.set_logger(configure_logger(model.verbose, model.tensorboard_log, name, reset_num_timesteps=True))


def _restore_episodes(model: Any, state: dict[str, Any]) -> None:
    """Drive the episodes again that were under way, and give the wrappers back what they knew of them."""
    env, normalizer, statistics = model.env, model.get_vec_normalize_env(), state["normalizer"]
    if normalizer is not None and statistics is not None:
        for name in ("obs_rms", "ret_rms"):
            if name in statistics:  # without norm_obs it has no obs_rms
                setattr(normalizer, name, statistics[name])
    if state["episodes"] is not None and env.has_attr("episode_so_far"):
        env.set_options([{"resume": episode} for episode in state["episodes"]])
    model._last_obs = _reset(env, normalizer)
    if normalizer is not None:
        model._last_original_obs = normalizer.get_original_obs()
    if not _same(model._last_obs, state["last_obs"]):
        logger.warning("The environments could not be put where they were: the training goes on, but not bit for bit")
        if isinstance(model.replay_buffer, HerReplayBuffer):
            model.replay_buffer.truncate_last_trajectory()  # goals are taken from one episode
        return
    if state["returns"] is not None and env.has_attr("rewards"):
        for index, rewards in enumerate(state["returns"]):
            env.set_attr("rewards", rewards, indices=[index])
    if normalizer is not None and statistics is not None:
        normalizer.returns = statistics["returns"]


def _reset(env: Any, normalizer: Any) -> Any:
    """Observations after a reset that a normalizer's statistics do not count: they have seen them before."""
    if normalizer is None:
        return env.reset()
    training, normalizer.training = normalizer.training, False
    observations = env.reset()
    normalizer.training = training
    return observations


def _same(observations: Any, others: Any) -> bool:
    if isinstance(observations, dict):
        return all(np.array_equal(value, others[key]) for key, value in observations.items())
    return np.array_equal(observations, others)


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
        inner = [*getattr(callback, "callbacks", []), getattr(callback, "callback", None)]
    for each in inner:
        yield from _callbacks(each)


def _kept_by(callback: Any) -> tuple[str, dict[str, Any]]:
    kept = {name: getattr(callback, name) for name in CALLBACK_COUNTERS if hasattr(callback, name)}
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
