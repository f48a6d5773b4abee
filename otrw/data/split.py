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
    """Rows of a data set of one's own, by what they are for; those of the test set are the source's."""

    split: Split
    notes: tuple[str, ...]
    """What was cut out, in words."""
    meta_is_checked: bool
    """Whether the source says that the whole meta set was checked."""


def with_test_set(raw: RawData, share: float) -> RawData:
    """The data set with a test set cut out of training, where it has none; before checked samples are moved.

    A share of every class, at least one sample, as long as one is left to train on and one to trust: the same samples for
    every seed, and whichever samples are checked later.

    Args:
        raw: the data set.
        share: data.test_share.

    Raises:
        UserError: where there are too few samples.
    """
    if raw.parts.test is not None:
        return raw
    needed = 1 if raw.parts.trusted is not None else 2
    rows = raw.parts.train
    train, test = _spread(
        raw, rows, TEST_SEED, "test split", lambda size: max(0, min(max(1, round(share * size)), size - needed))
    )
    if not len(test):
        raise UserError(f"data.test_share must leave a test set, got none of {len(rows)} samples; give more, or a test set")
    missing = np.setdiff1d(np.arange(len(raw.class_names)), raw.labels[test])
    too_few = f"too few for a test sample: {_names(raw, missing)}; " if len(missing) else ""
    note = (
        f"no test set in the data: {len(test)} of {len(rows)} samples cut out, {100 * share:g} % of every class, seed "
        f"{TEST_SEED}; {too_few}errors are by labels as they are given"
    )
    return raw._replace(parts=raw.parts._replace(train=train, test=test), notes=(*raw.notes, note))


def own_split(config: DataConfig, raw: RawData, seed: int) -> OwnSplit:
    """Parts as the source has them; a missing meta set or, where asked for, validation set cut out of training.

    Of every class at most half is cut for the meta set, then at most half of what is left for the validation set, so that
    rare classes keep samples to train on. With data.imbalance_factor set, both are cut and the tail is made as for digits and
    CIFAR.

    Args:
        config: settings of the data.
        raw: the data set.
        seed: of the meta and validation set.

    Raises:
        UserError: where a class has no sample to train on, or too few to be divided.
    """
    notes: list[str] = []
    num_classes = len(raw.class_names)
    train = raw.parts.train
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
        classes = f"{len(unseen)} class{'es' if len(unseen) > 1 else ''}"
        whose = "no trusted set" if not is_checked else f"no trusted sample of {classes}"
        notes.append(
            f"{whose}: {len(drawn)} samples drawn from training, up to {config.num_meta_per_class} a class, their labels taken "
            "on trust"
        )
    if num_validation:
        notes.append(
            f"{len(validation)} validation samples cut out of training, up to {num_validation} a class, seed {seed}; errors on "
            "them are by labels as they are given"
        )
    meta = np.sort(np.concatenate([meta, drawn]))
    _check_classes(raw, train, meta)
    return OwnSplit(Split(train, meta, np.sort(validation)), tuple(notes), is_checked and not len(drawn))


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
    names = [repr(raw.class_names[label]) for label in labels]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
