"""The trusted set as somebody checked it: a table of samples with a verdict on each."""

from pathlib import Path
from unicodedata import normalize

import numpy as np

from otrw.data.parquet import read_table, schema_of
from otrw.data.raw import RawData, Skipped, kept
from otrw.data.tabular import separated_columns
from otrw.errors import UserError, shown

COLUMNS = ("identity", "label", "verdict")
RIGHT, WRONG, OPEN = "right", "wrong", ""
"""Verdicts: the label is right, it is wrong, nobody has looked. None and a missing value are OPEN too."""


def read_verdicts(path: Path) -> list[tuple[str, str, str]]:
    """(identity, label, verdict) of every row that was checked; rows without a verdict are passed over.

    identity: as in `RawData.identities`. label: the name of the class that the sample was found to belong to: with verdict
    "right" the one that it has, which may be left out; with "wrong" the right one, or empty where it is of no class at all.
    Other columns, such as one for remarks, may stand beside.

    Args:
        path: CSV or Parquet.

    Raises:
        UserError: where the file is missing or damaged, or a verdict is none of the three.
    """
    if not path.is_file():
        raise UserError(f"data.trusted must be a file of checked samples, got {str(path)!r}, which is not there")
    if path.suffix.lower() in (".html", ".htm"):
        raise UserError(f"data.trusted must be the CSV that the page saves, got {path}, which is the page itself")
    is_parquet = path.suffix.lower() == ".parquet"
    columns = {} if is_parquet else separated_columns(path)
    names = schema_of(path).names if is_parquet else list(columns)
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise UserError(f"data.trusted must have the columns {', '.join(COLUMNS)}, got {shown(names)} in {path}")
    if is_parquet:
        columns = read_table(path, list(COLUMNS)).to_pydict()
    found = []
    for row, cells in enumerate(zip(*(columns[name] for name in COLUMNS), strict=True)):
        identity, label, verdict = ("" if cell is None else str(cell) for cell in cells)
        verdict = verdict.strip().lower()
        if verdict not in (RIGHT, WRONG, OPEN):
            place = f"row {row}" if is_parquet else f"line {row + 2}"
            raise UserError(f"data.trusted: the verdict in {place} must be right, wrong or empty, got {shown(verdict)}")
        if verdict != OPEN:
            found.append((identity, label, verdict))
    if not found:
        raise UserError(
            f"data.trusted must hold checked samples, got {path} without any verdict; save the page's CSV in its place, or "
            "write right or wrong there"
        )
    return found


def with_trusted(raw: RawData, path: Path) -> RawData:
    """The data set with checked samples moved from training into the trusted part, under the labels they were found to have.

    Samples that were found to be of no class leave the data set. What the trusted part held before stays in it.

    Args:
        raw: with identities.
        path: as for `read_verdicts`.

    Raises:
        UserError: for a sample that is not of the training part, a class that does not exist, or two verdicts on one sample.
    """
    assert raw.identities is not None
    # a name with an accent has two spellings in Unicode, and what a Mac writes is not what others do
    row_of = {normalize("NFC", identity): row for row, identity in enumerate(raw.identities)}
    row_of |= {identity: row for row, identity in enumerate(raw.identities)}
    label_of = {normalize("NFC", name): label for label, name in enumerate(raw.class_names)}
    label_of |= {name: label for label, name in enumerate(raw.class_names)}
    in_train = np.zeros(len(raw.labels), dtype=bool)
    in_train[raw.parts.train] = True
    labels, moved, gone = raw.labels.copy(), [], []
    truth = None if raw.true_labels is None else raw.true_labels.copy()
    for identity, label, verdict in read_verdicts(path):
        row = row_of.get(identity, row_of.get(normalize("NFC", identity)))
        if row is None:
            remedy = "give paths below data.root" if Path(identity).is_absolute() else "is it of other data?"
            raise UserError(f"data.trusted: {shown(identity)} must be a sample of data.root, but is not; {remedy}")
        if not in_train[row]:
            part = "checked twice" if row in moved or row in gone else "of another part"
            raise UserError(f"data.trusted: {shown(identity)} must be a training sample with one verdict, but is {part}")
        label = label if label in label_of else normalize("NFC", label)
        if label and label not in label_of:
            raise UserError(f"data.trusted: the label of {shown(identity)} must be a class of the data, got {shown(label)}")
        given = raw.class_names[raw.labels[row]]
        if verdict == RIGHT and label and label_of[label] != raw.labels[row]:
            raise UserError(
                f"data.trusted: {shown(identity)} must be wrong, or right with label {given}, got right with {label}"
            )
        if verdict == WRONG and label_of.get(label) == raw.labels[row]:
            raise UserError(
                f"data.trusted: {shown(identity)} must be right, or wrong with another label than {given} (or none, where it "
                f"is of no class), got wrong with {label}"
            )
        label = label or (given if verdict == RIGHT else "")
        in_train[row] = False
        if label:
            labels[row] = label_of[label]
            if truth is not None:
                truth[row] = label_of[label]
            moved.append(row)
        else:
            gone.append(row)
    before = np.zeros(0, dtype=np.int64) if raw.parts.trusted is None else raw.parts.trusted
    trusted = np.sort(np.concatenate([before, np.array(moved, dtype=np.int64)]))
    parts = raw.parts._replace(train=np.flatnonzero(in_train), trusted=trusted)
    num_wrong = len(gone) + int((labels != raw.labels).sum())
    raw = raw._replace(labels=labels, true_labels=truth, parts=parts, checked=(len(moved) + len(gone), num_wrong))
    if not gone:
        return raw
    assert raw.identities is not None
    keep = np.ones(len(labels), dtype=bool)
    keep[gone] = False
    return kept(raw, keep, tuple(Skipped(raw.identities[row], "found to be of no class") for row in gone))
