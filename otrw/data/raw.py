"""A whole data set, wherever it comes from: what every source gives, and all that is known of it before training."""

import hashlib
from typing import NamedTuple

import numpy as np

from otrw.data.files import ImageFiles


class Parts(NamedTuple):
    """Which rows of a data set are for what, each sorted; no row belongs to two. None: the source does not say."""

    train: np.ndarray
    """Rows to train on; whatever else is missing is cut from them (otrw/data/split.py)."""
    trusted: np.ndarray | None = None
    """Rows whose labels somebody has checked: the meta set."""
    validation: np.ndarray | None = None
    """Rows to choose settings by."""
    test: np.ndarray | None = None
    """Rows to report errors on."""


class Skipped(NamedTuple):
    """A sample or file that was found and is not used."""

    identity: str
    """What it is called, as in `RawData.identities`."""
    reason: str
    """Why, in a few words; equal reasons are counted together."""


class RawData(NamedTuple):
    """A whole data set as its authors made it. Rows are numbered once, over all parts: `SampleSet.source_index` is that row."""

    inputs: "np.ndarray | ImageFiles"
    """(N, height, width, channels) uint8 images; (N, D) float32 embeddings; or N images that stay in their files until they
    are needed. `inputs[rows]` is a selection of any of the three."""
    labels: np.ndarray
    """(N,) int64, the labels that are given, 0 to C - 1."""
    parts: Parts
    """Rows of train, trusted, validation and test."""
    class_names: tuple[str, ...]
    """C names, by label."""
    true_labels: np.ndarray | None = None
    """(N,) int64, the right labels where they are known, for evaluation alone; None: not known."""
    groups: np.ndarray | None = None
    """(C,) superclass of each class, where the data set has them."""
    group_names: tuple[str, ...] = ()
    """Names of the superclasses."""
    hashes: np.ndarray | None = None
    """(N,) uint64, equal for equal samples; see otrw/data/duplicates.py. `load_source` fills it in where it is None."""
    identities: tuple[str, ...] | None = None
    """What each sample is called outside: its path below data.root, or FILE:ROW. None for digits and CIFAR: the row."""
    skipped: tuple[Skipped, ...] = ()
    """What was found and left out."""
    notes: tuple[str, ...] = ()
    """What a user should know of how it was read, a line each."""
    checked: tuple[int, int] | None = None
    """How many samples somebody checked, and how many of their labels were wrong; None without a file of verdicts."""
    settled: np.ndarray | None = None
    """(N,) int64, the label that somebody found after an audit, -1 where nobody looked, -2 for no class; None without files of
    corrections. `labels` are still the given ones: otrw/data/verdicts.py corrects them once parts are drawn."""
    corrected: tuple[int, int] | None = None
    """How many labels were looked at so, and how many of them were wrong; None without a file of corrections."""
    in_files_since: str = ""
    """Why images stay in their files; empty where they do not."""
    files_hash: str = ""
    """16 hex digits of which samples there are, in which part and under which label; empty for digits and CIFAR."""

    def of_part(self, part: str) -> tuple["np.ndarray | ImageFiles", np.ndarray]:
        """Inputs and given labels of train, trusted, validation or test; of none where the source does not say."""
        rows = getattr(self.parts, part)
        rows = np.zeros(0, dtype=np.int64) if rows is None else rows
        return self.inputs[rows], self.labels[rows]


def rows_of_parts(raw: RawData) -> dict[str, np.ndarray]:
    """{part: rows} of the parts that the source has."""
    return {part: rows for part, rows in raw.parts._asdict().items() if rows is not None}


def listing_hash(raw: RawData, sizes: np.ndarray) -> str:
    """16 hex digits of which samples there are: part, label and identity of each, and the size of its file.

    Args:
        raw: with identities.
        sizes: (N,) bytes of each sample's file, or 0.
    """
    digest = hashlib.sha256()
    names = [] if raw.identities is None else raw.identities
    for part, rows in rows_of_parts(raw).items():
        for row in rows:
            name = raw.class_names[raw.labels[row]]
            digest.update(f"{part}|{name}|{names[row]}|{sizes[row]}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:16]


def kept(raw: RawData, keep: np.ndarray, skipped: tuple[Skipped, ...] = ()) -> RawData:
    """A data set without some of its rows and without the classes that then have none, numbered anew.

    Args:
        raw: the data set.
        keep: (N,) bool.
        skipped: what to say of those that go.
    """
    rows = np.flatnonzero(keep)
    new_row = np.cumsum(keep) - 1
    parts = {part: new_row[old[keep[old]]] for part, old in rows_of_parts(raw).items()}
    labels = raw.labels[rows]
    truth = None if raw.true_labels is None else raw.true_labels[rows]
    found = [] if raw.settled is None else [raw.settled[rows][raw.settled[rows] >= 0]]
    classes = np.unique(np.concatenate([labels, *([] if truth is None else [truth]), *found]))
    new_label = np.zeros(len(raw.class_names), dtype=np.int64)
    new_label[classes] = np.arange(len(classes))
    settled = None
    if raw.settled is not None:
        settled = raw.settled[rows]
        settled = np.where(settled >= 0, new_label[settled], settled)
    return raw._replace(
        inputs=raw.inputs[rows],
        labels=new_label[labels],
        parts=Parts(**parts),
        class_names=tuple(raw.class_names[label] for label in classes),
        true_labels=None if truth is None else new_label[truth],
        hashes=None if raw.hashes is None else raw.hashes[rows],
        identities=None if raw.identities is None else tuple(raw.identities[row] for row in rows),
        settled=settled,
        skipped=(*raw.skipped, *skipped),
    )


def train_and_test(
    train_images: np.ndarray, train_labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray, names: tuple[str, ...]
) -> RawData:
    """A data set of two parts in memory: the training rows come first, then those of the test set."""
    rows = np.arange(len(train_labels) + len(test_labels))
    images, labels = np.concatenate([train_images, test_images]), np.concatenate([train_labels, test_labels])
    return RawData(images, labels, Parts(train=rows[: len(train_labels)], test=rows[len(train_labels) :]), names)
