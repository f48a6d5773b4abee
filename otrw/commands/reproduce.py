"""Train the whole results table: every cell, seed and control of the presets, by one command that goes on when repeated.

python launch/reproduce.py --dry-run                               # what would run, what is done, how long it takes
python launch/reproduce.py                                         # the paper's eight cells, three seeds
python launch/reproduce.py --factors 100 --seeds 0 --budget-minutes 60 --run.precision bf16
python launch/reproduce.py --presets digits_lt --datasets digits --factors 20 50    # the small example, minutes

Finished variants are recognised by a hash of their settings and not trained again, wherever below --directory they lie; an
interrupted run goes on from where it was; a stage 1 that several presets share is trained once. Runs go side by side
as processes, on GPUs in turn. Further options are settings of all runs, as for launch/train.py.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from otrw.commands.invocation import command_line
from otrw.errors import UserError, UserInterrupt, check
from otrw.grid.jobs import check_folders, is_done, job_states, make_jobs
from otrw.grid.plan import print_estimate, print_plan, visible_gpus
from otrw.grid.runner import Grid

MOST_PROCESSES_BY_DEFAULT = 8


def main(arguments: Sequence[str]) -> None:
    """Parse, plan, show the plan or carry it out."""
    options, overrides = _parse(arguments)
    console = Console()
    jobs = make_jobs(options.presets, options.datasets, options.factors, options.seeds, overrides)
    directory = Path(options.directory).expanduser()
    gpus = visible_gpus(jobs[0])
    num_slots = options.concurrent or min(MOST_PROCESSES_BY_DEFAULT, len(gpus) * 4 or os.cpu_count() or 1)
    check_folders(jobs, directory)
    states = job_states(jobs, directory)
    print_plan(console, jobs, states)
    if options.dry_run:
        print_estimate(console, jobs, states, num_slots, gpus)
        return
    deadline = time.monotonic() + 60 * options.budget_minutes if options.budget_minutes else float("inf")
    try:
        failed = Grid(jobs, directory, num_slots, gpus, console).train(deadline)
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "signal", None)
        raise UserInterrupt(command=command_line("reproduce", arguments), signal_number=number) from None
    left = sum(1 for variants in job_states(jobs, directory).values() if not is_done(variants))
    console.print(f"{len(jobs) - left} of {len(jobs)} runs done" + (f"; {len(failed)} failed" if failed else ""))
    if left and not failed:
        console.print("the same command goes on")
    console.print("table        python analysis/make_table.py", highlight=False)
    if failed:
        sys.exit(1)


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, exit_on_error=False
    )
    add = parser.add_argument
    add("--presets", nargs="+", default=["official", "cifar10_lt", "cifar100_lt"], metavar="NAME", help="which methods")
    add("--datasets", nargs="+", default=["cifar10", "cifar100"], choices=["digits", "cifar10", "cifar100"])
    add("--factors", nargs="+", type=float, default=[100.0, 200.0, 50.0, 20.0], metavar="X", help="imbalance factors")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    add("--directory", default="runs", help="where the runs go and finished ones are looked for (default: runs)")
    add("--concurrent", type=int, metavar="K", help="runs at a time (default: a process a core, four a GPU, at most 8)")
    add("--budget-minutes", type=float, metavar="M", help="stop before this; the next call goes on")
    add("--dry-run", action="store_true", help="show the plan and an estimate of the time, train nothing")
    try:
        options, overrides = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{' '.join(str(error).split())}; --help lists every option") from None
    for flag in ("config", "run.name", "run.directory", "run.resume", "run.seed", "data.source", "data.imbalance_factor"):
        if any(piece.split("=")[0] == f"--{flag}" for piece in overrides):
            raise UserError(f"--{flag} is set by the grid; use --presets, --datasets, --factors, --seeds or --directory")
    check(options.concurrent is None or options.concurrent >= 1, "--concurrent", options.concurrent, "be >= 1")
    check(options.budget_minutes is None or options.budget_minutes > 0, "--budget-minutes", options.budget_minutes, "be > 0")
    return options, overrides
