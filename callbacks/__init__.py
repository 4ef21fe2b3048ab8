"""SB3 callbacks that log what networks do, detect divergence and save exact checkpoints: ``sb3_carla.callbacks``."""

from sb3_carla.callbacks.action_saturation import ActionSaturationCallback
from sb3_carla.callbacks.agent_statistics import AgentStatisticsCallback
from sb3_carla.callbacks.checkpoint import ExactCheckpointCallback
from sb3_carla.callbacks.dashboard import DashboardCallback
from sb3_carla.callbacks.diagnostics import DiagnosticsCallback
from sb3_carla.callbacks.divergence_guard import DivergenceGuard
from sb3_carla.callbacks.dormant_neurons import DormantNeuronsCallback
from sb3_carla.callbacks.driving_metrics import DrivingMetricsCallback
from sb3_carla.callbacks.feature_statistics import FeatureStatisticsCallback
from sb3_carla.callbacks.gradient_norm import GradientNormCallback
from sb3_carla.callbacks.value_bias import ValueBiasCallback

__all__ = [
    "ActionSaturationCallback",
    "AgentStatisticsCallback",
    "DashboardCallback",
    "DiagnosticsCallback",
    "DivergenceGuard",
    "DormantNeuronsCallback",
    "DrivingMetricsCallback",
    "ExactCheckpointCallback",
    "FeatureStatisticsCallback",
    "GradientNormCallback",
    "ValueBiasCallback",
]
