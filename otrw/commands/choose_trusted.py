"""Choose samples whose labels somebody should check: a trusted set that is spread over each class.

    python launch/choose_trusted.py --data.source folder --data.root FOLDER
    python launch/choose_trusted.py --data.source folder --data.root FOLDER --net runs/NAME/stage1 --per-class 20

Writes OUTPUT/trusted.html, a page to check labels on by keyboard or touch, and OUTPUT/trusted.csv for those who would rather
use a spreadsheet: write right or wrong under verdict, and under label the class (for a wrong one the class that it really is,
or nothing if it is of none). Whichever you fill in goes back into training with --data.trusted FILE; the page saves its CSV
among your browser's downloads.

Samples are the nearest to the centres of clusters (k-means++) of each class, in the embeddings of --net where you have trained
one before, else in the main directions in which small pictures of the class differ.
"""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from otrw import atomic
from otrw.analysis.contact_sheet import COLUMNS, Card, contact_sheet
from otrw.analysis.thumbnails import thumbnail_uri
from otrw.commands.invocation import command_line, train_command
from otrw.config import DataConfig
from otrw.config.command_line import parse_config
from otrw.data.choice import candidates, picture_features, spread_over_classes
from otrw.data.files import ImageFiles
from otrw.data.pictures import has_pictures, picture, small_pictures
from otrw.data.raw import RawData
from otrw.data.sources import load_raw
from otrw.data.split import own_split
from otrw.data.verdicts import num_verdicts
from otrw.errors import UserError, check

NUM_PER_CLASS = 10
THUMBNAIL_SIDE = 320


def main(arguments: Sequence[str]) -> None:
    """Parse, choose, write both files."""
    options, settings = _parse(arguments)
    config = parse_config(settings, description=__doc__ or "")
    check(
        config.data.is_own,
        "data.source",
        config.data.source,
        "be folder, table or embeddings",
        "the labels of digits and CIFAR are taken as they are",
    )
    raw = load_raw(config.data)
    page, table = options.output / "trusted.html", options.output / "trusted.csv"
    _check_unused(table)
    pool = _pool(config.data, raw, config.data_seed)
    pool = pool[candidates(raw.labels[pool], len(raw.class_names), options.seed)]
    features = _features(raw.inputs, pool, options.net)
    chosen = pool[spread_over_classes(features, raw.labels[pool], options.per_class, options.seed)]
    assert raw.identities is not None
    inputs, pictures = raw.inputs, has_pictures(raw.inputs)
    cards = [
        Card(raw.identities[row], int(raw.labels[row]), thumbnail_uri(picture(inputs, row), THUMBNAIL_SIDE) if pictures else "")
        for row in chosen.tolist()
    ]
    title = f"{len(cards)} labels to check: {Path(config.data.root).resolve().name}"
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        atomic.write_text(page, contact_sheet(cards, raw.class_names, title, table.name))
        atomic.write_text(table, _as_csv(cards, raw.class_names))
    except OSError as error:
        raise UserError(f"--output must be writable, got {str(options.output)!r} ({error.strerror})") from None
    few = np.bincount(raw.labels[chosen], minlength=len(raw.class_names))
    left = [f"{raw.class_names[label]} ({few[label]})" for label in np.flatnonzero(few < options.per_class)]
    print(f"{len(cards)} samples of {len(raw.class_names)} classes, {options.per_class} of each, at most half of a class")
    if left:
        print(f"  fewer of small classes: {', '.join(left[:8])}{', ...' if len(left) > 8 else ''}")
    print(f"  open   {page}\n         check the labels, save the CSV and put it in the place of {table} (or fill that in)")
    print(f"  then   {train_command([*settings, '--data.trusted', str(table)])}")


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options of the command itself, and settings of the data."""
    parser = argparse.ArgumentParser(
        prog=command_line("choose-trusted").removeprefix("python "),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All settings of the data are those of training: --data.source, --data.root, ...; see its --help data.",
        allow_abbrev=False,
    )
    parser.add_argument("--per-class", type=int, default=NUM_PER_CLASS, help=f"samples a class (default: {NUM_PER_CLASS})")
    parser.add_argument("--net", type=Path, help="folder of a trained variant, such as runs/NAME/stage1, to embed samples with")
    parser.add_argument("--output", type=Path, default=Path("trusted"), help="folder to write to (default: trusted)")
    parser.add_argument("--seed", type=int, default=0, help="of the clusters (default: 0)")
    options, settings = parser.parse_known_args(arguments)
    check(options.per_class >= 1, "--per-class", options.per_class, "be >= 1")
    return options, settings


def _check_unused(table: Path) -> None:
    """Refuse to write over a table that somebody has filled in."""
    if not table.is_file():
        return
    number = num_verdicts(table)
    if number is None:
        raise UserError(f"--output must not hold a table without verdicts, got {table}; choose another folder")
    if number:
        raise UserError(f"--output must not hold checked labels, got {table} with {number}; choose another folder")


def _pool(config: DataConfig, raw: RawData, seed: int) -> np.ndarray:
    """Rows to choose from: those of training, and those that a run would draw from it as trusted."""
    split = own_split(config, raw, seed).split
    checked = np.zeros(0, dtype=np.int64) if raw.parts.trusted is None else raw.parts.trusted
    return np.sort(np.concatenate([split.train, np.setdiff1d(split.meta, checked)]))


def _features(inputs: np.ndarray | ImageFiles, rows: np.ndarray, net: Path | None) -> np.ndarray:
    """(n, D) of these rows: embeddings of a net, embeddings as they are, or those of small pictures."""
    if net is not None:
        from otrw.training.model_file import embed_samples

        return embed_samples(net, inputs, rows)
    if has_pictures(inputs):
        return picture_features(small_pictures(inputs, rows))
    assert isinstance(inputs, np.ndarray)
    return inputs[rows]


def _as_csv(cards: Sequence[Card], class_names: Sequence[str]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([card.identity, class_names[card.given], "", ""] for card in cards)
    return buffer.getvalue()
