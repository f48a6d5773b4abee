"""Pairs of samples mixed into one: mixup blends two images, CutMix pastes a square of one into the other.

All pairs of a step are mixed alike, by numbers that depend on (seed, epoch, step), so on any number of processes.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor, lerp

from otrw.seeds import seed_for


class Mix(NamedTuple):
    """How the pairs of a step are mixed."""

    share: float = 0.0
    """Share of the partner in input and target, in [0, 1]."""
    rows: slice | None = None
    """Of the square that the partner gives; None for a blend."""
    columns: slice | None = None


def drawn_mix(
    seed: int, epoch: int, step: int, *, mixup_alpha: float, cutmix_alpha: float, height: int = 0, width: int = 0
) -> Mix:
    """The mix of a step.

    Args:
        seed: of the loader.
        epoch: number of the epoch.
        step: number of the step in it.
        mixup_alpha: share of the partner from Beta(alpha, alpha) (arXiv 1710.09412); 0 turns mixup off.
        cutmix_alpha: share of the area from Beta(alpha, alpha) (arXiv 1905.04899, equation 2); 0 turns CutMix off. Where
            both are on, each step takes one of them with probability one half.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        The share, and for CutMix the square. Its centre is anywhere in the image, so a square at the border is cut off there;
        the share is the area that is left.
    """
    if cutmix_alpha > 0:
        draws = np.random.default_rng(seed_for(seed, "cutmix", epoch, step))
        if mixup_alpha == 0 or draws.random() < 0.5:
            side = float(draws.beta(cutmix_alpha, cutmix_alpha)) ** 0.5
            rows, columns = (_interval(int(draws.integers(size)), side * size, size) for size in (height, width))
            area = (rows.stop - rows.start) * (columns.stop - columns.start)
            return Mix(area / (height * width), rows, columns)
    if mixup_alpha > 0:
        draws = np.random.default_rng(seed_for(seed, "mixup", epoch, step))
        return Mix(float(draws.beta(mixup_alpha, mixup_alpha)))
    return Mix()


def mixed(inputs: Tensor, partners: Tensor, mix: Mix) -> Tensor:
    """Each input (n, ...) mixed with its partner; a square is cut from the last two dimensions."""
    if mix.rows is None:
        return lerp(inputs, partners, mix.share)
    result = inputs.clone()
    result[..., mix.rows, mix.columns] = partners[..., mix.rows, mix.columns]
    return result


def _interval(centre: int, length: float, size: int) -> slice:
    """Pixels from `length / 2` before to `length / 2` after a centre, as far as they are inside."""
    half = int(length) // 2
    return slice(max(0, centre - half), min(size, centre + half))
