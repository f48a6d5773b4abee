"""What somebody found who looked at samples: tables with a verdict on each, which make a trusted set or correct labels."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
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


def read_verdicts(path: Path, setting: str = "data.trusted") -> list[tuple[str, str, str]]:
    """(identity, label, verdict) of every row that was checked; rows without a verdict are passed over.

    identity: as in `RawData.identities`. label: the name of the class that the sample was found to belong to: with verdict
    "right" the one that it has, which may be left out; with "wrong" the right one, or empty where it is of no class at all.
    Other columns, such as one for remarks, may stand beside.

    Args:
        path: CSV or Parquet.
        setting: that names the file, for errors.

    Raises:
        UserError: where the file is missing or damaged, or a verdict is none of the three.
    """
    if not path.is_file():
        raise UserError(f"{setting} must be a file of checked samples, got {str(path)!r}, which is not there")
    if path.suffix.lower() in (".html", ".htm"):
        raise UserError(f"{setting} must be the CSV that the page saves, got {path}, which is the page itself")
    is_parquet = path.suffix.lower() == ".parquet"
    columns = {} if is_parquet else separated_columns(path)
    names = schema_of(path).names if is_parquet else list(columns)
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise UserError(f"{setting} must have the columns {', '.join(COLUMNS)}, got {shown(names)} in {path}")
    if is_parquet:
        columns = read_table(path, list(COLUMNS)).to_pydict()
    found = []
    for row, cells in enumerate(zip(*(columns[name] for name in COLUMNS), strict=True)):
        identity, label, verdict = ("" if cell is None else str(cell) for cell in cells)
        verdict = verdict.strip().lower()
        if verdict not in (RIGHT, WRONG, OPEN):
            place = f"row {row}" if is_parquet else f"line {row + 2}"
            raise UserError(f"{setting}: the verdict in {place} must be right, wrong or empty, got {shown(verdict)}")
        if verdict != OPEN:
            found.append((identity, label, verdict))
    if not found:
        raise UserError(
            f"{setting} must hold checked samples, got {path} without any verdict; save the page's CSV in its place, or "
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
    found = dict(_found(raw, path, "data.trusted"))
    in_train = np.zeros(len(raw.labels), dtype=bool)
    in_train[raw.parts.train] = True
    elsewhere = [row for row in found if not in_train[row]]
    if elsewhere:
        assert raw.identities is not None
        raise UserError(
            f"data.trusted: {shown(raw.identities[elsewhere[0]])} must be a training sample, but is of another part"
        )
    in_train[list(found)] = False
    moved = [row for row, label in found.items() if label is not None]
    before = np.zeros(0, dtype=np.int64) if raw.parts.trusted is None else raw.parts.trusted
    trusted = np.sort(np.concatenate([before, np.array(moved, dtype=np.int64)]))
    parts = raw.parts._replace(train=np.flatnonzero(in_train), trusted=trusted)
    num_wrong = sum(label != int(raw.labels[row]) for row, label in found.items())
    return _relabelled(raw._replace(parts=parts, checked=(len(found), num_wrong)), found)


def with_corrections(raw: RawData, paths: Sequence[Path]) -> RawData:
    """The data set with the labels that samples of any part were found to have, where they are; none becomes trusted.

    Samples that were found to be of no class leave the data set. `RawData.is_settled` says which were looked at.

    Args:
        raw: with identities.
        paths: as for `read_verdicts`; no sample twice.

    Raises:
        UserError: for a sample or a class that does not exist, or two verdicts on one sample.
    """
    found: dict[int, int | None] = {}
    for path in paths:
        for row, label in _found(raw, path, "data.corrections"):
            if row in found:
                assert raw.identities is not None
                raise UserError(f"data.corrections: {shown(raw.identities[row])} must have one verdict, but is in two files")
            found[row] = label
    is_settled = np.zeros(len(raw.labels), dtype=bool)
    is_settled[list(found)] = True
    assert raw.identities is not None
    facts = sorted((raw.identities[row], -1 if label is None else label) for row, label in found.items())
    digest = hashlib.sha256(f"{raw.files_hash}|{facts}".encode("utf-8", "backslashreplace")).hexdigest()[:16]
    num_wrong = sum(label != int(raw.labels[row]) for row, label in found.items())
    corrected = raw._replace(is_settled=is_settled, corrected=(len(found), num_wrong), files_hash=digest)
    return _relabelled(corrected, found)


def _found(raw: RawData, path: Path, setting: str) -> Iterator[tuple[int, int | None]]:
    """(row, label found) of every sample with a verdict, None for no class; each row once."""
    assert raw.identities is not None
    # a name with an accent has two spellings in Unicode, and what a Mac writes is not what others do
    row_of = {normalize("NFC", identity): row for row, identity in enumerate(raw.identities)}
    row_of |= {identity: row for row, identity in enumerate(raw.identities)}
    label_of = {normalize("NFC", name): label for label, name in enumerate(raw.class_names)}
    label_of |= {name: label for label, name in enumerate(raw.class_names)}
    before: set[int] = set()
    for identity, label, verdict in read_verdicts(path, setting):
        row = row_of.get(identity, row_of.get(normalize("NFC", identity)))
        if row is None:
            remedy = "give paths below data.root" if Path(identity).is_absolute() else "is it of other data?"
            raise UserError(f"{setting}: {shown(identity)} must be a sample of data.root, but is not; {remedy}")
        if row in before:
            raise UserError(f"{setting}: {shown(identity)} must have one verdict, but is checked twice")
        before.add(row)
        label = label if label in label_of else normalize("NFC", label)
        if label and label not in label_of:
            raise UserError(f"{setting}: the label of {shown(identity)} must be a class of the data, got {shown(label)}")
        given = raw.class_names[raw.labels[row]]
        if verdict == RIGHT and label and label_of[label] != raw.labels[row]:
            raise UserError(f"{setting}: {shown(identity)} must be wrong, or right with label {given}, got right with {label}")
        if verdict == WRONG and label_of.get(label) == raw.labels[row]:
            raise UserError(
                f"{setting}: {shown(identity)} must be right, or wrong with another label than {given} (or none, where it "
                f"is of no class), got wrong with {label}"
            )
        label = label or (given if verdict == RIGHT else "")
        yield row, label_of[label] if label else None


def _relabelled(raw: RawData, found: Mapping[int, int | None]) -> RawData:
    """With these labels, right ones included, and without the samples that are of no class."""
    labels, truth = raw.labels.copy(), None if raw.true_labels is None else raw.true_labels.copy()
    keep = np.ones(len(labels), dtype=bool)
    for row, label in found.items():
        if label is None:
            keep[row] = False
            continue
        labels[row] = label
        if truth is not None:
            truth[row] = label
    raw = raw._replace(labels=labels, true_labels=truth)
    if keep.all():
        return raw
    assert raw.identities is not None
    gone = np.flatnonzero(~keep)
    return kept(raw, keep, tuple(Skipped(raw.identities[row], "found to be of no class") for row in gone))
