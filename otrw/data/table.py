"""Images and labels in a table: Parquet, CSV, TSV, JSONL, or the "path label" text lists of the long-tail field."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from otrw import atomic
from otrw.config import ColumnsConfig
from otrw.data.files import WHOLE_FILE, ImageFiles
from otrw.data.raw import RawData, Skipped, kept, listing_hash, rows_of_parts
from otrw.data.tabular import KINDS, Table, find_files, labelling, read
from otrw.errors import UserError, shown


def load_table(root: Path, patterns: str | None, columns: ColumnsConfig, cache: str, unreadable: str) -> RawData:
    """The images that tables list. Nothing is decoded.

    An image is a path, below data.root or else below its table's folder, or the encoded file itself as bytes or as the
    hub's struct {bytes, path}. Encoded files are copied once into a file of the cache, to be had one by one. What is listed
    twice under one label in one part counts once.

    Args:
        root: folder of the images and of the tables, or a table.
        patterns: data.files.
        columns: names of columns.
        cache: folder for the bytes of images that stand in tables.
        unreadable: with "skip", images that are not there are left out.

    Raises:
        UserError: naming file and row, for what is missing or contradicts itself.
    """
    paths = find_files(root, patterns, KINDS)
    tables = [read(path, columns, ("image",)) for path in paths]
    base = root if root.is_dir() else root.parent
    cells = [_cells(table, base) for table in tables]
    listed = labelling(tables)
    places: list[Any] = [place for of_table in cells for place, _ in of_table]
    names = [name for of_table in cells for _, name in of_table]
    places, names = [places[row] for row in listed.order], [names[row] for row in listed.order]
    files = _files(places, names, paths, cache)
    assert files.stamps is not None
    raw = RawData(files, listed.labels, listed.parts, listed.class_names, listed.true_labels, identities=tuple(names))
    is_there, skipped = _present(files, unreadable)
    once, twice = _listed_once(raw, places)
    raw = kept(raw, is_there & once, (*skipped, *twice))
    assert isinstance(raw.inputs, ImageFiles)
    assert raw.inputs.stamps is not None
    return raw._replace(files_hash=listing_hash(raw, raw.inputs.stamps[:, 0]))


def _cells(table: Table, base: Path) -> list[tuple[Any, str]]:
    """(path, or bytes of the encoded image; what it is called) of every row."""
    file = _relative(table.path, base)
    folder: Path | None = None
    found: list[tuple[Any, str]] = []
    for row, cell in enumerate(table.columns["image"]):
        if isinstance(cell, dict):  # the hub's struct
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            found.append((cell, f"{file}:{row}"))
        elif isinstance(cell, str) and cell and cell.isprintable():
            if folder is None:  # the first path says whether they start at data.root or at the table
                beside = table.path.parent
                folder = beside if not (base / cell).exists() and (beside / cell).exists() else base
            found.append((os.path.normpath(folder / cell), _relative(Path(os.path.normpath(folder / cell)), base)))
        else:
            raise UserError(f"{table.path}: the image of row {row} must be a path or the bytes of an image, got {shown(cell)}")
    return found


def _files(places: Sequence[Any], names: Sequence[str], tables: Sequence[Path], cache: str) -> ImageFiles:
    number = len(places)
    offsets, lengths = np.zeros(number, dtype=np.int64), np.full(number, WHOLE_FILE, dtype=np.int64)
    stamps = np.zeros((number, 2), dtype=np.int64)
    inside = [row for row, place in enumerate(places) if isinstance(place, bytes)]
    paths = np.array([place if isinstance(place, str) else "" for place in places], dtype=object)
    if inside:
        lengths[inside] = [len(places[row]) for row in inside]
        offsets[inside] = np.cumsum([0, *lengths[inside][:-1]])
        paths[inside] = str(_joined([places[row] for row in inside], tables, cache))
        stamps[inside, 0] = lengths[inside]
        stamps[inside, 1] = max(path.stat().st_mtime_ns for path in tables)
    for row in np.flatnonzero(lengths == WHOLE_FILE):
        try:
            status = os.stat(paths[row])
            stamps[row] = status.st_size, status.st_mtime_ns
        except (OSError, ValueError):
            stamps[row] = -1, -1
    return ImageFiles(paths, np.array(names, dtype=object), offsets, lengths, stamps)


def _joined(images: Sequence[bytes], tables: Sequence[Path], cache: str) -> Path:
    """A file of the cache that holds encoded images one after the other."""
    if not cache:
        raise UserError("data.cache must be a folder for a table that holds images as bytes, got ''; they are copied there")
    digest = hashlib.sha256()
    for path in tables:
        digest.update(
            f"{path.absolute()}|{path.stat().st_size}|{path.stat().st_mtime_ns}\n".encode("utf-8", "backslashreplace")
        )
    target = Path(cache).expanduser() / f"encoded-{digest.hexdigest()[:16]}.bytes"
    if target.is_file() and target.stat().st_size == sum(map(len, images)):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replace(target) as temporary, temporary.open("wb") as file:
            file.writelines(images)
    except OSError as error:
        raise UserError(f"data.cache must be writable, got {cache!r} ({error.strerror}); choose another") from None
    return target


def _present(files: ImageFiles, unreadable: str) -> tuple[np.ndarray, list[Skipped]]:
    assert files.stamps is not None
    is_there = files.stamps[:, 0] >= 0
    missing = np.flatnonzero(~is_there)
    if len(missing) and (unreadable == "refuse" or not is_there.any()):
        raise UserError(
            f"{files.paths[missing[0]]} must be an image, but is not there ({len(missing)} of {len(files)} are missing); "
            "data.root is where paths start; leave such rows out with --data.unreadable skip"
        )
    return is_there, [Skipped(str(files.identities[row]), "not there") for row in missing]


def _listed_once(raw: RawData, places: Sequence[Any]) -> tuple[np.ndarray, list[Skipped]]:
    """Which rows are the first of their path. Raises UserError where a path has two labels, or is in two parts."""
    once, twice = np.ones(len(raw.labels), dtype=bool), []
    part = {row: name for name, rows in rows_of_parts(raw).items() for row in rows.tolist()}
    first: dict[str, int] = {}
    assert raw.identities is not None
    for row, place in enumerate(places):
        if not isinstance(place, str):
            continue
        before = first.setdefault(place, row)
        if before == row:
            continue
        label, other = (raw.class_names[raw.labels[one]] for one in (before, row))
        if label != other or part[before] != part[row]:
            what = f"{part[before]}, {label} and {part[row]}, {other}"
            raise UserError(f"{raw.identities[row]} must be listed once, got {what}; keep one of the rows")
        once[row] = False
        twice.append(Skipped(raw.identities[row], "listed twice"))
    return once, twice


def _relative(path: Path, base: Path) -> str:
    return os.path.relpath(path, base) if path.is_relative_to(base) else str(path)
