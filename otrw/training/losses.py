"""Per-sample losses of (logits, target), and their global weighted mean.

A target is a class index (n,) or a distribution over classes (n, C): mixed images and transported labels need the latter.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """(n, C), (n,) or (n, C) -> (n,), in float32."""
    return F.cross_entropy(logits.float(), target, reduction="none")


def logit_adjusted(logits: Tensor, target: Tensor, *, class_sizes: Tensor, tau: float = 1.0) -> Tensor:
    """Cross-entropy of logits + tau log(prior) (arXiv 2007.07314, equation 10). class_sizes (C,)."""
    prior = class_sizes.clamp_min(1) / class_sizes.clamp_min(1).sum()
    return cross_entropy(logits.float() + tau * prior.log(), target)


def balanced_softmax(logits: Tensor, target: Tensor, *, class_sizes: Tensor) -> Tensor:
    """Cross-entropy of logits + log n_c (arXiv 2007.10740, equation 3): logit adjustment with tau 1."""
    return logit_adjusted(logits, target, class_sizes=class_sizes, tau=1.0)


def forward_corrected(logits: Tensor, target: Tensor, *, transition: Tensor) -> Tensor:
    """-log sum_i T[i, y] p_i: cross-entropy of the given label as T (C, C) turns true classes into given ones (arXiv
    1802.05300, section 3, with T from trusted samples; arXiv 1609.03683, theorem 2)."""
    given = (logits.float().softmax(1) @ transition).clamp_min(1e-12).log()
    if target.dim() == 2:
        return -(target * given).sum(1)
    return F.nll_loss(given, target, reduction="none")


def ldam(logits: Tensor, target: Tensor, *, class_sizes: Tensor, max_margin: float = 0.5, scale: float = 30.0) -> Tensor:
    """Label-distribution-aware margin: the true logit is lowered by a margin that falls as n_c^(-1/4) (arXiv 1906.07413,
    equation 13). For a target distribution each class is lowered in proportion."""
    margins = class_sizes.clamp_min(1).float() ** -0.25
    margins = margins * (max_margin / margins.max())
    target_vectors = target if target.dim() == 2 else F.one_hot(target, logits.shape[1])
    return cross_entropy(scale * (logits.float() - target_vectors * margins), target)


def smoothed_labels(class_sizes: Tensor, head: float, tail: float) -> Tensor:
    """The target distribution of each class under label smoothing that knows class sizes (arXiv 2104.00466, section
    3.2, the concave form): row y gives 1 - e_y to y and e_y / (C - 1) to each other class, where

        e_y = tail + (head - tail) sin(pi/2 (n_y - n_min) / (n_max - n_min)).

    Args:
        class_sizes: (C,) training samples a class.
        head: share taken from the label in the largest class, in [0, 1).
        tail: the same in the smallest class; equal to head, this is plain label smoothing.

    Returns:
        (C, C) float, each row a distribution over the classes.
    """
    sizes = class_sizes.float()
    place = (sizes - sizes.min()) / (sizes.max() - sizes.min()).clamp_min(1)
    taken = tail + (head - tail) * (math.pi / 2 * place).sin()
    identity = torch.eye(len(sizes), device=sizes.device)
    others = (1 - identity) / max(1, len(sizes) - 1)
    return identity * (1 - taken)[:, None] + others * taken[:, None]


def smoothed(logits: Tensor, target: Tensor, *, loss: Loss, rows: Tensor) -> Tensor:
    """A loss of smoothed targets: class indices (n,) take their row of `rows` (C, C), distributions (n, C) mix the rows."""
    return loss(logits, rows[target] if target.dim() == 1 else target.to(rows.dtype) @ rows)


def make_loss(
    name: str,
    class_sizes: Tensor,
    *,
    logit_adjustment: float,
    ldam_max_margin: float,
    ldam_scale: float,
    label_smoothing: float = 0.0,
    label_smoothing_tail: float | None = None,
) -> Loss:
    """The named loss with its constants bound, of smoothed labels where these are asked for; of losses that need more than
    class sizes, the cross-entropy that they add to."""
    if label_smoothing or label_smoothing_tail:
        constants = {"logit_adjustment": logit_adjustment, "ldam_max_margin": ldam_max_margin, "ldam_scale": ldam_scale}
        tail = label_smoothing if label_smoothing_tail is None else label_smoothing_tail
        rows = smoothed_labels(class_sizes, label_smoothing, tail)
        return partial(smoothed, loss=make_loss(name, class_sizes, **constants), rows=rows)
    match name:
        case "cross_entropy" | "gold_correction" | "early_learning":
            return cross_entropy
        case "balanced_softmax":
            return partial(balanced_softmax, class_sizes=class_sizes)
        case "logit_adjusted":
            return partial(logit_adjusted, class_sizes=class_sizes, tau=logit_adjustment)
        case "ldam":
            return partial(ldam, class_sizes=class_sizes, max_margin=ldam_max_margin, scale=ldam_scale)
        case _:
            raise ValueError(f"unknown loss {name!r}")


def weighted_mean(
    losses: Tensor,
    weights: Tensor,
    mask: Tensor,
    *,
    normalizer: str = "weights",
    all_reduce_sum: Callable[[Tensor], Tensor] = torch.detach,
    num_ranks: int = 1,
) -> Tensor:
    """sum(w l) over the masked samples of all processes, over sum(w), all (n,) -> () on each process.

    What is returned is num_ranks times this process's share: DDP averages gradients over processes, so their mean is
    the gradient of the global loss, however the samples were dealt out. normalizer: see `global_total`.
    """
    total = global_total(weights, mask, normalizer=normalizer, all_reduce_sum=all_reduce_sum)
    return share_of_mean(losses, weights, mask, total, num_ranks=num_ranks)


def global_total(
    weights: Tensor, mask: Tensor, *, normalizer: str, all_reduce_sum: Callable[[Tensor], Tensor] = torch.detach
) -> Tensor | None:
    """What a step's sum of weighted losses is divided by: () replicated, or None.

    normalizer: "weights" divides by the global sum of weights, "samples" by the global number of samples, "none" by nothing.
    """
    match normalizer:
        case "weights":
            total = all_reduce_sum((weights * mask).sum())
        case "samples":
            total = all_reduce_sum(mask.sum().to(torch.promote_types(weights.dtype, torch.float32)))
        case "none":
            return None
        case _:
            raise ValueError(f"unknown normalizer {normalizer!r}")
    return torch.where(total > 0, total, 1)


def share_of_mean(losses: Tensor, weights: Tensor, mask: Tensor, total: Tensor | None, *, num_ranks: int = 1) -> Tensor:
    """num_ranks times the share that some samples (n,) of this process have in the global mean.

    Shares of the parts of a batch add up to that of the whole, so that a step may be computed piece by piece.
    """
    local = num_ranks * (weights * mask * torch.where(mask, losses, 0)).sum()
    return local if total is None else local / total
