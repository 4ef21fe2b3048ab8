"""Weights that a diverged training can return to."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file, recursive_getattr

__all__ = ["LastGoodWeights"]

logger = logging.getLogger(__name__)


class LastGoodWeights:
    """
    Two generations of a model's weights and optimizers on disk: a candidate, and the last ones that proved good.

    :param model: SB3 model
    :param folder: folder of ``last_good.zip``, made if it is missing; None for a temporary one, which is deleted with
        this object
    """

    def __init__(self, model: BaseAlgorithm, folder: str | None) -> None:
        self.permanent = folder is not None
        if folder is None:
            folder = tempfile.mkdtemp(prefix="last_good_")
            finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = Path(folder) / "last_good.zip"
        self.candidate_step = self.first_step = model.num_timesteps
        self._good_step: int | None = None
        self._model = model
        self._candidate = Path(folder) / "last_good.candidate.zip"
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """:return: steps, and the files' bytes as arrays: a checkpoint does not write an unchanged array again"""
        steps = {name: getattr(self, name) for name in ("candidate_step", "first_step", "_good_step")}
        paths = {"good": self.path, "candidate": self._candidate}
        return {"steps": steps} | {name: np.fromfile(path, np.uint8) for name, path in paths.items() if path.exists()}

    def load_state_dict(self, state: dict[str, Any] | None) -> bool:
        """
        :param state: result of :meth:`state_dict`, or None
        :return: whether it was restored; if not, no weights are saved yet
        """
        if state is None:
            return False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for name, path in {"good": self.path, "candidate": self._candidate}.items():
                path.unlink(missing_ok=True)
                if name in state:
                    path.write_bytes(state[name])
        except OSError as error:
            self.discard()
            logger.warning("The last good weights of the checkpoint could not be written: %s", error)
            return False
        for name, step in state["steps"].items():
            setattr(self, name, step)
        return True

    def save(self, step: int) -> None:
        """
        Save the present weights as the candidate. If that fails there is no candidate, and the first time a warning.

        :param step: present step
        """
        self.candidate_step = step
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._candidate.open("w+b") as file:  # given a path, SB3 would leave the file open after an error
                self._model.save(file)
        except (OSError, TypeError, AttributeError, pickle.PicklingError) as error:  # full disk; not picklable
            self.discard()
            if not self._warned:
                self._warned = True
                logger.warning("The weights of step %d could not be saved: %s", step, error)

    def promote(self) -> None:
        """Make the candidate, if there is one, the last good weights."""
        if self._candidate.exists():
            os.replace(self._candidate, self.path)
            self._good_step = self.candidate_step

    def discard(self) -> None:
        """Delete the candidate, which may have diverged already; the wait for the next one begins again."""
        with contextlib.suppress(OSError):
            self._candidate.unlink(missing_ok=True)
        self.candidate_step = self._model.num_timesteps

    def restore(self) -> int | None:
        """:return: step of the weights that the model has now; None if none were saved, so that nothing has changed"""
        if self._good_step is None:
            return None
        _, parameters, variables = load_from_zip_file(self.path, device=self._model.device)
        self._model.set_parameters(parameters, exact_match=True, device=self._model.device)
        for name, saved in (variables or {}).items():
            recursive_getattr(self._model, name).data = saved.data
        return self._good_step
