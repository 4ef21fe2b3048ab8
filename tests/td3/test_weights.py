"""Models from files that nobody trusts: the same policy, nothing run, and a clear word about what is wrong."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch as th
from gymnasium import spaces
from tiny import STATE_CRITIC, BarEnv, ToldBar

from sb3_carla.errors import ModelError
from sb3_carla.evaluation.command import main
from sb3_carla.td3.td3 import TD3
from sb3_carla.td3.weights import ARGUMENTS, load_policy
from sb3_carla.zoo import run_folders

SMALL: dict[str, Any] = {"buffer_size": 10, "device": "cpu", "seed": 1}


@pytest.fixture(scope="module")
def model() -> TD3:
    kwargs = {"encoder": "critic", "features_extractor_kwargs": {"features_dim": 16}, "net_arch": [24]}
    return TD3("LayerNormCnnPolicy", BarEnv(), policy_kwargs=kwargs, **SMALL)


@pytest.fixture
def saved(model: TD3, tmp_path: Path) -> Path:
    model.save(tmp_path / "model")
    return tmp_path / "model.zip"


def rewritten(path: Path, name: str, change: Callable[[bytes], bytes | None]) -> Path:
    """The zip with one member changed, or left out."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    result = path.with_name("other.zip")
    with zipfile.ZipFile(result, "w") as archive:
        for member, content in members.items():
            new = change(content) if member == name else content
            if new is not None:
                archive.writestr(member, new)
    return result


def test_the_policy_acts_as_the_model_does(model: TD3, saved: Path) -> None:
    policy = load_policy(saved, "cpu")
    observations = np.random.default_rng(0).integers(0, 256, (20, 2, 36, 36), np.uint8)
    assert np.array_equal(policy.predict(observations, deterministic=True)[0], model.predict(observations)[0])
    stream = io.BytesIO()
    model.save(stream)
    assert zipfile.ZipFile(stream).testzip() is None
    assert ARGUMENTS in zipfile.ZipFile(stream).namelist()


