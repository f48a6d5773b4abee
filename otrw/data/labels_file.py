"""Labels in a file of their own beside a data set: the human labels of CIFAR-N (arXiv 2110.12088) and their like."""

from pathlib import Path
from typing import Any

import numpy as np

from otrw.data.raw import RawData
from otrw.data.tabular import separated_columns
from otrw.errors import UserError, first_line, shown

CLEAN = ("clean_label", "clean_labels")
"""In CIFAR-N's files: the labels of the authors of CIFAR, by which the order of the samples is checked."""
TIMES_CHANCE = 2
"""Without such labels: how much more often than by chance the file must agree with the source, to be of the same order."""


def with_labels_file(raw: RawData, spec: str) -> RawData:
    """The data set with other given labels for the training part; its own labels become the right ones.

    Args:
        raw: the data set.
        spec: FILE, or FILE:NAME for one array of several. The first label is that of the first training sample.

    Raises:
        UserError: where the file cannot be read, has another number of labels, or those of another order of the samples.
    """
    path, name = _path_and_name(spec)
    arrays = _arrays(path)
    clean = next((arrays.pop(key) for key in CLEAN if key in arrays and key != name), None)
    if name is None and len(arrays) > 1:
        raise UserError(
            f"data.labels_file must name one of {', '.join(sorted(arrays))}, got {spec!r}; add :{sorted(arrays)[0]}"
        )
    if name is not None and name not in arrays:
        raise UserError(f"data.labels_file must name one of {', '.join(sorted(arrays))}, got {name!r}")
    given = _whole(path, arrays[name] if name is not None else next(iter(arrays.values())))
    rows, number = raw.parts.train, len(raw.class_names)
    if len(given) != len(rows):
        raise UserError(f"data.labels_file must hold {len(rows)} labels, one a training sample, got {len(given)} in {path}")
    if given.min() < 0 or given.max() >= number:
        raise UserError(
            f"data.labels_file must hold labels from 0 to {number - 1}, got {given.min()} to {given.max()} in {path}"
        )
    own = raw.labels[rows]
    agreement = float((own == (given if clean is None else _whole(path, clean)[: len(own)])).mean())
    if agreement < (TIMES_CHANCE / number if clean is None else 1):
        what = "its labels agree" if clean is None else "its clean labels agree"
        raise UserError(
            f"data.labels_file must be in the order of the data, but {what} with {100 * agreement:.1f} % of {path}; CIFAR-N's "
            "files are in the order of torchvision's: --data.layout torchvision"
        )
    labels = raw.labels.copy()
    labels[rows] = given
    return raw._replace(labels=labels, true_labels=raw.labels)


def _path_and_name(spec: str) -> tuple[Path, str | None]:
    path = Path(spec).expanduser()
    if path.is_file() or ":" not in spec:
        name = None
    else:
        before, _, name = spec.rpartition(":")
        path = Path(before).expanduser()
    if not path.is_file():
        raise UserError(f"data.labels_file must be a file, got {spec!r}, which is not there")
    return path, name


def _arrays(path: Path) -> dict[str, Any]:
    """All one-dimensional arrays of a file, by name."""
    try:
        match path.suffix.lower():
            case ".npy":
                return {"labels": np.load(path, allow_pickle=False)}
            case ".npz":
                with np.load(path, allow_pickle=False) as file:
                    return {name: file[name] for name in file.files}
            case ".csv":
                return {name: np.array(values) for name, values in separated_columns(path).items()}
            case ".pt":
                return _of_torch(path)
    except UserError:
        raise
    except Exception as error:  # of zip, NumPy and torch, for bytes that are no such file
        raise UserError(
            f"data.labels_file: {path} cannot be read ({first_line(error)}); files with Python objects are not read at all"
        ) from None
    raise UserError(f"data.labels_file must be .npy, .npz, .csv or .pt, got {str(path)!r}")


def _of_torch(path: Path) -> dict[str, Any]:
    """The arrays of a torch file, which may hold tensors, NumPy arrays and lists of numbers, and nothing that runs code."""
    import torch

    reconstruct: Any = np.zeros(0).__reduce__()[0]  # NumPy moved it between its versions 1 and 2
    allowed: list[Any] = [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    allowed += [np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in ("i1", "i2", "i4", "i8", "u1")}]
    with torch.serialization.safe_globals(allowed):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    loaded = loaded if isinstance(loaded, dict) else {"labels": loaded}
    return {str(name): np.asarray(value) for name, value in loaded.items()}


def _whole(path: Path, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind in "USf":
        try:
            numbers = array.astype(np.float64)
            array = numbers.astype(np.int64) if (numbers == np.floor(numbers)).all() else array
        except ValueError:
            pass
    if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
        raise UserError(f"data.labels_file must hold whole numbers, one a sample, got {shown(array[:3].tolist())} in {path}")
    return array.astype(np.int64)
