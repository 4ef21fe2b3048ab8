"""Common parts of the callbacks: find a model's networks and layers, and hook into them and into the logger."""

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

__all__ = [
    "PreDumpHook",
    "ProbeCallback",
    "WeakHook",
    "encoders",
    "exclude_if_too_long",
    "hidden_activations",
    "networks",
]

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh)


def networks(model: BaseAlgorithm) -> dict[str, nn.Module]:
    """
    Networks that a model trains, under the names that tags use.

    :param model: any SB3 model
    :return: "actor" and "critic" where the policy has them, else "policy" for the policy as a whole
    """
    found = {name: getattr(model.policy, name, None) for name in ("actor", "critic")}
    named = {name: network for name, network in found.items() if isinstance(network, nn.Module)}
    return named or {"policy": model.policy}


def encoders(network: nn.Module) -> dict[str, nn.Module]:
    """
    Convolutional features extractors of a network, without those of target networks.

    :param network: value of :func:`networks`
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
    Activation functions of a network's hidden layers, without those of target networks.

    :param network: value of :func:`networks`
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


def exclude_if_too_long(tag: str) -> tuple[str, ...]:
    """
    Outputs that must not get a tag whose name comes from the environment. SB3's table shortens names to 36 characters,
    3 of which are indentation, and raises an error if two names become equal.

    :param tag: "group/name"
    :return: for the ``exclude`` argument of the logger's methods
    """
    return ("stdout", "log") if len(tag.partition("/")[2]) > 33 else ()


def to_device(value: Any, device: th.device | str) -> Any:
    """
    :param value: tensors, or nested dicts, lists and tuples of them
    :param device: PyTorch device
    :return: the same with every tensor on the device; other values unchanged
    """
    if isinstance(value, th.Tensor):
        return value.to(device)
    if type(value) is dict:
        return {key: to_device(each, device) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_device(each, device) for each in value)
    return value


class WeakHook:
    """
    Calls a callback's method as long as the callback exists. A copy of the hook (in a copied or pickled policy) does
    nothing.

    :param method: method of a callback; None for no call
    :param first: arguments that go before those of the caller
    """

    def __init__(self, method: Any = None, *first: Any) -> None:
        # Not weakref.WeakMethod: torch.compile cannot trace it, and would break the graph at each hook.
        self._method = None if method is None else (ref(method.__self__), method.__func__)
        self._first = first

    def __call__(self, *args: Any) -> None:
        if self._method is not None:
            callback, function = self._method[0](), self._method[1]
            if callback is not None:
                function(callback, *self._first, *args)

    def __reduce__(self) -> tuple[type[WeakHook], tuple[()]]:
        return WeakHook, ()


class PreDumpHook(KVWriter):
    """
    Calls a callback's method each time before a logger writes, until :meth:`remove`.

    SB3 has no such hook. This one is an output of the logger that writes nothing. It is placed before the others, so
    that they write what the method records.

    :param logger: the model's logger
    :param method: records values with the logger
    :param last: call it after all other hooks, so that it sees what they recorded
    """

    def __init__(self, logger: Logger, method: Callable[[], None], *, last: bool = False) -> None:
        self._logger = logger
        self._hook = WeakHook(method)
        self._last = last
        others = [output for output in logger.output_formats if isinstance(output, PreDumpHook)]
        logger.output_formats.insert(sum(last or not other._last for other in others), self)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """
        :param key_values: not used
        :param key_excluded: not used
        :param step: not used
        """
        self._hook()

    def close(self) -> None:
        """Nothing to close."""

    def remove(self) -> None:
        """Remove the hook from the logger."""
        if self in self._logger.output_formats:
            self._logger.output_formats.remove(self)


class ProbeCallback(BaseCallback):
    """
    A callback that hooks into a model during a training, and removes its hooks at the end.

    After an exception the hooks stay until the callback's next training; once the callback is deleted, they do nothing.

    Subclasses register each :class:`WeakHook` in :meth:`_attach`, and add its handle to ``self._handles``.
    """

    CHECKPOINTED: ClassVar[tuple[str, ...]] = ()
    """Names of attributes that a checkpoint saves, for example sums since the last dump."""

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._handles: list[RemovableHandle | PreDumpHook] = []
        self._resumed: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """:return: state for a checkpoint, taken between two updates"""
        return {name: to_device(getattr(self, name), "cpu") for name in self.CHECKPOINTED}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        :param state: result of :meth:`state_dict`; the next training continues from it
        """
        self._resumed = dict(state)

    def _attach(self) -> None:
        raise NotImplementedError

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _on_training_start(self) -> None:
        self._detach()  # from a training that ended with an exception
        self._attach()
        for name, value in self._resumed.items():
            setattr(self, name, to_device(value, self.model.device))
        self._resumed = {}

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._detach()
