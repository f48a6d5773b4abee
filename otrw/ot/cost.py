"""Cost of moving a sample onto a reference atom: cosine of embeddings, distance of labels, or a mix of both."""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LabelCostKind = Literal["mean_squared", "euclidean"]


def cosine_cost(reference: Tensor, embeddings: Tensor) -> Tensor:
    """Feature cost C_kn = 1 - cos(z_k, x_n), in [0, 2] (arXiv 2208.02951, section 3.3).

    reference (K, D), embeddings (n, D) -> (K, n), in float32 at least.
    """
    reference, embeddings = _at_least_float32(reference), _at_least_float32(embeddings)
    return 1 - F.normalize(reference, dim=1) @ F.normalize(embeddings, dim=1).T


def label_vectors(labels: Tensor, num_classes: int, predictions: Tensor | None = None, softening: float = 0.0) -> Tensor:
    """One-hot labels (n,) -> (n, C), blended with the model's own class probabilities (n, C) by the share `softening`."""
    one_hot = F.one_hot(labels, num_classes).float()
    if predictions is None or softening == 0:
        return one_hot
    return torch.lerp(one_hot, predictions.float(), softening)


def label_cost(reference_labels: Tensor, labels: Tensor, num_classes: int, kind: LabelCostKind = "euclidean") -> Tensor:
    """Cost between label vectors, which are one-hot where integer labels are given.

    reference_labels (K,) or (K, C), labels (n,) or (n, C) -> (K, n).
    "mean_squared" is the released code's scale, 2 / C between different one-hot labels; "euclidean" is the paper's,
    sqrt 2 there. The scale decides how much the label term can do against the cosine.
    """
    if kind not in ("mean_squared", "euclidean"):
        raise ValueError(f"kind must be 'mean_squared' or 'euclidean', got {kind!r}")
    if reference_labels.dim() == labels.dim() == 1:  # no vectors of C numbers where there are thousands of classes
        different = (reference_labels[:, None] != labels[None, :]).to(torch.float32)
        return different.mul_(_different_labels_cost(num_classes, kind))
    left, right = (y if y.dim() == 2 else label_vectors(y, num_classes) for y in (reference_labels, labels))
    left, right = _at_least_float32(left), _at_least_float32(right)
    squared = left.square().sum(1)[:, None] + right.square().sum(1)[None, :] - 2 * left @ right.T
    squared = squared.clamp_min(0)
    return squared / num_classes if kind == "mean_squared" else squared.sqrt()


def combined_cost(feature_cost: Tensor, label_cost: Tensor, mixing: float) -> Tensor:
    """C = mixing * C_feature + (1 - mixing) * C_label (arXiv 2208.02951, section 3.3, there with mixing 1/2)."""
    return mixing * feature_cost + (1 - mixing) * label_cost


def mixed_cost(
    unit_reference: Tensor,
    reference_labels: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    num_classes: int,
    kind: LabelCostKind,
    mixing: float,
) -> Tensor:
    """`combined_cost` of `cosine_cost` and `label_cost` of class indices, in three passes over the result instead of ten.

    Args:
        unit_reference: (K, D) of length 1.
        reference_labels: (K,) class indices below 2^24.
        embeddings: (n, D).
        labels: (n,) class indices below 2^24.
        num_classes: C.
        kind: of the label cost.
        mixing: share of the feature cost.

    Returns:
        (K, n) float32.
    """
    block = torch.mm(-mixing * unit_reference, F.normalize(embeddings, dim=1).T)
    different = torch.ne(reference_labels.to(block.dtype)[:, None], labels.to(block.dtype), out=torch.empty_like(block))
    return block.add_(different, alpha=(1 - mixing) * _different_labels_cost(num_classes, kind)).add_(mixing)


class ChunkedCost:
    """A cost matrix (K, n) that never is in memory as a whole: its columns are computed again, chunk by chunk.

    ``columns(s)`` returns the (K, s.stop - s.start) block of the samples in slice s.
    """

    def __init__(self, columns: Callable[[slice], Tensor], num_samples: int, chunk_size: int) -> None:
        self.columns = columns
        self.num_samples = num_samples
        self.chunk_size = chunk_size

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (slice of samples, block of columns), in order."""
        for start in range(0, self.num_samples, self.chunk_size):
            part = slice(start, min(start + self.chunk_size, self.num_samples))
            yield part, self.columns(part)


Cost = Tensor | ChunkedCost


def blocks(cost: Cost) -> Iterator[tuple[slice, Tensor]]:
    """The blocks of a chunked cost, or the whole of a dense one."""
    if isinstance(cost, Tensor):
        yield slice(0, cost.shape[-1]), cost
    else:
        yield from cost.blocks()


def _different_labels_cost(num_classes: int, kind: LabelCostKind) -> float:
    return 2 / num_classes if kind == "mean_squared" else 2**0.5


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
