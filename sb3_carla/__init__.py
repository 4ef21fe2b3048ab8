"""
Lane keeping from a camera in CARLA, learnt with Stable-Baselines3's TD3.

Importing this package registers ``CarlaLane-v0`` and ``CarlaRecorded-v0`` with Gymnasium, sets ``HOME`` if it is not
set, and hooks into rl-zoo3 if that is loaded (:mod:`sb3_carla.zoo.hooks`). PyTorch, CARLA and OpenCV are imported only
when they are used.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register, registry

if TYPE_CHECKING:
    from sb3_carla.envs.carla_lane import CarlaLaneEnv
    from sb3_carla.envs.carla_recorded import CarlaRecordedEnv
    from sb3_carla.envs.driver import PurePursuitDriver
    from sb3_carla.envs.vec_env import SupervisedVecEnv
    from sb3_carla.td3.frame_buffer import FrameReplayBuffer
    from sb3_carla.td3.td3 import TD3

__all__ = [
    "TD3", "CarlaLaneEnv", "CarlaRecordedEnv", "FrameReplayBuffer", "PurePursuitDriver", "SupervisedVecEnv",
    "__version__",
]  # fmt: skip

__version__ = "0.1.0"

_LAZY = {
    "TD3": "sb3_carla.td3.td3",
    "CarlaLaneEnv": "sb3_carla.envs.carla_lane",
    "CarlaRecordedEnv": "sb3_carla.envs.carla_recorded",
    "FrameReplayBuffer": "sb3_carla.td3.frame_buffer",
    "PurePursuitDriver": "sb3_carla.envs.driver",
    "SupervisedVecEnv": "sb3_carla.envs.vec_env",
}

# Without HOME, as in services and small containers, `import carla` ends the process with a segmentation fault.
os.environ.setdefault("HOME", os.path.expanduser("~") if os.path.expanduser("~") != "~" else "/")

if "CarlaLane-v0" not in registry:
    register(id="CarlaLane-v0", entry_point="sb3_carla.envs.carla_lane:CarlaLaneEnv")
if "CarlaRecorded-v0" not in registry:
    register(id="CarlaRecorded-v0", entry_point="sb3_carla.envs.carla_recorded:CarlaRecordedEnv")

# With `--gym-packages sb3_carla`, or a user's own `custom_envs` that imports us, our own hook has not run.
if "rl_zoo3" in sys.modules:
    importlib.import_module("sb3_carla.zoo.hooks").install()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
