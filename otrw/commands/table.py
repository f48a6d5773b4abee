"""The paper's table beside ours, from run records alone (no torch).

    python analysis/make_table.py                                   # committed records and those in runs/
    python analysis/make_table.py runs/NAME runs/OTHER --metric few
    python analysis/make_table.py --format latex --output table.tex
    python analysis/make_table.py --write README.md                 # between its markers, committed records only

A mean is taken over seeds of one method only; settings that differ from the preset's stand in a footnote.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from otrw import formats
from otrw.aggregate import METRICS, make_blocks, read_published
from otrw.cli import exit_with_message
from otrw.entries import load_entries
from otrw.errors import UserError
from otrw.ledger import replace_between, write_text

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PUBLISHED = HERE / "reference" / "published.csv"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def main() -> None:
    """Parse, read, print or write."""
    arguments = _arguments()
    default = [RESULTS] if arguments.write else [RESULTS, Path("runs")]
    for root in arguments.records:
        if not root.is_dir():
            raise UserError(f"records must be in a folder, got {str(root)!r}, which is none")
    entries, problems = load_entries(arguments.records or default)
    for problem in problems:
        print(problem, file=sys.stderr)
    blocks = make_blocks(
        entries,
        read_published(PUBLISHED),
        metric=arguments.metric,
        presets=arguments.preset,
        datasets=arguments.dataset,
        all_published=arguments.against == "published",
    )
    if arguments.write:
        replace_between(arguments.write, BEGIN, END, formats.markdown(blocks))
        print(f"{arguments.write}: the table of {len(entries)} records")
        return
    if arguments.format == "terminal" and not arguments.output:
        Console().print(formats.terminal(blocks), highlight=False)
        return
    text = {
        "terminal": lambda: formats.plain(blocks),
        "markdown": lambda: formats.markdown(blocks),
        "latex": lambda: formats.latex(blocks),
        "html": lambda: formats.html_page(blocks),
        "csv": lambda: formats.table_csv(blocks),
        "records": lambda: formats.records_csv(entries),
    }[arguments.format]()
    if arguments.output:
        try:
            write_text(arguments.output, text)
        except OSError as error:
            raise UserError(f"--output must be writable, got {str(arguments.output)!r} ({error.strerror})") from None
    else:
        sys.stdout.write(text)


def _arguments() -> argparse.Namespace:
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
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_message(main)
