"""Evaluation on fixed lists of scenarios: episodes, metrics with confidence intervals, and reports."""

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
from sb3_carla.evaluation.metrics import METRICS, Estimate, Metric, estimate_metrics
from sb3_carla.evaluation.report import Evaluation, evaluate

__all__ = [
    "FIRST_SEED",
    "METRICS",
    "Case",
    "Env",
    "EpisodeRecord",
    "Estimate",
    "Evaluation",
    "Metric",
    "Policy",
    "Trace",
    "cases",
    "drive",
    "estimate_metrics",
    "evaluate",
    "model_policy",
    "random_policy",
    "run_episode",
    "scripted_policy",
]
