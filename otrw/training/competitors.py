"""What people use instead of transport to tell right labels from wrong ones, each as a confidence in [0, 1] a sample.

A filter is a confidence of 0 or 1. All become weights by the same rule, `confidence_weights`, so that they differ in the
confidence alone. Each sees a net's embeddings and opinions of the training samples, and the trusted samples where it says so.
"""

import importlib.util
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from otrw.errors import UserError
from otrw.ot.weights import effective_number_weights
from otrw.training.probe import out_of_fold_opinions, trusted_opinions

KINDS = ("trusted_probe", "small_loss", "out_of_fold", "cleanlab")
"""Values of ot.weights that `judge` knows."""


class Seen(NamedTuple):
    """What a net makes of the training samples and the trusted ones; on the CPU, replicated."""

    embeddings: np.ndarray
    """(N, D)"""
    probabilities: np.ndarray
    """(N, C) by the net's own head"""
    labels: np.ndarray
    """(N,) given labels"""
    trusted_embeddings: np.ndarray
    """(M, D)"""
    trusted_labels: np.ndarray
    """(M,)"""
    num_classes: int


class Judgement(NamedTuple):
    """A competitor's view of the training samples."""

    confidence: np.ndarray
    """(N,) in [0, 1]: what the weights are made of."""
    quality: np.ndarray
    """(N,) any scale: the lower, the likelier the label is wrong."""
    opinions: np.ndarray | None
    """(N, C) class probabilities, for targets; None where there are none."""


def judge(kind: str, seen: Seen, *, dropped_share: float, seed: int) -> Judgement:
    """The judgement of the named competitor, one of `KINDS`.

    Args:
        kind: whose.
        seen: what it may look at.
        dropped_share: small_loss: share of each class to drop.
        seed: of the folds.
    """
    match kind:
        case "trusted_probe":
            return trusted_probe(seen)
        case "small_loss":
            return small_loss(seen, dropped_share)
        case "out_of_fold":
            return out_of_fold(seen, seed)
        case "cleanlab":
            return cleanlab_filter(seen, seed)
        case _:
            raise ValueError(f"unknown competitor {kind!r}")


def confidence_weights(confidence: Tensor, labels: Tensor, num_classes: int, beta: float) -> Tensor:
    """w_n = e_c p_n with c the given label: p (N,) the confidence, e (C,) effective-number weights of m_c = sum of p in c.

    With p = 1 everywhere these are class-balanced weights, with p = 1 for right labels alone those of the oracle.
    """
    mass = torch.zeros(num_classes, dtype=torch.float64, device=labels.device)
    mass.index_add_(0, labels, confidence.double())
    return effective_number_weights(mass, beta)[labels] * confidence.float()


def trusted_probe(seen: Seen) -> Judgement:
    """p_n = probability of the given label by a linear probe fitted to the trusted samples alone, its penalty chosen on them.

    The plain way to use a trusted set: without transport, without the other samples' labels.
    """
    opinions = trusted_opinions(seen.trusted_embeddings, seen.trusted_labels, seen.embeddings, seen.num_classes)
    given = opinions[np.arange(len(seen.labels)), seen.labels]
    return Judgement(given, given, opinions)


def small_loss(seen: Seen, dropped_share: float) -> Judgement:
    """Keep the share 1 - r of each given class on which the net's own loss is smallest (arXiv 1804.06872, section 3, for the
    whole set at once and with one net; a class at a time, since over all classes the rare ones would go first)."""
    quality = np.log(np.maximum(seen.probabilities[np.arange(len(seen.labels)), seen.labels], 1e-30))
    kept = np.zeros(len(seen.labels))
    for label in np.unique(seen.labels):
        members = np.flatnonzero(seen.labels == label)
        num_kept = max(1, round((1 - dropped_share) * len(members)))
        kept[members[np.argsort(-quality[members], kind="stable")[:num_kept]]] = 1.0
    return Judgement(kept, quality, None)


def out_of_fold(seen: Seen, seed: int) -> Judgement:
    """Keep the samples whose given label a class-balanced probe of the other folds predicts. Quality: its probability there,
    cleanlab's "self-confidence" (arXiv 1911.00068, section 3)."""
    opinions = out_of_fold_opinions(seen.embeddings, seen.labels, seen.num_classes, seed=seed, balanced=True)
    kept = (opinions.argmax(1) == seen.labels).astype(float)
    return Judgement(kept, opinions[np.arange(len(seen.labels)), seen.labels], None)


def cleanlab_filter(seen: Seen, seed: int) -> Judgement:
    """Keep what cleanlab's `find_label_issues` does not list ("prune by noise rate", its default), from out-of-fold
    probabilities of a plain probe (arXiv 1911.00068). Quality: its normalised margin.

    Raises:
        UserError: where cleanlab is not installed.
    """
    check_installed()
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_normalized_margin_for_each_label

    opinions = out_of_fold_opinions(seen.embeddings, seen.labels, seen.num_classes, seed=seed)
    is_issue = find_label_issues(labels=seen.labels, pred_probs=opinions, n_jobs=1)
    quality = get_normalized_margin_for_each_label(labels=seen.labels, pred_probs=opinions)
    return Judgement(1.0 - is_issue.astype(float), np.asarray(quality, dtype=float), None)


def check_installed() -> None:
    """Raise UserError where cleanlab cannot be imported."""
    if importlib.util.find_spec("cleanlab") is None:
        raise UserError("variants with cleanlab must find that package, got none; pip install cleanlab, or leave them out")


def transition_matrix(probabilities: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """T (C, C): T[i, j] = mean over the trusted samples of class i of the net's probability of label j (arXiv 1802.05300,
    equation 2); the net was trained on given labels, so this estimates p(given j | true i). Without a sample: the identity.

    Args:
        probabilities: (M, C) of the trusted samples.
        labels: (M,) their true classes.
        num_classes: C.
    """
    sizes = torch.bincount(labels, minlength=num_classes)
    sums = probabilities.new_zeros(num_classes, num_classes).index_add_(0, labels, probabilities)
    identity = torch.eye(num_classes, dtype=probabilities.dtype, device=probabilities.device)
    return torch.where(sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], identity)
