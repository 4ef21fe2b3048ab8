"""The trained default that ships with the package: small, complete, and loadable in every way."""

from __future__ import annotations

import logging
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3

import sb3_carla
from sb3_carla.td3.export import export_model
from sb3_carla.td3.weights import load_policy
from sb3_carla.zoo.run_folders import PRETRAINED, environment_settings, find_model, load_model


def test_it_is_small_and_every_loader_gives_the_same_driver() -> None:
    assert PRETRAINED.stat().st_size < 1_000_000
    picture = np.random.default_rng(0).integers(0, 256, (4, 84, 84)).astype(np.uint8)
    drivers = [load_policy(PRETRAINED), load_model(PRETRAINED), sb3_carla.TD3.load(PRETRAINED)]
    drivers.append(stable_baselines3.TD3.load(PRETRAINED))
    actions = [driver.predict(picture, deterministic=True)[0] for driver in drivers]
    for action in actions[1:]:
        np.testing.assert_array_equal(action, actions[0])


def test_it_is_taken_where_there_is_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_model(None, tmp_path) == PRETRAINED
    assert f"No run in {tmp_path}: taking the pretrained model" in caplog.text
    assert find_model("pretrained", tmp_path) == PRETRAINED
    (tmp_path / "td3" / "CarlaLane-v0_1").mkdir(parents=True)  # a run without a model is a mistake to tell
    with pytest.raises(FileNotFoundError, match="was the training interrupted"):
        find_model(None, tmp_path)


def test_it_drives_a_route() -> None:
    env = gym.make("CarlaLane-v0", town="Village03", scenario=0, route_length=60.0, **environment_settings(PRETRAINED))
    policy = load_policy(PRETRAINED)
    observation, info = env.reset(seed=0)
    ended = False
    while not ended:
        observation, _, terminated, truncated, info = env.step(policy.predict(observation, deterministic=True)[0])
        ended = terminated or truncated
    env.close()
    assert info["end_reason"] == "route_end"


def test_an_exported_model_is_rounded_to_bfloat16(tmp_path: Path) -> None:
    target = tmp_path / "small.zip"
    export_model(PRETRAINED, target)
    weights, again = load_policy(PRETRAINED).state_dict(), load_policy(target).state_dict()
    for name, tensor in weights.items():
        assert (tensor == again[name]).all(), name  # it was rounded before: nothing is lost by doing it again
        if name.startswith("actor."):
            assert (tensor == weights[name.replace("actor.", "actor_target.", 1)]).all()
