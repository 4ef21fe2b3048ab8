"""The part of a checkpoint that belongs to SB3 callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["restore_callbacks", "save_callbacks"]

COUNTERS = (
    "n_calls", "n_episodes", "last_time_trigger", "best_mean_reward", "last_mean_reward", "last_best_mean_reward",
    "no_improvement_evals", "evaluations_timesteps", "evaluations_results", "evaluations_length",
    "evaluations_successes",
)  # fmt: skip
"""Attributes of SB3's callbacks that are saved: when they act next, and results of evaluations."""
INNER_CALLBACKS = ("callback", "callback_on_new_best")
"""Attributes of SB3's callbacks that hold another callback."""
STATE_DICT = "state_dict"


def save_callbacks(callback: Any) -> list[tuple[str, dict[str, Any]]]:
    """
    :param callback: a callback, a list of them, or None
    :return: class name and state of each callback, nested ones included
    """
    return [(type(each).__name__, _state(each)) for each in _all_callbacks(callback)]


def restore_callbacks(callback: Any, states: list[tuple[str, dict[str, Any]]]) -> None:
    """
    Restore callbacks by their class names: SB3's counters, and ``load_state_dict`` where a callback has it.

    :param callback: of the training that continues: a callback, a list of them, or None
    :param states: of :func:`save_callbacks`; states of callbacks that are no longer there are ignored
    """
    left = list(states)
    for each in _all_callbacks(callback):
        found = next((entry for entry in left if entry[0] == type(each).__name__), None)
        if found is not None:
            left.remove(found)
            for name, value in found[1].items():
                if name == STATE_DICT:
                    each.load_state_dict(value)
                else:
                    setattr(each, name, value)


def _all_callbacks(callback: Any) -> Iterator[Any]:
    """A callback, or a list of them, and the callbacks inside."""
    if isinstance(callback, list):
        inner = callback
    elif callback is None:
        inner = []
    else:
        yield callback
        inner = [*getattr(callback, "callbacks", []), *(getattr(callback, name, None) for name in INNER_CALLBACKS)]
    for each in inner:
        yield from _all_callbacks(each)


def _state(callback: Any) -> dict[str, Any]:
    state = {name: value for name, value in getattr(callback, "__dict__", {}).items() if name in COUNTERS}
    if hasattr(callback, STATE_DICT):
        state[STATE_DICT] = callback.state_dict()
    return state
