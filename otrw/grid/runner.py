"""Jobs of the grid as concurrent processes on this machine."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from otrw.errors import UserError
from otrw.grid.jobs import Job, finished_variants, is_done, job_states
from otrw.records import ledger

TRAIN = ("-m", "otrw", "train")
POLL_SECONDS = 1.0
LOG_EVERY_SECONDS = 60.0
CLAIMS = ".claims"  # folder of empty files that grids lock
STOP_SECONDS = 10.0  # between the request to stop and the end


class Running(NamedTuple):
    """A job in training."""

    job: Job
    process: subprocess.Popen
    slot: int
    claims: ExitStack
    """Held while it trains: no other grid starts this job, or another job's training of the same stage 1."""


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
        states = job_states(self.jobs, self.directory)
        waiting = [job for job in self.jobs if not is_done(states[job.name])]
        self.waiting = sorted(waiting, key=lambda job: not self._has_begun(job))  # others may wait for its stage 1
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        bars = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        total = sum(state.work for variants in states.values() for state in variants.values())
        task = bars.add_task("whole grid", total=total, note="")
        next_log = time.monotonic() + LOG_EVERY_SECONDS
        with bars:
            try:
                while (self.waiting or self.running) and time.monotonic() < deadline - STOP_SECONDS:
                    self._reap()
                    self._start_what_can()
                    time.sleep(POLL_SECONDS)
                    left = sum(
                        s.work_left for variants in job_states(self.jobs, self.directory).values() for s in variants.values()
                    )
                    note = f"{len(self.running)} running, {len(self.waiting)} to go"
                    bars.update(task, completed=total - left, note=note)
                    if not self.console.is_terminal and time.monotonic() >= next_log:
                        next_log += LOG_EVERY_SECONDS
                        self._say(f"whole grid {100 * (1 - left / total):.0f} %, {note}")
            finally:
                self._stop()
        states = job_states(self.jobs, self.directory)
        return [job for job in self.failed if not is_done(states[job.name])]  # another grid may have trained it since

    def _has_begun(self, job: Job) -> bool:
        return (self.directory / job.name / "config.yaml").is_file()

    def _start_what_can(self) -> None:
        for job in list(self.waiting):
            if len(self.running) >= self.num_slots:
                return
            if ledger.is_locked(self.directory / job.name):
                continue  # another process, of an earlier call say, trains it
            finished = finished_variants([self.directory])
            if all(variant_hash in finished for variant_hash in job.hashes.values()):
                self.waiting.remove(job)
                self._say(f"{job.name}: done")
                continue
            stage1 = job.hashes["stage1"]
            if stage1 not in finished and any(other.job.hashes["stage1"] == stage1 for other in self.running):
                continue  # it is being trained: share it
            claims = self._claim(job.name, *([] if stage1 in finished else [stage1]))
            if claims is None:
                continue  # another grid trains it: what it finishes is found at a later look
            try:
                self._start(job, finished.get(stage1), claims)
            except BaseException:
                claims.close()
                raise
            self.waiting.remove(job)

    def _claim(self, *names: str) -> ExitStack | None:
        """Hold these names among all grids of this directory; None where another holds one. Gone with this process."""
        folder = self.directory / CLAIMS
        folder.mkdir(exist_ok=True)
        claims = ExitStack()
        try:
            for name in names:
                (folder / name).touch()
                claims.enter_context(ledger.locked(folder / name))
        except UserError:
            claims.close()
            return None
        return claims

    def _start(self, job: Job, stage1: Path | None, claims: ExitStack) -> None:
        folder = self.directory / job.name
        slot = min(set(range(self.num_slots)) - {other.slot for other in self.running})
        if self._has_begun(job):
            arguments = ["--run.resume", str(folder)]
        else:
            with suppress(OSError):  # left by a process that ended before it wrote anything; if not empty, the run says so
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
                [sys.executable, *TRAIN, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # an interrupt at the terminal reaches this process alone, which passes it on
                preexec_fn=_die_with_parent,
            )
        self.running.append(Running(job, process, slot, claims))
        self._say(f"{job.name}: {'goes on' if arguments[0] == '--run.resume' else 'starts'}")

    def _reap(self) -> None:
        for running in list(self.running):
            code = running.process.poll()
            if code is None:
                continue
            self.running.remove(running)
            running.claims.close()
            if code == 0:
                self._say(f"{running.job.name}: done")
            elif ledger.is_locked(self.directory / running.job.name):
                self.waiting.append(running.job)  # a training that no grid started came first
            else:
                self.failed.append(running.job)
                log = _log(self.directory, running.job)
                lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
                self._say(f"{running.job.name}: failed with exit code {code}: {lines[-1]} ({log})")

    def _stop(self) -> None:
        for running in self.running:
            running.process.send_signal(signal.SIGTERM)  # an interrupt may be ignored, as in a script's background
        end = time.monotonic() + STOP_SECONDS
        for running in self.running:
            try:
                running.process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            running.claims.close()
            self._say(f"{running.job.name}: stopped; goes on from where it was at the next call")

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _log(directory: Path, job: Job) -> Path:
    return directory / f"{job.name}.log"


def _die_with_parent() -> None:
    """Let Linux end a run when this process is killed: a second call must not find it still training."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
