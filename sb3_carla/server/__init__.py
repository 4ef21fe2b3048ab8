"""The server: CARLA's wire protocol in front of the engine in ``sb3_carla.simulator``."""
