"""One call for an entropic transport problem of any size: the fastest solver here for it, by a stated model of cost."""

from typing import Literal

from torch import Tensor

from otrw.ot.batched import newton_batched
from otrw.ot.cost import Cost
from otrw.ot.newton import newton
from otrw.ot.semi_dual import SumSamples, whole
from otrw.ot.sinkhorn import LogSumExp, SinkhornResult, logsumexp_over_atoms, logsumexp_rows, sinkhorn

Method = Literal["auto", "newton", "newton_cg", "sinkhorn"]
MAX_DIRECT_ATOMS = 200
"""Below where `otrw.ot.sweep_cost` has the K x K matrix cost as much as 20 products with its columns (about 280 atoms). The
committed record of `analysis/bench_sinkhorn.py` has both at 100 and 1,000 atoms."""


def solve(
    cost: Cost,
    log_a: Tensor,
    log_b: Tensor,
    *,
    epsilon: float,
    method: Method = "auto",
    max_iterations: int = 1000,
    tolerance: float = 1e-4,
    initial_f: Tensor | None = None,
    sample_index: Tensor | None = None,
    max_stored_entries: int | None = None,
    sum_samples: SumSamples = whole,
    logsumexp_samples: LogSumExp = logsumexp_rows,
) -> SinkhornResult:
    """min_P <P, C> + epsilon sum P (log P - 1) over plans with marginals a and b.

    "newton" factors a K x K Hessian and keeps it for several steps: K^2 m multiplications from m = 8 K columns or more,
    K^3 / 3 for the factor. "newton_cg" multiplies by the same columns, up to 60 times at every step: K m multiplications each,
    at the price of reading memory. "auto" takes the first up to `MAX_DIRECT_ATOMS` and the second above. On several processes
    a Hessian is one exchange of K^2 numbers, a product one of K: where exchanges are slow, ask for "newton". A cost of three
    dimensions is a batch, for which "auto" and "newton" are `newton_batched`. "sinkhorn" is the paper's iteration, for
    reference.

    Args:
        cost: (K, n) of the local samples, dense or chunked; or (B, K, n), B problems on one process.
        log_a: (K,), replicated, exp-sum 1.
        log_b: (n,) or (B, n), exp-sum 1 over all processes.
        epsilon: strength of the entropy, > 0.
        method: the solver.
        max_iterations: sweeps over the cost at most.
        tolerance: on the L1 distance of P 1 from a.
        initial_f: (K,) or (B, K), the potential of a problem near by.
        sample_index: (n,), see `newton`.
        max_stored_entries: see `newton`.
        sum_samples: all-reduce of a sum; used by the Newton methods.
        logsumexp_samples: log-sum-exp over all processes' samples; used by "sinkhorn".

    Returns:
        Potentials and the error of their plan; that of "sinkhorn" is a bound for it.

    Raises:
        ValueError: epsilon is not positive, the method is unknown, or it cannot solve a batch.
    """
    common = {"epsilon": epsilon, "max_iterations": max_iterations, "tolerance": tolerance}
    is_batch = isinstance(cost, Tensor) and cost.dim() == 3
    match method:
        case "sinkhorn":
            initial_g = None
            if initial_f is not None:
                initial_g = epsilon * (log_b - logsumexp_over_atoms(cost, initial_f, epsilon))
            return sinkhorn(cost, log_a, log_b, initial_g=initial_g, logsumexp_samples=logsumexp_samples, **common)  # type: ignore[arg-type]
        case "auto" | "newton" if is_batch:
            assert isinstance(cost, Tensor)
            return newton_batched(cost, log_a, log_b, initial_f=initial_f, **common)  # type: ignore[arg-type]
        case "auto" | "newton" | "newton_cg" if not is_batch:
            return newton(
                cost,
                log_a,
                log_b,
                initial_f=initial_f,
                matrix_free=method == "newton_cg" or (method == "auto" and len(log_a) > MAX_DIRECT_ATOMS),
                sample_index=sample_index,
                max_stored_entries=max_stored_entries,
                sum_samples=sum_samples,
                **common,  # type: ignore[arg-type]
            )
        case "newton_cg":
            raise ValueError("method must be 'auto', 'newton' or 'sinkhorn' for a batch (B, K, n), got 'newton_cg'")
        case _:
            raise ValueError(f"method must be 'auto', 'newton', 'newton_cg' or 'sinkhorn', got {method!r}")
