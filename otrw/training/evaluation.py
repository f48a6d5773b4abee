"""What a net makes of the sets: counts of right and wrong, and embeddings, each process taking its share."""

import torch
from torch import Tensor, nn

from otrw import distributed
from otrw.data.loader import Loader, SampleSet, Transform
from otrw.data.view import ImageTransform
from otrw.models.heads import Net
from otrw.training.embeddings import backbone_key
from otrw.training.metrics import Counts, count, merge, summarize, zero_counts
from otrw.training.session import Session, Views
from otrw.training.weighting import Embedded

EVALUATION_BATCH_SIZE = 500
"""Samples of a process, fewer where their images are large."""
MOST_PIXELS = 4_000_000
"""Of such a batch: 500 images of 89 x 89, 79 of 224 x 224."""


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


def _plain_loader(samples: SampleSet, transform: Transform | None) -> Loader:
    view = transform.view if isinstance(transform, ImageTransform) else None
    most = MOST_PIXELS // view.image_size**2 if view is not None else EVALUATION_BATCH_SIZE
    return Loader(
        samples,
        max(1, min(EVALUATION_BATCH_SIZE, most)) * distributed.world_size(),
        seed=0,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        transform=transform,
        shuffle=False,
    )
