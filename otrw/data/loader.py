"""Rank-sharded batches with a global order that does not depend on the number of processes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from otrw import distributed
from otrw.data.decoding import Failure, Request, decoded_batches
from otrw.data.files import ImageFiles
from otrw.data.mixing import drawn_mix, mixed
from otrw.data.view import ImageTransform
from otrw.errors import UserError, check
from otrw.seeds import generator_for, seed_for

STEPS_BETWEEN_CHECKS = 100
"""After so many steps processes ask each other whether all images could be decoded."""
Transform = Callable[[Tensor, Tensor, int], Tensor]
"""(inputs of the whole set, index (n,), key of random draws) -> float inputs of the batch."""


@dataclass(frozen=True)
class SampleSet:
    """Samples on the device they are used on; a sample's index is its row here."""

    inputs: Tensor | ImageFiles
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
        return len(self.inputs)

    @property
    def in_memory(self) -> Tensor:
        """Inputs that are no files."""
        assert isinstance(self.inputs, Tensor)
        return self.inputs

    def with_inputs(self, inputs: Tensor) -> "SampleSet":
        """The same samples seen as something else, say as embeddings."""
        return replace(self, inputs=inputs)


class Decoded(NamedTuple):
    """Images of a batch, out of their files."""

    rows: Tensor
    """(m,) sample index, sorted"""
    pixels: Tensor
    """(m, size, size, 3) uint8"""


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

    An epoch ends with what is left; where that is less than half a batch, the last two share evenly what both have. A batch of
    two or three would be a step as long as any other in a direction that is mostly noise, and in a net with BatchNorm the last
    thing that its running statistics see before they are used.

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

    @property
    def sizes(self) -> list[int]:
        """Samples of each batch of an epoch, over all processes."""
        num_full, left = divmod(len(self.samples), self.batch_size)
        sizes = [self.batch_size] * num_full + [left] * (left > 0)
        if 0 < 2 * left < self.batch_size:
            both = self.batch_size + left
            sizes[-2:] = [both - both // 2, both // 2]
        return sizes

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
        yield from self._batches(self.order(epoch).split(self.sizes), epoch, range(first_step, len(self)))

    def cycle(self, epoch: int, num_steps: int, first_step: int = 0) -> Iterator[Batch]:
        """num_steps full batches, or the rest of them: as many passes as it takes, each in an order of its own."""
        num_passes = -(-num_steps * self.batch_size // len(self.samples))
        order = torch.cat([self.order(epoch * num_passes + i) for i in range(num_passes)])
        yield from self._batches(order.split(self.batch_size), epoch, range(first_step, num_steps))

    def _batches(self, batches: Sequence[Tensor], epoch: int, steps: range) -> Iterator[Batch]:
        parts = [batches[step] for step in steps]
        if isinstance(self.samples.inputs, Tensor):
            for step, members in zip(steps, parts, strict=True):
                yield self._batch(members, epoch, step)
            return
        for step, members, found in zip(steps, parts, self._decoded(parts, epoch, steps), strict=True):
            yield self._batch(members, epoch, step, found)

    def _decoded(self, parts: list[Tensor], epoch: int, steps: range) -> Iterator[Decoded]:
        """This process's images of every step, decoded by workers while earlier steps compute."""
        assert isinstance(self.samples.inputs, ImageFiles)
        assert isinstance(self.transform, ImageTransform)
        cropping, device = self.transform.cropping, self.samples.labels.device
        is_random = self.transform.augmentation is not None
        keys = [seed_for(self.seed, "crop", epoch, step) if is_random else None for step in steps]
        wanted = [self._wanted(members) for members in parts]
        requests = [Request(rows.tolist(), key) for rows, key in zip(wanted, keys, strict=True)]
        batches = decoded_batches(
            self.samples.inputs,
            cropping,
            requests,
            workers=self.transform.workers,
            pin_memory=device.type == "cuda",
        )
        failure: UserError | None = None
        for step, rows, pixels in zip(steps, wanted, batches, strict=True):
            if isinstance(pixels, Failure):
                failure = failure or UserError(pixels.message)
                pixels = torch.zeros(len(rows), cropping.image_size, cropping.image_size, 3, dtype=torch.uint8)
            # one process cannot leave alone: the others would wait for it in their next exchange
            if self.world_size == 1 or step == steps[-1] or step % STEPS_BETWEEN_CHECKS == STEPS_BETWEEN_CHECKS - 1:
                distributed.raise_anywhere(failure)
            yield Decoded(rows.to(device, non_blocking=True), pixels.to(device, non_blocking=True))

    def _positions(self, members: Tensor) -> tuple[Tensor, Tensor]:
        """Where this process's share of a global batch lies in it, and which of it is not padding."""
        size = -(-len(members) // self.world_size)
        position = torch.arange(self.rank * size, (self.rank + 1) * size)
        return position.clamp_max(len(members) - 1), position < len(members)

    def _wanted(self, members: Tensor) -> Tensor:
        """The samples that this process needs for a global batch, sorted, each once."""
        position, _ = self._positions(members)
        if self.mixup_alpha > 0 or self.cutmix_alpha > 0:
            position = torch.cat([position, (position + 1) % len(members)])
        return members[position].unique()

    def _batch(self, members: Tensor, epoch: int, step: int, found: "Decoded | None" = None) -> Batch:
        position, mask = self._positions(members)
        device = self.samples.labels.device
        index = members[position].to(device, non_blocking=True)
        if self.mixup_alpha == 0 and self.cutmix_alpha == 0:
            return Batch(
                index, self._inputs(index, epoch, step, found), self.samples.labels[index], mask.to(device), index, 0.0
            )
        next_position = (position + 1) % len(members)
        partner = members[next_position].to(device, non_blocking=True)
        both, place = torch.cat([position, next_position]).unique(return_inverse=True)  # most are in the batch already
        inputs = self._inputs(members[both].to(device, non_blocking=True), epoch, step, found)
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

    def _inputs(self, index: Tensor, epoch: int, step: int, found: "Decoded | None" = None) -> Tensor:
        key = seed_for(self.seed, "augmentation", epoch, step)
        if found is not None:
            assert isinstance(self.transform, ImageTransform)
            return self.transform.of_decoded(found.pixels[torch.searchsorted(found.rows, index)], index, key)
        if self.transform is None:
            return self.samples.in_memory[index]
        return self.transform(self.samples.in_memory, index, key)
