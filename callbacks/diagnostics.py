"""All diagnostic callbacks in one."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from sb3_carla.callbacks.action_saturation import ActionSaturationCallback
from sb3_carla.callbacks.agent_statistics import AgentStatisticsCallback
from sb3_carla.callbacks.dashboard import DashboardCallback
from sb3_carla.callbacks.divergence_guard import DivergenceGuard
from sb3_carla.callbacks.dormant_neurons import DormantNeuronsCallback
from sb3_carla.callbacks.driving_metrics import DrivingMetricsCallback
from sb3_carla.callbacks.feature_statistics import FeatureStatisticsCallback
from sb3_carla.callbacks.gradient_norm import GradientNormCallback
from sb3_carla.callbacks.value_bias import ValueBiasCallback

__all__ = ["DiagnosticsCallback"]


class DiagnosticsCallback(CallbackList):
    """
    Logs what the networks do and how the policy drives, and watches for divergence.

    :param guard: response of :class:`DivergenceGuard`: "warn" never changes the training, "rollback" and "stop" do if
        it diverges; None leaves the guard out
    """

    def __init__(self, guard: str | None = "warn") -> None:
        callbacks: list[BaseCallback] = [
            GradientNormCallback(),
            FeatureStatisticsCallback(),
            DormantNeuronsCallback(),
            ActionSaturationCallback(),
            ValueBiasCallback(),
            AgentStatisticsCallback(),
            DrivingMetricsCallback(),
            DashboardCallback(),
        ]
        super().__init__(callbacks if guard is None else [*callbacks, DivergenceGuard(guard)])
