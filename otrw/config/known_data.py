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
OTHER_DATA = "other data named "
"""How a record's data set begins where its images are not those that go by the name."""
NUM_COARSE_CLASSES = 20
"""Superclasses of CIFAR-100 (data.labels coarse)."""


def data_set_name(source: str, *, is_coarse: bool, num_classes: int, num_test: int) -> str:
    """What a record calls its data: the source, unless the images found under that name cannot be those.

    Args:
        source: `data.source`.
        is_coarse: whether superclasses are the labels.
        num_classes: classes found.
        num_test: test images found.
    """
    known = KNOWN_DATA.get(source)
    name = source + ("_coarse" if is_coarse else "")
    if known is None:
        return name
    expected = (NUM_COARSE_CLASSES if is_coarse else known.num_classes, known.num_test)
    if (num_classes, num_test) == expected:
        return name
    return f"{OTHER_DATA}{name} ({num_classes} classes, {num_test} test images)"
