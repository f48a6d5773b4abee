"""The names that people give to the parts of a data set, as folders, in file names and in columns."""

import re

NAMES = {
    "train": ("train", "training"),
    "trusted": ("trusted", "meta"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
PART_OF_NAME = {name: part for part, names in NAMES.items() for name in names}


def part_of(name: str) -> str | None:
    """train, trusted, validation or test for a name that stands for it, whatever its case; None for any other."""
    return PART_OF_NAME.get(name.strip().lower())


def part_of_file(name: str) -> str | None:
    """The part that a word of a file's name stands for, as on the hub: train-00000-of-00002, ImageNet_LT_val; else None.

    Words are separated by anything but letters and digits. The last such word counts: test_of_train is a training file.
    """
    found = [part for word in re.split(r"[^0-9A-Za-z]+", name) if (part := part_of(word))]
    return found[-1] if found else None
