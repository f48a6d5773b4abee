"""Settings of where and how a run is carried out."""

from dataclasses import dataclass
from typing import Literal

from otrw.errors import check


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where and how it runs."""

    seed: int = 0
    """Root of every random draw."""
    directory: str = "runs"
    """Folder of all runs."""
    name: str | None = None
    """Name of this run's folder; null makes one from the data and the time. An existing folder is refused."""
    preset: str | None = None
    """Preset that these settings started from: what tables call the run. The command line fills it in."""
    resume: str | None = None
    """Go on with this run's folder after an interruption; every other setting is read from it."""
    cpu: bool = False
    """Stay on the CPU on a machine with a GPU."""
    threads: int | None = None
    """Threads of each process; null takes OMP_NUM_THREADS where it was set, else 1 for net small and a share of the cores."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Autocast of the net: auto is bf16 on a GPU that has it, else float32. Weights are always solved in float32."""
    accumulation_steps: int = 1
    """Parts that a process computes its share of a batch in, one after the other, where memory is short: gradients are added
    up before the step, which is that of the whole batch (but BatchNorm normalises each part by itself)."""
    compile: bool = False
    """torch.compile the net. Worth it on a GPU; measure on a CPU."""
    evaluate_every_epochs: int = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    checkpoint_every_epochs: int = 1
    """Epochs between checkpoints; a run that is killed repeats at most this many, one that is interrupted nothing."""
    checkpoint_every_steps: int | None = None
    """Optimiser steps between checkpoints inside an epoch, for long epochs; null writes none there, but for a signal's."""
    keep_checkpoints: int = 1
    """How many checkpoints of a variant stay while it runs."""
    tensorboard: bool = True
    """Write TensorBoard logs."""
    timeout_seconds: float = 600.0
    """How long a process waits for the others before the job ends with an error."""

    def __post_init__(self) -> None:
        check(self.seed >= 0, "run.seed", self.seed, "be >= 0")
        is_plain = self.name is None or (self.name not in ("", ".", "..") and not set(self.name) & {"/", "\\"})
        check(is_plain, "run.name", self.name, "be a plain folder name", "run.directory says where it goes")
        for key in ("accumulation_steps", "evaluate_every_epochs", "checkpoint_every_epochs", "keep_checkpoints"):
            check(getattr(self, key) >= 1, f"run.{key}", getattr(self, key), "be >= 1")
        every = self.checkpoint_every_steps
        check(every is None or every >= 1, "run.checkpoint_every_steps", every, "be >= 1 or null")
        check(self.threads is None or self.threads >= 1, "run.threads", self.threads, "be >= 1 or null")
        check(self.timeout_seconds > 0, "run.timeout_seconds", self.timeout_seconds, "be > 0")
