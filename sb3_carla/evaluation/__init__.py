"""Evaluation on fixed lists of scenarios: episodes, scores with confidence intervals, and reports."""

from sb3_carla.evaluation.episodes import (
    FIRST_SEED,
    Case,
    Env,
    EpisodeRecord,
    Policy,
    Trace,
    cases,
    drive,
    model_policy,
    random_policy,
    run_episode,
    scripted_policy,
)
from sb3_carla.evaluation.report import Evaluation, evaluate
from sb3_carla.evaluation.scores import SCORES, Score, scores

__all__ = [
    "FIRST_SEED",
    "SCORES",
    "Case",
    "Env",
    "EpisodeRecord",
    "Evaluation",
    "Policy",
    "Score",
    "Trace",
    "cases",
    "drive",
    "evaluate",
    "model_policy",
    "random_policy",
    "run_episode",
    "scores",
    "scripted_policy",
]
