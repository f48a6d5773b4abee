"""The paper's table beside ours, from run records alone (no torch).

    python analysis/make_table.py                                   # committed records and those in runs/
    python analysis/make_table.py runs/NAME runs/OTHER --metric few
    python analysis/make_table.py --format latex --output table.tex
    python analysis/make_table.py --write README.md                 # between its markers, committed records only

A mean is taken over seeds of one method only; settings that differ from the preset's stand in a footnote. Where a method and
seed is there twice, it counts once: local runs win over committed ones, then the folder named first.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from otrw.analysis import formats
from otrw.analysis.table import METRICS, make_blocks, read_published
from otrw.commands.checkout import RESULTS
from otrw.errors import UserError
from otrw.records.experiments import load_experiments
from otrw.records.ledger import replace_between, write_text

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def main(arguments: Sequence[str]) -> None:
    """Parse, read, print or write."""
    options = _options(arguments)
    default = [RESULTS] if options.write else [RESULTS, Path("runs")]
    for root in options.records:
        if not root.is_dir():
            raise UserError(f"records must be in a folder, got {str(root)!r}, which is none")
    roots = options.records or default
    loaded = load_experiments(sorted(roots, key=lambda root: root.resolve().is_relative_to(RESULTS.resolve())))
    for line in (*loaded.problems, *(loaded.repeated if options.verbose else loaded.summary())):
        print(line, file=sys.stderr)
    experiments = loaded.experiments
    blocks = make_blocks(
        experiments,
        read_published(),
        metric=options.metric,
        presets=options.preset,
        datasets=options.dataset,
        all_published=options.against == "published",
    )
    if options.write:
        replace_between(options.write, BEGIN, END, formats.markdown(blocks))
        print(f"{options.write}: the table of {len(experiments)} records")
        return
    if options.format == "terminal" and not options.output:
        Console().print(formats.terminal(blocks), highlight=False)
        return
    text = {
        "terminal": lambda: formats.plain(blocks),
        "markdown": lambda: formats.markdown(blocks),
        "latex": lambda: formats.latex(blocks),
        "html": lambda: formats.html_page(blocks),
        "csv": lambda: formats.table_csv(blocks),
        "records": lambda: formats.records_csv(experiments),
    }[options.format]()
    if options.output:
        try:
            write_text(options.output, text)
        except OSError as error:
            raise UserError(f"--output must be writable, got {str(options.output)!r} ({error.strerror})") from None
    else:
        sys.stdout.write(text)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="*", type=Path, help="folders of records (default: analysis/results and runs)")
    kinds = ("terminal", "markdown", "latex", "html", "csv", "records")
    parser.add_argument("--format", choices=kinds, default="terminal", help="csv: one line a cell; records: one line a record")
    parser.add_argument("--metric", default="error", help=f"one of {', '.join(METRICS)} (default: error)")
    parser.add_argument("--preset", nargs="+", default=(), help="only runs of these presets")
    parser.add_argument("--dataset", nargs="+", default=(), help="only these data sets, such as cifar10 or cifar100_coarse")
    parser.add_argument("--against", choices=("paper", "published"), default="paper", help="published: all published rows")
    parser.add_argument("--output", type=Path, help="write to this file")
    parser.add_argument("--write", type=Path, metavar="README", help=f"write as Markdown between {BEGIN} and {END}")
    parser.add_argument("--verbose", action="store_true", help="name every record that repeats another")
    return parser.parse_args(arguments)
