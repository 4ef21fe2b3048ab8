"""Hyperparameters as rl-zoo YAML: data only."""
