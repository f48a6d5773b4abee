"""The paper's table beside ours, from run records alone (no torch).

    python analysis/make_table.py                                   # the paper's cells, and what is in runs/
    python analysis/make_table.py --all                             # every record: short and special runs, other data
    python analysis/make_table.py runs/NAME runs/OTHER --metric few
    python analysis/make_table.py --format latex --output table.tex
    python analysis/make_table.py --write README.md                 # between its markers, committed records only
    python analysis/make_table.py --study noise_tail                # a study of analysis/experiments/ instead

Of the committed records the table shows the paper's cells at full schedule, one row a method; of runs/, everything; of folders
that are named, their data sets alone. A mean is taken over seeds of one method only; settings that differ from the preset's
stand in a footnote. Where a method and seed is there twice, it counts once: local runs win over committed ones, then the folder
named first.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from otrw.analysis import formats
from otrw.analysis.main_results import main_results
from otrw.analysis.study import brief_text, study_text
from otrw.analysis.table import METRICS, PAPER_SETTINGS, Block, make_blocks, read_published
from otrw.commands.checkout import RESULTS
from otrw.commands.study_records import read_study
from otrw.errors import UserError
from otrw.grid.studies import STUDIES
from otrw.records.experiments import Experiment, load_experiments
from otrw.records.ledger import replace_between, write_text

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def main(arguments: Sequence[str]) -> None:
    """Parse, read, print or write."""
    options = _options(arguments)
    for root in options.records:
        if not root.is_dir():
            raise UserError(f"records must be in a folder, got {str(root)!r}, which is none")
    if options.study:
        _study(options)
        return
    default = [RESULTS] if options.write else [RESULTS, Path("runs")]
    roots = options.records or default
    loaded = load_experiments(sorted(roots, key=_is_committed))
    for line in (*loaded.problems, *(loaded.repeated if options.verbose else loaded.summary())):
        print(line, file=sys.stderr)
    experiments, left_out = (loaded.experiments, None) if options.all else _selected(loaded.experiments, options)
    in_folders = [experiment.setting.dataset for experiment in experiments] if options.records else []
    blocks = make_blocks(
        experiments,
        read_published(),
        metric=options.metric,
        presets=options.preset,
        datasets=options.dataset or list(dict.fromkeys(in_folders)),
        all_published=options.against == "published",
    )
    if options.write:
        replace_between(options.write, BEGIN, END, formats.markdown(blocks))
        print(f"{options.write}: the table of {len(experiments)} records")
        return
    _show(blocks, experiments, options)
    if left_out:
        print(left_out, file=sys.stderr)


def _show(blocks: list[Block], experiments: list[Experiment], options: argparse.Namespace) -> None:
    """The table on the screen or in a file, in the format asked for."""
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


def _is_committed(path: Path) -> bool:
    return path.resolve().is_relative_to(RESULTS.resolve())


def _selected(experiments: list[Experiment], options: argparse.Namespace) -> tuple[list[Experiment], str | None]:
    """What is shown without --all, and a line on what is not."""
    named = [root.resolve() for root in options.records]

    def is_own(experiment: Experiment) -> bool:
        path = experiment.record.path.resolve()
        return not _is_committed(path) or any(path.is_relative_to(root) for root in named if root != RESULTS.resolve())

    own = {experiment.setting for experiment in experiments if is_own(experiment)}
    settings = own.union(PAPER_SETTINGS)
    here = [experiment for experiment in experiments if options.dataset or experiment.setting in settings]
    selected = main_results(here, is_own)
    counts = {
        "of other data": len(experiments) - len(here),
        "of short or special runs": selected.num_special,
        "of cells that are shown in another precision": selected.num_repeated,
    }
    parts = [f"{number} {what}" for what, number in counts.items() if number]
    return selected.experiments, f"Records not shown: {', '.join(parts)}; --all shows them" if parts else None


def _study(options: argparse.Namespace) -> None:
    """Print or write the tables of a study, as Markdown."""
    if (options.cells or options.variants) and not options.brief:
        raise UserError("--cells and --variants must stand beside --brief, got no such option; add it")
    tables = read_study(options.study, options.records, options.reference)
    text = brief_text(tables, options.cells, options.variants) if options.brief else study_text(tables)
    if options.write:
        replace_between(options.write, f"<!-- {options.study}: begin -->", f"<!-- {options.study}: end -->", text)
    elif options.output:
        write_text(options.output, text)
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
    parser.add_argument("--study", help=f"one of {', '.join(STUDIES)}; from its committed records and runs/STUDY")
    parser.add_argument("--reference", metavar="VARIANT", help="of a study: what the other methods are held against")
    parser.add_argument("--brief", action="store_true", help="of a study: means alone, a line a condition")
    parser.add_argument("--cells", nargs="+", default=(), metavar="NAME", help="with --brief: only these conditions")
    parser.add_argument("--variants", nargs="+", default=(), metavar="NAME", help="with --brief: only these methods, in order")
    parser.add_argument("--output", type=Path, help="write to this file")
    parser.add_argument("--write", type=Path, metavar="README", help=f"write as Markdown between {BEGIN} and {END}")
    parser.add_argument("--all", action="store_true", help="every record, and a row for every way in which settings differ")
    parser.add_argument("--verbose", action="store_true", help="name every record that repeats another")
    return parser.parse_args(arguments)
