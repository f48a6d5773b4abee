"""One self-contained HTML page of a run, or of several to compare: figures, curves, classes, confusion, and the images
that got the largest and smallest weights.

    python analysis/report.py runs/NAME                      # writes runs/NAME/report.html
    python analysis/report.py runs/NAME/ot_meta runs/NAME/stage1 runs/OTHER --output comparison.html

The page needs no network and no other file. Images need the local run's weights.parquet and the data set; committed
records have neither, and their page says so.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from otrw.analysis.report.page import make_page
from otrw.errors import UserError
from otrw.records import ledger
from otrw.records.experiments import load_experiments


def main(arguments: Sequence[str]) -> None:
    """Parse, read, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or of single variants of runs")
    parser.add_argument(
        "--output",
        type=Path,
        help="the page to write (default: report.html in its folder; of several, comparison.html in the first)",
    )
    options = parser.parse_args(arguments)
    for run in options.runs:
        if not run.is_dir():
            raise UserError(f"runs must be folders of runs, got {str(run)!r}, which is none{ledger.seeds_of(run)}")
    experiments, problems, _ = load_experiments(options.runs, unique=False)
    if not experiments:
        raise UserError("; ".join(problems) or f"runs must hold finished variants, got {str(options.runs[0])!r} with none")
    page, missing = make_page(experiments)
    for line in (*problems, *missing):
        print(line, file=sys.stderr)
    output = options.output or options.runs[0] / ("report.html" if len(options.runs) == 1 else "comparison.html")
    try:
        ledger.write_text(output, page)
    except OSError as error:
        raise UserError(f"--output must be writable, got {str(output)!r} ({error.strerror})") from None
    print(output)
