#!/usr/bin/env python
"""
What a CUDA device makes of training: gradient steps beside stock TD3, decisions a second, agreement with the processor.

    python benchmarks/gpu.py --output results/gpu.json     # about five minutes; --skip-training: two

- A gradient step at batch 128, 256 and 1024 on 4x84x84 pictures, in turns: ``stable_baselines3.TD3("CnnPolicy")``
  eager; ours with the same two encoders and with the default's networks, each eager, with the replay buffer's frames
  on the device (``on_device``), and with ``compile_step`` (CUDA graphs) on top. Clipping and gradient norms are on in
  ours. Wall time of ten steps, the device synchronised before and after.
- Decisions a second of a whole training with the default hyperparameters, 16 and 64 environments in processes of their
  own: simulator, learner, callbacks.
- The same three updates in float32 on the processor and on the device: largest differences of losses and weights.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from train_step import Pictures

from sb3_carla import TD3, SupervisedVecEnv
from sb3_carla.callbacks import DiagnosticsCallback, GradientNormCallback
from sb3_carla.diagnostics.html import markdown_table
from sb3_carla.envs.privileged_state import PRIVILEGED_STATE_SIZE
from sb3_carla.zoo.algorithms import default_config
from sb3_carla.zoo.hyperparameters import constructor_arguments, read_hyperparameters

BATCHES = (128, 256, 1024)
TRANSITIONS = 2000
STEPS = 10
NETWORKS: dict[str, dict[str, Any]] = {
    "two encoders": {"policy_kwargs": {"encoder": "separate"}},
    "default": {
        "policy_kwargs": {
            "encoder": "actor",
            "state_size": PRIVILEGED_STATE_SIZE,
            "features_extractor_kwargs": {"features_dim": 64},
        },
        "critic_state": "state",
        "policy_delay": 1,
    },
}
WAYS: dict[str, dict[str, Any]] = {
    "eager": {},
    "on_device": {"replay_buffer_kwargs": {"on_device": True}},
    "on_device, compile_step": {"replay_buffer_kwargs": {"on_device": True}, "compile_step": True},
}


def filled(cls: type[Any], policy: str, device: str, **arguments: Any) -> Any:
    """:return: a model with its buffer filled and nothing trained"""
    model = cls(
        policy, Pictures(), buffer_size=2 * TRANSITIONS, learning_starts=10**6, learning_rate=3e-4, seed=0,
        device=device, **arguments,
    )  # fmt: skip
    model.learn(TRANSITIONS)
    model.set_logger(Logger(None, []))
    return model


def ours(device: str, networks: str, way: str, **arguments: Any) -> TD3:
    """:return: our TD3, filled, its gradient norms watched"""
    options = {**NETWORKS[networks], **WAYS[way], **arguments}
    options["policy_kwargs"] = {**options["policy_kwargs"], "optimizer_kwargs": {"fused": True}}
    model: TD3 = filled(TD3, "LayerNormCnnPolicy", device, deduplicate_frames=True, **options)
    callback = GradientNormCallback()
    callback.init_callback(model)
    callback.on_training_start({}, {})
    return model


def milliseconds(model: Any, batch: int) -> float:
    """:return: wall time of a gradient step [ms]"""
    th.cuda.synchronize()
    begin = time.perf_counter()
    model.train(STEPS, batch)
    th.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begin) / STEPS


def gradient_steps(rounds: int) -> dict[str, dict[int, list[float]]]:
    """:return: milliseconds of each round, by contender and batch size"""
    models: dict[str, Any] = {"SB3, eager": filled(stable_baselines3.TD3, "CnnPolicy", "cuda")}
    for networks in NETWORKS:
        for way in WAYS:
            models[f"ours, {networks}, {way}"] = ours("cuda", networks, way)
    found: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in BATCHES} for name in models}
    for batch in BATCHES:
        for model in models.values():
            milliseconds(model, batch)  # compiles, and picks convolution algorithms
            milliseconds(model, batch)
        for _ in range(rounds):
            for name, model in models.items():
                found[name][batch].append(milliseconds(model, batch))
    return found


def training_rate(n_envs: int, decisions: int, **arguments: Any) -> float:
    """:return: decisions a second of a training with the default hyperparameters, after its first third"""
    entry = read_hyperparameters(str(default_config("td3")), "CarlaLane-v0")
    given = {**constructor_arguments(entry), "learning_starts": 1000, "buffer_size": 50_000, **arguments}
    env = make_vec_env(
        lambda: gym.make("CarlaLane-v0", **entry["env_kwargs"]), n_envs, seed=0, vec_env_cls=SupervisedVecEnv
    )
    try:
        model = TD3(entry["policy"], env, seed=0, device="cuda", **given)
        model.set_logger(Logger(None, []))
        model.learn(decisions // 3, callback=DiagnosticsCallback())
        begin = time.perf_counter()
        model.learn(2 * decisions // 3, reset_num_timesteps=False, callback=DiagnosticsCallback())
        return (2 * decisions // 3) / (time.perf_counter() - begin)
    finally:
        env.close()


def differences(networks: str) -> dict[str, float]:
    """:return: largest differences after three updates on processor and device, relative to the largest value"""
    th.backends.cuda.matmul.allow_tf32 = th.backends.cudnn.allow_tf32 = False
    results = []
    for device in ("cpu", "cuda"):
        model = ours(device, networks, "eager", autocast=False, target_policy_noise=0.0)
        model.train(3, 64)
        losses = th.stack([model._sums[key].cpu() for key in ("train/critic_loss", "train/actor_loss")])
        weights = th.cat([parameter.detach().cpu().flatten() for parameter in model.policy.parameters()])
        results.append((losses, weights))
    pairs = zip(("losses", "weights"), *results, strict=True)
    return {name: float((a - b).abs().max() / a.abs().max()) for name, a, b in pairs}


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument("--decisions", type=int, default=15_000, help="of each training (default: 15000)")
    parser.add_argument("--skip-training", action="store_true", help="gradient steps and agreement only")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    if not th.cuda.is_available():
        raise SystemExit(f"PyTorch {th.__version__} finds no CUDA device here: this benchmark needs one")
    card = th.cuda.get_device_name()
    print(f"{card}, PyTorch {th.__version__}, {platform.processor() or platform.machine()}\n")
    steps = gradient_steps(options.rounds)
    stock = {batch: float(np.median(values)) for batch, values in steps["SB3, eager"].items()}
    rows = [["ms a gradient step (times SB3's)", *(f"batch {batch}" for batch in BATCHES)]]
    for name, by_batch in steps.items():
        medians = {batch: float(np.median(values)) for batch, values in by_batch.items()}
        rows.append([name, *(f"{ms:.2f} ({stock[batch] / ms:.1f})" for batch, ms in medians.items())])
    print(markdown_table(rows), flush=True)
    result: dict[str, Any] = {"card": card, "milliseconds": steps}
    result["differences"] = {networks: differences(networks) for networks in NETWORKS}
    print("\nProcessor and device after three updates in float32, largest relative difference:", result["differences"])
    if not options.skip_training:
        result["decisions_per_second"] = {}
        for n_envs in (16, 64):
            for name, arguments in (("eager", {}), ("on_device", WAYS["on_device"])):
                rate = training_rate(n_envs, options.decisions, **arguments)
                result["decisions_per_second"][f"{n_envs} environments, {name}"] = rate
                print(f"{n_envs} environments, {name}: {rate:.0f} decisions a second", flush=True)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
