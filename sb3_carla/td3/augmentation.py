"""DrQ's random shift of images."""

from __future__ import annotations

import torch as th

__all__ = ["random_shift"]

WORDS = {2: th.int16, 4: th.int32, 8: th.int64}
"""Bytes of a pixel in all channels -> integer type of that size. All channels of a pixel are moved as one integer."""


def random_shift(images: th.Tensor, pad: int, generator: th.Generator | None = None) -> th.Tensor:
    """
    Shift each image by up to ``pad`` pixels in each direction, repeating its edge.

    Source: Yarats et al., Image augmentation is all you need (DrQ), ICLR 2021. Differs from DrQ-v2: whole pixels, no
    bilinear interpolation, so that uint8 images stay uint8 and nothing is blurred.

    :param images: shape (n, channels, height, width), any dtype
    :param pad: largest shift [px], >= 0
    :param generator: source of randomness, torch's default if None
    :return: images of the same shape and dtype; in channels-last memory if uint8 with 2, 4 or 8 channels
    :raises ValueError: if ``images`` has not four dimensions or ``pad`` is negative
    """
    if images.dim() != 4 or pad < 0:
        raise ValueError(
            f"expected images of shape (n, channels, height, width) and pad >= 0, got {tuple(images.shape)} and {pad}"
        )
    if pad == 0:
        return images
    shifts = th.randint(0, 2 * pad + 1, (2, len(images)), device=images.device, generator=generator)
    if images.dtype != th.uint8 or images.shape[1] not in WORDS:
        return _shift(images, pad, shifts)
    pixels = th.stack(images.unbind(1), dim=-1)  # (n, h, w, c), uint8
    words = pixels.view(WORDS[images.shape[1]]).permute(0, 3, 1, 2)  # (n, 1, h, w), one number a pixel
    shifted = _shift(words, pad, shifts).reshape(*pixels.shape[:3], 1)
    return shifted.view(th.uint8).permute(0, 3, 1, 2)  # (n, c, h, w)


def _shift(images: th.Tensor, pad: int, shifts: th.Tensor) -> th.Tensor:
    """
    :param images: shape (n, c, h, w)
    :param pad: largest shift [px], > 0
    :param shifts: first row and column of each window in its padded image: shape (2, n), int64, in 0..2 pad
    :return: shape (n, c, h, w)
    """
    n, channels, height, width = images.shape
    padded = images.new_empty((n, channels, height + 2 * pad, width + 2 * pad))
    padded[:, :, pad:-pad, pad:-pad] = images
    padded[:, :, :pad, pad:-pad] = images[:, :, :1]
    padded[:, :, -pad:, pad:-pad] = images[:, :, -1:]
    padded[:, :, :, :pad] = padded[:, :, :, pad : pad + 1]
    padded[:, :, :, -pad:] = padded[:, :, :, -pad - 1 : -pad]
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (n, c, 2 pad + 1, 2 pad + 1, h, w), a view
    return windows[th.arange(n, device=images.device), :, shifts[0], shifts[1]]  # (n, c, h, w)
