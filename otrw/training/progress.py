"""What a person sees while it trains: bars on a terminal, a line now and then in a log file."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

FIRST_LINE_SECONDS = 10.0
"""In a log file: time to the first line of a phase that is not over by then,"""
LINE_SECONDS, LINE_SHARE = 30.0, 0.05
"""least time and least share of the phase between its lines after that,"""
SILENCE_SECONDS = 120.0
"""and the time after which a line comes anyway."""
BAR_SECONDS = 0.2
"""On a terminal: time between updates of a bar."""


class Progress:
    """One bar a phase, or lines in a log file; silent where `console` is None (all processes but the main one)."""

    def __init__(self, console: Console | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare the bars.

        Args:
            console: where to print, or None.
            clock: seconds; another one in tests.
        """
        self.console = console
        self.variant = ""
        self._clock = clock
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._title = self._note = ""
        self._epochs = self._epoch = self._first_epoch = self._samples = 0
        self._share = 0.0  # of the present epoch
        self._started = self._last_seen = self._last_step = self._seconds = 0.0
        self._last_share = 0.0  # of the phase, when a line was last printed
        self._num_lines = 0
        if console is not None and console.is_terminal:
            columns = (
                TextColumn("{task.description:<26}"),
                BarColumn(bar_width=10),
                TextColumn("{task.fields[done]:>7}"),
                TextColumn("{task.fields[rate]:>14}"),
                TextColumn("{task.fields[note]:<12}"),
                TextColumn("{task.fields[left]:>8}"),
            )
            self._bars = Bars(*columns, console=console)

    def __enter__(self) -> "Progress":
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        if self.console is not None:
            self.console.print(text, highlight=False, markup=False, soft_wrap=not self.console.is_terminal)

    def phase(self, stage: str, round_number: int, done: int, epochs: int) -> None:
        """A phase begins.

        Args:
            stage: "stage1" or "stage2".
            round_number: round of stage 2, from 1.
            done: epochs that were trained before, in a run that was interrupted.
            epochs: of the whole phase.
        """
        self._title = self.variant + (f" round {round_number}" if round_number > 1 else "")
        self._epochs, self._epoch, self._first_epoch, self._share = epochs, done, done, 0.0
        self._note, self._samples, self._seconds, self._num_lines = "", 0, 0.0, 0
        self._started = self._last_seen = self._last_step = self._clock()
        self._last_share = done / epochs
        if self._bars:
            self._task = self._bars.add_task(self._title, total=epochs, completed=done, **self._words())

    def step(self, done_steps: int, num_steps: int, num_samples: int) -> None:
        """A step of the present epoch was taken; costs a reading of the clock and waits for no device.

        Args:
            done_steps: steps of this epoch so far, from 1.
            num_steps: steps of an epoch.
            num_samples: training samples of the step, of all processes together.
        """
        if self.console is None:
            return
        now = self._clock()
        if done_steps > 1:  # before the first step there was an evaluation or a checkpoint: it has no time of its own
            self._samples += num_samples
            self._seconds += now - self._last_step
        self._last_step, self._share = now, done_steps / num_steps
        if self._bars:
            if now - self._last_seen >= BAR_SECONDS:
                self._show(now)
        elif self._is_line_due(now):
            self._print_line(now)

    def epoch(self, line: dict) -> None:
        """An epoch ended.

        Args:
            line: as in metrics.jsonl; its error is shown, or its loss where the epoch was not evaluated.
        """
        self._epoch, self._share = line["epoch"], 0.0
        error = line.get("test", {}).get("error")
        if error is not None:
            self._note = f"error {error:.1f} %"
        elif not self._note.startswith("error"):
            self._note = f"loss {line['train']['loss']:.3f}"
        if self.console is None:
            return
        now = self._clock()
        if self._bars:
            self._show(now)
        elif self._epoch == self._epochs or self._is_line_due(now):
            self._print_line(now)

    def _is_line_due(self, now: float) -> bool:
        silent = now - self._last_seen
        if self._num_lines == 0:
            return silent >= FIRST_LINE_SECONDS
        went_on = self._phase_share() - self._last_share >= LINE_SHARE
        return (silent >= LINE_SECONDS and went_on) or silent >= SILENCE_SECONDS

    def _print_line(self, now: float) -> None:
        words = self._words(now)
        parts = [f"{self._title:<26}", f"epoch {words['done']}", words["rate"], words["note"], words["left"]]
        self.say("  ".join(part for part in parts if part))
        self._last_seen, self._last_share = now, self._phase_share()
        self._num_lines += 1

    def _show(self, now: float) -> None:
        assert self._bars is not None
        assert self._task is not None
        self._last_seen = now
        self._bars.update(self._task, completed=self._epoch + self._share, **self._words(now))

    def _phase_share(self) -> float:
        return (self._epoch + self._share) / self._epochs

    def _words(self, now: float | None = None) -> dict[str, Any]:
        """Epochs done, speed, error and time, in words; empty where they are not known yet."""
        present = min(self._epochs, self._epoch + (1 if self._share else 0))
        words = {"done": f"{present}/{self._epochs}", "rate": "", "note": self._note, "left": ""}
        if self._seconds > 0:
            words["rate"] = f"{self._samples / self._seconds:,.0f} images/s"
        if now is not None:
            done = self._epoch + self._share - self._first_epoch
            left = self._epochs - self._epoch - self._share
            elapsed = now - self._started
            if left == 0:
                words["left"] = f"in {duration(elapsed)}"
            elif done > 0:
                words["left"] = f"{duration(elapsed / done * left)} left"
        return words


def duration(seconds: float) -> str:
    """Seconds as 0:07, 12:07 or 3:12:07."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
