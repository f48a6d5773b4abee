"""One phase of training: an ordinary loop over epochs and steps, the same for stage 1 and stage 2."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from otrw import distributed
from otrw.data.loader import Batch, Loader
from otrw.errors import NonFiniteError
from otrw.seeds import seed_for
from otrw.training import checkpoints
from otrw.training.evaluation import evaluate_all
from otrw.training.losses import Loss, cross_entropy, make_loss, weighted_mean
from otrw.training.optimization import make_optimizer
from otrw.training.session import Phase, Session


class Training(NamedTuple):
    """What a phase trains with."""

    module: nn.Module
    """As accelerate prepared it, and compiled where asked for."""
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    loader: Loader
    meta_loader: Loader | None
    criterion: Loss


class StepLosses(NamedTuple):
    """Losses of one step, this process's share times the number of processes; without gradient."""

    train: Tensor
    """() weighted loss of the training samples"""
    meta: Tensor
    """() mean loss of the meta samples; 0 where there are none"""
    total: Tensor
    """() what was differentiated"""


def train(session: Session, phase: Phase, state: dict | None) -> None:
    """Train phase.module in place.

    Args:
        session: run-time facts of the variant.
        phase: what is trained, on what, with which weights.
        state: a checkpointed state of this phase to go on from, or None.

    Raises:
        NonFiniteError: where the loss is not finite, on every process, before the epoch's checkpoint is written.
    """
    settings, accelerator = phase.settings, session.accelerator
    training, start_epoch = _prepare(session, phase, state)
    session.progress.phase(phase.stage, phase.round, start_epoch, settings.epochs)
    for epoch in range(start_epoch, settings.epochs):
        _refresh(session, phase, epoch)
        if phase.sample_by_weighting:
            training.loader.sampling_weights = phase.weighting.weights
        learning_rate = training.optimizer.param_groups[0]["lr"]  # of the epoch's first step
        is_weighted = phase.weigh_loss and epoch >= (phase.class_balanced_from_epoch or 0)
        if is_weighted and phase.weighting.whole_epochs:
            phase.weighting.of_epoch(training.loader, epoch)
        training.module.train()
        meta_batches = training.meta_loader.cycle(epoch, len(training.loader)) if training.meta_loader else None
        summed = torch.zeros(2, device=accelerator.device)
        bad_step = torch.full((), -1, device=accelerator.device)
        for step, batch in enumerate(training.loader.epoch(epoch)):
            losses = training_step(session, phase, training, batch, next(meta_batches) if meta_batches else None, is_weighted)
            summed += torch.stack([losses.train, losses.meta])
            bad_step = torch.where((bad_step < 0) & ~losses.total.isfinite(), step, bad_step)
            session.progress.step(step + 1, len(training.loader), training.loader.batch_size)
        distributed.average_buffers(phase.module)
        is_finite = _gives_finite_logits(phase.module, batch.inputs)
        bad_step = torch.where((bad_step < 0) & ~is_finite, len(training.loader) - 1, bad_step)  # diverged in the last step
        end_epoch(session, phase, training, epoch, learning_rate, summed, bad_step)
    accelerator.free_memory()


def training_step(
    session: Session, phase: Phase, training: Training, batch: Batch, meta: Batch | None, is_weighted: bool
) -> StepLosses:
    """One optimiser step on a batch, and on a batch of meta samples where there is one.

    Args:
        session: run-time facts of the variant.
        phase: which weights and normaliser the loss has.
        training: module, optimiser, schedule and criterion; all are changed in place.
        batch: this process's training samples.
        meta: this process's meta samples, or None.
        is_weighted: whether the weights count in the loss.

    Returns:
        The losses of the step, on the device: reading them would wait for it.
    """
    module = training.module
    weights = phase.weighting.of_batch(batch, phase.module, meta) if is_weighted else batch.mask.float()
    targets = phase.weighting.targets_of_batch(batch, is_weighted)
    if meta is None:
        logits, meta_logits = module(batch.inputs).logits, None
    elif phase.meta_forward == "joint":
        logits, meta_logits = module(torch.cat([batch.inputs, meta.inputs])).logits.split([len(batch.index), len(meta.index)])
    else:
        logits, meta_logits = module(batch.inputs).logits, module(meta.inputs).logits
    losses = phase.weighting.losses_of_batch(training.criterion, logits, targets, batch)
    loss = train_loss = _global_mean(losses, weights, batch.mask, phase.normalizer)
    meta_loss = torch.zeros_like(loss)
    if meta is not None and meta_logits is not None:
        meta_losses = cross_entropy(meta_logits, meta.labels)  # the meta set is balanced: no prior to adjust for
        meta_loss = _global_mean(meta_losses, meta.mask.float(), meta.mask, "samples")
        loss = train_loss + phase.meta_loss_factor * meta_loss
    session.accelerator.backward(loss)
    training.optimizer.step()
    training.optimizer.zero_grad()
    training.schedule.step()
    return StepLosses(train_loss.detach(), meta_loss.detach(), loss.detach())


