"""Classes and probabilities of images (or embeddings), by the net of a run.

    python launch/predict.py runs/NAME/ot_meta photos/ holiday.jpg                # writes predictions.csv
    python launch/predict.py runs/NAME/ot_meta photos/ --output predictions.parquet
    python launch/predict.py runs/NAME/ot_meta --export net.pt2                   # a torch.export program; .onnx likewise

One row a file: its path, the most probable class, its probability, then the probability of every class. Images are prepared
as in the evaluation of the run. A net of embeddings takes the files that it can be trained on (.npy, .npz, .parquet,
.safetensors); labels in them are not looked at. In Python: otrw.load("runs/NAME/ot_meta").
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from otrw import atomic
from otrw.commands.invocation import command_line
from otrw.data.embeddings import KINDS, OF_LABELS, read_features
from otrw.data.images import suffixes
from otrw.errors import UserError, check
from otrw.records import ledger
from otrw.training.export import describe_input, export
from otrw.training.model_file import TrainedNet, load

FORMATS = (".csv", ".parquet")
BATCH_SIZE = 64
MOST_LINES = 20
"""Files that cannot be read are named, up to so many."""


class Predictions(NamedTuple):
    """What a net says of samples."""

    names: list[str]
    """n paths, or PATH:ROW of an array."""
    probabilities: np.ndarray
    """(n, C)"""
    unreadable: list[str]
    """A line for each file that could not be read."""


def main(arguments: Sequence[str]) -> None:
    """Parse, load, predict, write."""
    options = _parse(arguments)
    trained = load(options.net)
    if options.export is not None:
        difference = export(trained, options.export)
        print(f"{options.export}  (probabilities within {difference:.1g} of the net's own, for batches of 1, 2 and 7)")
        print(f"  takes {describe_input(trained)}")
        if not options.files:
            return
    files = list(_files(options.files, suffixes() if trained.transform.is_of_images else KINDS))
    what = "images" if trained.transform.is_of_images else f"files of embeddings ({', '.join(KINDS)}), which this net is of,"
    check(bool(files), "FILES", [str(path) for path in options.files], f"be {what} or folders that hold some")
    found = predict(trained, files, options.batch_size)
    for line in found.unreadable[:MOST_LINES]:
        print(line, file=sys.stderr)
    if len(found.unreadable) > MOST_LINES:
        print(f"and {len(found.unreadable) - MOST_LINES} more files that cannot be read", file=sys.stderr)
    if not found.names:
        raise UserError(f"FILES must hold one that can be read, got {len(found.unreadable)} that cannot")
    try:
        _write(options.output, found, trained.class_names)
    except OSError as error:
        raise UserError(f"--output must be writable, got {str(options.output)!r} ({error.strerror})") from None
    left = f", {len(found.unreadable)} could not be read" if found.unreadable else ""
    print(f"{options.output}  ({len(found.names)} rows{left})")
    counts = np.bincount(found.probabilities.argmax(1), minlength=len(trained.class_names))
    order = np.argsort(-counts, kind="stable")
    shown = [f"{trained.class_names[label]} {counts[label]}" for label in order[:10] if counts[label]]
    print(f"  {', '.join(shown)}{', ...' if int((counts > 0).sum()) > 10 else ''}")


def predict(trained: TrainedNet, files: Sequence[Path], batch_size: int = BATCH_SIZE) -> Predictions:
    """Probabilities of the samples in files; files that cannot be read are named and passed over.

    Args:
        trained: from `load`.
        files: images, or files of embeddings (N, D) for a net of those.
        batch_size: samples at a time.
    """
    names: list[str] = []
    parts: list[Tensor] = []
    unreadable: list[str] = []
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    console = Console(stderr=True)
    with torch.inference_mode(), ThreadPoolExecutor() as pool:
        for batch in track(batches, "predicting", console=console, transient=True, disable=not console.is_terminal):
            samples = []
            for path, result in zip(batch, pool.map(lambda path: _read(trained, path), batch), strict=True):
                if isinstance(result, str):
                    unreadable.append(result)
                    continue
                names += [str(path)] if len(result) == 1 else [f"{path}:{row}" for row in range(len(result))]
                samples.append(result)
            together = torch.cat(samples).split(batch_size) if samples else ()
            parts += [trained.net(part).logits.softmax(1) for part in together]
    probabilities = torch.cat(parts).numpy() if parts else np.zeros((0, len(trained.class_names)), dtype=np.float32)
    return Predictions(names, probabilities, unreadable)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=command_line("predict").removeprefix("python "),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "net", type=Path, help="folder of a trained variant, such as runs/NAME/ot_meta, or its model.safetensors"
    )
    parser.add_argument("files", nargs="*", type=Path, help="images (or embeddings), and folders that are searched for them")
    parser.add_argument(
        "--output", type=Path, default=Path("predictions.csv"), help=".csv or .parquet (default: predictions.csv)"
    )
    parser.add_argument("--export", type=Path, help="write the net as a program too: .pt2 (torch.export) or .onnx")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help=f"images at a time (default: {BATCH_SIZE})")
    options = parser.parse_args(arguments)
    check(options.batch_size >= 1, "--batch-size", options.batch_size, "be >= 1")
    check(options.output.suffix in FORMATS, "--output", str(options.output), f"end with {' or '.join(FORMATS)}")
    check(bool(options.files) or options.export is not None, "FILES", [], "be given", "or --export alone")
    return options


def _files(given: Sequence[Path], kinds: Sequence[str]) -> Iterator[Path]:
    """The files as given; of folders all of these kinds in them, sorted. Raises UserError for what is not there."""
    for path in given:
        if path.is_dir():
            found = (one for one in path.rglob("*") if one.suffix.lower() in kinds and one.is_file())
            yield from sorted(one for one in found if kinds != KINDS or not one.stem.endswith(OF_LABELS))
        elif path.is_file():
            yield path
        else:
            raise UserError(f"FILES must be there, got {str(path)!r}, which is not")


def _read(trained: TrainedNet, path: Path) -> Tensor | str:
    """(1, ...) prepared image, (n, D) prepared embeddings, or what went wrong."""
    try:
        if trained.transform.is_of_images:
            return trained.transform(path)[None]
        if path.suffix.lower() not in KINDS:
            return f"{path} must be one of {', '.join(KINDS)}: this net is of embeddings"
        return torch.stack([trained.transform(row) for row in read_features(path)])
    except UserError as error:
        return str(error)


def _write(path: Path, found: Predictions, class_names: Sequence[str]) -> None:
    best = found.probabilities.argmax(1)
    chosen = [class_names[label] for label in best]
    confidence = found.probabilities.max(1)
    if path.suffix == ".parquet":
        columns: dict[str, object] = {"file": found.names, "class": chosen, "probability": confidence}
        columns |= {f"p_{name}": found.probabilities[:, label] for label, name in enumerate(class_names)}
        ledger.write_columns(path, columns)
        return
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["file", "class", "probability", *(f"p_{name}" for name in class_names)])
    for name, label, sure, row in zip(found.names, chosen, confidence, found.probabilities, strict=True):
        writer.writerow([name, label, f"{sure:.6g}", *(f"{value:.6g}" for value in row)])
    atomic.write_text(path, buffer.getvalue())
