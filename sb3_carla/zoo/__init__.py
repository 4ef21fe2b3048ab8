"""What makes rl-zoo3 find environment, algorithm and hyperparameters."""
