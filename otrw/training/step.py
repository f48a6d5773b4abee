"""One step of training: the gradient of the weighted loss, then the optimiser's step."""

from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from otrw import distributed
from otrw.data.loader import Batch
from otrw.training.losses import cross_entropy, global_total, share_of_mean
from otrw.training.optimization import at_the_worst_near, is_sharpness_aware
from otrw.training.session import Phase, Session, Training


class StepLosses(NamedTuple):
    """Losses of one step, this process's share times the number of processes; without gradient."""

    train: Tensor
    """() weighted loss of the training samples"""
    meta: Tensor
    """() mean loss of the meta samples; 0 where there are none"""
    total: Tensor
    """() what was differentiated"""


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
    options, accelerator = phase.settings.optimizer, session.accelerator
    weights = phase.weighting.of_batch(batch, phase.module, meta) if is_weighted else batch.mask.float()
    targets = phase.weighting.targets_of_batch(batch, is_weighted)
    losses = backward(session, phase, training, batch, targets, weights, meta)
    if is_sharpness_aware(options, training.schedule.last_epoch, len(training.loader) * phase.settings.epochs):
        with at_the_worst_near(phase.module, options.sam_radius):
            backward(session, phase, training, batch, targets, weights, meta)
    if options.clip_norm is not None:
        accelerator.clip_grad_norm_(phase.module.parameters(), options.clip_norm)
    training.optimizer.step()
    training.optimizer.zero_grad()
    training.schedule.step()
    if training.average is not None:
        training.average.update_parameters(phase.module)
    return losses


def backward(
    session: Session, phase: Phase, training: Training, batch: Batch, targets: Tensor, weights: Tensor, meta: Batch | None
) -> StepLosses:
    """The gradient of the global loss of a step, added to what the parameters hold, in `run.accumulation_steps` parts.

    Args:
        session: run-time facts of the variant.
        phase: which normaliser and meta loss there are.
        training: module and criterion.
        batch: this process's training samples.
        targets: (n,) or (n, C) of the batch.
        weights: (n,) of the batch.
        meta: this process's meta samples, or None.

    Returns:
        The losses, on the device.
    """
    total = _global_total(weights, batch.mask, phase.normalizer)
    meta_total = None if meta is None else _global_total(meta.mask.float(), meta.mask, "samples")
    parts = _parts(session.config.run.accumulation_steps, batch, targets, weights, meta)
    summed = torch.zeros(3, device=weights.device)
    for number, part in enumerate(parts):
        is_last = number + 1 == len(parts)
        with nullcontext() if is_last else session.accelerator.no_sync(training.module):  # gradients are exchanged once
            losses = _losses(phase, training, part, total, meta_total)
            session.accelerator.backward(losses.total)
        summed += torch.stack(losses).detach()
    return StepLosses(*summed.unbind())


def _global_total(weights: Tensor, mask: Tensor, normalizer: str) -> Tensor | None:
    return global_total(weights, mask, normalizer=normalizer, all_reduce_sum=distributed.all_reduce_sum)


class _Part(NamedTuple):
    """Some of a process's samples of a step, and the same share of its meta samples."""

    batch: Batch
    targets: Tensor
    weights: Tensor
    meta: Batch | None


def _parts(number: int, batch: Batch, targets: Tensor, weights: Tensor, meta: Batch | None) -> list[_Part]:
    """A step's samples in parts, at most `number`; as many on every process, since all have as many samples of a batch."""
    number = min(number, len(batch.index), len(batch.index) if meta is None else len(meta.index))
    if number == 1:
        return [_Part(batch, targets, weights, meta)]
    metas = [None] * number if meta is None else _split(meta, number)
    parts = zip(_split(batch, number), targets.tensor_split(number), weights.tensor_split(number), metas, strict=True)
    return [_Part(*part) for part in parts]


def _split(batch: Batch, number: int) -> list[Batch]:
    names = ("index", "inputs", "labels", "mask", "partner")
    columns = zip(*(getattr(batch, name).tensor_split(number) for name in names), strict=True)
    return [replace(batch, **dict(zip(names, column, strict=True))) for column in columns]


def _losses(phase: Phase, training: Training, part: _Part, total: Tensor | None, meta_total: Tensor | None) -> StepLosses:
    """Shares of a part in the losses of the step, with gradient."""
    module, batch, meta, num_ranks = training.module, part.batch, part.meta, distributed.world_size()
    if meta is not None and phase.weighting.is_empty:  # what the training samples would give counts for nothing
        meta_losses = cross_entropy(module(meta.inputs).logits, meta.labels)
        meta_loss = share_of_mean(meta_losses, meta.mask.float(), meta.mask, meta_total, num_ranks=num_ranks)
        return StepLosses(torch.zeros_like(meta_loss), meta_loss, phase.meta_loss_factor * meta_loss)
    if meta is None:
        logits, meta_logits = module(batch.inputs).logits, None
    elif phase.meta_forward == "joint":
        logits, meta_logits = module(torch.cat([batch.inputs, meta.inputs])).logits.split([len(batch.index), len(meta.index)])
    else:
        logits, meta_logits = module(batch.inputs).logits, module(meta.inputs).logits
    losses = phase.weighting.losses_of_batch(training.criterion, logits, part.targets, batch)
    loss = train_loss = share_of_mean(losses, part.weights, batch.mask, total, num_ranks=num_ranks)
    meta_loss = torch.zeros_like(loss)
    if meta is not None and meta_logits is not None:
        meta_losses = cross_entropy(meta_logits, meta.labels)  # the meta set is balanced: no prior to adjust for
        meta_loss = share_of_mean(meta_losses, meta.mask.float(), meta.mask, meta_total, num_ranks=num_ranks)
        loss = train_loss + phase.meta_loss_factor * meta_loss
    return StepLosses(train_loss, meta_loss, loss)
