"""
What makes rl-zoo3 find the environment, our TD3 and our hyperparameters, with no further flag.

``python -m rl_zoo3.train --algo td3 --env CarlaLane-v0`` works because rl-zoo3 imports a top-level module called
``custom_envs`` wherever there is one (``rl_zoo3/import_envs.py``, beside pybullet, highway-env and the others). Ours is
``sb3_carla/zoo_hook/``; it calls :func:`install`. So does ``--gym-packages sb3_carla``, through ``import sb3_carla``.

The zoo has a hook for environments, but none for algorithms and default hyperparameters. So eight methods of
``rl_zoo3.exp_manager.ExperimentManager`` (as of 2.9.2) are wrapped. For every environment that is not ours, a wrapper
calls the original and does nothing else.

1. ``__init__``: without ``--conf-file`` the zoo reads its own ``hyperparams/td3.yml``.
   For ours: the file in ``sb3_carla.hyperparams``, and a word of :func:`presets` after ``--conf-file`` stands for its
   file.
2. ``read_hyperparameters``: the zoo *replaces* the file's ``env_kwargs`` by ``--env-kwargs``, and evaluates with no
   ``env_kwargs`` at all if they stand in the file alone. For ours: the command line goes over the file key by key, also
   within ``control`` and ``server``; evaluation uses the result without the start curriculum (``--eval-env-kwargs``
   over it), and so does ``args.yml``, because that is where ``rl_zoo3.enjoy`` and ``record_video`` look. ``vec_env:
   supervised`` in the file (or ``-params``) has the environments in processes of their own,
   :class:`sb3_carla.SupervisedVecEnv`.
3. ``setup_experiment`` and ``hyperparameters_optimization``: both look the class up in the shared dict ``ALGOS`` (a new
   model, ``--trained-agent``, each trial). For ours: the entry is swapped while they run, and put back.
4. ``hyperparameters_optimization``: the zoo's search space knows none of our options, lets a trial's ``policy_kwargs``
   replace the file's, and judges by the return. For ours, while it runs: the space and the lane score of
   :mod:`sb3_carla.zoo.search`.
5. ``create_log_folder``: two runs that begin at the same moment get the same number. For ours: a folder each.
6. ``create_callbacks``: for ours ``--save-freq`` also writes checkpoints from which a training goes on exactly,
   :mod:`sb3_carla.checkpointing.checkpoints`, also at its end, to ``checkpoints/`` in the run's folder; of a training
   that goes on, to where they were, so that the same command takes it up however often it is killed. A full disk is a
   warning.
7. ``_load_pretrained_agent`` and ``learn``: the zoo loads a model and counts from 0. For ours, after
   ``-i .../checkpoints/latest/model.zip`` the training goes on where it was, up to the ``n_timesteps`` of the file or
   ``-n``, with the hyperparameters that it had. Any other model continues as the zoo has it.

``rl_zoo3.enjoy`` and ``record_video`` need nothing but the registered environment: a model that
:class:`sb3_carla.TD3` saved loads and plays as ``stable_baselines3.TD3`` as well.
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

_PATCHED = "__sb3_carla__"  # set on a wrapper, so that a second install() leaves it alone
_EXP_MANAGER = "rl_zoo3.exp_manager"
_PARAMETERS = ("args", "algo", "env_id", "config")


def install() -> None:
    """
    Register the environments and hook into rl-zoo3. Calling it again changes nothing.

    :raises ZooPatchError: if the installed rl-zoo3 lacks what is hooked into
    """
    importlib.import_module("sb3_carla")  # registers
    manager = _manager_class()
    for name, wrapper in _WRAPPERS.items():
        original = getattr(manager, name)
        if not hasattr(original, _PATCHED):
            patched = functools.wraps(original)(wrapper(original))
            setattr(patched, _PATCHED, True)
            setattr(manager, name, patched)


def _manager_class() -> Any:
    """
    :return: rl-zoo3's ``ExperimentManager``, with all that the wrappers rely on
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
            " Install a version that has (`pip install 'rl-zoo3>=2.7,<3'`), or uninstall sb3-carla."
        )
    return manager


