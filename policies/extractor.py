"""NatureCNN with LayerNorm. The norm of its features cannot grow without bound."""

from __future__ import annotations

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn import functional as F

__all__ = ["LayerNormNatureCNN"]

CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, kernel and stride of each layer (Mnih et al., Nature 518, 2015)."""
SMALLEST = 36
"""Side of the smallest image of which one pixel is left after them [px]."""


def space_to_depth(images: th.Tensor, block: int) -> th.Tensor:
    """
    Turn each block of pixels into the channels of one pixel. Rows and columns that do not fill a block are dropped.

    :param images: shape (n, channels, height, width), uint8
    :param block: side of a block [px], a multiple of 4
    :return: shape (n, channels * block * block, height // block, width // block), uint8, channels-last
    """
    n, channels, height, width = images.shape
    rows, columns = height // block, width // block
    images = images[:, :, : rows * block, : columns * block].contiguous()
    if not th.compiler.is_compiling() and images.storage_offset() % 4:
        images = images.clone()  # aligns the address for int32
    words = images.view(th.int32)  # four neighbours of a row are one int32
    blocks = words.view(n, channels, rows, block, columns, block // 4).permute(0, 2, 4, 1, 3, 5).contiguous()
    return blocks.view(th.uint8).view(n, rows, columns, -1).permute(0, 3, 1, 2)


class ImageLayerNorm(nn.LayerNorm):
    """``nn.LayerNorm([channels, height, width])`` for images in channels-last memory, computed without copying them."""

    def forward(self, input: th.Tensor) -> th.Tensor:
        """
        :param input: shape (n, channels, height, width)
        :return: the same shape, channels-last
        """
        pixels = input.permute(0, 2, 3, 1)  # (n, h, w, c), contiguous
        weight, bias = self.weight.permute(1, 2, 0), self.bias.permute(1, 2, 0)  # (h, w, c)
        return F.layer_norm(pixels, pixels.shape[1:], weight, bias, self.eps).permute(0, 3, 1, 2)


class PixelFlatten(nn.Module):
    """Flattens images pixel by pixel: a view in channels-last memory, where ``nn.Flatten`` would copy."""

    def forward(self, images: th.Tensor) -> th.Tensor:
        """
        :param images: shape (n, channels, height, width)
        :return: shape (n, height * width * channels)
        """
        return images.permute(0, 2, 3, 1).flatten(1)


class LayerNormNatureCNN(BaseFeaturesExtractor):
    """
    The network of the DQN Nature paper with a LayerNorm before each ReLU.

    LayerNorm fixes the norm of its output, whatever the weights before it are. The 512 features have a norm of about 16
    at the start, which can grow only with the gain of the last LayerNorm.

    Sources: Mnih et al., Nature 518, 2015; Ba et al., Layer Normalization, 2016.

    :param observation_space: image, channels first: ``Box(0, 255, (channels, height, width), uint8)``
    :param features_dim: number of features
    :param normalized_image: images are floats in 0..1 already
    :raises ValueError: if the space is not an image, or too small for the three convolutions, or no feature is left
    """

    accepts_uint8 = True
    """:meth:`forward` also takes raw pixels, and scales them by scaling the first layer's weights."""

    def __init__(
        self, observation_space: spaces.Space[Any], features_dim: int = 512, normalized_image: bool = False
    ) -> None:
        if not isinstance(observation_space, spaces.Box) or not is_image_space(
            observation_space, check_channels=False, normalized_image=normalized_image
        ):
            raise ValueError(f"LayerNormNatureCNN needs images (channels, height, width), got {observation_space}")
        channels, *size = observation_space.shape
        if min(size) < SMALLEST:
            raise ValueError(
                f"LayerNormNatureCNN needs images of at least {SMALLEST} x {SMALLEST} pixels, channels first; "
                f"got {channels} channels of {size[0]} x {size[1]}"
            )
        if not isinstance(features_dim, int) or features_dim < 1:
            raise ValueError(f"features_dim: expected a whole number of at least 1, got {features_dim!r}")
        super().__init__(observation_space, features_dim)
        layers: list[nn.Module] = []
        for filters, kernel, stride in CONVOLUTIONS:
            size = [(side - kernel) // stride + 1 for side in size]
            layers += [nn.Conv2d(channels, filters, kernel, stride), ImageLayerNorm([filters, *size]), nn.ReLU()]
            channels = filters
        self.cnn = nn.Sequential(*layers, PixelFlatten())
        self.linear = nn.Sequential(
            nn.Linear(channels * size[0] * size[1], features_dim), nn.LayerNorm(features_dim), nn.ReLU()
        )

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        :param observations: shape (n, channels, height, width), float in 0..1, or uint8 in 0..255
        :return: shape (n, features_dim), float32, >= 0
        """
        convolution, *layers = self.cnn
        assert isinstance(convolution, nn.Conv2d)
        if observations.dtype == th.uint8:
            hidden = self._convolve_bytes(convolution, observations)
        else:
            hidden = convolution(observations.contiguous(memory_format=th.channels_last))
        for layer in layers:
            hidden = layer(hidden)
        linear, norm, relu = self.linear
        # The last normalisation in float32: under autocast the features keep more than bfloat16's 8 bits.
        features: th.Tensor = relu(norm(linear(hidden).to(norm.weight.dtype)))
        return features

    def _convolve_bytes(self, convolution: nn.Conv2d, images: th.Tensor) -> th.Tensor:
        """
        The first layer of raw pixels, as a convolution of stride 1 over blocks of the stride's size.

        It sums the same products in half the time: with four channels most lanes of a processor's vectors are empty.
        Pixels are not divided by 255; the weights are. Integers up to 255 are exact in bfloat16.
        """
        stride = convolution.stride[0]
        blocks = space_to_depth(images, stride).to(self._compute_dtype(images.device.type))
        filters, channels, kernel, _ = convolution.weight.shape
        side = kernel // stride
        weight = convolution.weight.reshape(filters, channels, side, stride, side, stride).permute(0, 1, 3, 5, 2, 4)
        weight = weight.reshape(filters, -1, side, side) * (1.0 / 255.0)
        return F.conv2d(blocks, weight.contiguous(memory_format=th.channels_last), convolution.bias)

    def _compute_dtype(self, device_type: str) -> th.dtype:
        if th.is_autocast_enabled(device_type):
            return th.get_autocast_dtype(device_type)
        return next(self.parameters()).dtype
