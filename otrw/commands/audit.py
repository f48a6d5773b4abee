"""The labels of a run's training set that are probably wrong, as a table and as one page of pictures.

    python analysis/audit.py runs/NAME                     # of its transport variant
    python analysis/audit.py runs/NAME/ot_meta --top 30
    python analysis/audit.py runs/NAME --check 100         # of data of your own: a page to judge the 100 worst on

Writes audit.csv, audit.parquet and audit.html into the variant's folder: every training sample with what it is called, its
given and its suggested label, its weight and a score for "the label is wrong", the most suspicious first: wrong_label_score, a
probability, where the weights are noise-aware, else low_weight_score, which only orders the samples of a class. Where the right
labels are known (wrong ones made on purpose, or a column true_label) it says how well the wrong ones are found; audit.json
keeps that.

With --check N also check.html, a page with keys for right, wrong and of which class; its CSV, or audit.csv with its columns
label and verdict filled in, goes into the next training with --data.corrections FILE. What was judged is not listed again.
"""

import argparse
import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from otrw.analysis.audit import Audit, Found, as_columns, few_shot, found, headline, make_audit
from otrw.analysis.contact_sheet import Card, contact_sheet
from otrw.analysis.formats import csv_cell
from otrw.analysis.report.audit_page import audit_page
from otrw.analysis.report.gallery import THUMBNAIL_SIDE, picture_source
from otrw.commands.invocation import command_line
from otrw.config import DataConfig
from otrw.config.data import OWN_SOURCES
from otrw.config.variants import BY_TRANSPORT, TITLES
from otrw.data.verdicts import num_verdicts
from otrw.errors import UserError, check
from otrw.records import ledger
from otrw.records.ledger import Record

NUM_SHOWN = 12
SIDE_TO_JUDGE = 320
"""Pixels of a picture on the page to judge labels on."""
SUSPICIOUS = 0.5
"""Share of labels said to be wrong, above which it is the net that is doubted."""
FEWEST_WRONG, MANY_MORE = 5, 2.0
"""Wrong labels among checked samples, and their share over that of the list, from which the list's numbers are doubted."""


def main(arguments: Sequence[str]) -> None:
    """Parse, read, write table and page."""
    options = _parse(arguments)
    record = ledger.read_record(_variant(options.run))
    source = (record.config.get("data") or {}).get("source", "digits")
    check(options.check is None or source in OWN_SOURCES, "--check", options.check, f"come with data of your own, not {source}")
    audit = make_audit(record)
    check(
        options.check is None or audit.by_plan,
        "--check",
        options.check,
        f"come with a variant whose scores compare classes, not {record.path.name}",
        "train --variants ot_pooled_meta",
    )
    output = options.output or record.path
    page, table, columns = (output / f"audit.{suffix}" for suffix in ("html", "csv", "parquet"))
    judged = num_verdicts(table) if table.is_file() else 0
    if judged:
        raise UserError(f"--output must not hold judged labels, got {table} with {judged}; move it, or choose another folder")
    members, meaning = few_shot(audit, record)
    known = {"all classes": found(audit), meaning: found(audit, members)}
    picture = _pictures(record) if not options.no_pictures else None
    written = audit_page(audit, record, picture, options.top, f"{table.name} and {columns.name} beside this page")
    sheet = None if options.check is None else _sheet(audit, record, not options.no_pictures, options.check)
    try:
        output.mkdir(parents=True, exist_ok=True)
        found_columns = as_columns(audit)
        ledger.write_columns(columns, found_columns)
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(csv_cell(name) for name in found_columns)
        rows = zip(*(values.tolist() for values in found_columns.values()), strict=True)
        writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else csv_cell(cell) for cell in row] for row in rows)
        ledger.write_text(table, buffer.getvalue())
        ledger.write_json(output / "audit.json", _summary(audit, known))
        ledger.write_text(page, written)
        if sheet is not None:
            ledger.write_text(output / "check.html", sheet)
    except OSError as error:
        raise UserError(f"--output must be writable, got {str(output)!r} ({error.strerror})") from None
    print(f"{record.path}: {headline(audit)}")
    if audit.flagged.mean() > SUSPICIOUS:
        test_error = record.result["test"]["error"]
        print(
            f"  more than half: a net with {test_error:.0f} % test error tells little; train longer, and trust the order alone"
        )
    if not audit.by_plan:
        print("  scores come from weights: they order the samples of a class and are no probabilities")
        print("  train --variants ot_pooled_meta for probabilities")
    for name, figures in known.items():
        if figures is not None:
            parts = zip(("precision", "recall", "average precision", "AUROC"), figures[2:], strict=True)
            said = ", ".join(f"{key} {'-' if value is None else f'{100 * value:.1f}'}" for key, value in parts)
            print(f"  {name}, {figures.num_wrong} of {figures.num_samples} wrong: {said} (%)")
    for line in _said_of_checked(audit, record):
        print(f"  {line}")
    elsewhere = _not_listed(audit, record)
    if elsewhere:
        print(f"  training samples alone; not listed: {elsewhere}")
    for path in (page, table, columns):
        print(path)
    if options.check is None and source in OWN_SOURCES:
        print(f"  to judge the worst on a page: {command_line('audit', [str(options.run), '--check', '100'])}")
    if options.check is not None:
        earlier, name = _corrections(record)
        again = ["--config", str(record.path.parent / "config.yaml"), "--run.name", f"{record.path.parent.name}-corrected"]
        if record.config["stage1"].get("checkpoint"):
            again += ["--stage1.checkpoint", "null"]  # a net of other labels
        print(f"  open   {output / 'check.html'}\n         check the labels, and save the CSV")
        print(f"  then   {command_line('train', [*again, '--data.corrections', ','.join([*earlier, name])])}")


