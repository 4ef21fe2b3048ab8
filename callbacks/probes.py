"""What the callbacks share: a model's networks and their parts, a moment to write, hooks that go away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar
from weakref import ref

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from torch import nn
from torch.utils.hooks import RemovableHandle

__all__ = ["BeforeDump", "Hook", "ProbeCallback", "encoders", "hidden_activations", "networks", "outside_table"]

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh)


def networks(model: BaseAlgorithm) -> dict[str, nn.Module]:
    """
    The networks that a model trains, by the names that the log uses.

    :param model: any SB3 model
    :return: "actor" and "critic" where the policy has them, else "policy" for the policy as a whole
    """
    found = {name: getattr(model.policy, name, None) for name in ("actor", "critic")}
    named = {name: network for name, network in found.items() if isinstance(network, nn.Module)}
    return named or {"policy": model.policy}


def encoders(network: nn.Module) -> dict[str, nn.Module]:
    """
    A network's features extractors that are convolutional, target networks' left out.

    :param network: of :func:`networks`
    :return: path in the network -> module; empty for networks without images
    """
    return {
        path: module
        for path, module in network.named_modules()
        if path.endswith("features_extractor")
        and "target" not in path
        and any(isinstance(layer, nn.Conv2d) for layer in module.modules())
    }


def hidden_activations(network: nn.Module) -> list[nn.Module]:
    """
    A network's activation functions, but for the one that squashes its output, and those of target networks.

    :param network: of :func:`networks`
    :return: modules
    """
    last = [
        layer for name, layer in network.named_modules() if name.endswith("mu") and isinstance(layer, nn.Sequential)
    ]
    outputs = {id(layers[-1]) for layers in last}
    return [
        module
        for path, module in network.named_modules()
        if isinstance(module, ACTIVATIONS) and id(module) not in outputs and "target" not in path
    ]


def outside_table(tag: str) -> tuple[str, ...]:
    """
    Where not to write a tag that is named by the environment. SB3's table cuts names to 36 characters with their
    indentation of 3, and where that makes two alike it ends the training.

    :param tag: "group/name"
    :return: for ``exclude`` of the logger's methods
    """
    return ("stdout", "log") if len(tag.partition("/")[2]) > 33 else ()


def moved(value: Any, device: th.device | str) -> Any:
    """
    :param value: tensors, and containers of them
    :param device: where they are to be
    :return: the same there; anything else as it is
    """
    if isinstance(value, th.Tensor):
        return value.to(device)
    if type(value) is dict:
        return {key: moved(each, device) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(moved(each, device) for each in value)
    return value


class Hook:
    """
    Calls a callback's method, as long as the callback is there. Its copies, in those of a policy, do nothing.

    :param method: of the callback; None for nothing
    :param first: arguments before those of the caller
    """

    def __init__(self, method: Any = None, *first: Any) -> None:
        # No WeakMethod: torch.compile does not see through that, and would cut a network in two at each hook.
        self._method = None if method is None else (ref(method.__self__), method.__func__)
        self._first = first

    def __call__(self, *args: Any) -> None:
        if self._method is not None:
            callback, function = self._method[0](), self._method[1]
            if callback is not None:
                function(callback, *self._first, *args)

    def __reduce__(self) -> tuple[type[Hook], tuple[()]]:
        return Hook, ()


class BeforeDump(KVWriter):
    """
    Calls a callback's method each time just before a logger writes, until it is removed.

    It stands before the logger's outputs, so that they write what the method records.

    :param logger: the model's logger
    :param method: records what is to be written
    :param last: call it after all others of this kind, so that it sees what they recorded
    """

    def __init__(self, logger: Logger, method: Callable[[], None], *, last: bool = False) -> None:
        self._logger = logger
        self._hook = Hook(method)
        self._last = last
        others = [output for output in logger.output_formats if isinstance(output, BeforeDump)]
        logger.output_formats.insert(sum(last or not other._last for other in others), self)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """
        :param key_values: not used
        :param key_excluded: not used
        :param step: not used
        """
        self._hook()

    def close(self) -> None:
        """There is nothing to close."""

    def remove(self) -> None:
        """Leave the logger as it was."""
        if self in self._logger.output_formats:
            self._logger.output_formats.remove(self)


class ProbeCallback(BaseCallback):
    """
    A callback that hooks into a model while it trains, and leaves nothing behind. Only where the training ends with an
    exception its hooks stay, until the callback's next training; with the callback gone, they do nothing.

    Subclasses register each :class:`Hook` in :meth:`_attach`, and add what removes it to ``self._handles``.
    """

    KEPT: ClassVar[tuple[str, ...]] = ()
    """Attributes that a checkpoint keeps: what was seen since the last dump, for instance."""

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._handles: list[RemovableHandle | BeforeDump] = []
        self._resumed: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """:return: for a checkpoint, between two updates: what it has seen so far"""
        return {name: moved(getattr(self, name), "cpu") for name in self.KEPT}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        :param state: of :meth:`state_dict`, from where the next training goes on
        """
        self._resumed = dict(state)

    def _attach(self) -> None:
        raise NotImplementedError

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _on_training_start(self) -> None:
        self._detach()  # of a training that ended with an exception
        self._attach()
        for name, value in self._resumed.items():
            setattr(self, name, moved(value, self.model.device))
        self._resumed = {}

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._detach()
