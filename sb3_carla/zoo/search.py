"""
Hyperparameter search with rl-zoo3's ``-optimize``: our search space, and lane keeping as the objective.

The zoo's own TD3 space has none of our options, and its objective is the return, which depends on the reward weights.
Ours samples the options that matter in the ablation, leaves the others as the file has them, and maximises

    lane score = route completion - 0.5 / m x lateral deviation

averaged over the evaluation's episodes. A complete route at 0.2 m scores 0.9, half a route at 0 m scores 0.5. Pruning
uses the same number. Optuna stores both terms as user attributes of the trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import VecEnv

__all__ = ["LaneTrialCallback", "lane_score", "sample_td3"]

WEIGHT_PER_METRE = 0.5
"""Weight of the lateral deviation: a metre costs as much as half a route [1/m]."""


def lane_score(route_completion: float, lateral_deviation: float) -> float:
    """
    :param route_completion: share of the route that was driven, 0 to 1
    :param lateral_deviation: mean distance from the lane's centre [m]
    :return: 1 for a perfect episode
    """
    return route_completion - WEIGHT_PER_METRE * lateral_deviation


def sample_td3(trial: optuna.Trial, from_file: Mapping[str, Any]) -> dict[str, Any]:
    """
    Hyperparameters of a trial.

    :param trial: Optuna's
    :param from_file: hyperparameters of the file; ``policy_kwargs`` and the noise schedule are changed, not replaced
    :return: hyperparameters that replace those of the file
    """
    start, _, steps = from_file.get("exploration_noise") or (0.4, 0.1, 20_000)
    given, state = from_file.get("policy_kwargs", {}), from_file.get("critic_state")
    encoder = trial.suggest_categorical("encoder", ["critic", "separate", *(["actor"] if state is not None else [])])
    policy_kwargs = {
        **given,
        "encoder": encoder,
        "state_size": given.get("state_size", 0) if encoder == "actor" else 0,
        "features_extractor_kwargs": {"features_dim": trial.suggest_categorical("features_dim", [32, 64, 128, 512])},
    }
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-3, log=True),
        "gamma": 1.0 - trial.suggest_float("one_minus_gamma", 0.01, 0.1, log=True),
        "tau": trial.suggest_float("tau", 0.002, 0.05, log=True),
        "n_steps": trial.suggest_int("n_steps", 1, 5),
        "batch_size": trial.suggest_categorical("batch_size", [64, 128, 256]),
        "gradient_steps": trial.suggest_categorical("gradient_steps", [1, 2, 4]),
        "random_shift": trial.suggest_categorical("random_shift", [0, 1, 2, 4]),
        "exploration_noise": [start, trial.suggest_float("last_noise", 0.02, 0.2, log=True), steps],
        "policy_kwargs": policy_kwargs,
        "critic_state": state if encoder == "actor" else None,
        "state_prediction": from_file.get("state_prediction", 0.0) if encoder == "actor" else 0.0,
    }


class LaneTrialCallback(EvalCallback):
    """
    Evaluates a trial by the lane score, and prunes it.

    It replaces ``rl_zoo3.callbacks.TrialEvalCallback``, and has its arguments and attributes.

    :param eval_env: environments to evaluate in; the last info of an episode has ``route_completion`` and
        ``lateral_deviation_m``
    :param trial: Optuna's
    :param kwargs: of SB3's ``EvalCallback``
    """

    def __init__(self, eval_env: VecEnv, trial: optuna.Trial, **kwargs: Any) -> None:
        super().__init__(eval_env, verbose=0, **kwargs)
        self.trial = trial
        self.eval_idx = 0
        self.is_pruned = False
        self._episodes: list[tuple[float, float]] = []

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        """Called by SB3's evaluation after every step of every environment."""
        super()._log_success_callback(locals_, globals_)
        if locals_["done"]:
            info = locals_["info"]
            if not info.get("server_restarted"):  # such an episode says nothing about the policy
                self._episodes.append((info["route_completion"], info.get("lateral_deviation_m", 0.0)))

    def _on_step(self) -> bool:
        if self.eval_freq <= 0 or self.n_calls % self.eval_freq != 0:
            return True
        self._episodes.clear()
        before = self.last_mean_reward
        super()._on_step()
        if not self._episodes:
            self.last_mean_reward = before
            return True
        completion, deviation = np.mean(self._episodes, axis=0)
        self.last_mean_reward = lane_score(float(completion), float(deviation))  # the zoo passes it to Optuna
        self.trial.set_user_attr("route_completion", float(completion))
        self.trial.set_user_attr("lateral_deviation_m", float(deviation))
        self.eval_idx += 1
        self.trial.report(self.last_mean_reward, self.eval_idx)
        self.is_pruned = self.trial.should_prune()
        return not self.is_pruned
