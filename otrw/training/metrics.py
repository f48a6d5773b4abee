"""Mergeable counts over masked samples, and the figures made of them. Sums travel, averages never do."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_CALIBRATION_BINS = 15  # as in arXiv 1706.04599


class Counts(NamedTuple):
    """What one pass over samples adds up to; two passes are merged by adding the fields."""

    confusion: Tensor
    """(C, C) float64: samples of true class i predicted as j."""
    calibration: Tensor
    """(3, bins) float64: samples, correct ones and summed confidence in each confidence bin."""
    loss: Tensor
    """() float64: summed cross-entropy."""


def zero_counts(num_classes: int, device: torch.device | str = "cpu") -> Counts:
    """Counts of nothing."""
    zeros = lambda *shape: torch.zeros(*shape, dtype=torch.float64, device=device)  # noqa: E731
    return Counts(zeros(num_classes, num_classes), zeros(3, NUM_CALIBRATION_BINS), zeros(()))


def count(logits: Tensor, labels: Tensor, mask: Tensor) -> Counts:
    """logits (n, C), labels (n,), mask (n,) -> counts of the masked samples."""
    num_classes = logits.shape[1]
    confidence, predicted = logits.float().softmax(1).max(1)
    kept = mask.double()
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.float64, device=logits.device)
    confusion.index_add_(0, labels * num_classes + predicted, kept)
    bins = (confidence * NUM_CALIBRATION_BINS).long().clamp(0, NUM_CALIBRATION_BINS - 1)
    calibration = torch.zeros(3, NUM_CALIBRATION_BINS, dtype=torch.float64, device=logits.device)
    rows = torch.stack([kept, kept * (predicted == labels), kept * confidence])
    calibration.index_add_(1, bins, rows)
    loss = (F.cross_entropy(logits.float(), labels, reduction="none").double() * kept).sum()
    return Counts(confusion.view(num_classes, num_classes), calibration, loss)


def merge(left: Counts, right: Counts) -> Counts:
    """Counts of both."""
    return Counts(*(a + b for a, b in zip(left, right, strict=True)))


def summarize(counts: Counts, class_sizes: Tensor, *, many_above: int, few_below: int) -> dict:
    """Figures of the counts, all errors in percent; a shot group without classes is null.

    class_sizes (C,): training samples a class, which define the many / medium / few groups (arXiv 1904.05160).
    balanced_error is the mean over classes of the per-class error. ece: expected calibration error, in percent
    (arXiv 1706.04599, equation 3).
    """
    confusion, sizes = counts.confusion.cpu(), class_sizes.cpu()
    totals = confusion.sum(1)
    class_error = 100 * (1 - confusion.diagonal() / totals.clamp_min(1))
    seen = totals > 0
    groups = {
        "many": sizes > many_above,
        "medium": (sizes <= many_above) & (sizes >= few_below),
        "few": sizes < few_below,
    }
    num, correct, confidence = counts.calibration.cpu()
    result: dict = {
        "error": float(100 * (1 - confusion.trace() / totals.sum())),
        "balanced_error": float(class_error[seen].mean()),
        "loss": float(counts.loss / totals.sum()),
        "ece": float(100 * (correct - confidence).abs().sum() / num.sum()),
    }
    for name, members in groups.items():
        members = members & seen
        result[f"{name}_error"] = float(class_error[members].mean()) if bool(members.any()) else None
    result["class_error"] = [float(e) if s else None for e, s in zip(class_error, seen, strict=True)]
    return result


def group_error(correct: Tensor, group: Tensor) -> list[float]:
    """Error in percent of each group: correct (n,) bool, group (n,) from 0 -> one figure a group."""
    totals = torch.bincount(group)
    return (100 * (1 - torch.bincount(group, weights=correct.double()) / totals.clamp_min(1))).tolist()


def average_precision(scores: Tensor, positive: Tensor) -> float | None:
    """Precision averaged over the places of the positives in falling order of score, ties in one step; null without any.

    scores, positive (n,). sum_k (R_k - R_{k-1}) P_k, as scikit-learn has it.
    """
    if not bool(positive.any()):
        return None
    _, inverse, sizes = (-scores.double()).unique(return_inverse=True, return_counts=True)
    gained = torch.zeros(len(sizes), dtype=torch.float64, device=scores.device).index_add_(0, inverse, positive.double())
    precision = gained.cumsum(0) / sizes.cumsum(0)
    return float((gained * precision).sum() / positive.sum())


NUM_RAREST = 3  # classes that the tail's figures are of


def wrong_label_figures(
    weights: Tensor, quality: Tensor | None, labels: Tensor, wrong: Tensor, true_sizes: Tensor
) -> dict[str, float | None]:
    """How well samples with wrong labels are told apart, as shares; of the three rarest classes too.

    wrong_label_auroc: a low weight against a wrong label, within given classes, averaged by their size. The others judge
    the quality: label_quality_auroc (all samples in one order), ..._within (as above), ..._tail (samples with a label of the
    three rarest classes, by true size), label_quality_precision_tail (average precision of right labels there).

    Args:
        weights: (N,).
        quality: (N,) lower where the label looks wrong; None takes the weights, scaled to mean 1 in each given class.
        labels: (N,) given.
        wrong: (N,) bool.
        true_sizes: (C,) samples a class by right labels.
    """
    num_classes = len(true_sizes)
    if quality is None:
        sums = torch.zeros(num_classes, dtype=torch.float64, device=labels.device).index_add_(0, labels, weights.double())
        means = sums / torch.bincount(labels, minlength=num_classes).clamp_min(1)
        quality = weights.double() / means.clamp_min(1e-300)[labels]
    rarest = torch.argsort(true_sizes, stable=True)[:NUM_RAREST]
    tail = torch.isin(labels, rarest)
    return {
        "wrong_label_auroc": _auroc_within(-weights, labels, wrong),
        "label_quality_auroc": auroc(-quality, wrong),
        "label_quality_auroc_within": _auroc_within(-quality, labels, wrong),
        "label_quality_auroc_tail": auroc(-quality[tail], wrong[tail]),
        "label_quality_precision_tail": average_precision(quality[tail], ~wrong[tail]),
    }


def _auroc_within(scores: Tensor, labels: Tensor, positive: Tensor) -> float | None:
    """AUROC within each label, averaged by their size over those that have both kinds."""
    total, num = 0.0, 0
    for label in labels.unique():
        members = labels == label
        value = auroc(scores[members], positive[members])
        if value is not None:
            total, num = total + value * int(members.sum()), num + int(members.sum())
    return total / num if num else None


def auroc(scores: Tensor, positive: Tensor) -> float | None:
    """Probability that a positive scores above a negative (ties count half); null without both. scores, positive (n,)."""
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if num_positive == 0 or num_negative == 0:
        return None
    _, inverse, sizes = scores.double().unique(return_inverse=True, return_counts=True)
    last = sizes.cumsum(0).double()
    ranks = (last - (sizes.double() - 1) / 2)[inverse]
    statistic = float(ranks[positive].sum()) - num_positive * (num_positive + 1) / 2
    return statistic / (num_positive * num_negative)
