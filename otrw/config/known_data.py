"""What is known of the data sets that the project names, before any of their files is read. No torch."""

from typing import NamedTuple


class KnownData(NamedTuple):
    """Facts of one data set, as its authors made it."""

    title: str
    """As a table names it once it is long-tailed."""
    preset: str
    """Our settings for it."""
    num_classes: int
    num_per_class: int
    """Training images of the smallest class."""
    num_test: int
    image_side: int
    """Height and width in pixels."""
    in_channels: int
    num_held_out_per_class: int
    """Validation images a class that a search holds out where it is told nothing else."""


KNOWN_DATA: dict[str, KnownData] = {
    "digits": KnownData("Digits-LT", "digits_lt", 10, 116, 602, 8, 1, 20),
    "cifar10": KnownData("CIFAR-10-LT", "cifar10_lt", 10, 5000, 10_000, 32, 3, 100),
    "cifar100": KnownData("CIFAR-100-LT", "cifar100_lt", 100, 500, 10_000, 32, 3, 20),
}
"""By `data.source`."""
NUM_COARSE_CLASSES = 20
"""Superclasses of CIFAR-100 (data.labels coarse)."""
