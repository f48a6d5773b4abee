"""Tables of one's own: which files there are, their columns, and what the columns say of label and part."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from otrw.config import ColumnsConfig
from otrw.data.parquet import label_names, read_table, schema_of
from otrw.data.part_names import NAMES, part_of, part_of_file
from otrw.data.raw import Parts
from otrw.errors import UserError, first_line, shown

KINDS = (".parquet", ".csv", ".tsv", ".jsonl", ".txt")
USUAL: dict[str, tuple[str, ...]] = {
    "image": ("image", "img", "path", "file", "file_name", "filename", "image_path"),
    "embedding": ("embedding", "embeddings", "features", "vector", "x", "X"),
    "label": ("label", "labels", "class", "class_name", "target", "fine_label", "y"),
    "split": ("split",),
    "trusted": ("trusted",),
    "true_label": ("true_label",),
}
"""Names of columns where the settings name none: ColumnsConfig says the same."""
TRUE, FALSE = ("true", "1", "yes", "1.0"), ("false", "0", "no", "0.0", "", "none")


class Table(NamedTuple):
    """The columns of one file that are looked at, under the names of ColumnsConfig."""

    path: Path
    columns: dict[str, list]
    """{image, embedding, label, split, trusted, true_label: one value a row}; those that there are."""
    label_names: tuple[str, ...]
    """Names of numbered labels, from the hub's metadata; empty where there are none."""

    def __len__(self) -> int:
        return len(self.columns["label"])


class Labelling(NamedTuple):
    """What tables say of their rows, counted over all of them, part by part."""

    order: np.ndarray
    """(N,) which row of all tables, one after the other, each sample is."""
    labels: np.ndarray
    """(N,) int64"""
    true_labels: np.ndarray | None
    """(N,) int64"""
    class_names: tuple[str, ...]
    parts: Parts


def find_files(root: Path, patterns: str | None, kinds: Sequence[str]) -> list[Path]:
    """The files that data.root and data.files name, each once. Raises UserError where there are none."""
    if patterns is None:
        if root.is_file():
            if root.suffix.lower() not in kinds:
                raise UserError(f"data.root must be a folder or {', '.join('*' + kind for kind in kinds)}, got {str(root)!r}")
            return [root]
        found = [path for folder in (root, root / "data") if folder.is_dir() for path in folder.iterdir()]
        found = [path for path in found if path.suffix.lower() in kinds and path.is_file()]
        suffixes = sorted({path.suffix.lower() for path in found})
        if len(suffixes) > 1:
            raise UserError(
                f"data.files must say which files are the table, {str(root)!r} holds {', '.join(suffixes)}; "
                f"try --data.files '*{suffixes[0]}'"
            )
        if not found:
            raise UserError(f"data.root must hold {', '.join('*' + kind for kind in kinds)}, got {str(root)!r}, which has none")
        return sorted(found)
    base = root if root.is_dir() else root.parent
    found = []
    for pattern in [patterns] if (base / patterns).is_file() else [piece.strip() for piece in patterns.split(",")]:
        try:
            matching = [base / pattern] if (base / pattern).is_file() else _glob(base, pattern)
        except (ValueError, NotImplementedError, OSError) as error:
            raise UserError(f"data.files must be names or patterns, got {shown(pattern)} ({first_line(error)})") from None
        if not matching:
            raise UserError(
                f"data.files must name files below data.root, got {shown(pattern)}, which none in {str(base)!r} matches"
            )
        found += matching
    strange = [path for path in found if path.suffix.lower() not in kinds]
    if strange:
        raise UserError(f"data.files must be {', '.join('*' + kind for kind in kinds)}, got {strange[0]}")
    return list(dict.fromkeys(found))


