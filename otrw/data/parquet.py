"""CIFAR and its like in Parquet files of the Hugging Face hub's layout."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from otrw.data.cache import cached_arrays
from otrw.data.raw import RawData
from otrw.errors import UserError, first_line


def load_parquet(folder: Path, cache: str) -> RawData:
    """CIFAR in the Hugging Face hub's layout: train-*.parquet and test-*.parquet with an encoded image and labels a row."""
    files = {part: sorted(folder.glob(f"{part}-*.parquet")) for part in ("train", "test")}
    for part, found in files.items():
        if not found:
            raise UserError(f"{folder} must hold {part}-*.parquet, got none; copy the data set's files there")
        wanted = re.search(r"-of-(\d+)\.parquet$", found[0].name)
        if wanted and len(found) != int(wanted[1]):
            raise UserError(f"{folder} must hold all {int(wanted[1])} files of {part}, got {len(found)}; copy the missing ones")
    class_names, group_names = _label_names(files["train"][0])
    arrays = cached_arrays(folder.name, [*files["train"], *files["test"]], cache, lambda: _decode_files(files))
    num_classes = int(arrays["train_labels"].max()) + 1
    groups = None
    if "train_coarse" in arrays:
        groups = np.zeros(num_classes, dtype=np.int64)
        groups[arrays["train_labels"]] = arrays["train_coarse"]
    return RawData(
        arrays["train_images"],
        arrays["train_labels"],
        arrays["test_images"],
        arrays["test_labels"],
        class_names or tuple(str(label) for label in range(num_classes)),
        groups,
        group_names,
    )


def _decode_files(files: dict[str, list[Path]]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for part, paths in files.items():
        images, columns = [], {"labels": [], "coarse": []}  # type: ignore[var-annotated]
        for path in paths:
            cells, labels = _columns(_read_table(path), path)
            for row, cell in enumerate(cells):
                images.append(_decode_image(cell, path, row))
                if images[-1].shape != images[0].shape:
                    sizes = f"{images[-1].shape} and {images[0].shape}"
                    raise UserError(f"{path}: all images must have one size, got {sizes} in row {row}; resize them first")
            for name, values in labels.items():
                columns[name].append(values)
        if not images:
            raise UserError(f"{paths[0]} must hold images, got no rows; copy it again")
        arrays[f"{part}_images"] = np.stack(images)
        for name, pieces in columns.items():
            if pieces:
                arrays[f"{part}_{name}"] = np.concatenate(pieces).astype(np.int64)
    return arrays


def _columns(table: Any, path: Path) -> tuple[list[bytes | None], dict[str, np.ndarray]]:
    """Encoded images, and the label columns, of one file in the hub's layout."""
    import pyarrow

    names = table.column_names
    image_column = "img" if "img" in names else "image"
    label_column = "label" if "label" in names else "fine_label"
    if image_column not in names or label_column not in names:
        raise UserError(f"{path} must have columns img and label (or fine_label), got {names}")
    kind = table.schema.field(image_column).type
    if not pyarrow.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise UserError(f"{path}: column {image_column} must be a struct with bytes, as on the hub, got {kind}")
    labels = {}
    for column, name in ((label_column, "labels"), ("coarse_label", "coarse")):
        if column in names:
            values = table[column]
            if not pyarrow.types.is_integer(values.type) or values.null_count:
                raise UserError(
                    f"{path}: column {column} must hold a whole number in every row, got {values.type} with "
                    f"{values.null_count} missing"
                )
            labels[name] = values.to_numpy()
    return [cell and cell["bytes"] for cell in table[image_column].to_pylist()], labels


def _read_table(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a whole Parquet file ({first_line(error)}); copy it again") from None


def _decode_image(data: bytes | None, path: Path, row: int) -> np.ndarray:
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(
            f"{path}: the image in row {row} cannot be decoded ({first_line(error)}); copy the file again"
        ) from None


def _label_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of classes and of superclasses from the hub's schema metadata; empty where there is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a whole Parquet file ({first_line(error)}); copy it again") from None
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    fine = features.get("label", features.get("fine_label", {})).get("names", ())
    return tuple(fine), tuple(features.get("coarse_label", {}).get("names", ()))
