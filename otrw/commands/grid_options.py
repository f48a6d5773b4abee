"""What the commands that train a grid of runs have in common: their options, and the training itself."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from otrw.errors import UserError, UserInterrupt, check
from otrw.grid.jobs import Job, check_data, check_folders, is_done, job_states
from otrw.grid.plan import print_estimate, print_plan, visible_gpus
from otrw.grid.runner import Grid

MOST_PROCESSES_BY_DEFAULT = 8
SET_BY_THE_GRID = ("config", "run.name", "run.directory", "run.resume", "run.seed", "data.source", "data.imbalance_factor")
"""Settings that differ from job to job."""


def grid_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options of every grid; the caller adds what chooses its jobs."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    add("--directory", default="runs", help="where the runs go and finished ones are looked for (default: runs)")
    add("--concurrent", type=int, metavar="K", help="runs at a time (default: a process a core, four a GPU, at most 8)")
    add("--budget-minutes", type=float, metavar="M", help="stop before this; the next call goes on")
    add("--dry-run", action="store_true", help="show the plan and an estimate of the time, train nothing")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str], remedy: str) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the settings of all runs that are left.

    Args:
        parser: of `grid_parser`.
        arguments: a command line in words.
        remedy: what to do about a setting that the grid sets itself.

    Raises:
        UserError: for bad input.
    """
    try:
        options, overrides = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{' '.join(str(error).split())}; --help lists every option") from None
    for flag in SET_BY_THE_GRID:
        if any(piece.split("=")[0] == f"--{flag}" for piece in overrides):
            raise UserError(f"--{flag} {remedy}")
    check(options.concurrent is None or options.concurrent >= 1, "--concurrent", options.concurrent, "be >= 1")
    check(options.budget_minutes is None or options.budget_minutes > 0, "--budget-minutes", options.budget_minutes, "be > 0")
    return options, overrides


def show_or_train(
    jobs: list[Job], directory: Path, options: argparse.Namespace, command: str, next_commands: Sequence[tuple[str, str]]
) -> None:
    """Show what is done and what is left, and unless it is a dry run train it; leaves with exit code 1 where a run failed.

    Args:
        jobs: the runs.
        directory: where they go.
        options: of `parse`.
        command: what goes on after Ctrl-C.
        next_commands: (a word on what it shows, the command as typed).

    Raises:
        UserError: where the data of a run cannot be read; nothing is begun then.
        UserInterrupt: for Ctrl-C and other signals.
    """
    console = Console()
    gpus = visible_gpus(jobs[0])
    num_slots = options.concurrent or min(MOST_PROCESSES_BY_DEFAULT, len(gpus) * 4 or os.cpu_count() or 1)
    check_folders(jobs, directory)
    states = job_states(jobs, directory)
    print_plan(console, jobs, states)
    if options.dry_run:
        print_estimate(console, jobs, states, num_slots, gpus)
        return
    check_data(job for job in jobs if not is_done(states[job.name]))
    deadline = time.monotonic() + 60 * options.budget_minutes if options.budget_minutes else float("inf")
    try:
        failed = Grid(jobs, directory, num_slots, gpus, console).train(deadline)
    except KeyboardInterrupt as interrupt:
        raise UserInterrupt(command=command, signal_number=getattr(interrupt, "signal", None)) from None
    left = sum(1 for variants in job_states(jobs, directory).values() if not is_done(variants))
    console.print(f"{len(jobs) - left} of {len(jobs)} runs done" + (f"; {len(failed)} failed" if failed else ""))
    if left and not failed:
        console.print("the same command goes on")
    for word, next_command in next_commands:
        console.print(f"  {word:<7} {next_command}", highlight=False, soft_wrap=True, markup=False)
    if failed:
        sys.exit(1)


def commit_command(directory: Path, study: str) -> str:
    """The command that adds the runs below a directory to the committed records of a study, as typed."""
    return f"python analysis/add_results.py {shlex.quote(str(directory))}/*/ --to analysis/experiments/results/{study}"
