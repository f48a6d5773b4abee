"""One phase of training: an ordinary loop over epochs and steps, the same for stage 1 and stage 2."""

import torch

from otrw import distributed
from otrw.data.files import ImageFiles
from otrw.data.loader import Batch, Loader
from otrw.errors import NonFiniteError, UserInterrupt
from otrw.models.names import library_of
from otrw.seeds import seed_for
from otrw.training.evaluation import evaluate_all
from otrw.training.losses import make_loss
from otrw.training.optimization import average_of, make_optimizer
from otrw.training.phase_state import EpochSoFar, load_phase, save_phase
from otrw.training.session import Phase, Session, Training
from otrw.training.step import training_step


def train(session: Session, phase: Phase, state: dict | None) -> None:
    """Train phase.module in place; it ends as the average over the steps where one is asked for.

    Args:
        session: run-time facts of the variant.
        phase: what is trained, on what, with which weights.
        state: a checkpointed state of this phase to go on from, or None.

    Raises:
        NonFiniteError: where the loss is not finite, on every process, before a checkpoint is written.
        UserInterrupt: where a signal asked for the end, on every process, after a checkpoint.
    """
    settings = phase.settings
    training, start_epoch, begun = _prepare(session, phase, state)
    session.progress.phase(phase.stage, phase.round, start_epoch, settings.epochs)
    with session.stop.while_training():
        for epoch in range(start_epoch, settings.epochs):
            is_weighted = phase.weigh_loss and epoch >= (phase.class_balanced_from_epoch or 0)
            so_far, begun = begun or _begin_epoch(session, phase, training, epoch, is_weighted), None
            training.module.train()
            num_steps, first = len(training.loader), so_far.num_steps
            meta_batches = training.meta_loader.cycle(epoch, num_steps, first) if training.meta_loader else None
            for batch in training.loader.epoch(epoch, first):
                meta = next(meta_batches) if meta_batches else None
                _seed_dropout(session, phase, so_far)
                so_far = so_far.after(*training_step(session, phase, training, batch, meta, is_weighted))
                session.progress.step(so_far.num_steps, num_steps, training.loader.batch_size)
                if so_far.num_steps < num_steps:
                    _save_or_stop(session, phase, training, batch, so_far)
            distributed.average_buffers(phase.module)
            if training.average is not None:
                distributed.average_buffers(training.average.module)
            end_epoch(session, phase, training, batch, so_far)
    if training.average is not None:
        phase.module.load_state_dict(training.average.module.state_dict())
    session.accelerator.free_memory()


def end_epoch(session: Session, phase: Phase, training: Training, batch: Batch, so_far: EpochSoFar) -> None:
    """Agree that the epoch went well, then evaluate, log and write the checkpoint where they are due.

    Args:
        session: run-time facts of the variant.
        phase: what is trained.
        training: optimiser and schedule, for the checkpoint.
        batch: of the last step.
        so_far: the whole epoch.

    Raises:
        NonFiniteError: on every process, where any has a bad step.
        UserInterrupt: where a signal asked for the end; the checkpoint is written.
    """
    run, epoch = session.config.run, so_far.epoch + 1
    _stop_if_not_finite(phase, batch, so_far)
    num_values = distributed.world_size() * len(training.loader)
    train_loss, meta_loss = (distributed.all_reduce_sum(so_far.summed) / num_values).tolist()
    line = {
        "stage": phase.stage,
        "round": phase.round,
        "epoch": epoch,
        "learning_rate": so_far.learning_rate,
        "train": {"loss": train_loss} | ({"meta_loss": meta_loss} if training.meta_loader else {}),
    }
    is_last = epoch == phase.settings.epochs
    if epoch % run.evaluate_every_epochs == 0 or is_last:
        evaluated = phase.module if training.average is None else training.average.module
        line |= evaluate_all(session, evaluated, phase.views)
    distributed.on_main(lambda: session.journal.epoch(line))
    session.progress.epoch(line)
    is_asked = session.stop.is_asked(0, session.accelerator.device)
    if epoch % run.checkpoint_every_epochs == 0 or is_last or is_asked:
        save_phase(session, phase, training, so_far)
    if is_asked:
        raise UserInterrupt(signal_number=session.stop.signal)


def _save_or_stop(session: Session, phase: Phase, training: Training, batch: Batch, so_far: EpochSoFar) -> None:
    """Inside an epoch: a checkpoint every so many steps where asked for, and before a signal ends the run."""
    every = session.config.run.checkpoint_every_steps
    is_asked = session.stop.is_asked(so_far.num_steps, session.accelerator.device)
    if is_asked or (every and so_far.num_steps % every == 0):
        _stop_if_not_finite(phase, batch, so_far)
        save_phase(session, phase, training, so_far)
        training.module.train()
    if is_asked:
        raise UserInterrupt(signal_number=session.stop.signal)


