"""What a person sees while it trains: bars on a terminal, a line now and then in a log file."""

import time

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

LOG_LINES_PER_PHASE = 5


class Progress:
    """One bar a phase; silent where `console` is None (all processes but the main one)."""

    def __init__(self, console: Console | None) -> None:
        self.console = console
        self.variant = ""
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._epochs = 0
        self._title = ""
        self._started = 0.0
        if console is not None and console.is_terminal:
            columns = (
                TextColumn("{task.description:<27}"),
                BarColumn(bar_width=16),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
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
        """A phase begins, with some epochs done before."""
        self._title = self.variant + (f" round {round_number}" if round_number > 1 else "")
        self._epochs, self._started = epochs, time.monotonic()
        if self._bars:
            self._task = self._bars.add_task(self._title, total=epochs, completed=done, note="")

    def epoch(self, line: dict) -> None:
        """An epoch ended."""
        error = line.get("test", {}).get("error")
        note = "" if error is None else f"error {error:.1f} %"
        if self._bars and self._task is not None:
            self._bars.update(self._task, completed=line["epoch"])
            if note:
                self._bars.update(self._task, note=note)
        elif self.console is not None:
            every = max(1, self._epochs // LOG_LINES_PER_PHASE)
            if line["epoch"] % every == 0 or line["epoch"] == self._epochs:
                seconds = time.monotonic() - self._started
                loss = line["train"]["loss"]
                self.say(f"{self._title:<27} epoch {line['epoch']}/{self._epochs}  loss {loss:.3f}  {note}  {seconds:.0f} s")
