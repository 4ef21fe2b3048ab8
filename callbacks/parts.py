"""Which networks and encoders a model has, found from its policy; and a moment to write what was measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import KVWriter, Logger
from torch import nn

__all__ = ["BeforeDump", "encoders", "networks"]


def networks(model: BaseAlgorithm) -> dict[str, nn.Module]:
    """
    The networks that a model trains, by the names that the log uses.

    :param model: any SB3 model
    :return: "actor" and "critic" where the policy has them, else "policy" for the policy as a whole
    """
    found = {name: getattr(model.policy, name, None) for name in ("actor", "critic")}
    named = {name: network for name, network in found.items() if isinstance(network, nn.Module)}
    return named or {"policy": model.policy}


def encoders(network: nn.Module) -> list[nn.Module]:
    """
    A network's features extractors that are convolutional.

    :param network: of :func:`networks`
    :return: modules; empty for networks without images
    """
    candidates = [module for name, module in network.named_modules() if name.endswith("features_extractor")]
    return [module for module in candidates if any(isinstance(layer, nn.Conv2d) for layer in module.modules())]


class BeforeDump(KVWriter):
    """
    Calls a function each time just before a logger writes, until it is removed.

    It stands first among the logger's outputs, so that the others write what the function records.

    :param logger: the model's logger
    :param function: records what is to be written
    """

    def __init__(self, logger: Logger, function: Callable[[], None]) -> None:
        self._logger = logger
        self._function = function
        logger.output_formats.insert(0, self)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """
        :param key_values: not used
        :param key_excluded: not used
        :param step: not used
        """
        self._function()

    def close(self) -> None:
        """There is nothing to close."""

    def remove(self) -> None:
        """Leave the logger as it was."""
        if self in self._logger.output_formats:
            self._logger.output_formats.remove(self)
