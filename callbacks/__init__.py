"""SB3 callbacks that show what a network does; installed as ``sb3_carla.callbacks``. Each works on any SB3 algorithm."""

from sb3_carla.callbacks.driving_metrics import DrivingMetricsCallback
from sb3_carla.callbacks.feature_statistics import FeatureStatisticsCallback
from sb3_carla.callbacks.gradient_norm import GradientNormCallback

__all__ = ["DrivingMetricsCallback", "FeatureStatisticsCallback", "GradientNormCallback"]
