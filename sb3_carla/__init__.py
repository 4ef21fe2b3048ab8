"""
Lane keeping from a camera in CARLA, learnt with Stable-Baselines3's TD3.

Importing this package registers ``CarlaLane-v0`` with Gymnasium and, where RL Zoo is loaded, with it; nothing else
happens, and nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

from gymnasium.envs.registration import register, registry

__all__ = ["TD3", "CarlaLaneEnv", "PurePursuitDriver", "__version__"]

__version__ = "0.1.0"

_LAZY = {
    "TD3": "sb3_carla.td3",
    "CarlaLaneEnv": "sb3_carla.env",
    "PurePursuitDriver": "sb3_carla.driver",
}

if "CarlaLane-v0" not in registry:
    register(id="CarlaLane-v0", entry_point="sb3_carla.env:CarlaLaneEnv")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
