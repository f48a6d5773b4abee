"""The transport problem of one solve: reference atoms, cost, and reductions over samples that may be sharded."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from otrw import distributed
from otrw.config import OTConfig
from otrw.errors import UserError
from otrw.ot.cost import ChunkedCost, Cost, combined_cost, cosine_cost, label_cost, label_vectors, mixed_cost
from otrw.ot.sinkhorn import LogSumExp, logsumexp_rows

MAX_CHUNK_ENTRIES = 1 << 18
"""Of a block of columns that is computed at once: 1 MiB, which stays in a processor's cache, and new memory for which costs
little. (A block of 4 MiB took 4 times as long an entry.)"""


def put_by_index(index: Tensor, values: Tensor, num_samples: int) -> Tensor:
    """Table (num_samples, ...) of all samples from rows of one process that holds all of them."""
    table = values.new_zeros((num_samples, *values.shape[1:]))
    table[index] = values
    return table


class SampleAxis(NamedTuple):
    """What goes over the sample axis: across processes where it is sharded, else on one process."""

    logsumexp: LogSumExp
    sum: Callable[[Tensor], Tensor]
    table: Callable[[Tensor, Tensor, int], Tensor]
    """(index (n,), rows (n, ...), N) -> rows of all samples by index (N, ...), replicated."""
    is_sharded: bool


WHOLE = SampleAxis(logsumexp_rows, torch.detach, put_by_index, False)
SHARDED = SampleAxis(distributed.logsumexp_samples, distributed.all_reduce_sum, distributed.gather_by_index, True)


class Reference(NamedTuple):
    """Atoms of the balanced reference, of equal mass; replicated."""

    embeddings: Tensor
    """(K, D) float32"""
    labels: Tensor
    """(K,) class indices"""
    num_classes: int

    @property
    def label_vectors(self) -> Tensor:
        """(K, C) float32"""
        return label_vectors(self.labels, self.num_classes)

    @property
    def log_mass(self) -> Tensor:
        """(K,) log of the uniform mass a."""
        num_atoms = len(self.embeddings)
        return torch.full((num_atoms,), 1 / num_atoms, device=self.embeddings.device).log()


class Problem(NamedTuple):
    """What a solver is given."""

    config: OTConfig
    cost: Cost
    """(K, n) of this process's samples; (B, K, n) for B problems at once"""
    log_a: Tensor
    """(K,) log mass of the atoms, replicated"""
    axis: SampleAxis
    num_samples: int
    """Of all processes."""
    sample_index: Tensor | None = None
    """(n,) index of each sample over all processes"""

    @property
    def objective_scale(self) -> float:
        """Dataset scope descends N times the objective, so that a gradient step does not shrink with N."""
        return float(self.num_samples) if self.config.scope == "dataset" else 1.0


def max_entries(config: OTConfig) -> int:
    """Float32 numbers that each of cost, kernel, columns of a Hessian and the rest may have: a quarter of the memory."""
    return max(1, int(config.memory_mebibytes * (1 << 20) / 4 / 4))


def make_cost(
    config: OTConfig, reference: Reference, embeddings: Tensor, labels: Tensor, predictions: Tensor | None = None
) -> Cost:
    """Mixed feature and label cost (K, n) of samples against the atoms (arXiv 2208.02951, section 3.3).

    Args:
        config: mixing, kind of label cost and softening.
        reference: the atoms.
        embeddings: (n, D).
        labels: (n,) class indices.
        predictions: (n, C) class probabilities of the model, for label_softening.

    Returns:
        A tensor, or above `max_entries` a `ChunkedCost` that never is in memory as a whole.
    """
    num_classes, num_atoms, num_samples = reference.num_classes, len(reference.embeddings), len(embeddings)
    kind, mixing = config.label_cost, config.mixing
    unit_atoms = torch.nn.functional.normalize(reference.embeddings, dim=1)

    def columns(part: slice) -> Tensor:
        if config.label_softening == 0 or predictions is None:
            return mixed_cost(unit_atoms, reference.labels, embeddings[part], labels[part], num_classes, kind, mixing)
        softened = label_vectors(labels[part], num_classes, predictions[part], config.label_softening)
        return combined_cost(
            cosine_cost(unit_atoms, embeddings[part]),
            label_cost(reference.label_vectors, softened, num_classes, kind),
            mixing,
        )

    if num_atoms * num_samples <= max_entries(config):
        return columns(slice(0, num_samples))
    return ChunkedCost(columns, num_samples, max(1, min(MAX_CHUNK_ENTRIES, max_entries(config)) // num_atoms))


def dense(cost: Cost) -> Tensor:
    """The cost as a tensor. Raises UserError where it is too large to be one."""
    if isinstance(cost, Tensor):
        return cost
    raise UserError(
        "ot.solver=pot and ot.gradient=unrolled need the whole cost matrix in memory; use fewer reference atoms "
        "(ot.reference=prototypes), more ot.memory_mebibytes, ot.solver=auto or ot.gradient=envelope"
    )
