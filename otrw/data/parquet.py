"""CIFAR and its like in Parquet files of the Hugging Face hub's layout."""

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from otrw.data.cache import cached_arrays
from otrw.data.duplicates import image_hashes, refuse_equal_files
from otrw.data.images import decode_image
from otrw.data.raw import RawData, train_and_test
from otrw.errors import UserError, first_line, shown

MOST_ROWS = 10_000_000
"""Of a file. A few bytes of Parquet can say that a row is repeated a billion times."""
MOST_BYTES = 32 * 2**30
"""Of all decoded images, which are kept in memory."""
COARSE = "coarse_label"
FEATURES_OF = {"labels": ("label", "fine_label"), "coarse": (COARSE,)}

Files = dict[str, list[Path]]
"""The files of train and of test, in order."""


def load_parquet(folder: Path, cache: str) -> RawData:
    """A data set in the hub's layout: train-*.parquet and test-*.parquet with an encoded image and labels a row.

    Labels are whole numbers from 0 up to the number of class names in the hub's metadata; without metadata, to the
    number of different labels in train. Every class has an image in train and in test.

    Args:
        folder: holds the files; its name is the data set's.
        cache: folder for the decoded images; empty keeps nothing.

    Raises:
        UserError: naming file and row, for anything that is missing, damaged, too large or contradictory.
    """
    files = _files(folder)
    class_names, group_names = _names(files)
    paths = [*files["train"], *files["test"]]
    arrays = cached_arrays(folder.name, paths, cache, lambda: _decode_files(files, len(class_names), len(group_names)))
    num_classes = int(arrays["train_labels"].max()) + 1
    groups = None
    if "train_coarse" in arrays:
        groups = np.zeros(num_classes, dtype=np.int64)
        groups[arrays["train_labels"]] = arrays["train_coarse"]
    names = class_names or tuple(str(label) for label in range(num_classes))
    train_images, train_labels = arrays["train_images"], arrays["train_labels"]
    raw = train_and_test(train_images, train_labels, arrays["test_images"], arrays["test_labels"], names)
    hashes = np.concatenate([arrays[f"{part}_hashes"] for part in files])
    return raw._replace(groups=groups, group_names=group_names, hashes=hashes)


def _files(folder: Path) -> Files:
    """All files of both parts. Raises UserError where one is missing."""
    files = {part: sorted(folder.glob(f"{part}-*.parquet")) for part in ("train", "test")}
    for part, found in files.items():
        if not found:
            raise UserError(f"{folder} must hold {part}-*.parquet, got none; copy the data set's files there")
        totals = {match[1] for path in found if (match := re.search(r"-of-(\d+)\.parquet$", path.name))}
        if totals:
            number = max(map(int, totals))
            if len(found) != number:
                raise UserError(f"{folder} must hold all {number} files of {part}, got {len(found)}; copy the missing ones")
            expected = {f"{part}-{index:05d}-of-{number:05d}.parquet" for index in range(number)}
            strange = sorted({path.name for path in found} - expected)
            if strange:
                raise UserError(f"{folder / strange[0]} is no file of a data set in {number} files; move it elsewhere")
    return files


