"""A whole data set in memory, wherever it comes from."""

from typing import NamedTuple

import numpy as np


class RawData(NamedTuple):
    """A whole data set, as its authors made it."""

    train_images: np.ndarray
    """(N, height, width, channels) uint8"""
    train_labels: np.ndarray
    """(N,) int64"""
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    groups: np.ndarray | None = None
    """(C,) superclass of each class, where the data set has them."""
    group_names: tuple[str, ...] = ()
    train_hashes: np.ndarray | None = None
    """(N,) uint64, equal for equal images; see otrw/data/duplicates.py. `load_source` fills it in where it is None."""
    test_hashes: np.ndarray | None = None
