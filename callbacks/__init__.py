"""SB3 callbacks that show what a network does, on any SB3 algorithm; installed as ``sb3_carla.callbacks``."""

from sb3_carla.callbacks.driving_metrics import DrivingMetricsCallback
from sb3_carla.callbacks.feature_statistics import FeatureStatisticsCallback
from sb3_carla.callbacks.gradient_norm import GradientNormCallback

__all__ = ["DrivingMetricsCallback", "FeatureStatisticsCallback", "GradientNormCallback"]