def _decode_files(files: Files, num_classes: int, num_groups: int) -> dict[str, np.ndarray]:
    """Images, labels and hashes of both parts. A number of 0 stands for one that the files do not tell."""
    refuse_equal_files([path for paths in files.values() for path in paths])
    labels = {part: [_read_labels(path) for path in paths] for part, paths in files.items()}
    arrays: dict[str, np.ndarray] = {}
    for name, known in (("labels", num_classes), ("coarse", num_groups)):
        given = [name in columns for part in labels.values() for columns in part]
        if not all(given) and (any(given) or name == "labels"):
            raise UserError(f"{files['train'][0].parent} must have the column {COARSE} in every file or in none")
        if all(given):
            number = known or len(np.unique(np.concatenate([columns[name] for columns in labels["train"]])))
            for part, paths in files.items():
                for path, columns in zip(paths, labels[part], strict=True):
                    _check_labels(columns[name], number, path, name)
                arrays[f"{part}_{name}"] = np.concatenate([columns[name] for columns in labels[part]]).astype(np.int64)
                _check_every_class(arrays[f"{part}_{name}"], number, paths[0].parent, f"{part} ({name})")
    if "train_coarse" in arrays:
        _check_groups(arrays, files["train"][0].parent)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what Pillow only warns of, such as data that end early, makes other pixels
        shape = None
        for part, paths in files.items():
            arrays[f"{part}_images"] = _decode_part(paths, [len(columns["labels"]) for columns in labels[part]], shape)
            shape = arrays[f"{part}_images"].shape[1:]
    return arrays | {f"{part}_hashes": image_hashes(arrays[f"{part}_images"]) for part in files}


def _decode_part(paths: list[Path], num_labels: list[int], shape: tuple[int, ...] | None) -> np.ndarray:
    images: list[np.ndarray] = []
    for path, expected in zip(paths, num_labels, strict=True):
        cells = _read_images(path)
        if len(cells) != expected:
            raise UserError(f"{path} is not a whole Parquet file ({len(cells)} images, {expected} labels); copy it again")
        for row, cell in enumerate(cells):
            image = decode_image(cell, path, row)
            shape = shape or image.shape
            if image.shape != shape:
                raise UserError(
                    f"{path}: all images must have one size, got {image.shape} and {shape} in row {row}; resize them"
                )
            if not images and sum(num_labels) * image.nbytes > MOST_BYTES:
                raise UserError(f"{path}: {sum(num_labels)} images of {image.shape} must fit into {MOST_BYTES // 2**30} GiB")
            images.append(image)
    return np.stack(images)


def _check_labels(labels: np.ndarray, number: int, path: Path, name: str) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= number))
    if len(wrong):
        column = "coarse label" if name == "coarse" else "label"
        raise UserError(
            f"{path}: every {column} must be a whole number from 0 to {number - 1}, got {labels[wrong[0]]} in row {wrong[0]}"
            + (f" and in {len(wrong) - 1} more" if len(wrong) > 1 else "")
        )


def _check_every_class(labels: np.ndarray, number: int, folder: Path, what: str) -> None:
    missing = np.flatnonzero(np.bincount(labels, minlength=number) == 0)
    if len(missing):
        raise UserError(f"{folder}: {what} must hold images of all {number} classes, got none of class {missing[0]}")


def _check_groups(arrays: dict[str, np.ndarray], folder: Path) -> None:
    for part in ("train", "test"):
        pairs = np.unique(np.stack([arrays[f"{part}_labels"], arrays[f"{part}_coarse"]]), axis=1)
        if part == "train":
            first = pairs
        if pairs.shape != first.shape or (pairs != first).any() or len(np.unique(pairs[0])) < pairs.shape[1]:
            raise UserError(f"{folder}: every fine label must belong to one coarse label, the same in every row of {part}")


class Columns(NamedTuple):
    """Names of a file's columns."""

    image: str
    labels: dict[str, str]
    """{"labels": name, "coarse": name}; the latter where there is one."""


def _columns(path: Path) -> Columns:
    """The columns of a file. Raises UserError where one is missing or of another type."""
    import pyarrow

    schema = schema_of(path)
    image, label = _first_of(("img", "image"), schema.names), _first_of(("label", "fine_label"), schema.names)
    if image is None or label is None:
        raise UserError(f"{path} must have columns img and label (or fine_label), got {shown(schema.names)}")
    kind = schema.field(image).type
    is_known = pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not is_known or not _is_binary(kind.field(kind.get_field_index("bytes")).type):
        raise UserError(f"{path}: column {image} must be a struct with bytes, as on the hub, got {shown(str(kind))}")
    return Columns(image, {"labels": label, **({"coarse": COARSE} if COARSE in schema.names else {})})