def end_epoch(
    session: Session,
    phase: Phase,
    training: Training,
    epoch: int,
    learning_rate: float,
    summed: Tensor,
    bad_step: Tensor,
) -> None:
    """Agree that the epoch went well, then evaluate, log and write the checkpoint where they are due.

    Args:
        session: run-time facts of the variant.
        phase: what is trained.
        training: optimiser and schedule, for the checkpoint.
        epoch: number of the epoch, from 0.
        learning_rate: of the epoch's first step, for the log.
        summed: (2,) training and meta loss summed over this process's steps.
        bad_step: () first step of this process whose loss was not finite, -1 where all were.

    Raises:
        NonFiniteError: on every process, where any has a bad step.
    """
    run, epochs = session.config.run, phase.settings.epochs
    _stop_if_not_finite(bad_step, phase, epoch)
    num_values = distributed.world_size() * len(training.loader)
    train_loss, meta_loss = (distributed.all_reduce_sum(summed) / num_values).tolist()
    line = {
        "stage": phase.stage,
        "round": phase.round,
        "epoch": epoch + 1,
        "learning_rate": learning_rate,
        "train": {"loss": train_loss} | ({"meta_loss": meta_loss} if training.meta_loader else {}),
    }
    is_last = epoch + 1 == epochs
    if (epoch + 1) % run.evaluate_every_epochs == 0 or is_last:
        line |= evaluate_all(session, phase.module, phase.views)
    session.journal.epoch(line)
    session.progress.epoch(line)
    if (epoch + 1) % run.checkpoint_every_epochs == 0 or is_last:
        _save(session, phase, training, epoch + 1)


def _prepare(session: Session, phase: Phase, state: dict | None) -> tuple[Training, int]:
    """Loaders, criterion and optimiser of a phase, and the epoch to start from."""
    config, settings = session.config, phase.settings
    loader, meta_loader = _loaders(phase, seed_for(config.run.seed, phase.stage, phase.round))
    criterion = make_loss(
        settings.loss.name,
        session.data.given_sizes,
        logit_adjustment=settings.loss.logit_adjustment,
        ldam_max_margin=settings.loss.ldam_max_margin,
        ldam_scale=settings.loss.ldam_scale,
    )
    optimizer, schedule = make_optimizer(phase.module, settings.optimizer, steps_per_epoch=len(loader), epochs=settings.epochs)
    if state is not None:
        phase.module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        if session.accelerator.scaler is not None and "scaler" in state:
            session.accelerator.scaler.load_state_dict(state["scaler"])
    module, optimizer = session.accelerator.prepare(phase.module, optimizer)
    if config.run.compile:
        module = torch.compile(module, dynamic=False)  # an epoch has two batch sizes: a graph for each beats one for any
    start_epoch = 0 if state is None else state["epoch"]
    return Training(module, optimizer, schedule, loader, meta_loader, criterion), start_epoch


def _global_mean(losses: Tensor, weights: Tensor, mask: Tensor, normalizer: str) -> Tensor:
    return weighted_mean(
        losses,
        weights,
        mask,
        normalizer=normalizer,
        all_reduce_sum=distributed.all_reduce_sum,
        num_ranks=distributed.world_size(),
    )


def _loaders(phase: Phase, seed: int) -> tuple[Loader, Loader | None]:
    rank, world_size = distributed.rank(), distributed.world_size()
    loader = Loader(
        phase.views.train,
        phase.settings.batch_size,
        seed=seed,
        transform=phase.views.train_transform,
        sampling_weights=phase.sampling_weights,
        mixup_alpha=phase.settings.mixup_alpha,
        rank=rank,
        world_size=world_size,
    )
    if phase.meta_loss_factor == 0:
        return loader, None
    meta_size = phase.meta_batch_size or len(phase.views.meta)
    return loader, Loader(
        phase.views.meta,
        meta_size,
        seed=seed_for(seed, "meta"),
        transform=phase.views.train_transform,
        rank=rank,
        world_size=world_size,
    )


def _refresh(session: Session, phase: Phase, epoch: int) -> None:
    """Before an epoch: new weights from fresh embeddings, where the variant asks for them."""
    every = phase.refresh_every_epochs
    if every is None or epoch % every or (epoch == 0 and not phase.weighting.per_batch):
        return
    figures = phase.weighting.refresh(phase.module)
    if figures is not None:
        session.journal.solve(figures)


def _gives_finite_logits(module: nn.Module, inputs: Tensor) -> Tensor:
    """() bool: whether the updated net still computes; its last step has no loss of its own to show it."""
    module.eval()
    with torch.no_grad():
        return module(inputs[:8]).logits.isfinite().all()


def _stop_if_not_finite(bad_step: Tensor, phase: Phase, epoch: int) -> None:
    bad = [step for step in torch.stack(distributed.all_gather(bad_step)).tolist() if step >= 0]
    if bad:
        raise NonFiniteError(
            f"the loss of {phase.stage} is not finite at epoch {epoch + 1}, step {min(bad) + 1}; the checkpoint before it is "
            "intact; try a smaller learning rate"
        )


def _save(session: Session, phase: Phase, training: Training, epoch: int) -> None:
    if not distributed.is_main():
        return
    state = {
        "stage": phase.stage,
        "round": phase.round,
        "epoch": epoch,
        "num_lines": session.journal.num_lines,
        "module": phase.module.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "weighting": phase.weighting.state_dict(),
    }
    if session.accelerator.scaler is not None:  # fp16
        state["scaler"] = session.accelerator.scaler.state_dict()
    name = f"round-{phase.round:03d}-epoch-{epoch:05d}"
    checkpoints.save_state(session.journal.folder / "checkpoints", name, state, session.config.run.keep_checkpoints)
