"""How a net sees images: their size, their mean and standard deviation, and what training changes at random."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from otrw.config import DataConfig
from otrw.data.augment import Augmentation, augmented
from otrw.data.files import ImageFiles
from otrw.errors import check
from otrw.models.library_nets import NetInput

SHARE_OF_CENTRE = 0.875
"""Of the shorter side, that evaluation crops from the centre where a net has no share of its own: 224 of 256 pixels."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What most nets for large images are trained with."""


def view_of(config: DataConfig, own: NetInput | None) -> NetInput | None:
    """What a net sees of images: what it was made for, changed where the settings say so.

    Args:
        config: the settings.
        own: what a library's net was made for; None for nets that take images of any size as they are.

    Returns:
        None where images are taken as they are. Empty mean and std stand for those of the training set.
    """
    size = config.image_size or (own.image_size if own else None)
    if size is None:
        return None
    own_share = own.image_size / own.resize_size if own else SHARE_OF_CENTRE
    resize_size = config.resize_size or round(size / own_share)
    check(resize_size >= size, "data.resize_size", resize_size, f"be at least the {size} pixels that the net sees")
    mean, std = (config.mean or (own.mean if own else ()), config.std or (own.std if own else ()))
    return NetInput(size, resize_size, mean, std, own.interpolation if own else "bilinear")


def normalisation(config: DataConfig, own: NetInput | None, images: Tensor | ImageFiles) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each colour channel, in [0, 255]: set, the net's own, or of the training set.

    Args:
        config: the settings.
        own: what a library's net was made for.
        images: (N, height, width, channels) uint8 of the training set; of images in files ImageNet's figures are taken.

    Returns:
        (channels,) and (channels,), on the CPU; of a library's net three, also for grey images.
    """
    if not config.mean and own is None and isinstance(images, Tensor):
        pixels = images.reshape(-1, images.shape[3]).cpu().numpy().astype(np.float64)
        return torch.from_numpy(pixels.mean(0)).float(), torch.from_numpy(pixels.std(0)).float().clamp_min(1e-3)
    default = (own.mean, own.std) if own else (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = (config.mean, config.std) if config.mean else default
    channels = 3 if own or not isinstance(images, Tensor) else images.shape[3]
    check(len(mean) in (1, channels), "data.mean", list(mean), f"have {channels} numbers, one a colour channel")
    return 255 * torch.tensor(mean), 255 * torch.tensor(std)


@dataclass(frozen=True)
class ImageTransform:
    """From uint8 images to what a net takes: augmented where training, normalised, of the net's size."""

    mean: Tensor
    """(channels,) in [0, 255]; 3 of them make grey images coloured ones."""
    std: Tensor
    """(channels,)"""
    augmentation: Augmentation | None
    """None: of evaluation."""
    view: NetInput | None
    """None: images keep their size."""

    def __call__(self, images: Tensor, index: Tensor, key: int) -> Tensor:
        """Rows of images in memory.

        Args:
            images: (N, height, width, channels) uint8, all of them.
            index: (n,) rows.
            key: of the random draws.

        Returns:
            (n, channels, size, size) float.
        """
        pixels = images[index].float() if self.augmentation is None else augmented(images, index, key, self.augmentation)
        # a cutout square is NaN: the mean colour, 0 once normalised
        result = ((pixels - self.mean) / self.std).nan_to_num(0.0).permute(0, 3, 1, 2)
        if self.view is None or result.shape[2:] == (self.view.image_size, self.view.image_size):
            return result
        size = [self.view.image_size, self.view.image_size]
        return F.interpolate(result, size, mode=self.view.interpolation, antialias=True)
