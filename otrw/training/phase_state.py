"""Everything that a phase of training depends on, in a checkpoint and out of it, also in the middle of an epoch.

A new source of state belongs here: `save_phase` and `load_phase` are all there is.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from otrw import distributed
from otrw.training import checkpoints
from otrw.training.session import Phase, Session, Training


class EpochSoFar(NamedTuple):
    """What an epoch has come to; the sums are this process's own."""

    epoch: int
    """Number of the epoch, from 0."""
    num_steps: int
    """Steps done."""
    learning_rate: float
    """Of the epoch's first step, for the log."""
    summed: Tensor
    """(2,) training and meta loss summed over the steps."""
    bad_step: Tensor
    """() first step whose loss was not finite, -1 where all were."""

    def after(self, train_loss: Tensor, meta_loss: Tensor, total: Tensor) -> "EpochSoFar":
        """One step later; reads nothing from the device."""
        bad = torch.where((self.bad_step < 0) & ~total.isfinite(), self.num_steps, self.bad_step)
        return self._replace(
            num_steps=self.num_steps + 1, summed=self.summed + torch.stack([train_loss, meta_loss]), bad_step=bad
        )


def save_phase(session: Session, phase: Phase, training: Training, so_far: EpochSoFar) -> None:
    """Write a checkpoint: after an epoch, or inside it. Every process calls it; the main one writes.

    Inside an epoch a process has its own sums and, with BatchNorm on CPUs, its own statistics: those of all are kept.

    Args:
        session: run-time facts of the variant.
        phase: what is trained.
        training: optimiser, schedule and loader.
        so_far: all its steps done, or some.
    """
    is_whole = so_far.num_steps == len(training.loader)
    epoch, step = (so_far.epoch + 1, 0) if is_whole else (so_far.epoch, so_far.num_steps)
    state = {
        "stage": phase.stage,
        "round": phase.round,
        "epoch": epoch,
        "step": step,
        "num_lines": session.journal.num_lines,
        "lines": session.journal.lines(),
        "seconds": session.journal.seconds(),
        "module": phase.module.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "weighting": phase.weighting.state_dict(),
    }
    if training.average is not None:
        state["average"] = training.average.state_dict()
    if session.accelerator.scaler is not None:  # fp16
        state["scaler"] = session.accelerator.scaler.state_dict()
    if not is_whole:
        state |= {
            "learning_rate": so_far.learning_rate,
            "summed": torch.stack(distributed.all_gather(so_far.summed)),
            "buffers": {name: torch.stack(distributed.all_gather(x)) for name, x in _own_buffers(phase, training).items()},
        }
        if phase.sample_by_weighting:  # what the epoch's order was drawn by; the weights may have moved since
            state["sampling_weights"] = training.loader.sampling_weights
    name = f"round-{phase.round:03d}-epoch-{epoch:05d}" + (f"-step-{step:07d}" if step else "")
    folder = session.journal.folder / "checkpoints"
    distributed.on_main(lambda: checkpoints.save_state(folder, name, state, session.config.run.keep_checkpoints))


def load_phase(session: Session, phase: Phase, training: Training, state: dict) -> EpochSoFar | None:
    """Take over a checkpoint, before accelerate prepares the module; returns the epoch that it was taken in, if in one.

    On another number of processes, which a run may go on with, each takes the mean of what was one process's own.

    Args:
        session: run-time facts of the variant.
        phase: what is trained.
        training: optimiser, schedule and loader, as new.
        state: as `save_phase` wrote it.
    """
    phase.module.load_state_dict(state["module"])
    training.optimizer.load_state_dict(state["optimizer"])
    training.schedule.load_state_dict(state["schedule"])
    if training.average is not None:
        training.average.load_state_dict(state["average"])
    if session.accelerator.scaler is not None and "scaler" in state:
        session.accelerator.scaler.load_state_dict(state["scaler"])
    if not state.get("step"):  # absent in states of earlier versions
        return None

    def own(values: Tensor) -> Tensor:
        fits = len(values) == distributed.world_size()
        return values[distributed.rank()] if fits else values.mean(0)

    for name, buffer in _own_buffers(phase, training).items():
        buffer.copy_(own(state["buffers"][name]))
    if phase.sample_by_weighting:
        training.loader.sampling_weights = state["sampling_weights"]
    device = session.accelerator.device
    summed, no_bad_step = own(state["summed"]).to(device), torch.full((), -1, device=device)  # none is saved with one
    return EpochSoFar(state["epoch"], state["step"], state["learning_rate"], summed, no_bad_step)


def _own_buffers(phase: Phase, training: Training) -> dict[str, Tensor]:
    """What each process changes by itself until the epoch ends."""
    named = list(phase.module.named_buffers())
    if training.average is not None:
        named += training.average.named_buffers(prefix="average")
    return {name: buffer for name, buffer in named if buffer.is_floating_point()}
