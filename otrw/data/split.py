"""How data of one's own are divided: the parts that the source has are kept, what is missing is cut out of training."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from otrw.config import DataConfig
from otrw.data.long_tail import Split, long_tail_indices
from otrw.data.raw import RawData
from otrw.errors import UserError, shown
from otrw.seeds import seed_for

TEST_SEED = 0
"""The cut-out test set is the same for every seed of a run, so that errors of several seeds can be compared."""


class OwnSplit(NamedTuple):
    """Rows of a data set of one's own, by what they are for."""

    split: Split
    test: np.ndarray
    notes: tuple[str, ...]
    """What was cut out, in words."""
    meta_is_checked: bool
    """Whether the source says that the whole meta set was checked."""


def own_split(config: DataConfig, raw: RawData, seed: int) -> OwnSplit:
    """Parts as the source has them; a missing test set, meta set or, where asked for, validation set cut out of training.

    Of every class a share is cut for the test set, then at most half of the rest for the meta set, then at most half of what
    is left for the validation set, so that rare classes keep samples to train on. With data.imbalance_factor set, meta and
    validation set are cut and the tail is made as for digits and CIFAR.

    Args:
        config: settings of the data.
        raw: the data set.
        seed: of the meta and validation set.

    Raises:
        UserError: where a class has no sample to train on, or too few to be divided.
    """
    notes: list[str] = []
    num_classes = len(raw.class_names)
    train, test = raw.parts.train, raw.parts.test
    if test is None:
        train, test = _spread(raw, train, TEST_SEED, "test split", lambda size: _test_size(size, config, raw))
        notes.append(
            f"no test set in the data: {len(test)} of {len(train) + len(test)} samples cut out, {100 * config.test_share:g} % "
            f"of every class, seed {TEST_SEED}; {_without(raw, test)}errors are by labels as they are given"
        )
    if not len(test):
        raise UserError("data.test_share must leave a test set, got none; give more samples or a larger share")
    meta, is_checked = raw.parts.trusted, raw.parts.trusted is not None
    meta = np.zeros(0, dtype=np.int64) if meta is None else meta
    validation = raw.parts.validation
    num_validation = config.num_validation_per_class if validation is None else 0
    validation = np.zeros(0, dtype=np.int64) if validation is None else validation
    unseen = np.setdiff1d(np.arange(num_classes), raw.labels[meta])
    if config.imbalance_factor is not None:
        cut = long_tail_indices(
            (raw.labels if raw.true_labels is None else raw.true_labels)[train],
            config.imbalance_factor,
            seed=seed,
            num_meta_per_class=0 if is_checked else config.num_meta_per_class,
            num_validation_per_class=num_validation,
            profile=config.profile,
        )
        split = Split(*(train[rows] for rows in cut))
        notes.append(f"made long-tailed on purpose: data.imbalance_factor {config.imbalance_factor:g}")
        drawn, train = split.meta, split.train
        validation = split.validation if num_validation else validation
    else:
        drawable = train[np.isin(raw.labels[train], unseen)]
        _, drawn = _spread(raw, drawable, seed, "split", lambda size: min(config.num_meta_per_class, size // 2))
        train = np.setdiff1d(train, drawn)
        if num_validation:
            train, validation = _spread(raw, train, seed, "validation split", lambda size: min(num_validation, size // 2))
    if len(drawn):
        whose = "no trusted set" if not is_checked else f"no trusted sample of {len(unseen)} classes"
        notes.append(
            f"{whose}: {len(drawn)} samples drawn from training, up to {config.num_meta_per_class} a class, their labels taken "
            "on trust"
        )
    if num_validation:
        notes.append(f"{len(validation)} validation samples cut out of training, up to {num_validation} a class, seed {seed}")
    meta = np.sort(np.concatenate([meta, drawn]))
    _check_classes(raw, train, meta)
    return OwnSplit(Split(train, meta, np.sort(validation)), np.sort(test), tuple(notes), is_checked and not len(drawn))


def _test_size(size: int, config: DataConfig, raw: RawData) -> int:
    """Test samples of a class of this size: at least one, as long as one is left to train on and one to trust."""
    needed = 1 if raw.parts.trusted is not None else 2
    return max(0, min(max(1, round(config.test_share * size)), size - needed))


def _spread(
    raw: RawData, rows: np.ndarray, seed: int, purpose: str, wanted: Callable[[int], int]
) -> tuple[np.ndarray, np.ndarray]:
    """(what stays, what is cut) of these rows: wanted(size) drawn from every class; both sorted."""
    generator = np.random.default_rng(seed_for(seed, purpose))
    cut = [np.zeros(0, dtype=np.int64)]
    for label in range(len(raw.class_names)):
        members = generator.permutation(rows[raw.labels[rows] == label])
        cut.append(members[: wanted(len(members))])
    chosen = np.sort(np.concatenate(cut))
    return np.setdiff1d(rows, chosen), chosen


def _without(raw: RawData, test: np.ndarray) -> str:
    missing = np.setdiff1d(np.arange(len(raw.class_names)), raw.labels[test])
    return f"too few for a test sample: {_names(raw, missing)}; " if len(missing) else ""


def _check_classes(raw: RawData, train: np.ndarray, meta: np.ndarray) -> None:
    for rows, what in ((train, "to train on"), (meta, "in the trusted set")):
        missing = np.setdiff1d(np.arange(len(raw.class_names)), raw.labels[rows])
        if len(missing):
            raise UserError(
                f"every class must have a sample {what}, got none of {_names(raw, missing)}; add some, or leave small classes "
                "out with --data.smallest_class"
            )
    if len(raw.class_names) < 2:
        raise UserError(f"data.root must hold two classes or more, got {shown(list(raw.class_names))}")


def _names(raw: RawData, labels: Sequence[int] | np.ndarray) -> str:
    names = [raw.class_names[label] for label in labels]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
