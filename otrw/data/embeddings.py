"""Features that another model made, with labels: Parquet, .npy, .npz or safetensors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from otrw.config import ColumnsConfig
from otrw.data.parquet import read_table, schema_of
from otrw.data.raw import RawData, listing_hash
from otrw.data.tabular import USUAL, Table, find_files, labelling, read
from otrw.errors import UserError, first_line, shown

KINDS = (".parquet", ".npy", ".npz", ".safetensors")
OF_LABELS = "_labels"
"""Beside NAME.npy its labels are NAME_labels.npy."""
OTHERS = ("label", "split", "trusted", "true_label")


def load_embeddings(root: Path, patterns: str | None, columns: ColumnsConfig) -> RawData:
    """Rows of features with a label each.

    Parquet has a column of lists. A .npz or .safetensors file has named arrays: the features (N, D) and, where they exist,
    label, split, trusted and true_label (N,). Beside NAME.npy with the features stands NAME_labels.npy, or NAME.csv with
    the columns of a table. Safetensors hold no text: their labels are whole numbers.

    Args:
        root: folder of the files, or a file.
        patterns: data.files.
        columns: names of columns and arrays.

    Returns:
        Features as float32 (N, D); each is called FILE:ROW.

    Raises:
        UserError: naming the file, for features of different lengths, that are not finite, or of another number than labels.
    """
    paths = [path for path in find_files(root, patterns, KINDS) if not path.stem.endswith(OF_LABELS)]
    tables, features = zip(*(_read(path, columns) for path in paths), strict=True)
    sizes = {found.shape[1] for found in features}
    if len(sizes) > 1:
        raise UserError(f"{paths[0].parent}: all embeddings must have one length, got {sorted(sizes)}")
    listed = labelling(tables)
    base = root if root.is_dir() else root.parent
    names = [
        f"{path.relative_to(base) if path.is_relative_to(base) else path}:{row}"
        for path, table in zip(paths, tables, strict=True)
        for row in range(len(table))
    ]
    inputs = np.concatenate(features)[listed.order]
    raw = RawData(inputs, listed.labels, listed.parts, listed.class_names, listed.true_labels)
    raw = raw._replace(identities=tuple(names[row] for row in listed.order))
    return raw._replace(files_hash=listing_hash(raw, np.zeros(len(inputs), dtype=np.int64)))


def _read(path: Path, columns: ColumnsConfig) -> tuple[Table, np.ndarray]:
    if path.suffix.lower() == ".parquet":
        table = read(path, columns, ("embedding",))
        features = _stacked(path, table.columns.pop("embedding"))
    else:
        arrays = _arrays(path)
        features = arrays.pop("embedding") if path.suffix.lower() == ".npy" else _take(path, arrays, "embedding", columns)
        if path.suffix.lower() == ".npy" and "label" not in arrays:
            beside = path.with_suffix(".csv")
            if not beside.is_file():
                raise UserError(
                    f"{path} must have labels beside it, in {path.stem}{OF_LABELS}.npy or {beside.name}; got neither"
                )
            table = read(beside, columns, ())
        else:
            found = {"label": _take(path, arrays, "label", columns)}
            for key in OTHERS[1:]:
                name = getattr(columns, key) or key
                if name in arrays:
                    found[key] = arrays[name]
            table = Table(path, {key: _values(path, key, array) for key, array in found.items()}, ())
    features = _checked(path, features)
    if len(features) != len(table) or any(len(column) != len(table) for column in table.columns.values()):
        lengths = {key: len(column) for key, column in table.columns.items()}
        raise UserError(f"{path} must hold one label an embedding, got {len(features)} embeddings and {lengths}")
    return table, features


def read_features(path: Path) -> np.ndarray:
    """(N, D) float32 of a file of embeddings of any kind, with or without labels, under the usual names.

    Raises:
        UserError: naming the file, where it holds no finite numbers of that shape.
    """
    if path.suffix.lower() == ".parquet":
        name = next((usual for usual in USUAL["embedding"] if usual in schema_of(path).names), None)
        if name is None:
            raise UserError(f"{path} must have a column {' or '.join(USUAL['embedding'])}, got {shown(schema_of(path).names)}")
        features = _stacked(path, read_table(path, [name])[name].to_pylist())
    else:
        arrays = _arrays(path)
        features = arrays["embedding"] if path.suffix.lower() == ".npy" else _take(path, arrays, "embedding", ColumnsConfig())
    return _checked(path, np.atleast_2d(features))


def _checked(path: Path, features: np.ndarray) -> np.ndarray:
    """(N, D) as float32."""
    if features.ndim != 2 or features.dtype.kind not in "fiu" or not features.size:
        raise UserError(f"{path} must hold numbers of shape (N, D), got {features.dtype} of shape {features.shape}")
    features = features.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(features).all(1))
    if len(wrong):
        raise UserError(f"{path}: embeddings must be finite, got {len(wrong)} that are not, the first in row {wrong[0]}")
    return features


def _stacked(path: Path, rows: list) -> np.ndarray:
    lengths = [len(row) if isinstance(row, list) else -1 for row in rows]
    wrong = next((row for row, length in enumerate(lengths) if length != lengths[0] or length < 1), None)
    if wrong is not None:
        raise UserError(
            f"{path}: the embedding of row {wrong} must be a list of {lengths[0]} numbers, got {shown(rows[wrong])}"
        )
    try:
        return np.array(rows, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: embeddings must be lists of numbers ({first_line(error)})") from None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The named arrays of a file; of NAME.npy its own as embedding, and that of NAME_labels.npy as label."""
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
            return {name: (value.float() if value.is_floating_point() else value).numpy() for name, value in tensors.items()}
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        found = {"embedding": np.load(path, allow_pickle=False)}
        beside = path.with_name(f"{path.stem}{OF_LABELS}.npy")
        if beside.is_file():
            found["label"] = np.load(beside, allow_pickle=False)
        return found
    except Exception as error:  # of zip, NumPy and safetensors, for bytes that are no such file
        raise UserError(f"{path} cannot be read ({first_line(error)}); arrays of Python objects are not read at all") from None


def _take(path: Path, arrays: Mapping[str, np.ndarray], key: str, columns: ColumnsConfig) -> np.ndarray:
    named = getattr(columns, key)
    name = named or next((usual for usual in USUAL[key] if usual in arrays), None)
    if name is None or name not in arrays:
        raise UserError(f"data.columns.{key} must be an array of {path}, got {name!r}; it has {shown(sorted(arrays))}")
    return arrays[name]


def _values(path: Path, key: str, array: np.ndarray) -> list:
    if array.ndim != 1 or array.dtype.kind not in "iufbU":
        raise UserError(f"{path}: {key} must be one number or text a row, got {array.dtype} of shape {array.shape}")
    return array.tolist()
