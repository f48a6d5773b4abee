"""Batched random crops, flips, policies and cutout on the device, each sample with draws of its own.

The draws are a hash of (key, sample index): they do not depend on the process or on the order of the batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from otrw.data.draws import uniform_draws
from otrw.data.policies import Policy, policy_applied

NUM_DRAWS = 5  # crop row, crop column, flip, cutout row, cutout column


class Augmentation(NamedTuple):
    """What may happen to a training image; see AugmentConfig for the units."""

    crop_padding: int = 0
    padding_mode: str = "reflect"
    horizontal_flip: bool = False
    cutout_size: int = 0
    policy: Policy = Policy()


def augmented(images: Tensor, index: Tensor, key: int, augmentation: Augmentation, places: Tensor | None = None) -> Tensor:
    """Rows `index` (n,) of uint8 images (N, height, width, channels) -> (n, height, width, channels) float in [0, 255].

    Where `places` (n,) are given the rows are those, and `index` says only which samples they are, for the draws.
    Crop and flip are one gather, which a flip alone does without; the policy comes after, then cutout. Pixels of zero padding
    are 0; those of a cutout square are NaN, to be set to the mean.
    """
    height, width = images.shape[1:3]
    draws = uniform_draws(key, index, NUM_DRAWS)
    rows = index if places is None else places
    if augmentation.crop_padding:
        result = _cropped(images, rows, draws, augmentation)
    else:
        result = images[rows]
        if augmentation.horizontal_flip:
            result = torch.where((draws[:, 2] < 0.5)[:, None, None, None], result.flip(2), result)
    if augmentation.policy.name != "none":
        result = policy_applied(result.permute(0, 3, 1, 2), index, key, augmentation.policy).permute(0, 2, 3, 1)
    result = result.float()
    if augmentation.cutout_size:
        inside_y = _square(draws[:, 3], height, augmentation.cutout_size)
        inside_x = _square(draws[:, 4], width, augmentation.cutout_size)
        result = result.masked_fill((inside_y[:, :, None] & inside_x[:, None, :])[..., None], torch.nan)
    return result


def _cropped(images: Tensor, rows: Tensor, draws: Tensor, augmentation: Augmentation) -> Tensor:
    """Rows of images, padded, cropped and flipped by their draws."""
    height, width = images.shape[1:3]
    span = 2 * augmentation.crop_padding + 1
    y = _offsets(draws[:, 0], span, augmentation.crop_padding, height)
    x = _offsets(draws[:, 1], span, augmentation.crop_padding, width)
    if augmentation.horizontal_flip:
        x = torch.where(draws[:, 2:3] < 0.5, x.flip(1), x)
    outside = (_outside(y, height)[:, :, None] | _outside(x, width)[:, None, :])[..., None]
    y, x = _reflect(y, height), _reflect(x, width)
    result = images[rows[:, None, None], y[:, :, None], x[:, None, :]]
    return result.masked_fill(outside, 0) if augmentation.padding_mode == "zero" else result


def _offsets(draw: Tensor, span: int, padding: int, size: int) -> Tensor:
    start = (draw * span).long() - padding
    return start[:, None] + torch.arange(size, device=draw.device)


def _outside(position: Tensor, size: int) -> Tensor:
    return (position < 0) | (position >= size)


def _reflect(position: Tensor, size: int) -> Tensor:
    position = position.abs()
    return torch.where(position >= size, 2 * (size - 1) - position, position).clamp(0, size - 1)


def _square(draw: Tensor, size: int, side: int) -> Tensor:
    centre = (draw * size).long()[:, None]
    position = torch.arange(size, device=draw.device)
    return (position >= centre - side // 2) & (position < centre - side // 2 + side)
