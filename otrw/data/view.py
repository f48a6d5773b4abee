"""How a net sees images: their size, their mean and standard deviation, and what training changes at random."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from otrw.config import DataConfig
from otrw.data.augment import Augmentation, augmented
from otrw.data.decoding import Cropping
from otrw.data.files import ImageFiles
from otrw.errors import check
from otrw.models.library_nets import NetInput

IMAGES_AT_A_TIME = 4096
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
        (channels,) and (channels,), on the CPU; of a library's net three, also for grey images. Of embeddings (D,) and (D,).
    """
    if isinstance(images, Tensor) and images.dim() == 2:
        return feature_statistics(images)
    if not config.mean and own is None and isinstance(images, Tensor):
        return pixel_statistics(images)
    default = (own.mean, own.std) if own else (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = (config.mean, config.std) if config.mean else default
    channels = 3 if own or not isinstance(images, Tensor) else images.shape[3]
    check(len(mean) in (1, channels), "data.mean", list(mean), f"have {channels} numbers, one a colour channel")
    return 255 * torch.tensor(mean), 255 * torch.tensor(std)


def pixel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, from counts of the 256 values: exact, and without a copy as floats.

    Args:
        images: (N, height, width, channels) uint8.

    Returns:
        (channels,) and (channels,) float32 on the CPU, in [0, 255]; the latter at least 1e-3.
    """
    values = torch.arange(256, dtype=torch.float64)
    means, deviations = [], []
    for channel in range(images.shape[3]):
        counts = torch.zeros(256, dtype=torch.int64)
        for some in images.split(IMAGES_AT_A_TIME):
            counts += torch.bincount(some[..., channel].reshape(-1), minlength=256).cpu()
        means.append((counts * values).sum() / counts.sum())
        deviations.append(((counts * (values - means[-1]) ** 2).sum() / counts.sum()).sqrt())
    return torch.stack(means).float(), torch.stack(deviations).float().clamp_min(1e-3)


def feature_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, (N, D) -> (D,) and (D,) float32; 1 where a feature does not vary."""
    std, mean = torch.std_mean(features.cpu().double(), dim=0, correction=0)
    return mean.float(), torch.where(std > 1e-6 * mean.abs(), std, 1.0).float()


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
    crop_scale: float = 1.0
    """Of images in files: smallest share of the area that a random crop takes."""
    workers: int = 0
    """Processes that decode images in files."""

    @property
    def cropping(self) -> Cropping:
        """How images in files become squares."""
        assert self.view is not None
        share = 1.0 if self.augmentation is None else self.crop_scale
        return Cropping(self.view.image_size, self.view.resize_size, self.view.interpolation, share)

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
        result = self._normalized(pixels)
        if self.view is None or result.shape[2:] == (self.view.image_size, self.view.image_size):
            return result
        size = [self.view.image_size, self.view.image_size]
        return F.interpolate(result, size, mode=self.view.interpolation, antialias=True)

    def of_decoded(self, pixels: Tensor, index: Tensor, key: int) -> Tensor:
        """Images that were decoded for a batch, and cropped already.

        Args:
            pixels: (n, size, size, 3) uint8.
            index: (n,) which samples they are, for the draws.
            key: of the random draws.

        Returns:
            (n, 3, size, size) float.
        """
        if self.augmentation is None:
            return self._normalized(pixels.float())
        places = torch.arange(len(index), device=index.device)
        options = self.augmentation._replace(crop_padding=0)
        return self._normalized(augmented(pixels, index, key, options, places))

    def _normalized(self, pixels: Tensor) -> Tensor:
        # rows of pixels against rows of means: three channels alone are too short a loop for a CPU's vectors
        channels = max(pixels.shape[3], len(self.mean))
        rows = pixels.expand(-1, -1, -1, channels).flatten(2)
        mean, std = (figure.expand(channels).repeat(pixels.shape[2]) for figure in (self.mean, self.std))
        normalized = ((rows - mean) / std).unflatten(2, (-1, channels))
        if self.augmentation is not None and self.augmentation.cutout_size:
            normalized = normalized.nan_to_num(0.0)  # a cutout square is NaN: the mean colour, 0 once normalised
        return normalized.permute(0, 3, 1, 2)
