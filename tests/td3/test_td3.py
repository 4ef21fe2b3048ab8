"""The learner: equal to SB3 where it should be, different where it says so, and able to learn."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch as th
from outside_repository import run_python
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule
from tiny import SMALL, STATE_CRITIC, BarEnv, SlidingBar, ToldBar

from sb3_carla.callbacks import ValueBiasCallback
from sb3_carla.policies import LayerNormCnnPolicy
from sb3_carla.td3.frame_buffer import FrameReplayBuffer
from sb3_carla.td3.td3 import TD3
from sb3_carla.td3.tensors import bf16_is_native
from sb3_carla.td3.update import encode, soft_update, update
from sb3_carla.td3.weights import load_policy

OFF = {"actor_max_grad_norm": None, "critic_max_grad_norm": None, "autocast": False}
NOT_SIGN_LIKE = {"optimizer_kwargs": {"eps": 1e-4}}  # Adam's default makes steps of full size from gradients of 1e-8
CRITIC = {"encoder": "critic"}


def filled(algorithm: type, policy: Any = "LayerNormCnnPolicy", env: Any = None, **kwargs: Any) -> Any:
    """A model with 60 transitions in its buffer and no update yet."""
    model = algorithm(policy, env or BarEnv(), **{**SMALL, "learning_starts": 1000, **kwargs})
    model.learn(60)
    model.set_logger(configure(None, []))
    return model


def parameters(model: Any) -> dict[str, th.Tensor]:
    return {name: value.detach().clone() for name, value in model.policy.state_dict().items()}


@pytest.mark.parametrize("policy", ["CnnPolicy", "MlpPolicy", LayerNormCnnPolicy])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_without_its_options_it_computes_what_sb3_computes(policy: Any, n_steps: int) -> None:
    models = [
        filled(algorithm, policy, learning_rate=1e-3, n_steps=n_steps, policy_kwargs=NOT_SIGN_LIKE, **options)
        for algorithm, options in ((stable_baselines3.TD3, {}), (TD3, OFF))
    ]
    models[1].policy.load_state_dict(models[0].policy.state_dict())
    for model in models:
        np.random.seed(7)  # noqa: NPY002 (SB3 draws from it)
        th.manual_seed(7)
        model.train(6, 16)
    stock, ours = (parameters(model) for model in models)
    assert models[1]._n_updates == 6
    for name in stock:
        th.testing.assert_close(ours[name], stock[name], rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(
    ("policy", "env", "n_envs"),
    [("MlpPolicy", "Pendulum-v1", 1), ("MlpPolicy", "Pendulum-v1", 4), ("CnnPolicy", BarEnv, 1)],
)
def test_sb3s_policies_learn_bit_for_bit_what_sb3_teaches_them(policy: str, env: Any, n_envs: int) -> None:
    kwargs = {**SMALL, "train_freq": 1, "gradient_steps": -1, "policy_kwargs": {"net_arch": [64, 64]}}
    models = [
        algorithm(policy, make_vec_env(env, n_envs, seed=1), **kwargs, **options).learn(100)
        for algorithm, options in ((stable_baselines3.TD3, {}), (TD3, OFF))
    ]
    stock, ours = map(parameters, models)
    assert [name for name in stock if not th.equal(stock[name], ours[name])] == []


def test_clipping_bounds_the_whole_gradient_of_each_network() -> None:
    model = filled(TD3, actor_max_grad_norm=1e-3, critic_max_grad_norm=1e-2)
    seen: dict[str, list[float]] = {"actor": [], "critic": []}
    for name, norms in seen.items():
        optimizer = getattr(model, name).optimizer

        def hook(optimizer: th.optim.Optimizer, *_: Any, norms: list[float] = norms) -> None:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            norms.append(float(th.stack([grad.norm() for grad in grads]).norm()))

        optimizer.register_step_pre_hook(hook)
    model.train(4, 16)
    assert len(seen["actor"]) == 2  # policy delay
    assert np.allclose(seen["actor"], 1e-3, rtol=1e-3)
    assert np.allclose(seen["critic"], 1e-2, rtol=1e-3)


def test_no_rate_is_negative_past_the_end() -> None:
    env = make_vec_env(BarEnv, 3)
    model = TD3("LayerNormCnnPolicy", env, learning_rate=lambda progress: 1e-3 * progress, **SMALL)
    model.learn(40)  # 42 decisions
    assert model.num_timesteps == 42
    assert {group["lr"] for group in model.actor.optimizer.param_groups} == {0.0}


def test_rates_of_parts_survive_the_schedule() -> None:
    model = filled(
        TD3,
        learning_rate=lambda progress: 1e-3 * progress,
        learning_rates={"critic": 4e-4, "actor_cnn": 2e-5, "critic_cnn": lambda progress: 8e-5 * progress},
    )
    model._current_progress_remaining = 0.5
    model.train(1, 16)
    rates = {
        (name, group["name"]): group["lr"]
        for name in ("actor", "critic")
        for group in getattr(model, name).optimizer.param_groups
    }
    assert rates == pytest.approx(
        {("actor", "cnn"): 2e-5, ("actor", "mlp"): 5e-4, ("critic", "cnn"): 4e-5, ("critic", "mlp"): 4e-4}
    )


def test_one_line_an_optimizer(capsys: pytest.CaptureFixture[str]) -> None:
    def lines() -> list[str]:
        return [line for line in capsys.readouterr().out.splitlines() if "optimizer" in line]

    falling = {"learning_rate": LinearSchedule(3e-4, 0.0, 1.0), "learning_rates": {"actor_cnn": 1e-4}}
    model = TD3("LayerNormCnnPolicy", BarEnv(), verbose=1, **{**SMALL, **falling})
    assert not lines()  # nor does a model say so that is only loaded to drive
    model.learn(20)
    first, second = lines()
    assert "CNN 16 tensors" in first
    assert "rate 0.0001; MLP 6 tensors" in first
    assert "rate 0.0003; clipped at 1.0" in first
    assert "MLP 12 tensors" in second
    model.learn(20)  # a new schedule, which begins with its first rate, not with the last of the one before
    assert "rate 0.0003; clipped at 1.0" in lines()[0]


def test_critic_trains_the_one_encoder_and_the_actor_never_does() -> None:
    model = filled(TD3, policy_kwargs={"encoder": "critic"})
    encoder = model.critic.features_extractor
    assert model.actor.features_extractor is encoder
    assert model.actor_target.features_extractor is model.critic_target.features_extractor is not encoder
    assert [group["name"] for group in model.actor.optimizer.param_groups] == ["mlp"]
    networks, batch = model._networks(), model._sample(16)
    before, seen = [parameter.clone() for parameter in encoder.parameters()], {}

    def descend(name: str, loss: th.Tensor) -> None:
        model._descend(name, loss)
        seen[name] = [parameter.clone() for parameter in encoder.parameters()]

    update(networks, batch, descend)
    assert not all(map(th.equal, before, seen["critic"]))
    assert all(map(th.equal, seen["critic"], seen["actor"]))


def test_shared_target_encoder_moves_once_by_tau() -> None:
    model = filled(TD3, policy_kwargs={"encoder": "critic"}, tau=0.1)
    online, target = (
        next(iter(network.features_extractor.parameters())) for network in (model.critic, model.critic_target)
    )
    expected = target + 0.1 * (online.detach() + 1.0 - target)
    with th.no_grad():
        online += 1.0
    soft_update(model._networks())
    th.testing.assert_close(target, expected)


def test_actor_update_leaves_the_critics_gradients_alone() -> None:
    model = filled(TD3)
    seen = {}

    def descend(name: str, loss: th.Tensor) -> None:
        model._descend(name, loss)
        seen[name] = [parameter.grad.clone() for parameter in model.critic.parameters()]

    update(model._networks(), model._sample(16), descend)
    assert all(map(th.equal, seen["critic"], seen["actor"]))
    assert all(parameter.requires_grad for parameter in model.critic.parameters())


def test_bfloat16_encoder_stays_close_to_float32() -> None:
    model = filled(TD3, policy_kwargs={"encoder": "critic"})
    images = model._sample(8).observations
    features = []
    for autocast in (False, True):
        model._autocast = autocast
        with th.no_grad():
            features.append(encode(model._networks(), model.critic, images))
    exact, rough = features
    assert rough.dtype == th.float32
    assert 0.0 < float((rough - exact).norm() / exact.norm()) < 0.03


def test_bfloat16_only_where_the_processor_has_it() -> None:
    native = bf16_is_native(th.device("cpu"))
    assert filled(TD3)._autocast == native
    with contextlib.nullcontext() if native else pytest.warns(UserWarning, match="only emulates bfloat16"):
        filled(TD3, autocast=True)


def test_n_step_and_truncation_with_several_environments() -> None:
    env = make_vec_env(BarEnv, 3)
    model = TD3("LayerNormCnnPolicy", env, n_steps=3, random_shift=2, **{**SMALL, "gradient_steps": 1})
    model.learn(120)
    assert model._n_updates > 20
    batch = model._sample(64)
    assert float(batch.discounts.min()) > 0.9  # the time limit is no terminal state
    assert batch.rewards.shape == batch.discounts.shape == (64, 1)


@pytest.mark.long
def test_learns_from_pixels() -> None:
    env = make_vec_env(BarEnv, 2, seed=0)
    model = TD3(
        "LayerNormCnnPolicy", env, learning_rate=3e-4, buffer_size=2000, learning_starts=200, batch_size=64,
        gradient_steps=2, gamma=0.0, exploration_noise=(0.5, 0.1, 1000), policy_kwargs={"encoder": "critic"}, seed=0,
        device="cpu",
    )  # fmt: skip
    before, _ = evaluate_policy(model, env, n_eval_episodes=6, warn=False)
    model.learn(700)
    after, _ = evaluate_policy(model, env, n_eval_episodes=6, warn=False)
    assert before < 7.0
    assert after > 8.5  # a random policy gets about 3.3, standing in the middle 5


@pytest.mark.parametrize("encoder", [pytest.param("separate", marks=pytest.mark.long), "critic"])
def test_saved_model_plays_the_same_in_both_libraries_and_without_ours_imported(tmp_path: Path, encoder: str) -> None:
    model = filled(TD3, policy_kwargs={"encoder": encoder}, learning_rates={"critic_cnn": 1e-4}, n_steps=3)
    model.train(3, 16)
    path = tmp_path / "model.zip"
    model.save(path)
    observation = BarEnv().reset(seed=5)[0]
    expected = model.predict(observation, deterministic=True)[0]
    for algorithm in (TD3, stable_baselines3.TD3):
        np.testing.assert_array_equal(algorithm.load(path).predict(observation, deterministic=True)[0], expected)
    again = TD3.load(path, env=BarEnv())
    assert again.learning_rates == {"critic_cnn": 1e-4}
    again.learn(60)  # training goes on

    np.save(tmp_path / "observation.npy", observation)
    code = (
        "import sys, numpy as np\nfrom stable_baselines3 import TD3\n"
        "assert 'sb3_carla' not in sys.modules\n"
        f"model = TD3.load({str(path)!r})\n"
        f"print(float(model.predict(np.load({str(tmp_path / 'observation.npy')!r}), deterministic=True)[0][0]))"
    )
    shown = run_python(tmp_path, "-c", code)
    assert float(shown) == pytest.approx(float(expected[0]), rel=1e-6)


def test_saved_through_an_open_file_it_is_the_same_model(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", BarEnv(), **SMALL)
    model.save(tmp_path / "path")
    with (tmp_path / "file.zip").open("wb") as file:
        model.save(file)
    memory = io.BytesIO()
    model.save(memory)
    (tmp_path / "memory.zip").write_bytes(memory.getvalue())
    observation = BarEnv().reset(seed=5)[0]
    expected = model.predict(observation)[0]
    for name in ("path", "file", "memory"):
        for load in (TD3.load, load_policy):
            np.testing.assert_array_equal(load(tmp_path / f"{name}.zip").predict(observation)[0], expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"policy_kwargs": CRITIC}, STATE_CRITIC], ids=["separate", "critic", "actor"])
def test_traced_policy_acts_as_the_model_does(options: dict[str, Any]) -> None:
    model = TD3("LayerNormCnnPolicy", ToldBar(), **SMALL, **options)
    model.policy.set_training_mode(False)
    images = np.stack([model.observation_space.sample() for _ in range(5)])
    traced = th.jit.trace(model.policy, th.as_tensor(images[:2]))
    np.testing.assert_allclose(traced(th.as_tensor(images)).detach(), model.predict(images)[0], atol=1e-6)


def test_stock_training_of_a_critic_encoder_leaves_the_actor_detached() -> None:
    model = filled(stable_baselines3.TD3, LayerNormCnnPolicy, policy_kwargs={"encoder": "critic"})
    before = parameters(model)
    model.train(4, 16)
    after = parameters(model)
    assert any(not th.equal(before[name], after[name]) for name in before if name.startswith("actor.mu"))
    assert not any(name.startswith(("actor.features", "actor_target.features")) for name in after)
    assert model.actor.features_extractor is model.critic.features_extractor


def test_metrics_are_written_at_the_dump(tmp_path: Path) -> None:
    model = TD3("LayerNormCnnPolicy", BarEnv(), **SMALL)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(101, log_interval=1)
    model.logger.close()
    rows = (tmp_path / "progress.csv").read_text().splitlines()
    for tag in (
        "train/actor_loss", "train/critic_loss", "train/critic_1_loss", "train/critic_2_loss", "train/q1_value",
        "train/q2_value", "train/target_Q_mean", "debug/td_error_q1", "debug/td_error_q2",
    ):  # fmt: skip
        assert tag in rows[0], tag


def test_a_part_may_have_a_rate_as_the_zoos_files_write_it() -> None:
    model = TD3("LayerNormCnnPolicy", BarEnv(), learning_rates={"actor": "lin_1e-4"}, **SMALL)
    model._current_progress_remaining = 0.25
    model._update_learning_rate([])
    for network, rate in ((model.actor, 2.5e-5), (model.critic, 1e-3)):
        assert [group["lr"] for group in network.optimizer.param_groups] == pytest.approx([rate, rate])


@pytest.mark.long
def test_critics_that_see_the_state_teach_an_actor_that_sees_pixels(tmp_path: Path) -> None:
    model = TD3(
        "LayerNormCnnPolicy", ToldBar(), **STATE_CRITIC, learning_rate=3e-4, buffer_size=2000, learning_starts=200,
        batch_size=64, gradient_steps=1, train_freq=1, gamma=0.0, seed=3, device="cpu",
    )  # fmt: skip
    assert not any(isinstance(module, th.nn.Conv2d) for module in model.critic.modules())
    assert {group["name"] for group in model.actor.optimizer.param_groups} == {"cnn", "mlp"}
    assert {group["name"] for group in model.critic.optimizer.param_groups} == {"mlp"}
    before = evaluate_policy(model, model.get_env(), 20)[0]
    model.learn(800)
    after = evaluate_policy(model, model.get_env(), 20)[0]
    assert before < 6.5 < 9.0 < after, "of 10, from pixels alone"

    model.save(tmp_path / "model.zip")
    observation = ToldBar().reset(seed=1)[0]
    for algorithm in (TD3, stable_baselines3.TD3):
        again = algorithm.load(tmp_path / "model.zip", device="cpu")
        np.testing.assert_array_equal(again.predict(observation)[0], model.predict(observation)[0])


def test_only_ours_trains_a_critic_of_states() -> None:
    model = filled(stable_baselines3.TD3, LayerNormCnnPolicy, policy_kwargs=STATE_CRITIC["policy_kwargs"])
    with pytest.raises(ValueError, match=r"states of shape \(n, 1\), got \[16, 2, 36, 36\]; only sb3_carla.TD3 with"):
        model.train(1, 16)


def test_nothing_is_learnt_before_a_state_is_known() -> None:
    """Before an episode's first step nobody tells one."""
    model = TD3("LayerNormCnnPolicy", ToldBar(), **{**STATE_CRITIC, "buffer_size": 100, "learning_starts": 0})
    with pytest.raises(ValueError, match="expected transitions to learn from among the 1 that it holds"):
        model.learn(3)


