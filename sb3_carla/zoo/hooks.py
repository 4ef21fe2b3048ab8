"""
Makes rl-zoo3 find the environment, our TD3 and our hyperparameters, without a further option.

``python -m rl_zoo3.train --algo td3 --env CarlaLane-v0`` works because rl-zoo3 imports a top-level module called
``custom_envs`` if there is one (``rl_zoo3/import_envs.py``, beside pybullet, highway-env and the others). Ours is
``sb3_carla/zoo_hook/``; it calls :func:`install`. So does ``--gym-packages sb3_carla``, through ``import sb3_carla``.

rl-zoo3 has a hook for environments, but none for algorithms and default hyperparameters. Therefore eight methods of
``rl_zoo3.exp_manager.ExperimentManager`` (as of 2.9.2) are wrapped. For an environment that is not ours, a wrapper only
calls the original.

1. ``__init__``: without ``--conf-file`` the zoo reads its own ``hyperparams/td3.yml``.
   For ours: it reads the file in ``sb3_carla.hyperparams``; the name of a preset after ``--conf-file`` stands for the
   preset's file.
2. ``read_hyperparameters``: the zoo *replaces* the file's ``env_kwargs`` by ``--env-kwargs``, and evaluates without
   ``env_kwargs`` if only the file has them. For ours: options of the command line replace those of the file key by
   key, also within ``control`` and ``server``. Evaluation uses the result without the start curriculum
   (``--eval-env-kwargs`` over it), and so does ``args.yml``, which ``rl_zoo3.enjoy`` and ``record_video`` read.
   ``vec_env: supervised`` in the file (or ``-params``) runs each environment in its own process,
   :class:`sb3_carla.SupervisedVecEnv`.
3. ``setup_experiment`` and ``hyperparameters_optimization``: both look the class up in the shared dict ``ALGOS`` (a new
   model, ``--trained-agent``, each trial). For ours: the entry is replaced while they run.
4. ``hyperparameters_optimization``: the zoo's search space has none of our options, lets a trial's ``policy_kwargs``
   replace the file's, and maximises the return. For ours: the search space and the lane score of
   :mod:`sb3_carla.zoo.search`.
5. ``create_log_folder``: two runs that begin at the same moment get the same number. For ours: one folder each.
6. ``create_callbacks``: for ours ``--save-freq`` also writes exact checkpoints
   (:mod:`sb3_carla.checkpointing.checkpoints`) to ``checkpoints/`` in the run's folder, the last one at the training's
   end. A resumed training writes to the folder it was resumed from, so that the same command resumes it again, however
   often it is killed. A full disk is a warning.
7. ``_load_pretrained_agent`` and ``learn``: the zoo loads a model and counts from 0. For ours, after
   ``-i .../checkpoints/latest/model.zip`` the training continues where it was, up to the ``n_timesteps`` of the file or
   ``-n``, with its own hyperparameters. The zoo continues any other model as it always does.

``rl_zoo3.enjoy`` and ``record_video`` need only the registered environment: ``stable_baselines3.TD3`` loads and plays
a model that :class:`sb3_carla.TD3` saved.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sb3_carla.errors import ZooPatchError
from sb3_carla.zoo.algorithms import ALGORITHMS, algorithm, default_config, is_ours, presets

__all__ = ["install"]

_PATCHED = "__sb3_carla__"  # marks a wrapper, so that a second install() does not wrap it again
_EXP_MANAGER = "rl_zoo3.exp_manager"
_PARAMETERS = ("args", "algo", "env_id", "config")


def install() -> None:
    """
    Wrap the methods of rl-zoo3's ``ExperimentManager``. Calling it again changes nothing.

    :raises ZooPatchError: if the installed rl-zoo3 lacks something that the wrappers use
    """
    manager = _manager_class()
    for name, wrapper in _WRAPPERS.items():
        original = getattr(manager, name)
        if not hasattr(original, _PATCHED):
            patched = functools.wraps(original)(wrapper(original))
            setattr(patched, _PATCHED, True)
            setattr(manager, name, patched)


def _manager_class() -> Any:
    """
    :return: rl-zoo3's ``ExperimentManager``, which has everything that the wrappers use
    :raises ZooPatchError: naming what is missing
    """
    try:
        module = _complete_exp_manager()
    except ImportError as error:
        raise ZooPatchError(f"sb3_carla cannot hook into rl-zoo3: importing {_EXP_MANAGER} failed: {error}") from error
    manager = getattr(module, "ExperimentManager", None)
    missing = [f"ExperimentManager.{name}" for name in _WRAPPERS if not callable(getattr(manager, name, None))]
    if manager is not None:
        known = inspect.signature(manager.__init__).parameters
        missing += [f"ExperimentManager.__init__({name}=)" for name in _PARAMETERS if name not in known]
    missing += [
        name for name in ("TrialEvalCallback", "CheckpointCallback", "get_latest_run_id") if not hasattr(module, name)
    ]
    for table in ("ALGOS", "HYPERPARAMS_SAMPLER"):
        missing += [f"{table}[{name!r}]" for name in ALGORITHMS if name not in getattr(module, table, {})]
    if missing:
        version = getattr(sys.modules["rl_zoo3"], "__version__", "of unknown version")
        raise ZooPatchError(
            f"sb3_carla cannot hook into rl-zoo3 {version}: {_EXP_MANAGER} has no {', '.join(missing)}."
            " Install a version that has it (`pip install 'rl-zoo3>=2.7,<3'`), or uninstall sb3-carla."
        )
    return manager


def _complete_exp_manager() -> Any:
    """
    :return: the module ``rl_zoo3.exp_manager``, executed to its end

    ``rl_zoo3.train`` and ``enjoy`` import ``import_envs``, and so this module, before ``exp_manager``.
    ``rl_zoo3.record_video`` imports ``exp_manager`` first, which imports ``import_envs`` before it defines its class.
    Then a second, complete copy replaces it in ``sys.modules``: importers get the module that stands there when the
    first copy's execution ends (Python reference, "The import system", section "Loading").
    """
    module = sys.modules.get(_EXP_MANAGER)
    if getattr(getattr(module, "__spec__", None), "_initializing", False) and not hasattr(module, "ExperimentManager"):
        del sys.modules[_EXP_MANAGER]
    return importlib.import_module(_EXP_MANAGER)


def _with_default_config(original: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(original)

    def __init__(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments
        if is_ours(given["env_id"]):
            word = given.get("config")
            known = {} if word is None else presets(given["algo"])
            if word is not None and word not in known and not _is_config(word):
                choices = ", ".join(sorted(known))
                raise ValueError(
                    f"--conf-file: expected a .yml or .py file, a module, or one of {choices}, got {word!r}"
                )
            given["config"] = default_config(given["algo"]) if word is None else known.get(word, word)
        original(*bound.args, **bound.kwargs)

    return __init__


def _is_config(word: str) -> bool:
    """Whether rl-zoo3 can read hyperparameters from it."""
    if word.endswith((".yml", ".yaml", ".py")):
        return Path(word).is_file()
    try:
        return importlib.util.find_spec(word) is not None
    except (ImportError, ValueError):
        return False


def _with_merged_env_kwargs(original: Callable[..., Any]) -> Callable[..., Any]:
    def read_hyperparameters(self: Any) -> Any:
        if not is_ours(self.env_name.gym_id):
            return original(self)
        entries = importlib.import_module("sb3_carla.zoo.hyperparameters")
        if self.config.endswith((".yml", ".yaml")):
            entries.read_hyperparameter_file(self.config)
        given, self.env_kwargs = self.env_kwargs, {}  # empty: the zoo leaves the file's env_kwargs as they are
        hyperparams, saved = original(self)
        try:
            entries.check_hyperparameters(hyperparams, algorithm(self.algo))
        except ValueError as error:
            raise ValueError(f"{self.config}: {self.env_name.gym_id}: {error}") from error
        merged = entries.merge_env_kwargs(hyperparams.get("env_kwargs", {}), given)
        hyperparams["env_kwargs"] = saved["env_kwargs"] = merged
        self._requested_hyperparams = dict(saved)
        # The start curriculum and random episodes are for training alone.
        off = {"start_curriculum": 0.0, "randomize": None}
        anywhere = {**merged, **{name: value for name, value in off.items() if name in merged}}
        self.eval_env_kwargs = entries.merge_env_kwargs(anywhere, self._eval_env_kwargs_args or {})
        self.args.env_kwargs = dict(anywhere)
        vector = hyperparams.pop("vec_env", None)
        if vector == "supervised":
            self.vec_env_class = importlib.import_module("sb3_carla.envs.vec_env").SupervisedVecEnv
        elif vector is not None:
            raise ValueError(f"vec_env: expected 'supervised', or --vec-env for the zoo's own, got {vector!r}")
        return hyperparams, saved

    return read_hyperparameters


def _with_our_algorithm(original: Callable[..., Any]) -> Callable[..., Any]:
    def setup_experiment(self: Any) -> Any:
        if not _replaces(self):
            return original(self)
        with _swapped(_exp_manager().ALGOS, self.algo, algorithm(self.algo)):
            return original(self)

    return setup_experiment


def _with_our_search(original: Callable[..., Any]) -> Callable[..., Any]:
    def hyperparameters_optimization(self: Any) -> Any:
        if not _replaces(self):
            return original(self)
        from sb3_carla.zoo import search

        zoo, from_file = _exp_manager(), dict(self._hyperparams)

        def sample(trial: Any, *unused: Any) -> dict[str, Any]:
            return dict(search.sample_td3(trial, from_file))

        with ExitStack() as stack:
            stack.enter_context(_swapped(zoo.ALGOS, self.algo, algorithm(self.algo)))
            stack.enter_context(_swapped(zoo.HYPERPARAMS_SAMPLER, self.algo, sample))
            stack.enter_context(_swapped(vars(zoo), "TrialEvalCallback", search.LaneTrialCallback))
            return original(self)

    return hyperparameters_optimization


def _with_exact_checkpoints(original: Callable[..., None]) -> Callable[..., None]:
    def create_callbacks(self: Any) -> None:
        if not _replaces(self):
            original(self)
            return
        from sb3_carla.callbacks.checkpoint import ExactCheckpointCallback, ModelCheckpointCallback
        from sb3_carla.zoo.resume import checkpoint_folder

        with _swapped(vars(_exp_manager()), "CheckpointCallback", ModelCheckpointCallback):
            original(self)
        if self.save_freq > 0:
            every = self.save_freq * self.n_envs  # the original has divided save_freq by n_envs
            folder = checkpoint_folder(self) or Path(self.save_path) / "checkpoints"
            self.callbacks.append(ExactCheckpointCallback(every, folder, verbose=1))

    return create_callbacks


def _with_unique_log_folder(original: Callable[..., None]) -> Callable[..., None]:
    def create_log_folder(self: Any) -> None:
        while _replaces(self):
            try:
                Path(self.save_path).mkdir(parents=True)
                break
            except FileExistsError:  # a run that began at the same moment has it
                number = _exp_manager().get_latest_run_id(self.log_path, self.env_name) + 1
                self.save_path = str(Path(self.log_path) / f"{self.env_name}_{number}")
                self.params_path = f"{self.save_path}/{self.env_name}"
        original(self)

    return create_log_folder


def _with_exact_resume(original: Callable[..., Any]) -> Callable[..., Any]:
    def _load_pretrained_agent(self: Any, hyperparams: dict[str, Any], env: Any) -> Any:
        from sb3_carla.zoo import resume

        if not _replaces(self) or not resume.is_checkpoint(self.trained_agent):
            return original(self, hyperparams, env)
        model, self._callback_states = resume.resume(self, env, self._requested_hyperparams)
        return model

    return _load_pretrained_agent


def _with_remaining_steps(original: Callable[..., None]) -> Callable[..., None]:
    def learn(self: Any, model: Any) -> None:
        if hasattr(self, "_callback_states"):
            from sb3_carla.zoo.resume import ContinuedModel

            model = ContinuedModel(model, self._callback_states)
        original(self, model)

    return learn


_WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "__init__": _with_default_config,
    "read_hyperparameters": _with_merged_env_kwargs,
    "setup_experiment": _with_our_algorithm,
    "hyperparameters_optimization": _with_our_search,
    "create_log_folder": _with_unique_log_folder,
    "create_callbacks": _with_exact_checkpoints,
    "_load_pretrained_agent": _with_exact_resume,
    "learn": _with_remaining_steps,
}
"""Name of the method -> function that wraps it."""


def _replaces(manager: Any) -> bool:
    """Whether our algorithm replaces the zoo's in this experiment."""
    return manager.algo in ALGORITHMS and is_ours(manager.env_name.gym_id)


def _exp_manager() -> Any:
    """``rl_zoo3.exp_manager``, whose dicts ``ALGOS`` and ``HYPERPARAMS_SAMPLER`` all experiments share."""
    return sys.modules[_EXP_MANAGER]


@contextmanager
def _swapped(table: dict[str, Any], key: str, value: Any) -> Iterator[None]:
    """Replace an entry of a dict for the duration of the context."""
    stock, table[key] = table[key], value
    try:
        yield
    finally:
        table[key] = stock
