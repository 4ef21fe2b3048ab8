"""Exact checkpoints and resume."""
