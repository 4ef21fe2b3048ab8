"""Event files with made-up values of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

STEPS = 50_000
TIMES = np.linspace(0.0, 1.0, 80)


def good_log() -> dict[str, np.ndarray]:
    """Tag -> values of a good training, at 80 steps up to 50 000."""
    rng = np.random.default_rng(0)
    noise = lambda: rng.normal(1.0, 0.05, len(TIMES))  # noqa: E731
    q = 25.0 * TIMES * noise()
    tags = {
        "debug/cnn_feature_l2_norm": 16.0 * noise(), "train/q1_value": q, "train/q2_value": q + 0.01,
        "train/target_Q_mean": q, "train/critic_loss": (1.0 + 4.0 * TIMES) * noise(), "train/actor_loss": -q,
        "debug/td_error_q1": (0.5 + 0.5 * TIMES) * noise(), "train/episode_reward": 200.0 * np.sqrt(TIMES) * noise(),
        "debug/td_error_q2": (0.5 + 0.5 * TIMES) * noise(), "train/episode_length": 300.0 * np.sqrt(TIMES) * noise(),
    }  # fmt: skip
    for network, limit in (("actor", 1.0), ("critic", 10.0)):
        tags[f"debug/{network}_grad_norm_AFTER_clip"] = np.full(len(TIMES), limit)
        tags[f"debug/{network}_cnn_grad_norm_AFTER_clip"] = 0.9 * limit * np.ones(len(TIMES))
        tags[f"debug/{network}_mlp_grad_norm_AFTER_clip"] = 0.4 * limit * noise()
        tags[f"debug/{network}_grad_clip_ratio"] = np.minimum(0.8 * noise(), 1.0)
    return tags


def write_log(folder: Path, tags: dict[str, np.ndarray]) -> Path:
    """Write one event file with these values, at steps up to 50 000, or at those of ``tags["steps"]``."""
    steps = tags.pop("steps", STEPS * TIMES).astype(int)
    writer = SummaryWriter(str(folder))
    for tag, values in tags.items():
        for step, value in zip(steps, values, strict=False):
            writer.add_scalar(tag, float(value), int(step))
    writer.close()
    return max(folder.glob("*tfevents*"), key=lambda path: path.stat().st_mtime_ns)
