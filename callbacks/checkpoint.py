"""Save checkpoints from which a training continues exactly."""

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
    Saves a checkpoint (:class:`sb3_carla.checkpointing.checkpoints.Checkpoints`) every ``every`` steps and at the
    training's end, for SB3's off-policy algorithms.

    If a checkpoint cannot be written, there is a warning, and earlier checkpoints stay. During the training the folder
    is locked against other processes.

    Checkpoints are saved before the first step of a rollout: at that time the last transition is in the replay buffer,
    and its update has been made. The same is true at the training's end, except if a callback ended the training; then
    no last checkpoint is saved.

    After SIGTERM, which a machine sends at shutdown and a batch queue before it stops a job, a checkpoint is saved
    before the next step, and the process exits with status 143. A second SIGTERM ends it at once. The handler is not
    installed if the process has its own, or if the training runs outside the main thread.

    :param every: steps between two checkpoints, counted over all environments
    :param folder: folder of the checkpoints
    :param keep: number of checkpoints to keep, the newest
    :param verbose: 1 prints a line per checkpoint
    """

    def __init__(self, every: int, folder: Path | str, keep: int = 2, verbose: int = 0) -> None:
        super().__init__(verbose)
        if every < 1:
            raise ValueError(f"every: expected at least 1 step, got {every!r}")
        self.every = every
        self.checkpoints = Checkpoints(folder, keep)
        self._next = every
        self._rollout_complete = False  # whether a rollout has ended since the last checkpoint
        self._root: BaseCallback = self  # the training's outermost callback, which is saved
        self._save_at_end = _SaveAtEnd(self)
        self.terminated = False
        """Whether the process has received SIGTERM."""

    def _on_training_start(self) -> None:
        if not isinstance(self.model, OffPolicyAlgorithm):
            raise TypeError(f"expected one of SB3's off-policy algorithms, got {type(self.model).__name__}")
        self.checkpoints.lock.acquire()
        self._next = (self.num_timesteps // self.every + 1) * self.every
        self._rollout_complete = False
        self._root = self.locals.get("callback", self)
        if isinstance(self._root, CallbackList):
            self._save_at_end.init_callback(self.model)
            self._root.callbacks = [self._save_at_end, *self._others(self._root)]
        self.terminated = False
        if threading.current_thread() is threading.main_thread() and _is_unhandled(signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, _SigtermHandler(self))

    def _others(self, callbacks: CallbackList) -> list[BaseCallback]:
        return [each for each in callbacks.callbacks if each is not self._save_at_end]

    def _on_rollout_start(self) -> None:
        self._rollout_complete = False
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
        except OSError as error:  # a full disk must not end the training
            logger.warning("No checkpoint at step %d: %s", self.num_timesteps, error)
            return
        if self.verbose > 0:
            print(f"Checkpoint: {folder}")

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._rollout_complete = True

    def _on_training_end(self) -> None:
        self.save_last()
        self.checkpoints.lock.release()
        known = signal.getsignal(signal.SIGTERM)
        if isinstance(known, _SigtermHandler) and known.callback() is self:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._end_if_terminated()

    def save_last(self) -> None:
        """Save the checkpoint of the training's end, if a rollout has ended since the last one."""
        if isinstance(self._root, CallbackList):
            self._root.callbacks = self._others(self._root)
        if self._rollout_complete:
            self._rollout_complete = False
            self._save()


class _SaveAtEnd(BaseCallback):
    """Put first in a list of callbacks: it saves at the training's end before the others remove their state."""

    def __init__(self, callback: ExactCheckpointCallback) -> None:
        super().__init__()
        self._callback = callback

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._callback.save_last()


class _SigtermHandler:
    """Ends a running training at its next rollout; if none is running, ends the process at once."""

    def __init__(self, callback: ExactCheckpointCallback) -> None:
        self.callback, self._process = weakref.ref(callback), os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second SIGTERM ends the process at once
        callback = self.callback()
        if callback is not None and os.getpid() == self._process and _is_in_learn(callback.model, frame):
            callback.terminated = True
        else:  # the training has ended, or this is a forked child
            os.kill(os.getpid(), number)


def _is_unhandled(handler: object) -> bool:
    """Whether no other code handles SIGTERM; our handler may remain from a training that raised an exception."""
    return handler is signal.SIG_DFL or isinstance(handler, _SigtermHandler)


def _is_in_learn(model: BaseAlgorithm, frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "learn" and frame.f_locals.get("self") is model:
            return True
        frame = frame.f_back
    return False


class ModelCheckpointCallback(CheckpointCallback):
    """SB3's ``CheckpointCallback``, except that a full disk is a warning instead of an error."""

    def _on_step(self) -> bool:
        try:
            return super()._on_step()
        except OSError as error:
            logger.warning("No model saved at step %d: %s", self.num_timesteps, error)
            Path(self._checkpoint_path(extension="zip")).unlink(missing_ok=True)
            return True