def _seed_dropout(session: Session, phase: Phase, so_far: EpochSoFar) -> None:
    """Make the draws inside a library's net those of this step and process, also where a run goes on inside an epoch."""
    config = session.config
    if library_of(config.model.name):
        place = (phase.stage, phase.round, so_far.epoch, so_far.num_steps, distributed.rank())
        torch.manual_seed(seed_for(config.run.seed, "dropout", *place))


def _prepare(session: Session, phase: Phase, state: dict | None) -> tuple[Training, int, EpochSoFar | None]:
    """Loaders, criterion and optimiser of a phase, the epoch to start from, and what was done of it if it had begun."""
    config, settings = session.config, phase.settings
    loader, meta_loader = _loaders(phase, seed_for(config.run.seed, phase.stage, phase.round))
    criterion = make_loss(
        settings.loss.name,
        session.data.given_sizes,
        logit_adjustment=settings.loss.logit_adjustment,
        ldam_max_margin=settings.loss.ldam_max_margin,
        ldam_scale=settings.loss.ldam_scale,
        label_smoothing=settings.loss.label_smoothing,
        label_smoothing_tail=settings.loss.label_smoothing_tail,
    )
    optimizer, schedule = make_optimizer(phase.module, settings.optimizer, steps_per_epoch=len(loader), epochs=settings.epochs)
    average = average_of(phase.module, settings.optimizer.ema_decay) if settings.optimizer.ema_decay > 0 else None
    training = Training(phase.module, optimizer, schedule, loader, meta_loader, criterion, average)
    begun = None if state is None else load_phase(session, phase, training, state)
    module, optimizer = session.accelerator.prepare(phase.module, optimizer)
    if config.run.compile:
        module = torch.compile(module, dynamic=False)  # an epoch has two batch sizes: a graph for each beats one for any
    start_epoch = 0 if state is None else state["epoch"]
    return training._replace(module=module, optimizer=optimizer), start_epoch, begun


def _begin_epoch(session: Session, phase: Phase, training: Training, epoch: int, is_weighted: bool) -> EpochSoFar:
    """What is done once before the first step of an epoch, and not again when a run goes on inside it."""
    _refresh(session, phase, epoch)
    if phase.sample_by_weighting:
        training.loader.sampling_weights = phase.weighting.weights.clone()  # as they are now: the order is drawn by them
    if is_weighted and phase.weighting.whole_epochs:
        phase.weighting.of_epoch(training.loader, epoch)
    device = session.accelerator.device
    learning_rate = training.optimizer.param_groups[0]["lr"]
    return EpochSoFar(epoch, 0, learning_rate, torch.zeros(2, device=device), torch.full((), -1, device=device))


def _loaders(phase: Phase, seed: int) -> tuple[Loader, Loader | None]:
    rank, world_size = distributed.rank(), distributed.world_size()
    loader = Loader(
        phase.views.train,
        phase.settings.batch_size,
        seed=seed,
        transform=phase.views.train_transform,
        sampling_weights=phase.sampling_weights,
        mixup_alpha=phase.settings.mixup_alpha,
        cutmix_alpha=phase.settings.cutmix_alpha,
        rank=rank,
        world_size=world_size,
    )
    if phase.meta_loss_factor == 0:
        return loader, None
    from_files = isinstance(phase.views.meta.inputs, ImageFiles)  # which are decoded anew at every step
    meta_size = phase.meta_batch_size or (loader.batch_size if from_files else len(phase.views.meta))
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


def _stop_if_not_finite(phase: Phase, batch: Batch, so_far: EpochSoFar) -> None:
    """Raise NonFiniteError on every process, where any had a loss that is not finite or a net that computes no more."""
    phase.module.eval()
    with torch.no_grad():  # the last step has no loss of its own to show that it went well
        is_finite = phase.module(batch.inputs[:1]).logits.isfinite().all()
    bad_step = torch.where((so_far.bad_step < 0) & ~is_finite, so_far.num_steps - 1, so_far.bad_step)
    bad = [step for step in torch.stack(distributed.all_gather(bad_step)).tolist() if step >= 0]
    if bad:
        raise NonFiniteError(
            f"the loss of {phase.stage} is not finite at epoch {so_far.epoch + 1}, step {min(bad) + 1}; the checkpoint before "
            "it is intact; try a smaller learning rate"
        )
