"""The features extractor: shapes, order of layers, and features that cannot explode."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_carla.policies import LayerNormNatureCNN


def image_space(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize("shape", [(4, 84, 84), (3, 36, 36), (1, 60, 120), (12, 96, 64)])
def test_shapes_follow_the_observation_space(shape: tuple[int, ...]) -> None:
    extractor = LayerNormNatureCNN(image_space(*shape), features_dim=512)
    assert extractor(th.rand(5, *shape)).shape == (5, 512)


def test_each_layer_is_normalised_before_its_relu() -> None:
    extractor = LayerNormNatureCNN(image_space(4, 84, 84))
    kinds = [type(layer) for layer in [*extractor.cnn, *extractor.linear]]
    block = [nn.LayerNorm, nn.ReLU]
    assert kinds == [nn.Conv2d, *block, nn.Conv2d, *block, nn.Conv2d, *block, nn.Flatten, nn.Linear, *block]
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
