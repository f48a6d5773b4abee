"""Images that a data set holds more than once: counted where it has them by nature, refused where a file is there twice."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from otrw.data.files import ImageFiles
from otrw.errors import UserError

MOST_COPIES = 0.01
"""Share of a data set that may be copies. CIFAR-10 has none; CIFAR-100 has 14 in train (0.03 %), 2 in test and 10 test images
that are in train too (0.1 %): see tests/data/test_duplicates.py."""

TAIL_BYTES = 4096


class Copies(NamedTuple):
    """How many images are equal to others, pixel by pixel."""

    left_out: int = 0
    """Training images of the long-tailed set that are left out, since meta or validation set hold the same image."""
    within_train: int = 0
    """Training images of the long-tailed set beyond the first of their kind."""
    test_seen: int = 0
    """Test images that are in the training or meta set too. The test set stays as its authors made it."""

    def __str__(self) -> str:
        """One line; empty where there are no copies."""
        parts = (
            (self.left_out, "left out of training because meta or validation images are the same"),
            (self.within_train, "in training twice"),
            (self.test_seen, "in test and in training or meta"),
        )
        return ", ".join(f"{count} {words}" for count, words in parts if count)


def image_hashes(images: np.ndarray) -> np.ndarray:
    """8 bytes of BLAKE2b of each image's pixels: images (N, ...) uint8 -> (N,) uint64.

    Two different images of a million share a hash with a probability of 3e-8.
    """
    digests = (hashlib.blake2b(image, digest_size=8).digest() for image in np.ascontiguousarray(images))
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def file_hashes(files: ImageFiles) -> np.ndarray:
    """For images that stay in their files: N images -> (N,) uint64, equal for equal files, but for those of one size.

    Of files whose size no other file has nothing is read; of the others the last `TAIL_BYTES`, which in compressed images
    depend on all that comes before. Two files of one size and one end are taken for the same.
    """
    assert files.stamps is not None
    sizes = files.stamps[:, 0]
    values, counts = np.unique(sizes, return_counts=True)
    is_shared = np.isin(sizes, values[counts > 1])
    hashes = np.empty(len(files), dtype=np.uint64)
    for row in range(len(files)):
        end = files.content(row, last=TAIL_BYTES) if is_shared[row] else b""
        digest = hashlib.blake2b(f"{sizes[row]}|".encode() + end, digest_size=8).digest()
        hashes[row] = int.from_bytes(digest, "little")
    return hashes


def refuse_equal_files(paths: list[Path]) -> None:
    """Raise UserError where two files have the same content. Only files of equal size are read."""
    seen: dict[object, Path] = {}
    sizes = [path.stat().st_size for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        if sizes.count(size) > 1:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "blake2b").digest()
            if digest in seen:
                raise UserError(f"{path} must differ from {seen[digest].name}, but it is the same file; copy the right one")
            seen[digest] = path


def refuse_copies(name: str, train: np.ndarray, test: np.ndarray) -> None:
    """Raise UserError where more than `MOST_COPIES` of train or test are copies.

    Args:
        name: of the data set, for the message.
        train: (N,) hashes of the training images.
        test: (M,) hashes of the test images.
    """
    for part, count, size in (
        ("training samples come more than once", num_copies(train), len(train)),
        ("test samples come more than once", num_copies(test), len(test)),
        ("test samples are training samples too", int(np.isin(test, train).sum()), len(test)),
    ):
        if count > MOST_COPIES * size:
            raise UserError(
                f"{name} must hold different samples, but {count} of {size} {part}; is a file there twice under two names?"
            )


def num_copies(hashes: np.ndarray) -> int:
    """How many are equal to an earlier one."""
    return len(hashes) - len(np.unique(hashes))
