"""Updates in a second thread while the environments make their next step, for SB3's off-policy algorithms."""

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
        :meth:`run_updates`, with ``concurrent_updates`` during the environments' next step.

        :param gradient_steps: number of updates
        :param batch_size: transitions in each
        """
        if self.concurrent_updates:
            self._due = (gradient_steps, batch_size)
        else:
            self.run_updates(gradient_steps, batch_size)

    def learn(self, *args: Any, **kwargs: Any) -> Any:
        """As in SB3. All updates have ended when it returns, and so has the thread."""
        if not self.concurrent_updates:
            return super().learn(*args, **kwargs)
        if isinstance(self.replay_buffer, HerReplayBuffer):
            raise ValueError(
                "concurrent_updates: HerReplayBuffer calls the environments when it samples; expected another buffer"
            )
        threads = th.get_num_threads()
        th.set_num_threads(max(1, threads - 1))  # leaves a core to the environments
        with ThreadPoolExecutor(1, "updates") as self._executor:
            try:
                return super().learn(*args, **kwargs)
            finally:
                self._due = self._running = self._statistics = None
                th.set_num_threads(threads)

    def finish_update(self) -> None:
        """Wait for a running update. If it failed, its error is raised here."""
        if self._running is not None:
            self._running.result()
            self._running = self._statistics = None
            self.policy.set_training_mode(False)

    @property
    def normalizer(self) -> VecNormalize | None:
        """Normalises samples. While the environments step, a copy of the statistics from before that step."""
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
    """Stands first in the list of callbacks, so that the others see networks that no thread changes."""

    def _on_step(self) -> bool:
        assert isinstance(self.model, ConcurrentUpdates)
        self.model.finish_update()
        return True

    def _on_training_end(self) -> None:
        assert isinstance(self.model, ConcurrentUpdates)
        self.model._begin_update()  # the last step's updates
        self.model.finish_update()
