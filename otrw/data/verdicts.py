"""What somebody found who looked at samples: tables with a verdict on each, which make a trusted set or correct labels."""

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np

from otrw.data.long_tail import Split
from otrw.data.parquet import read_table, schema_of
from otrw.data.raw import RawData, Skipped, kept
from otrw.data.tabular import separated_columns
from otrw.errors import UserError, shown

COLUMNS = ("identity", "label", "verdict")
RIGHT, WRONG, OPEN = "right", "wrong", ""
"""Verdicts: the label is right, it is wrong, nobody has looked. None and a missing value are OPEN too."""
UNSEEN, NO_CLASS = -1, -2
"""In `RawData.settled`: nobody has looked, and it is of no class."""
GONE = "found to be of no class"
FORMULA_STARTS = ("=", "+", "-", "@")


def read_verdicts(path: Path, setting: str = "data.trusted") -> list[tuple[str, str, str]]:
    """(identity, label, verdict) of every row, OPEN ones too.

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
        raise UserError(f"{setting} must be a file of checked samples, got {str(path)!r}, which is none")
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
    rows = []
    for row, cells in enumerate(zip(*(columns[name] for name in COLUMNS), strict=True)):
        identity, label, verdict = ("" if cell is None else str(cell) for cell in cells)
        verdict = verdict.strip().lower()
        if verdict not in (RIGHT, WRONG, OPEN):
            place = f"row {row}" if is_parquet else f"line {row + 2}"
            raise UserError(f"{setting}: the verdict in {place} must be right, wrong or empty, got {shown(verdict)}")
        rows.append((identity, label, verdict))
    if all(verdict == OPEN for _, _, verdict in rows):
        raise UserError(
            f"{setting} must hold checked samples, got {path} without any verdict; save the page's CSV in its place, or "
            "write right or wrong there"
        )
    return rows


def num_verdicts(path: Path) -> int | None:
    """How many rows of a CSV somebody has judged, as training reads it; None where it has no column for it."""
    verdicts = separated_columns(path).get("verdict")  # a spreadsheet may have changed the separator
    return None if verdicts is None else sum(bool(verdict and verdict.strip()) for verdict in verdicts)


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
    assert raw.identities is not None
    in_train = np.zeros(len(raw.labels), dtype=bool)
    in_train[raw.parts.train] = True
    for row, label in found.items():
        one = shown(raw.identities[row])
        if not in_train[row]:
            raise UserError(f"data.trusted: {one} must be a training sample, but is of another part; try data.corrections")
        if raw.settled is not None and raw.settled[row] not in (UNSEEN, label):
            raise UserError(f"data.trusted: {one} must have one verdict, but data.corrections has another")
    in_train[list(found)] = False
    labels, truth = raw.labels.copy(), None if raw.true_labels is None else raw.true_labels.copy()
    moved = [row for row, label in found.items() if label != NO_CLASS]
    for row in moved:
        labels[row] = found[row]
        if truth is not None:
            truth[row] = found[row]
    num_wrong = len(found) - len(moved) + int((labels != raw.labels).sum())
    before = np.zeros(0, dtype=np.int64) if raw.parts.trusted is None else raw.parts.trusted
    trusted = np.sort(np.concatenate([before, np.array(moved, dtype=np.int64)]))
    parts = raw.parts._replace(train=np.flatnonzero(in_train), trusted=trusted)
    raw = raw._replace(labels=labels, true_labels=truth, parts=parts, checked=(len(found), num_wrong))
    if len(moved) == len(found):
        return raw
    assert raw.identities is not None
    keep = np.ones(len(labels), dtype=bool)
    keep[list(found.keys() - set(moved))] = False
    return kept(raw, keep, tuple(Skipped(raw.identities[row], GONE) for row in np.flatnonzero(~keep)))


def with_corrections(raw: RawData, paths: Sequence[Path]) -> RawData:
    """The data set with what was found of samples of any part in `RawData.settled`; labels and parts stay as they are.

    So the trusted and the validation set are drawn by the labels as they were, and a run with corrections and one without
    have the same ones; `corrected` comes after.

    Args:
        raw: with identities.
        paths: as for `read_verdicts`; no sample twice.

    Raises:
        UserError: for a sample or a class that does not exist, or two verdicts on one sample.
    """
    assert raw.identities is not None
    settled = np.full(len(raw.labels), UNSEEN, dtype=np.int64)
    for path in paths:
        for row, label in _found(raw, path, "data.corrections"):
            if settled[row] != UNSEEN:
                raise UserError(f"data.corrections: {shown(raw.identities[row])} must have one verdict, but is in two files")
            settled[row] = label
    rows = np.flatnonzero(settled != UNSEEN)
    facts = sorted((raw.identities[row], int(settled[row])) for row in rows)
    digest = hashlib.sha256(f"{raw.files_hash}|{facts}".encode("utf-8", "backslashreplace")).hexdigest()[:16]
    is_wrong = settled[rows] != raw.labels[rows]
    note = f"{len(rows)} labels were judged after an audit, {int(is_wrong.sum())} of them wrong"
    in_test = 0 if raw.parts.test is None else int(np.isin(rows[is_wrong], raw.parts.test).sum())
    if in_test:
        note += f", {in_test} in the test set: errors are not those of a run without"
    return raw._replace(
        settled=settled,
        corrected=(len(rows), int(is_wrong.sum())),
        files_hash=digest,
        notes=(*raw.notes, note),
        skipped=(*raw.skipped, *(Skipped(raw.identities[row], GONE) for row in np.flatnonzero(settled == NO_CLASS))),
    )


def corrected(raw: RawData, split: Split) -> tuple[RawData, Split]:
    """Data set and split with the labels of `RawData.settled`, right and given, and without what is of no class.

    Raises:
        UserError: where a class has no sample to train on or to trust any more, or nothing is left to test on.
    """
    if raw.settled is None:
        return raw, split
    is_known = raw.settled >= 0
    labels = np.where(is_known, raw.settled, raw.labels)
    truth = None if raw.true_labels is None else np.where(is_known, raw.settled, raw.true_labels)
    assert raw.parts.test is not None
    train, meta, validation, test = (rows[raw.settled[rows] != NO_CLASS] for rows in (*split, raw.parts.test))
    for rows, before, what in ((train, split.train, "to train on"), (meta, split.meta, "in the trusted set")):
        missing = np.setdiff1d(raw.labels[before], labels[rows])
        if len(missing):
            name = shown(raw.class_names[missing[0]])
            raise UserError(
                f"data.corrections must leave every class a sample {what}, got none of {name}; take the class out of the data"
            )
    if not len(test):
        raise UserError("data.corrections must leave a sample to test on, got none")
    raw = raw._replace(labels=labels, true_labels=truth, parts=raw.parts._replace(test=test))
    return raw, Split(train, meta, validation)


def _found(raw: RawData, path: Path, setting: str) -> Iterator[tuple[int, int]]:
    """(row, label found) of every sample with a verdict, NO_CLASS for none; each row once."""
    assert raw.identities is not None
    row_of, label_of = (_by_name(names) for names in (raw.identities, raw.class_names))
    before: set[int] = set()
    for identity, name, verdict in read_verdicts(path, setting):
        row, label = _named(row_of, identity), _named(label_of, name)
        if verdict == OPEN:
            if row is not None and label not in (None, int(raw.labels[row])):
                raise UserError(f"{setting}: {shown(identity)} must have a verdict, got the label {name} without one")
            continue
        if row is None:
            remedy = "give paths below data.root" if Path(identity).is_absolute() else "is it of other data?"
            raise UserError(f"{setting}: {shown(identity)} must be a sample of data.root, but is not; {remedy}")
        if row in before:
            raise UserError(f"{setting}: {shown(identity)} must have one verdict, but is checked twice")
        before.add(row)
        if name and label is None:
            remedy = _nearest(name, raw.class_names)
            raise UserError(f"{setting}: the label of {shown(identity)} must be a class of the data, got {shown(name)}{remedy}")
        given = raw.class_names[raw.labels[row]]
        if verdict == RIGHT and label not in (None, int(raw.labels[row])):
            raise UserError(f"{setting}: {shown(identity)} must be wrong, or right with label {given}, got right with {name}")
        if verdict == WRONG and label == raw.labels[row]:
            raise UserError(
                f"{setting}: {shown(identity)} must be right, or wrong with another label than {given} (or none, where it "
                f"is of no class), got wrong with {name}"
            )
        if label is None:
            label = int(raw.labels[row]) if verdict == RIGHT else NO_CLASS
        yield row, label


def _by_name(names: Sequence[str]) -> dict[str, int]:
    """{name: place}; a name with an accent has two spellings in Unicode, and what a Mac writes is not what others do."""
    places = {normalize("NFC", name): place for place, name in enumerate(names)}
    return places | {name: place for place, name in enumerate(names)}


def _named(places: Mapping[str, int], name: str) -> int | None:
    """The place of a name in either spelling, or without the apostrophe that tables have before what looks like a formula."""
    written = [name, name[1:]] if name[:1] == "'" and name[1:2] in FORMULA_STARTS else [name]
    for spelling in (*written, *(normalize("NFC", one) for one in written)):
        if spelling and spelling in places:
            return places[spelling]
    return None


def _nearest(name: str, class_names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.strip().casefold(), [known.casefold() for known in class_names], n=1)
    found = [known for known in class_names if near and known.casefold() == near[0]]
    return f"; did you mean {found[0]!r}?" if found else ""
