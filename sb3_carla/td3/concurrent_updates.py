"""Updates that take place while the environments make their next step, for any of SB3's off-policy algorithms."""

from __future__ import annotations

import copy
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch as th
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecNormalize

__all__ = ["ConcurrentUpdates"]


class ConcurrentUpdates(OffPolicyAlgorithm):
    """
    Mixin of an algorithm whose updates are in :meth:`run_updates`: ``concurrent_updates`` runs them in a second thread.

    SB3 collects, then updates, then collects. Here updates begin as soon as the next actions are chosen, and end before
    any callback looks at the networks. An update lacks the transitions of the step beside it. The result does not
    depend on which of the two is faster: it is as repeatable as without the second thread.
    """

    concurrent_updates = False
    _executor: ThreadPoolExecutor
    _due: tuple[int, int] | None = None
    _running: Future[None] | None = None
    _statistics: VecNormalize | None = None

    def run_updates(self, gradient_steps: int, batch_size: int) -> None:
        """
        Update the networks.

        :param gradient_steps: number of updates
        :param batch_size: transitions in each
        """
        raise NotImplementedError

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """
        :meth:`run_updates`; with ``concurrent_updates`` beside the next step of the environments.

        :param gradient_steps: number of updates
        :param batch_size: transitions in each
        """
        if self.concurrent_updates:
            self._due = (gradient_steps, batch_size)
        else:
            self.run_updates(gradient_steps, batch_size)

    def learn(self, *args: Any, **kwargs: Any) -> Any:
        """As in SB3. The thread ends with it, and so does every update that was due."""
        if not self.concurrent_updates:
            return super().learn(*args, **kwargs)
        if isinstance(self.replay_buffer, HerReplayBuffer):
            raise ValueError(
                "concurrent_updates: expected a replay buffer that asks the environments nothing, got HerReplayBuffer"
            )
        threads = th.get_num_threads()
        th.set_num_threads(max(1, threads - 1))  # one core is the environments'
        with ThreadPoolExecutor(1, "updates") as self._executor:
            try:
                return super().learn(*args, **kwargs)
            finally:
                self._due = self._running = self._statistics = None
                th.set_num_threads(threads)

    def finish_update(self) -> None:
        """Wait for the update that is running, if any; an error in it is raised here."""
        if self._running is not None:
            self._running.result()
            self._running = self._statistics = None
            self.policy.set_training_mode(False)

    @property
    def normalizer(self) -> VecNormalize | None:
        """What normalises samples: beside a step, which changes its statistics, a copy of them as they were before."""
        return self._vec_normalize_env if self._statistics is None else self._statistics

    def _begin_update(self) -> None:
        if self._due is not None:
            self._statistics = copy.deepcopy(self._vec_normalize_env)
            self._running, self._due = self._executor.submit(self.run_updates, *self._due), None

    def _sample_action(self, *args: Any, **kwargs: Any) -> Any:
        actions = super()._sample_action(*args, **kwargs)
        self._begin_update()  # SB3 steps the environments next
        return actions

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        inner = super()._init_callback(callback, progress_bar)
        if not self.concurrent_updates:
            return inner
        both = CallbackList([_FinishUpdate(), inner])
        both.init_callback(self)
        return both

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_executor", "_due", "_running", "_statistics"]


class _FinishUpdate(BaseCallback):
    """First of a list: the others see networks that stand still."""

    def _on_step(self) -> bool:
        assert isinstance(self.model, ConcurrentUpdates)
        self.model.finish_update()
        return True

    def _on_training_end(self) -> None:
        assert isinstance(self.model, ConcurrentUpdates)
        self.model._begin_update()  # what was due when the training ended
        self.model.finish_update()
