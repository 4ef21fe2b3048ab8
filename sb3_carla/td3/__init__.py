"""The algorithm: train step, replay buffer, exploration, augmentation."""
