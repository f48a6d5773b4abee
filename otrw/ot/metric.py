"""How far a sample is from a class, learned from a few trusted samples: whitening by the shrunk within-class covariance.

Shrinkage and sharpness are those under which trusted samples that were left out are best told apart.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from otrw.ot.semi_dual import SumSamples, whole

SHRINKAGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SHARPNESSES = tuple(2.0 ** (half / 2) for half in range(-16, 3))
"""tau from 1/256 to 2. A Gaussian of known mean and covariance has tau 1; estimated ones are less sure of themselves."""
NOISE_RATES = tuple(tenth / 10 for tenth in range(10))
MOST_FOLDS = 10
AS_GOOD = 1e-4
"""Nats a sample: of settings that are as good, the smoothest is taken. Rounding cannot decide then."""


class Metric(NamedTuple):
    """Squared distance tau |W (x - mu)|^2 = |sqrt(tau) W x - sqrt(tau) W mu|^2; replicated."""

    whitening: Tensor
    """(D, D) W, symmetric: the inverse square root of the shrunk covariance"""
    sharpness: float
    """tau"""
    shrinkage: float
    """lambda, in (0, 1]; 1 is a sphere"""

    def squared_distance(self, x: Tensor, prototypes: Tensor) -> Tensor:
        """tau |W (x_n - mu_k)|^2, (n, D) and (C, D) -> (n, C), in the type of x.

        Both are taken relative to the mean prototype: vectors of length 1 have much in common, which W makes large, and the
        difference of large numbers would be rounding.
        """
        scaled = (self.whitening * self.sharpness**0.5).to(x.dtype)
        centre = prototypes.mean(0)
        left, right = (x - centre.to(x.dtype)) @ scaled, (prototypes - centre).to(x.dtype) @ scaled
        squared = left.square().sum(1)[:, None] + right.square().sum(1)[None, :] - 2 * left @ right.T
        return squared.clamp_min(0)


def class_means(x: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Means (C, D) and sizes (C,), in float64; a class without samples has mean 0. x (M, D), labels (M,)."""
    x = x.double()
    sizes = torch.bincount(labels, minlength=num_classes).double()
    sums = x.new_zeros(num_classes, x.shape[1]).index_add_(0, labels, x)
    return sums / sizes.clamp_min(1)[:, None], sizes


def fit_metric(
    trusted: Tensor,
    trusted_labels: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    sum_samples: SumSamples = whole,
) -> Metric:
    """W and tau from a trusted set.

    W is the inverse square root of the shrunk covariance (1 - lambda) S + lambda (tr S / D) I, S the pooled within-class
    covariance of the trusted samples (Ledoit and Wolf, J. Multivariate Analysis 2004, for the form; regularised
    discriminant analysis, Friedman 1989). lambda and tau maximise the likelihood of left-out trusted samples: the j-th of
    every class is held out, means and covariance are those of the rest, and
    sum log softmax_k(-tau / 2 |W (x - mu_k)|^2)[label] is summed over the folds j, at most `MOST_FOLDS`.

    With two a class a fold has no covariance of its own: lambda is 1 there, with the scale of all trusted samples. With one
    a class nothing can be left out. Then W is a sphere scaled by the samples' distance to the nearest prototype, and tau
    maximises the likelihood of the given labels y under symmetric noise of rate rho, the best of `NOISE_RATES`:
    sum_n log((1 - rho) p_n(y_n) + rho (1 - p_n(y_n)) / (C - 1)), p_n = softmax_k(-tau / 2 |W (x_n - mu_k)|^2).

    Args:
        trusted: (M, D), replicated.
        trusted_labels: (M,) class indices.
        embeddings: (n, D) of this process's samples; looked at only with one trusted sample a class.
        labels: (n,) their given class indices.
        num_classes: C.
        sum_samples: all-reduce of a sum over samples.
    """
    trusted = trusted.double()
    means, sizes = class_means(trusted, trusted_labels, num_classes)
    is_trusted = sizes > 0
    residuals = trusted - means[trusted_labels]
    freedom = len(trusted) - int(is_trusted.sum())
    scale = float(residuals.square().sum()) / max(freedom, 1) / trusted.shape[1]
    if scale <= 1e-12:  # of unit vectors: one a class, or copies of one
        return _from_given_labels(means, is_trusted, embeddings, labels, sum_samples)
    shrinkages = SHRINKAGES if int(sizes.max()) > 2 else (1.0,)
    scores = torch.zeros(len(shrinkages), len(SHARPNESSES), dtype=torch.float64, device=trusted.device)
    for held_out in _folds(trusted_labels, sizes):
        kept = ~held_out
        fold_means, fold_sizes = class_means(trusted[kept], trusted_labels[kept], num_classes)
        fold_freedom = int(kept.sum()) - int((fold_sizes > 0).sum())
        basis, variances = _principal_axes(trusted[kept] - fold_means[trusted_labels[kept]], fold_freedom)
        fold_scale = float(variances.mean()) if fold_freedom > 0 and float(variances.mean()) > 1e-12 else scale
        offsets = (trusted[held_out][:, None, :] - fold_means[None, :, :]) @ basis  # (h, C, D)
        for row, shrinkage in enumerate(shrinkages):
            shrunk = (1 - shrinkage) * variances + shrinkage * fold_scale
            half_distance = (offsets.square() / shrunk).sum(2) / 2
            half_distance = half_distance.masked_fill(fold_sizes == 0, torch.inf)
            for column, sharpness in enumerate(SHARPNESSES):
                log_p = (-sharpness * half_distance).log_softmax(1)
                scores[row, column] += log_p.gather(1, trusted_labels[held_out][:, None]).sum()
    shrinkage, sharpness = _smoothest(scores / len(trusted), shrinkages)
    basis, variances = _principal_axes(residuals, freedom)
    shrunk = (1 - shrinkage) * variances + shrinkage * scale
    return Metric(basis * shrunk.rsqrt() @ basis.T, sharpness, shrinkage)


