"""Entropic optimal transport in the log domain, written against an injected log-sum-exp over samples.

``logsumexp_samples`` maps (K, n) to (K,). Where the sample axis is sharded over processes it reduces across them; the
loop never knows. It stops on a value that is identical on every process, so no process leaves the loop alone.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from otrw.ot.arguments import check_problem
from otrw.ot.cost import Cost, blocks

LogSumExp = Callable[[Tensor], Tensor]


SOLVERS = (
    "",
    "sinkhorn",
    "newton",
    "newton > sinkhorn",
    "newton_cg",
    "newton_cg > sinkhorn",
    "newton_batched",
    "closed_form",
    "pot",
)
"""What a `SinkhornResult` can name; states of a reweighter hold the position, so that new ones go to the end."""


class SinkhornResult(NamedTuple):
    """Dual potentials and how well they were found."""

    f: Tensor
    """(..., K) potential of the reference atoms, replicated."""
    g: Tensor
    """(..., n) potential of the (local) samples."""
    marginal_error: Tensor
    """() L1 distance of the plan's reference marginal from a, before the last update of f: an upper bound for the
    result from the second iteration on, as Sinkhorn never increases it. The sample marginal is met exactly by the last
    update of g (`sinkhorn_pot`: the other way round, and the error is that of the plan)."""
    num_iterations: int
    converged: bool
    solver: str = "sinkhorn"
    """What solved it, one of `SOLVERS`; "newton > sinkhorn": Newton's method gave the rest to Sinkhorn steps."""


def logsumexp_rows(x: Tensor) -> Tensor:
    """(..., K, n) -> (..., K): the reduction over samples on one process."""
    return torch.logsumexp(x, dim=-1)


def sinkhorn(
    cost: Cost,
    log_a: Tensor,
    log_b: Tensor,
    *,
    epsilon: float,
    max_iterations: int = 1000,
    tolerance: float = 1e-4,
    stopping: Literal["marginal", "potential"] = "marginal",
    initial_g: Tensor | None = None,
    logsumexp_samples: LogSumExp = logsumexp_rows,
) -> SinkhornResult:
    """Solve min_P <P, C> + epsilon * sum P (log P - 1) over plans with marginals a and b (Cuturi, NeurIPS 2013;
    arXiv 2208.02951, equation 3), by f <- epsilon (log a - LSE_n((g - C) / epsilon)) and the like for g.

    cost (K, n), log_a (K,), log_b (n,) with each exp-sum equal to 1; a mass of zero (-inf) is allowed. A dense cost
    (B, K, n) with log_b (B, n) is B problems at once, each stopped by its own rule; f, g and the error get the same B.
    stopping: "marginal" holds the marginal error against the tolerance; "potential" the L1 change of f in one
    iteration, the released code's rule. initial_g (n,) starts warm. Differentiable by autograd through the iterations.
    Raises ValueError for shapes that do not fit and for masses that were meant as their logarithms.
    """
    check_problem(cost, log_a, log_b, epsilon=epsilon, is_whole=logsumexp_samples is logsumexp_rows)
    a = log_a.exp()
    f = torch.zeros_like(log_a).expand(*log_b.shape[:-1], -1)
    no_mass = log_b == -torch.inf  # takes no part from the first iteration on: padding changes nothing
    g = torch.zeros_like(log_b).masked_fill(no_mass, -torch.inf) if initial_g is None else initial_g
    error = torch.full(log_b.shape[:-1], torch.inf, device=log_b.device)
    done = torch.zeros(log_b.shape[:-1], dtype=torch.bool, device=log_b.device)
    check_every = 1 if log_a.device.type == "cpu" else 10  # reading the error back would stall a GPU
    for iteration in range(1, max_iterations + 1):
        log_rows = logsumexp_over_samples(cost, g, epsilon, logsumexp_samples)
        new_f = epsilon * (log_a - log_rows)
        new_error = ((f / epsilon + log_rows).exp() - a).abs().sum(-1).detach()
        change = torch.where(a > 0, new_f - f, 0).abs().sum(-1).detach()
        new_g = epsilon * (log_b - logsumexp_over_atoms(cost, new_f, epsilon))
        f, g = torch.where(done[..., None], f, new_f), torch.where(done[..., None], g, new_g)
        error = torch.where(done, error, new_error)
        if iteration == 1 and stopping == "marginal":
            continue  # the start need not meet b, so that it meets a would prove nothing
        done = done | ((error if stopping == "marginal" else change) < tolerance)
        if (iteration % check_every == 0 or iteration == max_iterations) and bool(done.all()):
            return SinkhornResult(f, g, error, iteration, True)
    return SinkhornResult(f, g, error, max_iterations, False)


