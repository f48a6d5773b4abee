"""Which samples a long-tailed training set, its meta set and its validation set are made of. Pure numpy."""

import hashlib
from typing import Literal, NamedTuple

import numpy as np

from otrw.errors import UserError, check
from otrw.seeds import seed_for

Profile = Literal["exponential", "step"]


class Split(NamedTuple):
    """Row numbers of a source, each sorted; the three never overlap."""

    train: np.ndarray
    meta: np.ndarray
    validation: np.ndarray

    @property
    def hash(self) -> str:
        """16 hex digits that identify the three index lists."""
        digest = hashlib.sha256()
        for part in self:
            digest.update(np.asarray(part, dtype="<i8").tobytes() + b"|")
        return digest.hexdigest()[:16]


def class_profile(
    num_classes: int,
    head_size: int,
    imbalance_factor: float,
    profile: Profile = "exponential",
    positions: np.ndarray | None = None,
) -> np.ndarray:
    """Training samples of each class, (C,) int64.

    exponential: n_c = int(head * factor^(-p_c)) with p_c = c / (C - 1), or the given positions in [0, 1] (arXiv
    1901.05555, section 5.1). step: the first half of the classes has head samples, the rest head / factor (arXiv
    1710.05381).
    """
    if positions is None:
        positions = np.arange(num_classes) / max(1, num_classes - 1)
    if profile == "step":
        positions = (positions > 0.5).astype(float)
    # rounded first: 49 * (1 / 49) is 0.9999999999999999 and means 1
    return np.floor(np.round(head_size * (1 / imbalance_factor) ** positions, 9)).astype(np.int64)


def long_tail_indices(
    labels: np.ndarray,
    imbalance_factor: float,
    *,
    seed: int,
    num_meta_per_class: int = 0,
    num_validation_per_class: int = 0,
    profile: Profile = "exponential",
    positions: np.ndarray | None = None,
) -> Split:
    """Cut a balanced meta and validation set out of labels (N,), then thin the rest to the long-tail profile.

    The head size is what the smallest class has left after the cut. For one seed the training sets are nested: a larger
    factor takes a subset, and meta and validation set do not depend on the factor. Raises UserError where a class
    would be left empty.
    """
    check(imbalance_factor >= 1, "data.imbalance_factor", imbalance_factor, "be >= 1")
    sizes = np.bincount(labels)
    num_cut = num_meta_per_class + num_validation_per_class
    if num_cut >= sizes.min():
        raise UserError(
            f"data.num_meta_per_class + data.num_validation_per_class must be less than the {sizes.min()} images of class "
            f"{sizes.argmin()}, got {num_cut}; take fewer"
        )
    head_size = int(sizes.min()) - num_cut
    wanted = class_profile(len(sizes), head_size, imbalance_factor, profile, positions)
    if wanted.min() < 1:
        raise UserError(
            f"data.imbalance_factor must leave every class a sample, got {imbalance_factor}: class {wanted.argmin()} "
            f"would be empty; use at most {head_size}"
        )
    generator = np.random.default_rng(seed_for(seed, "split"))
    train, meta, validation = [], [], []
    for label in range(len(sizes)):
        members = generator.permutation(np.flatnonzero(labels == label))
        meta.append(members[:num_meta_per_class])
        validation.append(members[num_meta_per_class:num_cut])
        train.append(members[num_cut : num_cut + wanted[label]])
    return Split(*(np.sort(np.concatenate(parts)).astype(np.int64) for parts in (train, meta, validation)))