def _folds(labels: Tensor, sizes: Tensor) -> list[Tensor]:
    """(M,) masks of what is held out: the samples of a class are dealt out in turn; a class of one stays in."""
    place = torch.zeros_like(labels)
    for label in labels.unique():
        members = labels == label
        place[members] = torch.arange(int(members.sum()), device=labels.device)
    num_folds = min(MOST_FOLDS, int(sizes.max()))
    can_leave = sizes[labels] >= 2
    return [mask for fold in range(num_folds) if bool((mask := (place % num_folds == fold) & can_leave).any())]


def _principal_axes(residuals: Tensor, freedom: int) -> tuple[Tensor, Tensor]:
    """Eigenvectors (D, D), one a column, and eigenvalues (D,) of the pooled covariance R^T R / freedom."""
    variances, basis = torch.linalg.eigh(residuals.T @ residuals / max(freedom, 1))
    return basis, variances.clamp_min(0)


def _smoothest(scores: Tensor, shrinkages: tuple[float, ...]) -> tuple[float, float]:
    """(shrinkage, sharpness) of the best score, or of one as good with more of the first and less of the second."""
    as_good = scores >= scores.max() - AS_GOOD
    row = int(as_good.any(1).nonzero()[-1])
    column = int(as_good[row].nonzero()[0])
    return shrinkages[row], SHARPNESSES[column]


def _from_given_labels(
    means: Tensor, is_trusted: Tensor, embeddings: Tensor, labels: Tensor, sum_samples: SumSamples
) -> Metric:
    size = means.shape[1]
    identity = torch.eye(size, dtype=torch.float64, device=means.device)
    squared = Metric(identity, 1.0, 1.0).squared_distance(embeddings.double(), means).masked_fill(~is_trusted, torch.inf)
    nearest = torch.stack([squared.amin(1).sum(), squared.new_tensor(float(len(squared)))])
    total, num_samples = sum_samples(nearest).tolist()
    spread = total / num_samples / size
    half_distance = squared / (spread if spread > 1e-12 else 1.0) / 2
    num_other = max(1, int(is_trusted.sum()) - 1)
    scores = torch.zeros(len(NOISE_RATES), len(SHARPNESSES), dtype=torch.float64, device=means.device)
    known = is_trusted[labels]  # the rest says nothing of tau
    for column, sharpness in enumerate(SHARPNESSES):
        p = (-sharpness * half_distance[known]).softmax(1).gather(1, labels[known][:, None]).squeeze(1)
        for row, rate in enumerate(NOISE_RATES):
            scores[row, column] = ((1 - rate) * p + rate * (1 - p) / num_other).clamp_min(1e-30).log().sum()
    scores = sum_samples(scores).amax(0, keepdim=True) / num_samples
    _, sharpness = _smoothest(scores, (1.0,))
    return Metric(identity / (spread if spread > 1e-12 else 1.0) ** 0.5, sharpness, 1.0)