def read(path: Path, named: ColumnsConfig, wanted: Sequence[str]) -> Table:
    """The wanted columns of a file, and label, split, trusted and true_label where it has them.

    Args:
        path: Parquet, CSV, TSV, JSONL, or a text list of "image label" lines.
        named: the names of the columns.
        wanted: image or embedding: what must be there beside the label.

    Raises:
        UserError: where a column is missing, or the file is damaged.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        present = schema_of(path).names
        chosen = _choose(path, present, named, wanted)
        table = read_table(path, list(dict.fromkeys(chosen.values())))
        names = label_names(path, [chosen["label"]])
        return Table(path, {key: table[name].to_pylist() for key, name in chosen.items()}, names)
    text = _text_of(path)
    if kind == ".txt":
        lines = [line for line in text.splitlines() if line.strip()]
        cells = [line.rsplit(maxsplit=1) for line in lines]
        short = next((number for number, cell in enumerate(cells, 1) if len(cell) < 2), None)
        if short is not None:
            raise UserError(f"{path}: line {short} must be an image's path and its label, got {shown(lines[short - 1])}")
        columns: Mapping[str, list] = {"image": [cell[0] for cell in cells], "label": [cell[1] for cell in cells]}
        chosen = {"image": "image", "label": "label"}
    else:
        columns = _json_lines(path, text) if kind == ".jsonl" else _separated(path, text)
        chosen = _choose(path, list(columns), named, wanted)
    if not len(columns[chosen["label"]]):
        raise UserError(f"{path} must have rows, got none")
    return Table(path, {key: columns[name] for key, name in chosen.items()}, ())


def separated_columns(path: Path) -> dict[str, list]:
    """The columns of a CSV file as text, by name. Raises UserError where it cannot be read."""
    return _separated(path, _text_of(path))


def labelling(tables: Sequence[Table]) -> Labelling:
    """Labels as numbers, and the part of every row, over all tables.

    A row's part is what the column split says, else the name of its file, else train; training rows that are marked as
    trusted are of the trusted part. Labels that are all whole numbers keep their
    order, names that of the hub's metadata where there are such; else they are sorted.

    Raises:
        UserError: naming file and row, for labels or parts that are missing or mean nothing.
    """
    given = list(chain.from_iterable(_labels_of(table, "label") for table in tables))
    truth = list(chain.from_iterable(_labels_of(table, "true_label") for table in tables))
    declared = next((table.label_names for table in tables if table.label_names), ())
    names = _class_names(given, truth, declared)
    number = {name: label for label, name in enumerate(names)}
    labels = np.array([number[label] for label in given], dtype=np.int64)
    part = np.array(list(chain.from_iterable(_parts_of(table) for table in tables)))
    order = np.concatenate([np.flatnonzero(part == name) for name in NAMES])
    ends = np.cumsum([int((part == name).sum()) for name in NAMES])
    rows = dict(zip(NAMES, np.split(np.arange(len(order)), ends[:-1]), strict=True))
    if not len(rows["train"]):
        raise UserError(f"{tables[0].path} must have training rows, got none; name the split train in every row of it")
    return Labelling(
        order,
        labels[order],
        _true_labels(truth, labels, part, number)[order] if any(label is not None for label in truth) else None,
        tuple(str(name) for name in names),
        Parts(rows["train"], *(rows[name] if len(rows[name]) else None for name in ("trusted", "validation", "test"))),
    )


def _glob(base: Path, pattern: str) -> list[Path]:
    anchor = Path(pattern).anchor
    found = Path(anchor).glob(pattern[len(anchor) :]) if anchor else base.glob(pattern)
    return sorted(path for path in found if path.is_file())


def _choose(path: Path, present: Sequence[str], named: ColumnsConfig, wanted: Sequence[str]) -> dict[str, str]:
    """{name in ColumnsConfig: name in the file} of the columns that there are."""
    chosen = {}
    for key in (*wanted, "label", "split", "trusted", "true_label"):
        name = getattr(named, key)
        if name is not None and name not in present:
            raise UserError(f"data.columns.{key} must be a column of {path}, got {name!r}; it has {shown(list(present))}")
        name = name or next((usual for usual in USUAL[key] if usual in present), None)
        if name is None and key in (*wanted, "label"):
            usual = ", ".join(USUAL[key])
            raise UserError(f"data.columns.{key} must be named for {path}, which has no {usual}, but {shown(list(present))}")
        if name is not None:
            if list(present).count(name) > 1:
                raise UserError(f"{path} must have one column {name!r}, got {list(present).count(name)}")
            chosen[key] = name
    return chosen


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be UTF-8 text, got another byte at {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


def _separated(path: Path, text: str) -> dict[str, list]:
    """A CSV file with a line of names; separated by whichever of comma, semicolon and tab that line has most of."""
    head = text.partition("\n")[0]
    separator = max((",", ";", "\t"), key=head.count)
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if line]
    except csv.Error as error:
        raise UserError(f"{path} is no whole CSV file ({first_line(error)})") from None
    names, rows = (lines[0], lines[1:]) if lines else ([], [])
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path} must have one column {twice!r}, got {names.count(twice)}")
    wrong = next((row for row, line in enumerate(rows) if len(line) != len(names)), None)
    if wrong is not None:
        raise UserError(f"{path}: row {wrong} must have {len(names)} values as the first line has, got {len(rows[wrong])}")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) if rows else {name: [] for name in names}


def _json_lines(path: Path, text: str) -> dict[str, list]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{path}: line {number} must be a JSON object, got {shown(line)}")
            rows.append(row)
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    return {name: [row.get(name) for row in rows] for name in names}


def _labels_of(table: Table, key: str) -> list[Any]:
    """Labels as whole numbers or texts; None where a true label is missing."""
    values = table.columns.get(key, [None] * len(table))
    found: list[Any] = []
    for row, value in enumerate(values):
        if value is None or value == "":
            if key == "label":
                raise UserError(f"{table.path}: row {row} must have a label, got none")
            found.append(None)
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int | str) or (isinstance(value, str) and not value.isprintable()):
            raise UserError(f"{table.path}: the {key} of row {row} must be a whole number or a name, got {shown(value)}")
        if table.label_names and isinstance(value, int):
            if not 0 <= value < len(table.label_names):
                raise UserError(
                    f"{table.path}: the {key} of row {row} must be from 0 to {len(table.label_names) - 1}, got {value}"
                )
            value = table.label_names[value]
        found.append(value)
    return found


def _class_names(given: list, truth: list, declared: Sequence[str]) -> list[Any]:
    """The labels that occur, in order: as numbers where all are, else as declared, else by name.

    Changes the lists in place, so that all labels are numbers or all are texts.
    """
    known = set(given) | {label for label in truth if label is not None}
    if all(isinstance(label, int) or (label.isdecimal() and label.isascii()) for label in known):
        if any(isinstance(label, str) for label in known):
            for labels in (given, truth):
                labels[:] = [None if label is None else int(label) for label in labels]
            known = {int(label) for label in known}
        return sorted(known)
    for labels in (given, truth):
        labels[:] = [None if label is None else str(label) for label in labels]
    place = {name: number for number, name in enumerate(declared)}
    return sorted({str(label) for label in known}, key=lambda name: (place.get(name, len(place)), name))


def _parts_of(table: Table) -> list[str]:
    of_file = part_of_file(table.path.stem) or "train"
    splits, trusted = (table.columns.get(key) for key in ("split", "trusted"))
    found = []
    for row in range(len(table)):
        part = of_file if splits is None else part_of(str(splits[row]))
        if part is None:
            assert splits is not None
            raise UserError(
                f"{table.path}: the split of row {row} must be train, trusted, validation or test, got {shown(splits[row])}"
            )
        mark = "" if trusted is None else str(trusted[row]).lower()
        if mark not in TRUE + FALSE:
            raise UserError(f"{table.path}: trusted must be true or false in row {row}, got {shown(mark)}")
        found.append("trusted" if mark in TRUE and part == "train" else part)
    return found


def _true_labels(truth: list, labels: np.ndarray, part: np.ndarray, number: Mapping) -> np.ndarray:
    unknown = np.array([label is None for label in truth])
    missing = int((unknown & (part == "train")).sum())
    if missing:
        raise UserError(
            f"data.columns.true_label must be filled in for every training row or for none, got {missing} without; samples "
            "that somebody checked belong into the trusted set"
        )
    return np.array([own if label is None else number[label] for label, own in zip(truth, labels, strict=True)], dtype=np.int64)
