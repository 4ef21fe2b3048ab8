"""NatureCNN with LayerNorm, whose features cannot grow without bound."""

from __future__ import annotations

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

__all__ = ["LayerNormNatureCNN"]

CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, kernel and stride of each layer (Mnih et al., Nature 518, 2015)."""


class LayerNormNatureCNN(BaseFeaturesExtractor):
    """
    The network of the DQN Nature paper with a LayerNorm before each ReLU.

    LayerNorm fixes the norm of what it normalises, whatever the weights before it do: the 512 features have a norm of
    about 16 at the start, and it can only grow with the gain of the last LayerNorm.

    Sources: Mnih et al., Nature 518, 2015; Ba et al., Layer Normalization, 2016.

    :param observation_space: image, channels first: ``Box(0, 255, (channels, height, width), uint8)``
    :param features_dim: number of features
    :param normalized_image: images are floats in 0..1 already
    :raises ValueError: if the space is not an image, or too small for the three convolutions
    """

    def __init__(
        self, observation_space: spaces.Space, features_dim: int = 512, normalized_image: bool = False
    ) -> None:
        if not isinstance(observation_space, spaces.Box) or not is_image_space(
            observation_space, check_channels=False, normalized_image=normalized_image
        ):
            raise ValueError(f"LayerNormNatureCNN needs an image space (channels, height, width), got {observation_space}")
        super().__init__(observation_space, features_dim)
        channels, height, width = observation_space.shape
        layers: list[nn.Module] = []
        shape = channels, height, width
        for filters, kernel, stride in CONVOLUTIONS:
            size = [(side - kernel) // stride + 1 for side in shape[1:]]
            if min(size) < 1:
                raise ValueError(f"LayerNormNatureCNN needs images of at least 36 x 36 pixels, got {height} x {width}")
            layers += [nn.Conv2d(shape[0], filters, kernel, stride), nn.LayerNorm([filters, *size]), nn.ReLU()]
            shape = filters, size[0], size[1]
        self.cnn = nn.Sequential(*layers, nn.Flatten())
        flat = shape[0] * shape[1] * shape[2]
        self.linear = nn.Sequential(nn.Linear(flat, features_dim), nn.LayerNorm(features_dim), nn.ReLU())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        :param observations: shape (n, channels, height, width), float, 0..1
        :return: shape (n, features_dim), float, >= 0
        """
        features: th.Tensor = self.linear(self.cnn(observations))
        return features
