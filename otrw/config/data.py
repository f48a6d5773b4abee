"""Settings of the data: which images, how imbalanced, how wrong the labels, how augmented."""

from dataclasses import dataclass, field
from typing import Literal

from otrw.errors import check


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes to a training image. Draws depend on (seed, epoch, sample), never on the rank."""

    crop_padding: int = 4
    """Pixels added on every side before a random crop back to the image size; 0 turns the crop off."""
    padding_mode: Literal["zero", "reflect"] = "reflect"
    """What the added pixels hold."""
    horizontal_flip: bool = True
    """Mirror each image with probability one half."""
    cutout_size: int = 0
    """Side of a square set to the mean colour at a random place, in pixels; 0 turns it off (arXiv 1708.04552)."""

    def __post_init__(self) -> None:
        check(self.crop_padding >= 0, "data.augment.crop_padding", self.crop_padding, "be >= 0")
        check(self.cutout_size >= 0, "data.augment.cutout_size", self.cutout_size, "be >= 0")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, how imbalanced, how wrong the labels."""

    source: Literal["digits", "cifar10", "cifar100"] = "digits"
    """digits: scikit-learn's bundled handwritten digits (no download). cifar10, cifar100: files below `root`."""
    root: str = "data"
    """Folder that holds `cifar10/*.parquet` as on the Hugging Face hub, or torchvision's `cifar-10-batches-py`."""
    layout: Literal["auto", "parquet", "torchvision"] = "auto"
    """File layout below `root`; auto takes Parquet when it is there."""
    download: bool = False
    """Let torchvision download CIFAR into `root` when it is missing. Nothing is ever downloaded without this."""
    cache: str = "~/.cache/otrw"
    """Folder for decoded images (one uint8 array a data set); an empty string keeps nothing."""
    labels: Literal["fine", "coarse"] = "fine"
    """coarse (CIFAR-100 only): train on the 20 superclasses, with the long tail over the fine classes inside each."""
    imbalance_factor: float = 20.0
    """Size of the largest class over the size of the smallest, >= 1."""
    profile: Literal["exponential", "step"] = "exponential"
    """How class sizes fall from head to tail: n_c = head * factor^(-c/(C-1)), or half large and half small classes."""
    num_meta_per_class: int = 10
    """Images a class of the small, trusted, balanced meta set; cut out before the tail is made."""
    num_validation_per_class: int = 0
    """Images a class of a balanced validation set for choosing hyper-parameters; cut out before the tail is made."""
    label_noise: Literal["none", "symmetric", "similar"] = "none"
    """symmetric: a wrong label is any other class. similar: it is the class most easily confused (arXiv 1609.03683).
    Meta, validation and test labels stay right."""
    label_noise_rate: float = 0.0
    """Probability that a training label is wrong, in [0, 1)."""
    many_above: int = 100
    """Classes with more training images than this are "many-shot" (arXiv 1904.05160)."""
    few_below: int = 20
    """Classes with fewer training images than this are "few-shot"."""
    seed: int | None = None
    """Seed of the split and of the label noise; null takes run.seed."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random crops, flips and cutout of training images."""

    def __post_init__(self) -> None:
        check(self.imbalance_factor >= 1, "data.imbalance_factor", self.imbalance_factor, "be >= 1")
        check(self.num_meta_per_class >= 1, "data.num_meta_per_class", self.num_meta_per_class, "be >= 1")
        check(
            self.num_validation_per_class >= 0,
            "data.num_validation_per_class",
            self.num_validation_per_class,
            "be >= 0",
        )
        check(0 <= self.label_noise_rate < 1, "data.label_noise_rate", self.label_noise_rate, "be in [0, 1)")
        check(
            (self.label_noise == "none") == (self.label_noise_rate == 0),
            "data.label_noise_rate",
            self.label_noise_rate,
            f"agree with data.label_noise={self.label_noise}",
            "set both, or neither",
        )
        check(
            self.labels == "fine" or self.source == "cifar100",
            "data.labels",
            self.labels,
            f"be 'fine' for {self.source}",
            "only cifar100 has coarse labels",
        )
        check(self.few_below <= self.many_above + 1, "data.few_below", self.few_below, "be at most data.many_above + 1")
