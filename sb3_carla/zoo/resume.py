"""How rl-zoo3's ``-i CHECKPOINT/model.zip`` continues a training where it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_carla.checkpointing.callback_states import restore_callbacks
from sb3_carla.checkpointing.checkpoints import LATEST, Checkpoints, is_checkpoint
from sb3_carla.zoo.algorithms import algorithm
from sb3_carla.zoo.hyperparameters import ENVIRONMENT_KEYS
from sb3_carla.zoo.run_folders import changed_hyperparameters

__all__ = ["ContinuedModel", "checkpoint_folder", "is_checkpoint", "resume"]


class ContinuedModel:
    """
    A resumed model whose ``learn`` counts the steps before the checkpoint, as rl-zoo3 does not.

    :param model: the model
    :param callback_states: of the training that is continued
    """

    def __init__(self, model: Any, callback_states: list[Any]) -> None:
        self._model, self._callback_states = model, callback_states
        self.env, self.policy = model.env, model.policy

    def learn(self, total_timesteps: int, **kwargs: Any) -> None:
        """
        :param total_timesteps: steps of the whole training, those before the checkpoint included
        :param kwargs: further arguments of the model's ``learn``
        """
        restore_callbacks(kwargs.get("callback"), self._callback_states)
        left = max(0, int(total_timesteps) - self._model.num_timesteps)  # with 0 the callbacks begin and end
        self._model.learn(left, reset_num_timesteps=False, **kwargs)


def resume(manager: Any, env: Any, requested: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """
    Load the checkpoint that ``-i`` names, and print which of the requested hyperparameters have no effect.

    :param manager: rl-zoo3's ``ExperimentManager``
    :param env: new environments
    :param requested: hyperparameters of the file and the command line
    :return: the model, and its callbacks' states
    """
    step = Path(manager.trained_agent).resolve().parent
    model, callback_states = Checkpoints(step.parent).resume(
        algorithm(manager.algo), env, step,
        tensorboard_log=manager.tensorboard_log, verbose=manager.verbose, device=manager.device,
    )  # fmt: skip
    print(f"Resuming at step {model.num_timesteps}")
    _print_changes(step.parent.parent, requested)
    return model, callback_states


def _print_changes(run: Path, requested: Mapping[str, Any]) -> None:
    kept, changed = [], []
    for key, (before, wanted) in changed_hyperparameters(run, requested).items():
        if key.split(".")[0] in ENVIRONMENT_KEYS:
            changed.append(f"{key}: {wanted} (before: {before})")
        elif key != "n_timesteps":
            kept.append(f"{key}: {before} (not {wanted})")
    if kept:
        print(f"The checkpoint's hyperparameters stay; these requested ones have no effect: {', '.join(kept)}")
    if changed:
        print(f"These settings change, so that the training does not continue bit for bit: {', '.join(changed)}")


def checkpoint_folder(manager: Any) -> Path | None:
    """
    :param manager: rl-zoo3's ``ExperimentManager``
    :return: folder of the checkpoints to continue after ``-i FOLDER/latest/model.zip``: new ones go there too, so that
        the same command continues the training again; None otherwise
    """
    model = Path(manager.trained_agent)
    if manager.continue_training and is_checkpoint(model) and model.parent.name == LATEST:
        return model.parent.parent
    return None
