"""One phase of training: an ordinary loop over epochs and steps, the same for stage 1 and stage 2."""

import math
from typing import NamedTuple

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn

from otrw import distributed
from otrw.config import Config, OptimizerConfig, Stage1Config, Stage2Config
from otrw.data.datasets import Datasets
from otrw.data.loader import Loader, SampleSet, Transform
from otrw.errors import NonFiniteError
from otrw.models.heads import Net
from otrw.seeds import seed_for
from otrw.training import checkpoints
from otrw.training.embeddings import EmbeddingCache, backbone_key
from otrw.training.losses import cross_entropy, make_loss, weighted_mean
from otrw.training.metrics import Counts, count, merge, summarize, zero_counts
from otrw.training.progress import Progress
from otrw.training.tracking import Journal
from otrw.training.weighting import Embedded, Weighting

EVALUATION_BATCH_SIZE = 500


class Views(NamedTuple):
    """The sets as the trained module sees them: images, or embeddings of a frozen backbone."""

    train: SampleSet
    meta: SampleSet
    validation: SampleSet | None
    test: SampleSet
    train_transform: Transform | None
    transform: Transform | None


class Phase(NamedTuple):
    """What one optimisation trains, on what, with which weights."""

    stage: str
    round: int
    module: nn.Module
    views: Views
    settings: Stage1Config | Stage2Config
    weighting: Weighting
    sampling_weights: Tensor | None = None
    weigh_loss: bool = True
    normalizer: str = "weights"
    meta_loss_factor: float = 0.0
    meta_batch_size: int | None = None
    meta_forward: str = "joint"
    refresh_every_epochs: int | None = None
    class_balanced_from_epoch: int | None = None
    """Stage 1: the weights count from this epoch on; None: always."""


class Session(NamedTuple):
    """Run-time facts of one variant."""

    config: Config
    accelerator: Accelerator
    data: Datasets
    journal: Journal
    progress: Progress
    embeddings: EmbeddingCache | None = None
    """Of the finished stage 1; None while it is being trained."""


def train(session: Session, phase: Phase, state: dict | None) -> None:
    """Train phase.module in place, from a checkpointed state of this phase if one is given."""
    config, accelerator, settings = session.config, session.accelerator, phase.settings
    seed = seed_for(config.run.seed, phase.stage, phase.round)
    loader, meta_loader = _loaders(session, phase, seed)
    criterion = make_loss(
        settings.loss.name,
        session.data.given_sizes,
        logit_adjustment=settings.loss.logit_adjustment,
        ldam_max_margin=settings.loss.ldam_max_margin,
        ldam_scale=settings.loss.ldam_scale,
    )
    parameters = [p for p in phase.module.parameters() if p.requires_grad]
    options = settings.optimizer
    optimizer = torch.optim.SGD(
        parameters,
        lr=options.learning_rate,
        momentum=options.momentum,
        nesterov=options.nesterov and options.momentum > 0,
        weight_decay=options.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(options, step, len(loader), settings.epochs)
    )
    start_epoch = 0
    if state is not None:
        phase.module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        start_epoch = state["epoch"]
    module, optimizer = accelerator.prepare(phase.module, optimizer)
    if config.run.compile:
        module = torch.compile(module, dynamic=False)  # an epoch has two batch sizes: a graph for each beats one for any
    num_ranks = distributed.world_size()

    def global_mean(losses: Tensor, weights: Tensor, mask: Tensor, normalizer: str) -> Tensor:
        return weighted_mean(
            losses,
            weights,
            mask,
            normalizer=normalizer,
            all_reduce_sum=distributed.all_reduce_sum,
            num_ranks=num_ranks,
        )

    session.progress.phase(phase.stage, phase.round, start_epoch, settings.epochs)
    for epoch in range(start_epoch, settings.epochs):
        _refresh(session, phase, epoch)
        learning_rate = optimizer.param_groups[0]["lr"]  # of the epoch's first step
        weighing = phase.weigh_loss and epoch >= (phase.class_balanced_from_epoch or 0)
        if weighing and phase.weighting.whole_epochs:
            phase.weighting.of_epoch(loader, epoch)
        module.train()
        meta_batches = meta_loader.cycle(epoch, len(loader)) if meta_loader else None
        summed = torch.zeros(2, device=accelerator.device)
        bad_step = torch.full((), -1, device=accelerator.device)
        for step, batch in enumerate(loader.epoch(epoch)):
            weights = phase.weighting.of_batch(batch, phase.module) if weighing else batch.mask.float()
            targets = phase.weighting.targets_of_batch(batch)
            meta = next(meta_batches) if meta_batches else None
            if meta is None:
                logits, meta_logits = module(batch.inputs).logits, None
            elif phase.meta_forward == "joint":
                both = module(torch.cat([batch.inputs, meta.inputs])).logits
                logits, meta_logits = both.split([len(batch.index), len(meta.index)])
            else:
                logits, meta_logits = module(batch.inputs).logits, module(meta.inputs).logits
            loss = train_loss = global_mean(criterion(logits, targets), weights, batch.mask, phase.normalizer)
            meta_loss = torch.zeros_like(loss)
            if meta is not None and meta_logits is not None:
                meta_losses = cross_entropy(meta_logits, meta.labels)  # the meta set is balanced: no prior to adjust for
                meta_loss = global_mean(meta_losses, meta.mask.float(), meta.mask, "samples")
                loss = train_loss + phase.meta_loss_factor * meta_loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            summed += torch.stack([train_loss, meta_loss]).detach()
            bad_step = torch.where((bad_step < 0) & ~loss.detach().isfinite(), step, bad_step)
        distributed.average_buffers(phase.module)
        is_finite = _gives_finite_logits(phase.module, batch.inputs)
        bad_step = torch.where((bad_step < 0) & ~is_finite, len(loader) - 1, bad_step)  # diverged in the last step
        _stop_if_not_finite(bad_step, phase, epoch)
        train_loss_mean, meta_loss_mean = (distributed.all_reduce_sum(summed) / num_ranks / len(loader)).tolist()
        line = {
            "stage": phase.stage,
            "round": phase.round,
            "epoch": epoch + 1,
            "learning_rate": learning_rate,
            "train": {"loss": train_loss_mean} | ({"meta_loss": meta_loss_mean} if meta_loader else {}),
        }
        if (epoch + 1) % config.run.evaluate_every_epochs == 0 or epoch + 1 == settings.epochs:
            line |= evaluate_all(session, phase.module, phase.views)
        session.journal.epoch(line)
        session.progress.epoch(line)
        if (epoch + 1) % config.run.checkpoint_every_epochs == 0 or epoch + 1 == settings.epochs:
            _save(session, phase, epoch + 1, optimizer, schedule)
    accelerator.free_memory()


