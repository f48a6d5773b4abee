"""Run a study: every condition, method and seed, by one command that goes on when repeated.

python analysis/experiments/noise_tail.py --dry-run                        # what would run, what is done, how long it takes
python analysis/experiments/noise_tail.py --datasets digits --seeds 0 1 2 3 4 5 6 7
python analysis/experiments/noise_tail.py --datasets cifar10 cifar100 --data.root data --stage1.epochs 16

Runs go below --directory, each with one stage 1 for all methods; a stage 1 of the same settings that lies there already is
shared. Further options are settings of all runs, as for launch/train.py. Variants with cleanlab need pip install cleanlab.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from otrw.errors import UserError, check
from otrw.grid.jobs import check_folders, is_done, job_states
from otrw.grid.plan import print_estimate, print_plan, visible_gpus
from otrw.grid.runner import Grid
from otrw.grid.studies import STUDIES, study_jobs


def main(name: str, arguments: Sequence[str]) -> None:
    """Parse, plan, show the plan or carry it out.

    Args:
        name: of the study.
        arguments: options, and settings of all runs.

    Raises:
        UserError: for bad input.
    """
    study = STUDIES[name]
    options, overrides = _parse(name, arguments)
    jobs = study_jobs(study, options.datasets, options.seeds, options.cells, overrides)
    console = Console()
    directory = Path(options.directory).expanduser() / study.folder
    gpus = visible_gpus(jobs[0])
    num_slots = options.concurrent or len(gpus) * 4 or os.cpu_count() or 1
    check_folders(jobs, directory)
    states = job_states(jobs, directory)
    console.print(f"{study.title}: {len(study.cells)} conditions", highlight=False)
    print_plan(console, jobs, states)
    if options.dry_run:
        print_estimate(console, jobs, states, num_slots, gpus)
        return
    deadline = time.monotonic() + 60 * options.budget_minutes if options.budget_minutes else float("inf")
    failed = Grid(jobs, directory, num_slots, gpus, console).train(deadline)
    left = sum(1 for variants in job_states(jobs, directory).values() if not is_done(variants))
    console.print(f"{len(jobs) - left} of {len(jobs)} runs done" + (f"; {len(failed)} failed" if failed else ""))
    if left and not failed:
        console.print("the same command goes on")
    for word, command in (
        ("table", f"python analysis/make_table.py --study {name} {directory}"),
        ("figure", f"python analysis/make_figures.py --study {name} {directory}"),
        ("commit", f"python analysis/add_results.py {directory}/* --to analysis/experiments/results/{study.folder}"),
    ):
        console.print(f"  {word:<7} {command}", highlight=False, soft_wrap=True, markup=False)
    if failed:
        sys.exit(1)


def _parse(name: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    study = STUDIES[name]
    parser = argparse.ArgumentParser(
        description=f"{study.title}.\n\n{__doc__}".replace("noise_tail", name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--datasets", nargs="+", choices=study.datasets, default=[study.datasets[0]], help="default: the first")
    add(
        "--cells", nargs="+", default=(), metavar="NAME", help=f"any of {', '.join(c.name for c in study.cells)} (default: all)"
    )
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    add("--directory", default="runs", help="the study's folder lies there (default: runs)")
    add("--concurrent", type=int, metavar="K", help="runs at a time (default: a process a core, four a GPU)")
    add("--budget-minutes", type=float, metavar="M", help="stop before this; the next call goes on")
    add("--dry-run", action="store_true", help="show the plan and an estimate of the time, train nothing")
    try:
        options, overrides = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{' '.join(str(error).split())}; --help lists every option") from None
    for flag in ("config", "run.name", "run.directory", "run.resume", "run.seed", "data.source", "data.imbalance_factor"):
        if any(piece.split("=")[0] == f"--{flag}" for piece in overrides):
            raise UserError(f"--{flag} is set by the study; use --datasets, --seeds or --directory")
    check(options.concurrent is None or options.concurrent >= 1, "--concurrent", options.concurrent, "be >= 1")
    check(options.budget_minutes is None or options.budget_minutes > 0, "--budget-minutes", options.budget_minutes, "be > 0")
    return options, overrides