def test_a_loaded_model_goes_on_with_a_buffer_that_is_new(tmp_path: Path) -> None:
    """Its steps are past ``learning_starts`` already, and of no step in the buffer the state is known."""
    model = TD3("LayerNormCnnPolicy", make_vec_env(ToldBar, 2), **{**SMALL, **STATE_CRITIC})
    model.learn(60)
    model.save(tmp_path / "model.zip")
    again = TD3.load(tmp_path / "model.zip", make_vec_env(ToldBar, 3))
    updates = again._n_updates
    again.learn(60, reset_num_timesteps=False)
    assert again._n_updates > updates + 15


def test_learning_nothing_is_no_error() -> None:
    TD3("LayerNormCnnPolicy", BarEnv(), verbose=1, **SMALL).learn(0)


@pytest.mark.parametrize("callbacks", [[], [ValueBiasCallback()]], ids=["plain", "watched"])
def test_an_environment_that_tells_no_state_is_named(callbacks: list[Any]) -> None:
    with pytest.raises(ValueError, match="state: expected 'bar' in the infos"):
        TD3("LayerNormCnnPolicy", SlidingBar(), **{**SMALL, **STATE_CRITIC}).learn(5, callback=callbacks)


def test_a_wrong_size_of_the_state_is_named() -> None:
    wrong = {**STATE_CRITIC, "policy_kwargs": {"encoder": "actor", "state_size": 7}}
    with pytest.raises(ValueError, match=r"state_size: expected 1, as info\['bar'\] has, got 7"):
        TD3("LayerNormCnnPolicy", ToldBar(), **SMALL, **wrong).learn(60)


