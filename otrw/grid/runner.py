"""Train the whole results table: every cell, seed and control of the presets, by one command that goes on when repeated.

python launch/reproduce.py --dry-run                               # what would run, what is done, how long it takes
python launch/reproduce.py                                         # the paper's eight cells, three seeds
python launch/reproduce.py --factors 100 --seeds 0 --budget-minutes 60 --run.precision bf16
python launch/reproduce.py --presets digits_lt --datasets digits --factors 20 50    # the small example, minutes

Finished rows are recognised by a hash of their settings and not trained again, wherever below --directory they lie; an
interrupted run goes on from its last epoch; a stage 1 that several presets share is trained once. Runs go side by side
as processes, on GPUs in turn. Further options are settings of all runs, as for launch/train.py.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from otrw import ledger
from otrw.cli import exit_with_message
from otrw.config import Row
from otrw.errors import UserError, check
from otrw.grid import Job, RowState, finished_rows, job_state, make_jobs

TRAIN = Path(__file__).resolve().parent / "train.py"
POLL_SECONDS = 1.0
LOG_EVERY_SECONDS = 60.0
STOP_SECONDS = 5.0  # between the request to stop and the end
MOST_PROCESSES_BY_DEFAULT = 8


class Running(NamedTuple):
    """A job in training."""

    job: Job
    process: subprocess.Popen
    slot: int


def main() -> None:
    """Parse, plan, show the plan or carry it out."""
    options, overrides = _parse(sys.argv[1:])
    console = Console()
    jobs = make_jobs(options.presets, options.datasets, options.factors, options.seeds, overrides)
    directory = Path(options.directory).expanduser()
    gpus = _gpus(jobs[0])
    num_slots = options.concurrent or min(MOST_PROCESSES_BY_DEFAULT, len(gpus) * 4 or os.cpu_count() or 1)
    states = _states(jobs, directory)
    _print_plan(console, jobs, states)
    if options.dry_run:
        _print_estimate(console, jobs, states, num_slots, gpus)
        return
    deadline = time.monotonic() + 60 * options.budget_minutes if options.budget_minutes else float("inf")
    failed = Grid(jobs, directory, num_slots, gpus, console).train(deadline)
    left = sum(1 for rows in _states(jobs, directory).values() if not _is_done(rows))
    console.print(f"{len(jobs) - left} of {len(jobs)} runs done" + (f"; {len(failed)} failed" if failed else ""))
    if left and not failed:
        console.print("the same command goes on")
    console.print("table        python analysis/make_table.py", highlight=False)
    if failed:
        sys.exit(1)


class Grid:
    """Jobs as concurrent processes. What is done is on disk alone, so that the end of this process loses nothing."""

    def __init__(self, jobs: list[Job], directory: Path, num_slots: int, gpus: list[str], console: Console) -> None:
        self.jobs = jobs
        self.directory = directory
        self.num_slots = num_slots
        self.gpus = gpus
        self.console = console
        self.running: list[Running] = []
        self.waiting: list[Job] = []
        self.failed: list[Job] = []

    def train(self, deadline: float) -> list[Job]:
        """Train what is not done, until the deadline (of time.monotonic); returns the jobs that failed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        states = _states(self.jobs, self.directory)
        self.waiting = [job for job in self.jobs if not _is_done(states[job.name])]
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        bars = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        total = sum(state.work for rows in states.values() for state in rows.values())
        task = bars.add_task("whole grid", total=total, note="")
        next_log = time.monotonic() + LOG_EVERY_SECONDS
        with bars:
            try:
                while (self.waiting or self.running) and time.monotonic() < deadline - STOP_SECONDS:
                    self._reap()
                    self._start_what_can()
                    time.sleep(POLL_SECONDS)
                    left = sum(s.work_left for rows in _states(self.jobs, self.directory).values() for s in rows.values())
                    note = f"{len(self.running)} running, {len(self.waiting)} to go"
                    bars.update(task, completed=total - left, note=note)
                    if not self.console.is_terminal and time.monotonic() >= next_log:
                        next_log += LOG_EVERY_SECONDS
                        self._say(f"whole grid {100 * (1 - left / total):.0f} %, {note}")
            finally:
                self._stop()
        return self.failed

    def _start_what_can(self) -> None:
        for job in list(self.waiting):
            if len(self.running) >= self.num_slots:
                return
            if ledger.is_locked(self.directory / job.name):
                continue  # another process, of an earlier call say, trains it
            finished = finished_rows([self.directory])
            if all(row_hash in finished for row_hash in job.hashes.values()):
                self.waiting.remove(job)
                self._say(f"{job.name}: done")
                continue
            stage1 = job.hashes["stage1"]
            if stage1 not in finished and any(other.job.hashes["stage1"] == stage1 for other in self.running):
                continue  # it is being trained: share it
            self._start(job, finished.get(stage1))
            self.waiting.remove(job)

    def _start(self, job: Job, stage1: Path | None) -> None:
        folder = self.directory / job.name
        slot = min(set(range(self.num_slots)) - {other.slot for other in self.running})
        if (folder / "config.yaml").is_file():
            arguments = ["--run.resume", str(folder)]
        else:
            if folder.is_dir():  # left by a process that ended before it wrote anything
                folder.rmdir()
            arguments = [*job.arguments, "--run.directory", str(self.directory), "--run.name", job.name]
            if stage1 is not None and stage1.parent != folder and (stage1 / "model.safetensors").is_file():
                arguments += ["--stage1.checkpoint", str(stage1 / "model.safetensors")]
        environment = dict(os.environ)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.num_slots)))
        with _log(self.directory, job).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(TRAIN), *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # an interrupt at the terminal reaches this process alone, which passes it on
                preexec_fn=_die_with_parent,
            )
        self.running.append(Running(job, process, slot))
        self._say(f"{job.name}: {'goes on' if arguments[0] == '--run.resume' else 'starts'}")

    def _reap(self) -> None:
        for running in list(self.running):
            code = running.process.poll()
            if code is None:
                continue
            self.running.remove(running)
            if code == 0:
                self._say(f"{running.job.name}: done")
            else:
                self.failed.append(running.job)
                log = _log(self.directory, running.job)
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
                self._say(f"{running.job.name}: failed with exit code {code}: {lines[-1]} ({log})")

    def _stop(self) -> None:
        for running in self.running:
            running.process.send_signal(signal.SIGINT)
        end = time.monotonic() + STOP_SECONDS
        for running in self.running:
            try:
                running.process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            self._say(f"{running.job.name}: stopped; goes on from its last epoch at the next call")

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


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


