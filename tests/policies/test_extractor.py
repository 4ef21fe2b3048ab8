"""The features extractor: shapes, order of layers, and features that cannot explode."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_carla.policies import LayerNormCnnPolicy, LayerNormNatureCNN
from sb3_carla.policies.extractor import PixelFlatten


def image_space(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize("shape", [(4, 84, 84), (3, 36, 36), (1, 60, 120), (12, 96, 64)])
def test_shapes_follow_the_observation_space(shape: tuple[int, ...]) -> None:
    extractor = LayerNormNatureCNN(image_space(*shape), features_dim=512)
    assert extractor(th.rand(5, *shape)).shape == (5, 512)


def test_each_layer_is_normalised_before_its_relu() -> None:
    extractor = LayerNormNatureCNN(image_space(4, 84, 84))
    layers = [*extractor.cnn, *extractor.linear]
    block = [nn.LayerNorm, nn.ReLU]
    kinds = [nn.Conv2d, *block, nn.Conv2d, *block, nn.Conv2d, *block, PixelFlatten, nn.Linear, *block]
    assert [next(kind for kind in kinds if isinstance(layer, kind)) for layer in layers] == kinds
    shapes = [tuple(layer.normalized_shape) for layer in extractor.modules() if isinstance(layer, nn.LayerNorm)]
    assert shapes == [(32, 20, 20), (64, 9, 9), (64, 7, 7), (512,)]


@pytest.mark.parametrize("factor", [1.0, 1e3, 1e6])
def test_feature_norm_does_not_follow_the_weights(factor: float) -> None:
    th.manual_seed(0)
    extractor = LayerNormNatureCNN(image_space(4, 84, 84))
    with th.no_grad():
        for layer in extractor.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.weight *= factor
    norms = extractor(th.rand(8, 4, 84, 84)).detach().norm(dim=1)
    assert 10.0 < float(norms.min()) <= float(norms.max()) < 22.7  # sqrt(512) is the most


@pytest.mark.parametrize("space", [image_space(4, 35, 84), spaces.Box(-1.0, 1.0, (7,)), spaces.Discrete(3)])
def test_spaces_that_do_not_fit_are_refused(space: spaces.Space) -> None:
    with pytest.raises(ValueError, match="LayerNormNatureCNN needs"):
        LayerNormNatureCNN(space)


def test_equals_the_layers_written_out_with_pytorchs_own() -> None:
    extractor = LayerNormNatureCNN(image_space(3, 44, 52)).double()
    with th.no_grad():
        for parameter in extractor.parameters():
            parameter.add_(th.randn_like(parameter), alpha=0.05)
    hidden = images = th.rand(4, 3, 44, 52, dtype=th.float64)
    for convolution, norm in zip(extractor.cnn[:-1:3], extractor.cnn[1::3], strict=True):
        hidden = convolution(hidden)
        hidden = nn.functional.layer_norm(hidden, hidden.shape[1:], norm.weight, norm.bias, norm.eps).relu()
    flat = hidden.movedim(1, 3).flatten(1)  # pixel by pixel
    th.testing.assert_close(extractor(images), extractor.linear(flat))


@pytest.mark.parametrize("shape", [(4, 84, 84), (3, 37, 38), (1, 63, 121), (5, 90, 43)])
@pytest.mark.parametrize("first", [0, 1])
def test_raw_pixels_and_their_gradients_are_those_of_scaled_ones(shape: tuple[int, ...], first: int) -> None:
    """Sides that no block divides, and batches that begin anywhere in memory."""
    th.manual_seed(0)
    extractor = LayerNormNatureCNN(image_space(*shape)).double()
    pixels = th.randint(0, 256, (4, *shape), dtype=th.uint8)[first:]
    found = []
    for images in (pixels, pixels.double() / 255.0):
        extractor.zero_grad()
        features = extractor(images)
        features.square().sum().backward()
        found.append([features.detach(), *(parameter.grad.clone() for parameter in extractor.parameters())])
    for raw, scaled in zip(*found, strict=True):
        th.testing.assert_close(raw, scaled)


def test_policy_takes_images_that_are_scaled_already() -> None:
    space = spaces.Box(0.0, 1.0, (3, 36, 36), np.float32)
    policy = LayerNormCnnPolicy(space, spaces.Box(-1.0, 1.0, (2,)), lambda _: 1e-3, normalize_images=False)
    action, _ = policy.predict(space.sample())
    assert action.shape == (2,)