def _read_labels(path: Path) -> dict[str, np.ndarray]:
    """The label columns of a file, {"labels": ..., "coarse": ...}; the latter where there is one."""
    import pyarrow

    columns = _columns(path).labels
    table = read_table(path, list(columns.values()))
    if table.num_rows == 0:
        raise UserError(f"{path} must hold images, got no rows; copy it again")
    found = {}
    for name, column in columns.items():
        values = table[column]
        if not pyarrow.types.is_integer(values.type) or values.null_count:
            raise UserError(
                f"{path}: column {column} must hold a whole number in every row, got {values.type} with "
                f"{values.null_count} missing"
            )
        found[name] = values.to_numpy()
    return found


def _read_images(path: Path) -> list[bytes | None]:
    """The encoded images of a file."""
    column = _columns(path).image
    return [cell and cell["bytes"] for cell in read_table(path, [column])[column].to_pylist()]


def _check_whole(table: Any, path: Path, num_rows: int) -> None:
    """Refuse a table of another length than the file says: damage can make columns end early, without an error."""
    lengths = {table.num_rows, num_rows, *(len(column) for column in table.columns)}
    if len(lengths) > 1:
        raise UserError(f"{path} is not a whole Parquet file (columns of {sorted(lengths)} rows); copy it again")
    table.validate(full=True)


def _is_binary(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _first_of(wanted: tuple[str, ...], names: list[str]) -> str | None:
    """The one of the names that stands in a schema once."""
    return next((name for name in wanted if names.count(name) == 1), None)


def schema_of(path: Path) -> Any:
    """The Arrow schema of a file. Raises UserError where it is no whole Parquet file."""
    return _open(path, lambda file: file.schema_arrow)


def read_table(path: Path, columns: list[str]) -> Any:
    """The named columns of a file as an Arrow table. Raises UserError where it is no whole Parquet file."""

    def read(file: Any) -> Any:
        table = file.read(columns=columns, use_threads=False)
        _check_whole(table, path, file.metadata.num_rows)
        return table

    return _open(path, read)


def _open(path: Path, action: Any) -> Any:
    """What the action makes of a file. Raises UserError where pyarrow cannot read it."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if file.metadata.num_rows > MOST_ROWS:
                raise UserError(f"{path} must have at most {MOST_ROWS} rows, got {file.metadata.num_rows}")
            return action(file)
    except UserError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        raise UserError(f"{path} is not a whole Parquet file ({first_line(error)}); copy it again") from None


def _names(files: Files) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of classes and of superclasses, the same in every file. Raises UserError."""
    names = {path: _label_names(path) for paths in files.values() for path in paths}
    first, expected = next(((path, found) for path, found in names.items() if any(found)), (None, ((), ())))
    for path, found in names.items():
        if first is not None and found != expected and any(found):
            raise UserError(f"{path} must name the same classes as {first.name}, in the same order; is it of another data set?")
    return expected


def _label_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of classes and of superclasses from the hub's schema metadata; empty where there is none."""
    classes, groups = (label_names(path, columns) for columns in FEATURES_OF.values())
    return classes, groups


def label_names(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """Names of the numbers in the first of these columns that the hub's metadata describe; empty where they do not.

    Raises:
        UserError: for metadata that are damaged, or names that are not different texts.
    """
    text = (schema_of(path).metadata or {}).get(b"huggingface")
    if text is None:
        return ()
    try:
        features = dict(json.loads(text).get("info", {}).get("features", {}))
        described: dict = next((features[column] for column in columns if column in features), {})
        names = tuple(described.get("names", ()))
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise UserError(f"{path}: the hub's metadata (features and their names) is damaged; copy the file again") from None
    if not all(isinstance(name, str) and name.isprintable() for name in names) or len(set(names)) < len(names):
        raise UserError(f"{path}: the names of classes must be different texts, got {shown(names)}; copy the file again")
    return names
