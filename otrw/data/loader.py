"""Rank-sharded batches with a global order that does not depend on the number of processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from otrw.data.mixing import drawn_mix, mixed
from otrw.errors import check
from otrw.seeds import generator_for, seed_for

Transform = Callable[[Tensor, Tensor, int], Tensor]
"""(inputs of the whole set, index (n,), key of random draws) -> float inputs of the batch."""


@dataclass(frozen=True)
class SampleSet:
    """Samples on the device they are used on; a sample's index is its row here."""

    inputs: Tensor
    """(N, height, width, channels) uint8 images; (N, D) float embeddings; or `ImageFiles` of N images that are decoded when
    a batch asks for them. All sets of a run have inputs of one of the three kinds."""
    labels: Tensor
    """(N,) the labels that are given."""
    true_labels: Tensor
    """(N,) the right ones; they differ under label noise."""
    subclasses: Tensor
    """(N,) finer classes inside the labels; the labels themselves where there are none."""
    source_index: Tensor
    """(N,) row in the source, `RawData`, which numbers the rows of all parts together."""

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def with_inputs(self, inputs: Tensor) -> "SampleSet":
        """The same samples seen as something else, say as embeddings."""
        return replace(self, inputs=inputs)


@dataclass(frozen=True)
class Batch:
    """One process's share of a global batch. All tensors have the same first dimension n on every process."""

    index: Tensor
    """(n,) sample index"""
    inputs: Tensor
    """(n, ...) float, augmented and mixed"""
    labels: Tensor
    """(n,) given labels"""
    mask: Tensor
    """(n,) bool; False for padding, which repeats the last sample of the global batch"""
    partner: Tensor
    """(n,) sample index that each input is mixed with"""
    partner_share: float
    """Share of the partner in inputs and target; 0 without mixup"""


class Loader:
    """Batches of a set. `batch_size` counts samples over all processes; a process gets the rank-th slice of each.

    sampling_weights (N,) draws that many samples with replacement in proportion to them; else every sample comes once an
    epoch. The order depends on (seed, epoch), random changes on (seed, epoch, step, sample): nothing depends on the rank.
    """

    def __init__(
        self,
        samples: SampleSet,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        transform: Transform | None = None,
        shuffle: bool = True,
        sampling_weights: Tensor | None = None,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
    ) -> None:
        check(len(samples) >= world_size, "number of processes", world_size, f"be at most the {len(samples)} samples")
        self.samples = samples
        self.batch_size = min(batch_size, len(samples))
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.transform = transform
        self.shuffle = shuffle
        self.sampling_weights = sampling_weights
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Sample indices of an epoch, (N,) on the CPU, replicated."""
        generator = generator_for(self.seed, "order", epoch)
        if self.sampling_weights is not None:
            weights = self.sampling_weights.double().cpu()
            return torch.multinomial(weights, len(self.samples), replacement=True, generator=generator)
        if self.shuffle:
            return torch.randperm(len(self.samples), generator=generator)
        return torch.arange(len(self.samples))

    def epoch(self, epoch: int = 0, first_step: int = 0) -> Iterator[Batch]:
        """One pass over the set, or the rest of it from a step on."""
        order = self.order(epoch)
        for step in range(first_step, len(self)):
            yield self._batch(order[step * self.batch_size : (step + 1) * self.batch_size], epoch, step)

    def cycle(self, epoch: int, num_steps: int, first_step: int = 0) -> Iterator[Batch]:
        """num_steps full batches, or the rest of them: as many passes as it takes, each in an order of its own."""
        num_passes = -(-num_steps * self.batch_size // len(self.samples))
        order = torch.cat([self.order(epoch * num_passes + i) for i in range(num_passes)])
        for step in range(first_step, num_steps):
            yield self._batch(order[step * self.batch_size : (step + 1) * self.batch_size], epoch, step)

    def _batch(self, members: Tensor, epoch: int, step: int) -> Batch:
        size = -(-len(members) // self.world_size)
        position = torch.arange(self.rank * size, (self.rank + 1) * size)
        mask = position < len(members)
        position = position.clamp_max(len(members) - 1)
        device = self.samples.labels.device
        index = members[position].to(device, non_blocking=True)
        if self.mixup_alpha == 0 and self.cutmix_alpha == 0:
            return Batch(index, self._inputs(index, epoch, step), self.samples.labels[index], mask.to(device), index, 0.0)
        next_position = (position + 1) % len(members)
        partner = members[next_position].to(device, non_blocking=True)
        both, place = torch.cat([position, next_position]).unique(return_inverse=True)  # most are in the batch already
        inputs = self._inputs(members[both].to(device, non_blocking=True), epoch, step)
        own, other = (inputs[part.to(device, non_blocking=True)] for part in place.chunk(2))
        height, width = inputs.shape[-2:] if inputs.dim() == 4 else (0, 0)
        mix = drawn_mix(
            self.seed,
            epoch,
            step,
            mixup_alpha=self.mixup_alpha,
            cutmix_alpha=self.cutmix_alpha,
            height=height,
            width=width,
        )
        return Batch(index, mixed(own, other, mix), self.samples.labels[index], mask.to(device), partner, mix.share)

    def _inputs(self, index: Tensor, epoch: int, step: int) -> Tensor:
        if self.transform is None:
            return self.samples.inputs[index]
        return self.transform(self.samples.inputs, index, seed_for(self.seed, "augmentation", epoch, step))