def evaluate_all(session: Session, module: nn.Module, views: Views) -> dict:
    """Figures on the test set, and on the validation set where there is one."""
    sets = {"test": views.test} | ({"validation": views.validation} if views.validation is not None else {})
    figures = {name: summary(session, evaluate(session, module, samples, views.transform)) for name, samples in sets.items()}
    for of_set in figures.values():
        del of_set["class_error"]
    return figures


def summary(session: Session, counts: Counts) -> dict:
    """Figures of counts, with the groups of this run."""
    options = session.config.data
    return summarize(counts, session.data.true_sizes, many_above=options.many_above, few_below=options.few_below)


def evaluate(session: Session, module: nn.Module, samples: SampleSet, transform: Transform | None) -> Counts:
    """Counts over all samples, each process taking its share; replicated."""
    counts = zero_counts(session.data.num_classes, session.accelerator.device)
    module.eval()
    with torch.inference_mode(), session.accelerator.autocast():
        for batch in _plain_loader(samples, transform).epoch():
            counts = merge(counts, count(module(batch.inputs).logits, samples.labels[batch.index], batch.mask))
    return Counts(*(distributed.all_reduce_sum(field) for field in counts))


def embed(
    session: Session, net: Net, samples: SampleSet, transform: Transform | None, train_mode: bool = False
) -> tuple[Embedded, Tensor]:
    """(this process's share, all embeddings by sample index). In train mode BatchNorm uses the batch, as released."""

    def compute() -> Tensor:
        with torch.no_grad(), session.accelerator.autocast():
            batches = _plain_loader(samples, transform).epoch()
            parts = [(batch.index[batch.mask], net.backbone(batch.inputs).float()[batch.mask]) for batch in batches]
        index, embeddings = (torch.cat(column) for column in zip(*parts, strict=True))
        return distributed.gather_by_index(index, embeddings, len(samples))

    net.train(train_mode)
    cache = None if train_mode else session.embeddings
    table = cache.table(samples, compute) if cache and cache.backbone == backbone_key(net.backbone) else compute()
    everyone = torch.arange(len(samples), device=table.device)
    own = everyone.tensor_split(distributed.world_size())[distributed.rank()]
    with torch.no_grad():
        probabilities = net.head(table[own]).softmax(1)
    return Embedded(own, table[own], probabilities), table


def learning_rate_factor(options: OptimizerConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Share of the peak learning rate at a global step."""
    total, warmup = steps_per_epoch * epochs, round(options.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    match options.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
        case "step":
            return options.decay_factor ** sum(step >= round(share * total) for share in options.milestones)
        case _:
            return 1.0


def _loaders(session: Session, phase: Phase, seed: int) -> tuple[Loader, Loader | None]:
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


def _plain_loader(samples: SampleSet, transform: Transform | None) -> Loader:
    return Loader(
        samples,
        EVALUATION_BATCH_SIZE * distributed.world_size(),
        seed=0,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        transform=transform,
        shuffle=False,
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


def _save(session: Session, phase: Phase, epoch: int, optimizer: torch.optim.Optimizer, schedule: object) -> None:
    if not distributed.is_main():
        return
    state = {
        "stage": phase.stage,
        "round": phase.round,
        "epoch": epoch,
        "num_lines": session.journal.num_lines,
        "module": phase.module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),  # type: ignore[attr-defined]
        "weighting": phase.weighting.state_dict(),
    }
    name = f"round-{phase.round:03d}-epoch-{epoch:05d}"
    checkpoints.save_state(session.journal.folder / "checkpoints", name, state, session.config.run.keep_checkpoints)
