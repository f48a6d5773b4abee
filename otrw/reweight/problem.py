"""The transport problem of one solve: reference atoms, cost, and reductions over samples that may be sharded."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from otrw import distributed
from otrw.config import OTConfig
from otrw.errors import UserError
from otrw.ot.cost import ChunkedCost, Cost, combined_cost, cosine_cost, label_cost, label_vectors
from otrw.ot.sinkhorn import LogSumExp, logsumexp_rows

MAX_DENSE_ENTRIES = 1 << 26  # a larger cost matrix (256 MiB) is computed in chunks


class SampleAxis(NamedTuple):
    """Reductions over the sample axis: across processes where it is sharded, else on one process."""

    logsumexp: LogSumExp
    sum: Callable[[Tensor], Tensor]
    is_sharded: bool


WHOLE = SampleAxis(logsumexp_rows, torch.detach, False)
SHARDED = SampleAxis(distributed.logsumexp_samples, distributed.all_reduce_sum, True)


class Reference(NamedTuple):
    """Atoms of the balanced reference, of equal mass; replicated."""

    embeddings: Tensor
    """(K, D) float32"""
    label_vectors: Tensor
    """(K, C) float32"""

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

    @property
    def objective_scale(self) -> float:
        """Dataset scope descends N times the objective, so that a gradient step does not shrink with N."""
        return float(self.num_samples) if self.config.scope == "dataset" else 1.0


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
        A tensor, or above `MAX_DENSE_ENTRIES` a `ChunkedCost` that never is in memory as a whole.
    """
    num_classes = reference.label_vectors.shape[1]
    vectors = label_vectors(labels, num_classes, predictions, config.label_softening)

    def columns(part: slice) -> Tensor:
        return combined_cost(
            cosine_cost(reference.embeddings, embeddings[part]),
            label_cost(reference.label_vectors, vectors[part], num_classes, config.label_cost),
            config.mixing,
        )

    num_atoms, num_samples = len(reference.embeddings), len(embeddings)
    if num_atoms * num_samples <= MAX_DENSE_ENTRIES:
        return columns(slice(0, num_samples))
    return ChunkedCost(columns, num_samples, max(1, MAX_DENSE_ENTRIES // num_atoms))


def dense(cost: Cost) -> Tensor:
    """The cost as a tensor. Raises UserError where it is too large to be one."""
    if isinstance(cost, Tensor):
        return cost
    raise UserError(
        "ot.solver=pot and ot.gradient=unrolled need the whole cost matrix in memory; use fewer reference atoms "
        "(ot.reference=prototypes), ot.solver=sinkhorn or ot.gradient=envelope"
    )
