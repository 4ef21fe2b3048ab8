"""
rl-zoo3's hook, installed as the top-level ``custom_envs``, which ``rl_zoo3/import_envs.py`` imports if there is one.

A ``custom_envs`` of the user's own in the working directory comes first on ``sys.path`` and wins; then
``--gym-packages sb3_carla`` does the same.
"""

from sb3_carla.zoo.hooks import install

install()
