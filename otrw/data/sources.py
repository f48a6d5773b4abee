"""Where samples come from: digits and CIFAR here; folders, tables and embeddings of one's own in own.py.

A new source is a function that returns `RawData`, and a case in `load_raw`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from otrw.config import DataConfig
from otrw.data.duplicates import image_hashes, refuse_copies
from otrw.data.labels_file import with_labels_file
from otrw.data.own import load_own
from otrw.data.parquet import load_parquet
from otrw.data.raw import RawData, train_and_test
from otrw.errors import UserError, first_line

TEST_SHARE_OF_DIGITS = 3  # every third image of a class: scikit-learn's digits come without a test set


def load_raw(config: DataConfig) -> RawData:
    """The data set that settings name, with hashes; with the labels of data.labels_file where there is one.

    Raises:
        UserError: for files that are missing, damaged or there twice.
    """
    if config.is_own:
        return load_own(config)
    raw = load_source(config.source, root=config.root, layout=config.layout, download=config.download, cache=config.cache)
    return raw if config.labels_file is None else with_labels_file(raw, config.labels_file)


def load_source(source: str, *, root: str, layout: str, download: bool, cache: str) -> RawData:
    """All images of the named source, with their hashes.

    Raises:
        UserError: for files that are missing, damaged or there twice.
    """
    if source == "digits":
        raw = load_digits()
    else:
        raw = _load_files(source, Path(root).expanduser(), layout, download, cache)
    assert isinstance(raw.inputs, np.ndarray)
    hashes = image_hashes(raw.inputs) if raw.hashes is None else raw.hashes
    refuse_copies(source, hashes[raw.parts.train], hashes[raw.parts.test])
    return raw._replace(hashes=hashes)


def _load_files(source: str, folder: Path, layout: str, download: bool, cache: str) -> RawData:
    has_parquet = any((folder / source).glob("*.parquet"))
    if layout == "parquet" or (layout == "auto" and has_parquet):
        return load_parquet(folder / source, cache)
    python_files = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[source]
    if layout == "torchvision" or download or (folder / python_files).exists():
        return load_torchvision(source, folder, download)
    raise UserError(
        f"data.root must hold {source}/*.parquet or {python_files}/, got {str(folder)!r}, which has neither; put the files "
        "there, or allow a download with --data.download true"
    )


def load_digits() -> RawData:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey; every third of a class is the test set, always the same."""
    from sklearn.datasets import load_digits as load  # 1 s, needed by this source alone

    bunch = load()
    images = (bunch.images * 15).astype(np.uint8)[..., None]  # 0..16 -> 0..240
    labels = bunch.target.astype(np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[::TEST_SHARE_OF_DIGITS]] = True
    names = tuple(str(digit) for digit in range(10))
    return train_and_test(images[~is_test], labels[~is_test], images[is_test], labels[is_test], names)


def load_torchvision(source: str, root: Path, download: bool) -> RawData:
    """CIFAR in the files that torchvision downloads."""
    from torchvision import datasets

    kind: Callable = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[source]
    try:
        train, test = (kind(root, train=part, download=download) for part in (True, False))
    except (RuntimeError, OSError, EOFError) as error:
        raise UserError(f"data.root: {source} in {root} cannot be read ({first_line(error)}); download it again") from None
    arrays = (train.data, np.array(train.targets), test.data, np.array(test.targets))
    return train_and_test(*arrays, tuple(train.classes))