def test_critics_of_states_come_along(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", ToldBar(), **SMALL, **STATE_CRITIC)
    model.save(tmp_path / "model")
    policy = load_policy(tmp_path / "model.zip", "cpu")
    observations = np.random.default_rng(0).integers(0, 256, (20, 2, 36, 36), np.uint8)
    assert np.array_equal(policy.predict(observations, deterministic=True)[0], model.predict(observations)[0])
    assert policy.critic.observation_space.shape == (1,)


class PedalBar(BarEnv):
    """Takes CarRacing-v3's actions: steering, gas and brake."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32))


def test_each_dimension_of_an_action_keeps_its_bounds(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", PedalBar(), **SMALL)
    model.save(tmp_path / "model")
    policy = load_policy(tmp_path / "model.zip", "cpu")
    assert policy.action_space == model.action_space
    observations = np.random.default_rng(0).integers(0, 256, (20, 2, 36, 36), np.uint8)
    assert np.array_equal(policy.predict(observations, deterministic=True)[0], model.predict(observations)[0])


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_nothing_is_unpickled(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    weights = io.BytesIO()
    th.save({"actor": Bomb(mark)}, weights)
    with pytest.raises(ModelError, match=r"other.zip cannot be read: UnpicklingError"):
        load_policy(rewritten(saved, "policy.pth", lambda _: weights.getvalue()))
    bomb = stable_baselines3.common.save_util.data_to_json({"policy_class": Bomb(mark)}).encode()
    load_policy(rewritten(saved, "data", lambda _: bomb))
    assert not mark.exists()
    with pytest.raises(ModelError):
        run_folders.load_model(rewritten(saved, "data", lambda _: bomb))
    assert mark.exists(), "and so the test would have seen it"


def changed(**values: Any) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **values}).encode()


BOX = {"low": 0, "high": 255, "shape": [2, 36, 36], "dtype": "uint8"}
PEDALS = {"low": [-1.0, 0.0, 0.0], "high": [1.0, 1.0, 1.0], "shape": [3], "dtype": "float32"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: None, "has no arguments.json: expected a model saved by sb3_carla.TD3"),
        (lambda _: b"{", "cannot be read: JSONDecodeError"),
        (lambda _: b"[1]", "arguments.json: expected a dict, got [1]"),
        (changed(policy="os.system"), "policy: expected one of LayerNormCnnPolicy, got 'os.system'"),
        (changed(observation_space=3), "observation_space: expected a dict, got 3"),
        (
            changed(observation_space={**BOX, "shape": [4, 10**9, 84]}),
            "observation_space.shape: expected up to 4 sides",
        ),
        (changed(observation_space={**BOX, "shape": [4096, 4096, 4096]}), "observation_space.shape: expected"),
        (changed(observation_space={**BOX, "dtype": "no"}), "observation_space: TypeError"),
        (changed(observation_space={**BOX, "shape": [2, 84, 84]}), "policy.pth does not fit arguments.json"),
        (changed(action_space={}), "action_space.shape: expected a list, got None"),
        (changed(action_space={**PEDALS, "low": [-1.0, 0.0]}), "expected finite float32 bounds of shape (3,)"),
        (changed(action_space={**PEDALS, "high": [1.0, 1.0, float("inf")]}), "expected finite float32 bounds"),
        (changed(action_space={**PEDALS, "low": [0.5, 0, 0], "dtype": "uint8"}), "expected finite uint8 bounds"),
        (changed(action_space={**PEDALS, "low": [2.0, 0.0, 0.0]}), "action_space: ValueError"),
        (changed(action_space={**PEDALS, "low": ["none", 0.0, 0.0]}), "action_space: ValueError"),
        (changed(policy_kwargs={"net_arch": [10**12]}), "policy_kwargs.net_arch: expected a number up to 65536"),
        (changed(policy_kwargs={"encoder": "both"}), "no LayerNormCnnPolicy can be made of it: encoder"),
        (changed(policy_kwargs={"nonsense": 1}), "no LayerNormCnnPolicy can be made of it"),
        (changed(policy_kwargs={}), "policy.pth does not fit arguments.json"),
    ],
)
def test_bad_arguments_are_named(saved: Path, change: Any, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_policy(rewritten(saved, ARGUMENTS, change))
    assert message in str(caught.value)
    assert "other.zip" in str(caught.value)


@pytest.mark.parametrize("loader", [load_policy, run_folders.load_model])
@pytest.mark.parametrize("content", [b"", b"no zip", b"PK" + bytes(300)])
def test_what_is_no_model_is_a_clear_error(tmp_path: Path, loader: Callable[[Path], Any], content: bytes) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.zip can"):
        loader(path)


@pytest.mark.parametrize(("method", "header"), [(zipfile.ZIP_DEFLATED, 0), (zipfile.ZIP_LZMA, 9)])
def test_a_damaged_compressed_member_is_a_clear_error(saved: Path, method: int, header: int) -> None:
    path = saved.with_name("packed.zip")
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr(ARGUMENTS, archive.read(ARGUMENTS))
        packed.writestr("policy.pth", archive.read("policy.pth"))
    content = bytearray(path.read_bytes())
    start = content.index(ARGUMENTS.encode()) + len(ARGUMENTS) + header
    content[start : start + 40] = bytes([255]) * 40
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"packed\.zip cannot be read: (LZMAE|e)rror"):
        load_policy(path)


def test_models_of_others_have_no_arguments(tmp_path: Path) -> None:
    stable_baselines3.TD3("CnnPolicy", BarEnv(), **SMALL).save(tmp_path / "stock")
    with pytest.raises(ModelError, match=r"stock\.zip has no arguments\.json"):
        load_policy(tmp_path / "stock.zip")
    TD3("CnnPolicy", BarEnv(), **SMALL).save(tmp_path / "other")
    with pytest.raises(ModelError, match=r"other\.zip has no arguments\.json"):
        load_policy(tmp_path / "other.zip")


@pytest.mark.long
def test_scorecard_is_the_same(tmp_path: Path) -> None:
    with gym.make("CarlaLane-v0") as env:
        TD3("LayerNormCnnPolicy", env, policy_kwargs={"encoder": "critic"}, **SMALL).save(tmp_path / "model")
    common = ["--model", str(tmp_path / "model.zip"), "--no-baselines", "--episodes", "1", "--towns", "Circuit06"]
    common += ["--env-kwargs", '{"route_length": 25.0, "action_repeat": 4}']
    for name, more in (("pickle", []), ("weights", ["--weights-only"])):
        main([*common, *more, "--output", str(tmp_path / f"{name}.json")])
    found = [json.loads((tmp_path / f"{name}.json").read_text())["drivers"] for name in ("pickle", "weights")]
    assert found[0] == found[1]
    assert found[0]["model"]["episodes"][0]["decisions"] > 0
