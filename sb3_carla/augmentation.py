"""Random shift of images, the augmentation that makes value learning from pixels work."""

from __future__ import annotations

import torch as th

__all__ = ["random_shift"]


def random_shift(images: th.Tensor, pad: int, generator: th.Generator | None = None) -> th.Tensor:
    """
    Shift each image by up to ``pad`` pixels in each direction, repeating its edge.

    Source: Yarats et al., Image augmentation is all you need (DrQ), ICLR 2021. Differs from DrQ-v2: whole pixels, no
    bilinear interpolation, so that uint8 images stay uint8.

    :param images: shape (n, channels, height, width), any dtype
    :param pad: largest shift [px], >= 0
    :param generator: source of randomness, torch's default if None
    :return: images of the same shape and dtype
    :raises ValueError: if ``images`` has not four dimensions or ``pad`` is negative
    """
    if images.dim() != 4 or pad < 0:
        raise ValueError(f"expected images of shape (n, channels, height, width) and pad >= 0, got {images.shape}, {pad}")
    if pad == 0:
        return images
    n, channels, height, width = images.shape
    padded = images.new_empty((n, channels, height + 2 * pad, width + 2 * pad))
    padded[:, :, pad:-pad, pad:-pad] = images
    padded[:, :, :pad, pad:-pad] = images[:, :, :1]
    padded[:, :, -pad:, pad:-pad] = images[:, :, -1:]
    padded[:, :, :, :pad] = padded[:, :, :, pad : pad + 1]
    padded[:, :, :, -pad:] = padded[:, :, :, -pad - 1 : -pad]
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (n, c, 2p + 1, 2p + 1, h, w), a view
    shifts = th.randint(0, 2 * pad + 1, (2, n), device=images.device, generator=generator)
    return windows[th.arange(n, device=images.device), :, shifts[0], shifts[1]]  # (n, c, h, w)