def _states(jobs: list[Job], directory: Path) -> dict[str, dict[Row, RowState]]:
    finished = finished_rows([directory])
    return {job.name: job_state(job, directory, finished) for job in jobs}


def _is_done(rows: dict[Row, RowState]) -> bool:
    return all(state.is_done for state in rows.values())


def _gpus(job: Job) -> list[str]:
    """Names of the GPUs to use, as CUDA_VISIBLE_DEVICES takes them."""
    if job.config.run.cpu:
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def _print_plan(console: Console, jobs: list[Job], states: dict[str, dict[Row, RowState]]) -> None:
    seeds = sorted({job.config.run.seed for job in jobs})
    num_done = sum(state.is_done for rows in states.values() for state in rows.values())
    num_rows = sum(len(rows) for rows in states.values())
    table = Table(title=f"{len(jobs)} runs, {num_done} of {num_rows} rows done", title_justify="left", title_style="bold")
    for name, justify in (("preset", "left"), ("data set", "left"), ("factor", "right"), ("rows", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for seed in seeds:
        table.add_column(f"seed {seed}", justify="right")
    cells: dict[tuple[str, str, str, str], dict[int, str]] = {}
    for job in jobs:
        rows, data = states[job.name], job.config.data
        key = (job.preset, str(data.source), f"{data.imbalance_factor:g}", str(len(rows)))
        share = 1 - sum(state.work_left for state in rows.values()) / sum(state.work for state in rows.values())
        is_begun = any(state.is_done or state.done_epochs for state in rows.values())
        text = "done" if _is_done(rows) else f"{100 * share:.0f} %" if is_begun else "to do"
        cells.setdefault(key, {})[job.config.run.seed] = text
    for key, by_seed in cells.items():
        table.add_row(*key, *(by_seed[seed] for seed in seeds))
    console.print(table)


def _print_estimate(
    console: Console, jobs: list[Job], states: dict[str, dict[Row, RowState]], num_slots: int, gpus: list[str]
) -> None:
    """Time from the work that is left and the speed of a few steps measured now."""
    import torch

    from otrw.speed import images_per_second
    from otrw.train import start_accelerator

    rows = [(job, row, state) for job in jobs for row, state in states[job.name].items() if not state.is_done]
    seen: set[str] = set()
    left = 0.0
    for job, row, state in rows:
        if job.hashes[row] not in seen:  # shared by several presets: trained once
            seen.add(job.hashes[row])
            left += state.work_left
    if not left:
        console.print("all done; nothing to train")
        return
    num_processes = min(num_slots, len(jobs))
    cores = os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // num_processes))
    accelerator = start_accelerator(jobs[0].config.run)
    speed = images_per_second(jobs[0].config, accelerator.device, precision=accelerator.mixed_precision)
    at_once = len(gpus) if gpus else min(num_processes, cores)
    hours = left / 3 / speed / at_once / 3600
    where = f"{len(gpus)} GPU" if gpus else f"{at_once} CPU processes"
    text = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
    console.print(
        f"about {text} on {where}, at {speed:.0f} training images a second of {jobs[0].config.model.name} "
        "in one, measured now; steps on cached embeddings not counted",
        highlight=False,
    )


def _log(directory: Path, job: Job) -> Path:
    return directory / f"{job.name}.log"


def _die_with_parent() -> None:
    """Let Linux end a run when this process is killed: a second call must not find it still training."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    exit_with_message(main)
