"""Weights in closed form: transport with the reference marginal fixed and the sample marginal free.

min over b of the entropic transport cost OT_eps(a, b) = min over plans P with sum_n P_kn = a_k of
<P, C> + epsilon sum P (log P - 1). The rows decouple, each is a softmax, and b is what the plan leaves on the samples:
P_kn = a_k softmax_n(-C_kn / epsilon), b_n = sum_k P_kn.
"""

import torch
from torch import Tensor

from otrw.ot.arguments import check_problem
from otrw.ot.cost import Cost
from otrw.ot.sinkhorn import LogSumExp, SinkhornResult, logsumexp_over_samples, logsumexp_rows, sample_mass
from otrw.ot.streaming import semi_relaxed_mass


def semi_relaxed(cost: Cost, log_a: Tensor, *, epsilon: float, logsumexp_samples: LogSumExp = logsumexp_rows) -> SinkhornResult:
    """The closed form as dual potentials, so that plan, mass and label transport are those of `sinkhorn`; g is 0."""
    if epsilon <= 0:
        raise ValueError(f"epsilon must be > 0, got {epsilon}")
    num_samples = cost.shape[1] if isinstance(cost, Tensor) else cost.num_samples
    g = torch.zeros(num_samples, dtype=log_a.dtype, device=log_a.device)
    f = epsilon * (log_a - logsumexp_over_samples(cost, g, epsilon, logsumexp_samples))
    return SinkhornResult(f, g, torch.zeros((), device=log_a.device), 1, True, "closed_form")


def semi_relaxed_weights(cost: Cost, log_a: Tensor, *, epsilon: float, logsumexp_samples: LogSumExp = logsumexp_rows) -> Tensor:
    """b_n = sum_k a_k softmax_n(-C_kn / epsilon), in one sweep over the cost (`otrw.ot.streaming`).

    Args:
        cost: (K, n) of the local samples; infinite entries, and gradients through the cost, take the slower log domain.
            Or a `ChunkedCost` of finite entries.
        log_a: (K,) log mass of the atoms, replicated.
        epsilon: strength of the entropy, > 0.
        logsumexp_samples: log-sum-exp over all processes' samples.

    Returns:
        (n,), with sum 1 over all samples.

    Raises:
        ValueError: epsilon is not positive, shapes do not fit, log_a holds no logarithms of masses that sum to 1, or the
            cost holds nan.

    Example:
        >>> cost = torch.tensor([[0.0, 0.1, 1.0], [1.0, 1.0, 0.0]])  # two atoms; the third sample is the second's alone
        >>> [round(float(b), 3) for b in semi_relaxed_weights(cost, torch.tensor([0.5, 0.5]).log(), epsilon=0.1)]
        [0.366, 0.134, 0.5]
    """
    check_problem(cost, log_a, epsilon=epsilon)
    log_a = log_a.to(cost.dtype) if isinstance(cost, Tensor) else log_a
    is_plain = not isinstance(cost, Tensor) or (not cost.requires_grad and bool(cost.sum().isfinite()))
    if is_plain:
        return semi_relaxed_mass(cost, log_a, epsilon=epsilon, logsumexp_samples=logsumexp_samples)[1]
    if isinstance(cost, Tensor) and bool(cost.isnan().any()):
        raise ValueError("cost must hold no nan, got some")
    result = semi_relaxed(cost, log_a, epsilon=epsilon, logsumexp_samples=logsumexp_samples)
    return sample_mass(cost, result, epsilon)
