"""Exact checkpoints of a training: save, verify, resume."""
