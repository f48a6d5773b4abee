"""Train the whole results table: every cell, seed and control of the presets, by one command that goes on when repeated.

python launch/reproduce.py --dry-run                               # what would run, what is done, how long it takes
python launch/reproduce.py                                         # the paper's eight cells, three seeds
python launch/reproduce.py --factors 100 --seeds 0 --budget-minutes 60 --run.precision bf16
python launch/reproduce.py --presets digits_lt --datasets digits --factors 20 50    # the small example, minutes

Finished variants are recognised by a hash of their settings and not trained again, wherever below --directory they lie; an
interrupted run goes on from where it was; a stage 1 that several presets share is trained once. Runs go side by side
as processes, on GPUs in turn. Further options are settings of all runs, as for launch/train.py.
"""

from collections.abc import Sequence
from pathlib import Path

from otrw.commands.grid_options import grid_parser, parse, show_or_train
from otrw.commands.invocation import command_line
from otrw.grid.jobs import make_jobs


def main(arguments: Sequence[str]) -> None:
    """Parse, plan, show the plan or carry it out."""
    parser = grid_parser(__doc__ or "")
    add = parser.add_argument
    add("--presets", nargs="+", default=["official", "cifar10_lt", "cifar100_lt"], metavar="NAME", help="which methods")
    add("--datasets", nargs="+", default=["cifar10", "cifar100"], choices=["digits", "cifar10", "cifar100"])
    add("--factors", nargs="+", type=float, default=[100.0, 200.0, 50.0, 20.0], metavar="X", help="imbalance factors")
    remedy = "is set by the grid; use --presets, --datasets, --factors, --seeds or --directory"
    options, overrides = parse(parser, arguments, remedy)
    jobs = make_jobs(options.presets, options.datasets, options.factors, options.seeds, overrides)
    directory = Path(options.directory).expanduser()
    table = command_line("table", [] if options.directory == "runs" else [options.directory])
    again = command_line("reproduce", arguments)
    show_or_train(jobs, directory, options, again, [("table", table)])
