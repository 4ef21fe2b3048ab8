"""The environment: Gymnasium's contract, what an episode is made of, vector environments."""
