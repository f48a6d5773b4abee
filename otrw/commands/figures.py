"""Figures of run records, searches and benchmarks, as PDF and PNG.

    python analysis/make_figures.py                                  # all, of committed records and those in runs/
    python analysis/make_figures.py analysis/results --figure class_error curves --dataset digits
    python analysis/make_figures.py --study noise_tail               # of analysis/experiments/
    python analysis/make_figures.py --search runs/SEARCH --benchmark analysis/results/benchmarks/*.json --figure none

error, class_error, class_weight and curves need only committed records; weights and reliability need the Parquet files
of local runs. Figure 1 of the paper (weights under feature, label and combined cost) on digits, some seconds each:

    python launch/train.py --run.name feature --ot.mixing 1 --variants [ot_meta] --stage2.rounds 1
    python launch/train.py --run.name label --ot.mixing 0 --variants [ot_meta] --stage2.rounds 1
    python launch/train.py --run.name combined --ot.mixing 0.5 --variants [ot_meta] --stage2.rounds 1
    python analysis/make_figures.py runs/feature runs/label runs/combined --figure weights
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from otrw.commands.checkout import RESULTS
from otrw.commands.study_records import read_study
from otrw.errors import UserError
from otrw.grid.studies import STUDIES
from otrw.records.experiments import load_experiments

FIGURES = ("error", "class_error", "class_weight", "curves", "weights", "reliability")
CONTROL = "class_balanced_meta"
"""That the variants of a study are held against, unless it has a reference of its own."""


def main(arguments: Sequence[str]) -> None:
    """Parse, read, draw."""
    options = _options(arguments)
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("matplotlib must be installed for figures, got none; pip install -e '.[report]'")
    from otrw.analysis.figures.make import make_figures

    for name in options.figure:
        if name not in (*FIGURES, "none"):
            raise UserError(f"--figure must be one of {', '.join(FIGURES)} or none, got {name!r}")
    for root in options.records:
        if not root.is_dir():
            raise UserError(f"records must be in a folder, got {str(root)!r}, which is none")
    if options.study:
        for path in _of_study(options):
            print(path)
        return
    experiments, problems, _ = load_experiments(options.records or [Path("runs"), RESULTS], unique=False)
    experiments = [
        experiment for experiment in experiments if not options.dataset or experiment.setting.dataset in options.dataset
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    written = make_figures(
        experiments,
        [name for name in options.figure if name != "none"],
        searches=options.search,
        benchmarks=options.benchmark,
        folder=options.output,
        formats=tuple(options.format),
    )
    num_written, left_out = 0, []
    for line in written:
        if isinstance(line, Path):
            num_written += 1
            print(line)
        else:
            left_out.append(line)
    if not num_written:
        raise UserError("; ".join(left_out) or "--figure none must come with --search or --benchmark, got nothing to draw")
    for line in left_out:
        print(line, file=sys.stderr)


def _of_study(options: argparse.Namespace) -> list[Path]:
    """Draw one study; the files written."""
    import matplotlib

    from otrw.analysis.figures import style
    from otrw.analysis.figures.study import study_figure

    reference = options.reference or (STUDIES[options.study].reference if options.study in STUDIES else "") or CONTROL
    tables = read_study(options.study, options.records, reference)
    first = [table for table in tables if table.metric == tables[0].metric]
    with matplotlib.rc_context(style.styled()):
        return style.save(study_figure(first), options.output, f"study-{options.study}", tuple(options.format))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="*", type=Path, help="folders of records (default: analysis/results and runs)")
    parser.add_argument("--figure", nargs="+", default=FIGURES, help=f"any of {', '.join(FIGURES)}, or none (default: all)")
    parser.add_argument("--dataset", nargs="+", default=(), help="only these data sets, such as digits or cifar10")
    parser.add_argument("--study", help=f"one of {', '.join(STUDIES)} instead; from its committed records and runs/STUDY")
    parser.add_argument("--reference", help=f"of a study, the variant that the others are held against (default: {CONTROL})")
    parser.add_argument("--search", nargs="+", type=Path, default=(), help="folders of tuning/search.py to draw too")
    parser.add_argument("--benchmark", nargs="+", type=Path, default=(), help="benchmark records to draw too")
    parser.add_argument("--output", type=Path, default=Path("figures"), help="folder to write to (default: figures)")
    parser.add_argument("--format", nargs="+", choices=("pdf", "png"), default=("pdf", "png"))
    return parser.parse_args(arguments)