def _complete_exp_manager() -> Any:
    """
    :return: the module ``rl_zoo3.exp_manager``, executed to its end

    ``rl_zoo3.train`` and ``enjoy`` import ``import_envs``, and so us, before ``exp_manager``. Where ``exp_manager``
    comes first (``rl_zoo3.record_video``), it imports ``import_envs`` half way, and has no class yet to hook into. Then
    a second, complete copy takes its place in ``sys.modules``: what stands there when a module's execution ends is what
    importers get (Python reference, "The import system", section "Loading").
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
    """Whether the zoo finds hyperparameters there."""
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
        self._asked = dict(saved)
        # The start curriculum is for training alone.
        anywhere = {**merged, "start_curriculum": 0.0} if "start_curriculum" in merged else merged
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
        with _swapped(_tables().ALGOS, self.algo, algorithm(self.algo)):
            return original(self)

    return setup_experiment


def _with_our_search(original: Callable[..., Any]) -> Callable[..., Any]:
    def hyperparameters_optimization(self: Any) -> Any:
        if not _replaces(self):
            return original(self)
        search, tables, from_file = importlib.import_module("sb3_carla.zoo.search"), _tables(), dict(self._hyperparams)

        def sample(trial: Any, *unused: Any) -> dict[str, Any]:
            return dict(search.sample_td3(trial, from_file))

        with ExitStack() as stack:
            stack.enter_context(_swapped(tables.ALGOS, self.algo, algorithm(self.algo)))
            stack.enter_context(_swapped(tables.HYPERPARAMS_SAMPLER, self.algo, sample))
            stack.enter_context(_swapped(vars(tables), "TrialEvalCallback", search.LaneTrialCallback))
            return original(self)

    return hyperparameters_optimization


def _with_exact_checkpoints(original: Callable[..., None]) -> Callable[..., None]:
    def create_callbacks(self: Any) -> None:
        if not _replaces(self):
            original(self)
            return
        ours = importlib.import_module("sb3_carla.callbacks.checkpoint")
        with _swapped(vars(_tables()), "CheckpointCallback", ours.ModelCheckpointCallback):
            original(self)
        if self.save_freq > 0:
            # The zoo has divided its own by the number of environments by now.
            every, folder = self.save_freq * self.n_envs, _continued(self) or Path(self.save_path) / "checkpoints"
            self.callbacks.append(ours.ExactCheckpointCallback(every, folder, verbose=1))

    return create_callbacks


def _continued(manager: Any) -> Path | None:
    """Folder of the checkpoints whose last one is taken up: theirs is the training that goes on, however often."""
    checkpoints, given = importlib.import_module("sb3_carla.checkpointing.checkpoints"), Path(manager.trained_agent)
    if manager.continue_training and checkpoints.is_checkpoint(given) and given.parent.name == checkpoints.LATEST:
        return given.parent.parent
    return None


def _with_a_folder_of_its_own(original: Callable[..., None]) -> Callable[..., None]:
    def create_log_folder(self: Any) -> None:
        while _replaces(self):
            try:
                Path(self.save_path).mkdir(parents=True)
                break
            except FileExistsError:  # of a run that began at the same moment
                number = _tables().get_latest_run_id(self.log_path, self.env_name) + 1
                self.save_path = str(Path(self.log_path) / f"{self.env_name}_{number}")
                self.params_path = f"{self.save_path}/{self.env_name}"
        original(self)

    return create_log_folder


def _with_exact_resume(original: Callable[..., Any]) -> Callable[..., Any]:
    def _load_pretrained_agent(self: Any, hyperparams: dict[str, Any], env: Any) -> Any:
        checkpoints = importlib.import_module("sb3_carla.checkpointing.checkpoints")
        if not _replaces(self) or not checkpoints.is_checkpoint(self.trained_agent):
            return original(self, hyperparams, env)
        step = Path(self.trained_agent).resolve().parent
        model, self._kept = checkpoints.Checkpoints(step.parent).resume(
            algorithm(self.algo), env, step,
            tensorboard_log=self.tensorboard_log, verbose=self.verbose, device=self.device,
        )  # fmt: skip
        print(f"Going on at step {model.num_timesteps}")
        _tell_changes(step.parent.parent, self._asked)
        return model

    return _load_pretrained_agent


def _tell_changes(run: Path, asked: dict[str, Any]) -> None:
    """Say what of a file and a command line has no effect on a training that goes on, and what has one."""
    around = set(importlib.import_module("sb3_carla.zoo.hyperparameters").AROUND_THE_MODEL)
    kept, changed = [], []
    for key, (had, wanted) in importlib.import_module("sb3_carla.zoo.runs").changed_hyperparameters(run, asked).items():
        if key.split(".")[0] in around:
            changed.append(f"{key}: {wanted} (before: {had})")
        elif key != "n_timesteps":
            kept.append(f"{key}: {had} (not {wanted})")
    if kept:
        print(f"With the hyperparameters that it had, not those of the file and the command line: {', '.join(kept)}")
    if changed:
        print(f"Otherwise than before, so that it is another training from here on: {', '.join(changed)}")


def _with_learning_to_the_end(original: Callable[..., None]) -> Callable[..., None]:
    def learn(self: Any, model: Any) -> None:
        kept = getattr(self, "_kept", None)
        original(self, model if kept is None else _Continued(model, kept))

    return learn


class _Continued:
    """
    A resumed model as the zoo uses it: ``learn`` goes on to the end instead of beginning again.

    :param model: the model
    :param kept: by the callbacks of the training that is continued
    """

    def __init__(self, model: Any, kept: list[Any]) -> None:
        self._model, self._kept = model, kept
        self.env, self.policy = model.env, model.policy

    def learn(self, total_timesteps: int, **kwargs: Any) -> None:
        """:param total_timesteps: those before the checkpoint included"""
        checkpoints = importlib.import_module("sb3_carla.checkpointing.checkpoints")
        checkpoints.restore_callbacks(kwargs.get("callback"), self._kept)
        left = max(0, int(total_timesteps) - self._model.num_timesteps)  # with 0 the callbacks begin and end
        self._model.learn(left, reset_num_timesteps=False, **kwargs)


_WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "__init__": _with_default_config,
    "read_hyperparameters": _with_merged_env_kwargs,
    "setup_experiment": _with_our_algorithm,
    "hyperparameters_optimization": _with_our_search,
    "create_log_folder": _with_a_folder_of_its_own,
    "create_callbacks": _with_exact_checkpoints,
    "_load_pretrained_agent": _with_exact_resume,
    "learn": _with_learning_to_the_end,
}
"""By the name of the method."""


def _replaces(manager: Any) -> bool:
    return manager.algo in ALGORITHMS and is_ours(manager.env_name.gym_id)


def _tables() -> Any:
    """The module whose dicts ``ALGOS`` and ``HYPERPARAMS_SAMPLER`` the zoo shares between all its experiments."""
    return sys.modules[_EXP_MANAGER]


@contextmanager
def _swapped(table: dict[str, Any], key: str, value: Any) -> Iterator[None]:
    stock, table[key] = table[key], value
    try:
        yield
    finally:
        table[key] = stock