def sinkhorn_pot(
    cost: Tensor, log_a: Tensor, log_b: Tensor, *, epsilon: float, max_iterations: int = 1000, tolerance: float = 1e-4
) -> SinkhornResult:
    """The same problem solved by the POT library (``sinkhorn_log``), on one process: to cross-check `sinkhorn`."""
    import ot as pot  # a heavy import that training does without

    _, log = pot.sinkhorn(
        log_a.exp(),
        log_b.exp(),
        cost,
        epsilon,
        method="sinkhorn_log",
        numItermax=max_iterations,
        stopThr=tolerance,
        log=True,
        warn=False,
    )
    f, g = epsilon * log["log_u"], epsilon * log["log_v"]
    plan = ((f[:, None] + g[None, :] - cost) / epsilon).exp()  # POT updates f last: a is met, b is what may be missed
    error = (plan.sum(1) - log_a.exp()).abs().sum() + (plan.sum(0) - log_b.exp()).abs().sum()
    return SinkhornResult(f, g, error, int(log["niter"]) + 1, bool(log["err"][-1] < tolerance), "pot")


def semi_relaxed_pot(cost: Tensor, log_a: Tensor, *, epsilon: float) -> SinkhornResult:
    """The semi-relaxed problem solved by POT, as unbalanced transport whose sample marginal costs nothing to violate."""
    import ot as pot

    uniform = torch.full((cost.shape[1],), 1 / cost.shape[1], dtype=cost.dtype, device=cost.device)
    plan = pot.unbalanced.sinkhorn_unbalanced(
        log_a.exp(), uniform, cost, epsilon, (float("inf"), 0.0), method="sinkhorn", reg_type="kl"
    )
    largest = plan.argmax(1, keepdim=True)
    f = (epsilon * plan.gather(1, largest).log() + cost.gather(1, largest)).squeeze(1)
    return SinkhornResult(f, torch.zeros_like(uniform), (plan.sum(1) - log_a.exp()).abs().sum(), 1, True, "pot")


def transport_plan(cost: Tensor, result: SinkhornResult, epsilon: float) -> Tensor:
    """P_kn = exp((f_k + g_n - C_kn) / epsilon), (..., K, n)."""
    return ((result.f[..., :, None] + result.g[..., None, :] - cost) / epsilon).exp()


def transport_cost(cost: Cost, result: SinkhornResult, epsilon: float) -> Tensor:
    """<P, C> over the (local) samples, without the entropy term."""
    parts = [
        (block * transport_plan(block, result._replace(g=result.g[..., part]), epsilon)).sum() for part, block in blocks(cost)
    ]
    return torch.stack(parts).sum()


def sample_mass(cost: Cost, result: SinkhornResult, epsilon: float) -> Tensor:
    """(n,) mass of the plan on each sample: b_n = sum_k P_kn."""
    return ((result.g / epsilon) + logsumexp_over_atoms(cost, result.f, epsilon)).exp()


def transported_labels(cost: Cost, result: SinkhornResult, epsilon: float, reference_labels: Tensor) -> Tensor:
    """Labels of the reference carried back by the plan: sum_k (P_kn / b_n) y_k, (K, C) -> (n, C).

    The barycentric projection of the labels: what the atoms that a sample is matched to say about its class. g cancels.
    """
    parts = [
        torch.softmax((result.f[:, None] - block) / epsilon, dim=0).T @ reference_labels.to(block.dtype)
        for _, block in blocks(cost)
    ]
    return torch.cat(parts)


def logsumexp_over_samples(cost: Cost, g: Tensor, epsilon: float, logsumexp_samples: LogSumExp) -> Tensor:
    """LSE_n((g_n - C_kn) / epsilon), (..., K), of a dense or a chunked cost."""
    if isinstance(cost, Tensor):
        return logsumexp_samples((g[..., None, :] - cost) / epsilon)
    partial = [torch.logsumexp((g[None, part] - block) / epsilon, dim=1) for part, block in cost.blocks()]
    return logsumexp_samples(torch.stack(partial, dim=1))  # log-sum-exp is associative


def logsumexp_over_atoms(cost: Cost, f: Tensor, epsilon: float) -> Tensor:
    """LSE_k((f_k - C_kn) / epsilon), (..., n)."""
    return torch.cat([torch.logsumexp((f[..., :, None] - block) / epsilon, dim=-2) for _, block in blocks(cost)], dim=-1)