def test_deduplicated_frames_train_save_and_load(tmp_path: Path) -> None:
    env = make_vec_env(SlidingBar, 2)
    model = TD3(
        "LayerNormCnnPolicy",
        env,
        n_steps=3,
        deduplicate_frames=True,
        random_shift=2,
        optimize_memory_usage=True,
        **SMALL,
    )
    model.learn(120)
    assert isinstance(model.replay_buffer, FrameReplayBuffer)
    assert (model.replay_buffer.n_steps, model.replay_buffer.gamma) == (3, model.gamma)
    assert model._n_updates > 0
    model.save(tmp_path / "model.zip")
    again = TD3.load(tmp_path / "model.zip", env=env)
    assert isinstance(again.replay_buffer, FrameReplayBuffer)
    again.learn(60)
    stable_baselines3.TD3.load(tmp_path / "model.zip")
    with pytest.raises(ValueError, match="deduplicate_frames or replay_buffer_class"):
        TD3("LayerNormCnnPolicy", env, deduplicate_frames=True, replay_buffer_class=NStepReplayBuffer)


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is of the GNU C library")
@pytest.mark.parametrize("variables", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_memory_of_a_train_step_is_kept_for_the_next(variables: dict[str, str]) -> None:
    """Each page that the kernel has to clear again is a minor page fault."""
    source = """
        import resource, torch as th
        from sb3_carla.td3.tensors import keep_freed_memory
        def step(): return [th.ones(1 << 20) for _ in range(10)]  # 40 MB
        print(int(keep_freed_memory()), end=" ")
        for _ in range(3): step()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10): step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", textwrap.dedent(source)]
    done, faults = subprocess.run(
        command, capture_output=True, text=True, check=True, env=bare | variables
    ).stdout.split()
    pages = 10 * 40 * 2**20 // resource.getpagesize()
    assert (int(done), int(faults) < 0.05 * pages) == ((0, False) if variables else (1, True))


def test_features_learn_to_predict_the_state(tmp_path: Path) -> None:
    model = TD3(
        "LayerNormCnnPolicy", ToldBar(), **STATE_CRITIC, state_prediction=1.0, buffer_size=1000, learning_starts=200,
        batch_size=64, seed=3, device="cpu",
    )  # fmt: skip
    model.learn(200)

    def error() -> float:
        data, states, _ = model.replay_buffer.sample_with_states(256)  # type: ignore[union-attr]
        with th.no_grad():
            features = model.actor.extract_features(data.observations, model.actor.features_extractor)
            return float(th.nn.functional.mse_loss(model.actor.state_head(features), states))

    before, weights = error(), model.critic.state_dict()["qf0.0.weight"].clone()
    model.run_updates(60, 64)
    assert error() < 0.3 * before
    assert not th.equal(weights, model.critic.state_dict()["qf0.0.weight"])
    model.dump_logs()
    model.save(tmp_path / "model.zip")
    picture = ToldBar().reset(seed=1)[0]
    action = model.predict(picture, deterministic=True)[0]
    for loaded in (TD3.load, stable_baselines3.TD3.load, load_policy):
        np.testing.assert_array_equal(loaded(tmp_path / "model.zip").predict(picture, deterministic=True)[0], action)
