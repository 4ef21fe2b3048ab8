"""Checkpoints from which a training goes on exactly."""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from pathlib import Path
from types import FrameType

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_carla.checkpointing.checkpoints import Checkpoints

__all__ = ["ExactCheckpointCallback", "ModelCheckpointCallback"]

logger = logging.getLogger(__name__)


class ExactCheckpointCallback(BaseCallback):
    """
    Writes a :class:`sb3_carla.checkpointing.checkpoints.Checkpoints` every so often and at the training's end, for any
    of SB3's off-policy algorithms.

    A checkpoint that cannot be written is a warning, and those before it stay as they are. While the training runs, no
    other process may write to the same folder.

    It acts before the first step of a rollout: there, other than after a step, the last transition is in the buffer and
    the update that it brought has been made. So it is at the end, but not of a training that a callback ends.

    SIGTERM is how a machine that shuts down, or a queue that needs the place, announces the end: a checkpoint is
    written before the next step, then the process ends as ``sys.exit(143)`` does. A second SIGTERM ends it at once.
    Where the process treats SIGTERM in a way of its own, or trains in another thread than the main one, that stays.

    :param every: environment steps between two checkpoints, of all environments together
    :param folder: where they lie
    :param keep: how many of the newest are kept
    :param verbose: 1 prints a line for each
    """

    def __init__(self, every: int, folder: Path | str, keep: int = 2, verbose: int = 0) -> None:
        super().__init__(verbose)
        if every < 1:
            raise ValueError(f"every: expected at least 1 step, got {every!r}")
        self.every = every
        self.checkpoints = Checkpoints(folder, keep)
        self._next = every
        self._whole = False  # whether the last transition is in the buffer, and none has been saved since
        self._root: BaseCallback = self
        self._ending = _Ending(self)
        self.terminated = False
        """Whether SIGTERM has come."""

    def _on_training_start(self) -> None:
        if not isinstance(self.model, OffPolicyAlgorithm):
            raise TypeError(f"expected one of SB3's off-policy algorithms, got {type(self.model).__name__}")
        self.checkpoints.claim()
        self._next = (self.num_timesteps // self.every + 1) * self.every
        self._whole = False
        self._root = self.locals.get("callback", self)  # all of the training's
        if isinstance(self._root, CallbackList):
            self._ending.init_callback(self.model)
            self._root.callbacks = [self._ending, *self._others(self._root)]
        self.terminated = False
        if threading.current_thread() is threading.main_thread() and _is_free(signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, _Termination(self))

    def _others(self, callbacks: CallbackList) -> list[BaseCallback]:
        return [each for each in callbacks.callbacks if each is not self._ending]

    def _on_rollout_start(self) -> None:
        self._whole = False
        if self.terminated or self.num_timesteps >= self._next:
            self._next = (self.num_timesteps // self.every + 1) * self.every
            self._save()
        self._end_if_terminated()

    def _end_if_terminated(self) -> None:
        if self.terminated:
            raise SystemExit(128 + signal.SIGTERM)

    def _save(self) -> None:
        try:
            folder = self.checkpoints.save(self.model, self._root)
        except OSError as error:  # a full disk is no reason to end the training
            logger.warning("No checkpoint at step %d: %s", self.num_timesteps, error)
            return
        if self.verbose > 0:
            print(f"Checkpoint: {folder}")

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._whole = True

    def _on_training_end(self) -> None:
        self.save_last()
        self.checkpoints.release()
        known = signal.getsignal(signal.SIGTERM)
        if isinstance(known, _Termination) and known.callback() is self:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._end_if_terminated()

    def save_last(self) -> None:
        """Write the checkpoint of the training's end, where that is due."""
        if isinstance(self._root, CallbackList):
            self._root.callbacks = self._others(self._root)
        if self._whole:
            self._whole = False
            self._save()


class _Ending(BaseCallback):
    """First of a list at a training's end: the others let go of what they keep, and overlapping updates are made."""

    def __init__(self, callback: ExactCheckpointCallback) -> None:
        super().__init__()
        self._callback = callback

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._callback.save_last()


class _Termination:
    """What is done on SIGTERM: a training that is under way ends when it can, everything else at once."""

    def __init__(self, callback: ExactCheckpointCallback) -> None:
        self.callback, self._process = weakref.ref(callback), os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
        callback = self.callback()
        if callback is not None and os.getpid() == self._process and _is_in_learn(callback.model, frame):
            callback.terminated = True
        else:  # after an exception; in a process that was forked off
            os.kill(os.getpid(), number)


def _is_free(handler: object) -> bool:
    """Whether nobody else handles SIGTERM; a handler of ours may be left of a training that an exception ended."""
    return handler is signal.SIG_DFL or isinstance(handler, _Termination)


def _is_in_learn(model: BaseAlgorithm, frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "learn" and frame.f_locals.get("self") is model:
            return True
        frame = frame.f_back
    return False


class ModelCheckpointCallback(CheckpointCallback):
    """SB3's, for which a full disk is a warning."""

    def _on_step(self) -> bool:
        try:
            return super()._on_step()
        except OSError as error:
            logger.warning("No model saved at step %d: %s", self.num_timesteps, error)
            Path(self._checkpoint_path(extension="zip")).unlink(missing_ok=True)
            return True
