"""Features extractors and policies; installed as ``sb3_carla.policies``."""

from sb3_carla.policies.extractor import LayerNormNatureCNN
from sb3_carla.policies.td3 import LayerNormCnnPolicy

__all__ = ["LayerNormCnnPolicy", "LayerNormNatureCNN"]