def _sheet(audit: Audit, record: Record, has_pictures: bool, number: int) -> str:
    """The page to judge the most suspicious labels on, those of a class together, the worst first."""
    picture = _pictures(record, SIDE_TO_JUDGE) if has_pictures else None
    worst = np.arange(min(number, len(audit.given)))
    cards = [
        Card(
            str(audit.identity[place]),
            int(audit.given[place]),
            "" if picture is None else picture(int(audit.row[place])),
            int(audit.suggested[place]) if audit.suggested[place] != audit.given[place] else None,
        )
        for place in worst[np.argsort(audit.given[worst], kind="stable")]
    ]
    title = f"{len(cards)} labels to check: {record.path.parent.name}, {record.path.name}"
    return contact_sheet(cards, audit.class_names, title, _corrections(record)[1], counted="found to be of it")


def _corrections(record: Record) -> tuple[list[str], str]:
    """Files of corrections that the run had, and what the next one is called."""
    earlier = DataConfig(source=record.config["data"]["source"], corrections=record.config["data"].get("corrections"))
    files = list(earlier.correction_files)
    names = ["corrections.csv", *(f"corrections{number}.csv" for number in range(2, len(files) + 3))]
    return files, next(name for name in names if name not in {Path(file).name for file in files})


def _said_of_checked(audit: Audit, record: Record) -> list[str]:
    """How many of the samples that somebody checked were wrong, beside what the list says; nothing where none were."""
    checked = (record.result.get("data") or {}).get("checked") or {}
    number, num_wrong = checked.get("samples", 0), checked.get("wrong", 0)
    if not number:
        return []
    line = f"{num_wrong} of the {number} checked samples had a wrong label ({100 * num_wrong / number:.0f} %)"
    estimated, corrected = audit.estimated_num_wrong, (record.result.get("data") or {}).get("corrected") or {}
    if estimated is None or num_wrong < FEWEST_WRONG:
        return [line]
    share = (estimated + corrected.get("wrong", 0)) / (len(audit.given) + corrected.get("samples", 0))
    if num_wrong / number < MANY_MORE * share:
        return [line]
    return [line, "far more than the list says: the net may know wrong labels by heart; trust the order alone, or train less"]


def _not_listed(audit: Audit, record: Record) -> str:
    """What else the data have, for data of one's own."""
    sizes = (record.result.get("data") or {}).get("num_samples") or {}
    parts = {"trusted": sizes.get("meta"), "validation": sizes.get("validation"), "test": sizes.get("test")}
    listed = [f"{number} {part} samples" for part, number in parts.items() if number]
    return ", ".join([*listed, *([f"{audit.num_settled} that were judged before"] if audit.num_settled else [])])


def _summary(audit: Audit, known: Mapping[str, Found | None]) -> dict:
    """What audit.json holds."""
    return {
        "num_samples": len(audit.given),
        "num_flagged": int(audit.flagged.sum()),
        "estimated_num_wrong": audit.estimated_num_wrong,
        "score": "wrong_label_score" if audit.by_plan else "low_weight_score",
        "found": {name: figures and figures._asdict() for name, figures in known.items()},
    }


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run, or of one of its variants")
    parser.add_argument("--top", type=int, default=NUM_SHOWN, help=f"pictures a class on the page (default: {NUM_SHOWN})")
    parser.add_argument("--output", type=Path, help="folder to write to (default: the variant's)")
    parser.add_argument("--check", type=int, metavar="N", help="write check.html too, to judge the N most suspicious labels on")
    parser.add_argument("--no-pictures", action="store_true", help="do not open the data set")
    options = parser.parse_args(arguments)
    check(options.top >= 1, "--top", options.top, "be >= 1")
    check(options.check is None or options.check >= 1, "--check", options.check, "be >= 1")
    return options


def _variant(run: Path) -> Path:
    """The variant's folder: as given, or the transport variant of a run that says most of labels."""
    if not run.is_dir():
        raise UserError(f"the run must be a folder of a run, got {str(run)!r}, which is none{ledger.seeds_of(run)}")
    if (run / "result.json").is_file():
        return run
    known = {path.parent.name for path in run.glob("*/weights.parquet") if (path.parent / "result.json").is_file()}
    chosen = [name for name in dict.fromkeys((*BY_TRANSPORT, *TITLES)) if name in known]
    if not chosen:
        raise UserError(
            f"{run} must hold a finished variant with weights, got none; train one, such as --variants ot_labels_meta"
        )
    if len(chosen) > 1:
        print(f"taking {chosen[0]}; the run has {', '.join(chosen[1:])} too", file=sys.stderr)
    return run / chosen[0]


def _pictures(record: Record, side: int = THUMBNAIL_SIDE) -> Callable[[int], str] | None:
    """Row in the data set -> data: URI; None, with a line, where the data set is not to be had or has no pictures."""
    try:
        return picture_source(record, side)
    except UserError as error:
        print(f"no pictures: {error}", file=sys.stderr)
        return None
