"""Each fault, injected into a real training: caught, said in words, and the weights sound afterwards."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_contrib import TQC
from stable_baselines3 import DDPG, DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import BarEnv
from torch.nn.utils import parameters_to_vector

from sb3_carla.callbacks import DiagnosticsCallback, DivergenceGuard
from sb3_carla.callbacks.divergence_rules import LoggedValues, find_alerts
from sb3_carla.td3.td3 import TD3

SMALL: dict[str, Any] = {
    "buffer_size": 500, "learning_starts": 20, "batch_size": 16, "seed": 3, "learning_rate": 3e-4,
    "policy_kwargs": {"net_arch": [32, 32], "features_extractor_kwargs": {"features_dim": 32}},
}  # fmt: skip


class Inject(BaseCallback):
    """Does something to the model at a step, and at each after it if ``again``."""

    def __init__(self, fault: Callable[[Any], None], step: int = 100, again: bool = False) -> None:
        super().__init__()
        self._fault, self._step, self._again = fault, step, again

    def _on_step(self) -> bool:
        if self.n_calls == self._step or (self._again and self.n_calls > self._step):
            self._fault(self.model)
        return True


def train(folder: Path, fault: BaseCallback | None = None, env: Any = None, steps: int = 260, **options: Any) -> Any:
    """TD3 on the tiny images, all diagnostics and a guard over them; returns guard and model."""
    model = TD3("LayerNormCnnPolicy", env or BarEnv(), **SMALL, learning_rates={"critic_cnn": 1e-4})
    model.set_logger(configure(str(folder), ["csv", "tensorboard"]))
    guard = DivergenceGuard(**{"save_freq": 40, **options})
    model.learn(steps, callback=[DiagnosticsCallback(None), *([fault] if fault else []), guard], log_interval=1)
    model.logger.close()
    return guard, model


def is_sound(model: Any) -> bool:
    return all(bool(value.isfinite().all()) for value in model.policy.state_dict().values())


def poison_critic(model: Any) -> None:
    with th.no_grad():
        model.critic.q_networks[0][0].weight[0, 0] = math.nan


@pytest.mark.long
def test_a_healthy_training_is_left_alone(tmp_path: Path) -> None:
    guard, model = train(tmp_path)
    assert guard.alerts == []
    assert guard.rollbacks == 0
    assert model.num_timesteps == 260
    assert [path.name for path in tmp_path.glob("*.zip")] == ["last_good.zip"]
    TD3.load(tmp_path / "last_good.zip")


def test_nan_in_the_weights_rolls_back_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guard, model = train(tmp_path, Inject(poison_critic, 150))
    assert model.num_timesteps == 260
    assert guard.rollbacks == 1
    assert is_sound(model)
    assert all(
        math.isfinite(value)
        for state in model.critic.optimizer.state.values()
        for value in state["exp_avg"].flatten()[:5].tolist()
    )
    assert model.lr_schedule(1.0) == pytest.approx(1.5e-4)
    assert [group["lr"] for group in model.critic.optimizer.param_groups] == pytest.approx([0.5e-4, 1.5e-4])
    out = capsys.readouterr().out
    assert "weights are no longer finite" in out
    assert "learning rates times 0.5 (rollback 1)" in out
    events = EventAccumulator(str(tmp_path)).Reload()
    assert "alerts/divergence_critical" in events.Tags()["scalars"]
    assert "alerts/verdicts/text_summary" in events.Tags()["tensors"]
    model.save(tmp_path / "after.zip")
    assert TD3.load(tmp_path / "after.zip").lr_schedule(1.0) == pytest.approx(1.5e-4)


@pytest.mark.long
def test_weights_are_ill_before_their_target_network_is(tmp_path: Path) -> None:
    def poison(model: Any) -> None:
        with th.no_grad():
            model.q_net.q_net[0].weight[0, 0] = math.nan

    model = DQN("MlpPolicy", "CartPole-v1", learning_starts=20, train_freq=1, seed=1, device="cpu")
    model.set_logger(configure(str(tmp_path), ["csv"]))
    guard = DivergenceGuard(save_freq=40)
    model.learn(300, callback=[Inject(poison, 150), guard], log_interval=1000)
    model.logger.close()
    assert guard.rollbacks == 1
    assert is_sound(model)


@pytest.mark.long
def test_a_warning_that_becomes_critical_is_reported_again(tmp_path: Path) -> None:
    class Explode(BaseCallback):
        """Gradient norms as the callback would log them: at first a warning's, then a critical one's."""

        def _on_step(self) -> bool:
            norm, level = (2e4, "warning") if self.n_calls < 100 else (2e5, "critical")
            self.logger.record("debug/critic_grad_norm_BEFORE_clip", norm)
            self.logger.record(f"alerts/gradient_explosion_{level}", 1)
            return True

    model = TD3("LayerNormCnnPolicy", BarEnv(), **SMALL)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    guard = DivergenceGuard("warn")
    model.learn(140, callback=[Explode(), guard], log_interval=1)
    model.logger.close()
    assert [(alert.rule, alert.critical) for _, alert in guard.alerts] == [
        ("gradients", False), ("gradients", True)
    ]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("concurrent_updates", [False, True])
def test_stop_leaves_the_last_good_weights(
    tmp_path: Path, concurrent_updates: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[int, th.Tensor] = {}

    class Remember(BaseCallback):
        def _on_rollout_start(self) -> None:
            seen[self.num_timesteps] = parameters_to_vector(self.model.policy.parameters()).detach()

        def _on_step(self) -> bool:
            return True

    model = TD3("LayerNormCnnPolicy", BarEnv(), concurrent_updates=concurrent_updates, **SMALL)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    guard = DivergenceGuard("stop", save_freq=40)
    model.learn(400, callback=[Remember(), Inject(poison_critic, 150), guard], log_interval=1)
    model.logger.close()
    assert 150 <= model.num_timesteps < 160
    assert is_sound(model)
    # Saved at 80, good at 120; the one saved at 120 has not proved itself.
    assert th.equal(parameters_to_vector(model.policy.parameters()), seen[80])
    assert "stops the training, with the weights of step 80" in capsys.readouterr().out
    assert is_sound(TD3.load(tmp_path / "last_good.zip"))


@pytest.mark.long
def test_warn_changes_nothing(tmp_path: Path) -> None:
    guard, model = train(tmp_path, Inject(poison_critic, 150), response="warn")
    assert model.num_timesteps == 260
    assert not is_sound(model)
    assert sum(alert.rule == "weights" for _, alert in guard.alerts) == 1
    assert not list(tmp_path.glob("*.zip"))


def full_disk(*args: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.long
@pytest.mark.parametrize("fault", [{"save": full_disk}, {"mine": threading.Lock()}])
def test_weights_that_cannot_be_saved_are_a_warning(
    tmp_path: Path, fault: dict[str, Any], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "last_good.zip").write_text("of another training")
    model = DDPG("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=16, device="cpu")
    vars(model).update(fault)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(150, callback=[DivergenceGuard(save_freq=40), Inject(poison_critic, 120)])
    model.logger.close()
    assert model.num_timesteps < 150
    (record,) = caplog.records
    assert "weights of step 0 could not be saved" in record.getMessage()
    assert "no weights to restore, because none could be saved" in capsys.readouterr().out


@pytest.mark.long
def test_without_a_log_the_weights_go_with_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = DDPG("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=16, device="cpu")
    model.set_logger(Logger(None, []))
    model.learn(150, callback=[DivergenceGuard("stop", save_freq=40), Inject(poison_critic, 120)])
    assert is_sound(model)
    assert "with the weights of step 40\n" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("kind", ["rewards", "observations"])
def test_a_broken_environment_is_named_and_ends_the_training(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "rewards":

        class Broken(BarEnv):
            def step(self, action: np.ndarray) -> Any:
                observation, reward, *rest = super().step(action)
                self.steps = getattr(self, "steps", 0) + 1
                return observation, (math.nan if self.steps > 100 else reward), *rest

        guard, model = train(tmp_path, env=Broken())
    else:
        import gymnasium as gym

        env = gym.wrappers.TransformObservation(
            gym.make("Pendulum-v1", max_episode_steps=30), lambda obs: obs * np.float32(np.nan), None
        )
        model = SAC("MlpPolicy", env, learning_starts=20, device="cpu")
        model.set_logger(configure(str(tmp_path), ["csv"]))
        guard = DivergenceGuard()
        model.learn(100, callback=guard)
        model.logger.close()
    assert guard.alerts[0][1].rule == kind
    assert guard.rollbacks == 0
    assert model.num_timesteps < 102
    assert f"the environment returned {kind}" in capsys.readouterr().out
    assert is_sound(model)


def test_exploding_gradients_are_critical(tmp_path: Path) -> None:
    class Loud(BarEnv):
        def step(self, action: np.ndarray) -> Any:
            observation, reward, *rest = super().step(action)
            self.steps = getattr(self, "steps", 0) + 1
            return observation, reward * (1e7 if self.steps > 100 else 1.0), *rest

    guard, model = train(tmp_path, env=Loud(), max_rollbacks=1)
    assert "gradients" in {alert.rule for _, alert in guard.alerts}
    assert guard.rollbacks == 1  # the replay buffer still holds the cause: the second time it stops
    assert model.num_timesteps < 260
    assert is_sound(model)


@pytest.mark.long
def test_exponential_growth_is_seen_long_before_nan(tmp_path: Path) -> None:
    def inflate(model: Any) -> None:
        with th.no_grad():
            for network in model.critic.q_networks:
                network[-1].weight *= 1.08
                network[-1].bias *= 1.08

    guard, model = train(tmp_path, Inject(inflate, 60, again=True), steps=400, response="stop")
    texts = [alert.text for _, alert in guard.alerts if alert.critical]
    assert texts
    assert any("grows exponentially" in text or "add up to" in text for text in texts)
    assert model.num_timesteps < 300
    assert is_sound(model)


def poison_value(model: Any) -> None:
    with th.no_grad():
        model.policy.value_net.bias[0] = math.nan


def poison_gradient(model: Any) -> None:
    def once(gradient: th.Tensor) -> th.Tensor:
        handle.remove()
        return gradient * math.nan

    handle = model.policy.value_net.bias.register_hook(once)


# Values that are not finite stay in the rollout, and spoil the gradient of the update that follows.
@pytest.mark.parametrize(("fault", "rollbacks"), [(poison_value, 2), (poison_gradient, 1)])
def test_ppo_rolls_back_too(tmp_path: Path, fault: Callable[[Any], None], rollbacks: int) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, n_epochs=1, seed=0, device="cpu")
    model.set_logger(configure(str(tmp_path), ["csv"]))
    guard = DivergenceGuard(save_freq=64)
    model.learn(640, callback=[Inject(fault, 250), guard])
    model.logger.close()
    assert guard.rollbacks == rollbacks
    assert is_sound(model)
    assert model.num_timesteps == 640
    assert model.lr_schedule(1.0) == pytest.approx(3e-4 / 2**rollbacks)


@pytest.mark.long
@pytest.mark.parametrize("algorithm", [SAC, pytest.param(TQC, marks=pytest.mark.slow)])
def test_no_error_between_several_updates_of_a_stochastic_actor(tmp_path: Path, algorithm: Any) -> None:
    def poison(model: Any) -> None:
        model.replay_buffer.rewards[:] = 3e38

    small = {"learning_starts": 20, "batch_size": 16, "gradient_steps": 4}
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0, device="cpu", **small)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    guard = DivergenceGuard(save_freq=40)
    model.learn(200, callback=[Inject(poison, 150), guard])
    model.logger.close()
    assert guard.rollbacks == 3  # the buffer still holds the cause
    assert model.num_timesteps < 160
    assert is_sound(model)


def words(values: dict[str, float], **logged: Any) -> list[str]:
    return [alert.text for alert in find_alerts(LoggedValues(values, **logged))]


def test_alerts_in_words() -> None:
    values = {
        "debug/q_bias_normalized": 8.0, "debug/monte_carlo_q": 27.0, "debug/monte_carlo_return": 3.0,
        "debug/action_saturation": 0.5, "debug/action_saturation_steering": 0.04, "debug/action_saturation_pedal": 0.96,
    }  # fmt: skip
    assert words(values) == [
        "critic's Q is 9 times the Monte-Carlo return and the pedal is saturated in 96% of actions"
    ]
    assert words({**values, "debug/action_saturation_pedal": 0.5}) == []
    assert words(values, largest_return=250.0)
    assert words(values, largest_return=1000.0) == []
    assert words({**values, "debug/q_bias_normalized": 0.1}) == []
    assert words({"debug/dormant_ratio": 0.81}) == ["81% of the hidden units are dormant"]
    assert words({"train/q1_value": 70.0}, largest_return=50.0) == []
    assert words({"train/q1_value": 80.0}, largest_return=50.0) == [
        "train/q1_value is 80, but the rewards seen so far add up to 50 at most"
    ]
    assert words({"train/explained_variance": math.nan}) == []
    assert words({"train/critic_loss": math.inf, "debug/td_error_q1": math.nan}) == [
        "train/critic_loss is inf (and 1 more tags)"
    ]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (lambda t: 30.0 * (1.0 - np.exp(-5.0 * t)) + 1e-3, False),  # learning: fast, then flat
        (lambda t: 200.0 + 400.0 * t, False),
        (lambda t: 10.0 ** (6.0 * t), True),
        (lambda t: -(10.0 ** (6.0 * t)), True),
        (lambda t: 150.0 + 0.0 * t, False),
    ],
)
def test_growth(curve: Callable[[np.ndarray], np.ndarray], expected: bool) -> None:
    times = np.linspace(0.0, 1.0, 20)
    noise = np.random.default_rng(0).normal(1.0, 0.05, 20)
    points = [(int(1000 * t), float(value)) for t, value in zip(times, curve(times) * noise, strict=True)]
    tag = "debug/cnn_feature_l2_norm"
    found = words({tag: points[-1][1]}, history={tag: points})
    assert bool(found) == expected
    if expected:
        assert "the norm of the CNN's features grows exponentially" in found[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"response": "panic"}, "response: expected one of rollback, stop, warn, got 'panic'"),
        ({"save_freq": 0}, "save_freq"),
        ({"lr_factor": 0.0}, r"lr_factor: expected a number in \(0, 1\], got 0.0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DivergenceGuard(**arguments)
