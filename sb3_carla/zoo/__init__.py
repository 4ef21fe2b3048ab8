"""Makes rl-zoo3 find our environment, algorithm and hyperparameters; reads what its runs leave."""
