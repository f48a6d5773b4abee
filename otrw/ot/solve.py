"""One call for an entropic transport problem of any size: the fastest solver here for it, by a stated model of cost.

What "auto" takes (`choose`, from the prices in `otrw.ot.sweep_cost`):

- many problems at once, or fewer samples than atoms on one process and few of them: "newton_batched", whose Hessian has the
  size of the smaller side;
- a K x K Hessian, factored and kept for several steps ("newton"), where that is cheaper than the products of conjugate
  gradients: K^2 m multiplications from m = `COLUMNS_PER_ATOM` K columns, and K^3 / 3;
- else the same Hessian by products alone ("newton_cg"): K m multiplications each, at the price of reading memory.

All of them sweep with a scaled kernel that is taken around a potential in the log domain (`otrw.ot.semi_dual`), take Sinkhorn
steps as long as those are foreseen to be cheaper, and end with Sinkhorn steps where Newton's method fails: so there is no
range of epsilon for which another solver would have to be chosen. On several processes a Hessian is one exchange of K^2
numbers, a product one of K: where exchanges are slow, ask for "newton".
"""

from typing import Literal

from torch import Tensor

from otrw.ot import sweep_cost
from otrw.ot.arguments import check_problem
from otrw.ot.batched import newton_batched
from otrw.ot.cost import Cost
from otrw.ot.newton import COLUMNS_PER_ATOM, NewtonSolver
from otrw.ot.semi_dual import SumSamples, whole
from otrw.ot.sinkhorn import LogSumExp, SinkhornResult, logsumexp_over_atoms, logsumexp_rows, sinkhorn

Method = Literal["auto", "newton", "newton_cg", "sinkhorn"]


def choose(num_atoms: int, num_samples: int | None = None) -> str:
    """The solver of "auto"; a function of what is the same on every process.

    Args:
        num_atoms: K.
        num_samples: n where one process has a dense cost, else None.
    """
    smaller_side = min(num_atoms, num_samples or num_atoms)
    num_columns = COLUMNS_PER_ATOM * smaller_side
    direct = sweep_cost.hessian_seconds(smaller_side, num_columns)
    if direct > sweep_cost.conjugate_gradient_seconds(smaller_side, num_columns):
        return "newton_cg"
    return "newton" if smaller_side == num_atoms else "newton_batched"


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
    sum_samples: SumSamples | None = None,
    logsumexp_samples: LogSumExp = logsumexp_rows,
) -> SinkhornResult:
    """min_P <P, C> + epsilon sum P (log P - 1) over plans with marginals a and b.

    Args:
        cost: (K, n) of the local samples, dense or chunked; or (B, K, n), B problems on one process.
        log_a: (K,), replicated, exp-sum 1.
        log_b: (n,) or (B, n), exp-sum 1 over all processes.
        epsilon: strength of the entropy, > 0.
        method: the solver; "sinkhorn" is the paper's iteration, for reference.
        max_iterations: sweeps over the cost at most.
        tolerance: on the L1 distance of P 1 from a.
        initial_f: (K,) or (B, K), the potential of a problem near by.
        sample_index: (n,), see `newton`.
        max_stored_entries: see `newton`.
        sum_samples: all-reduce of a sum, used by the Newton methods; None where one process has all samples.
        logsumexp_samples: log-sum-exp over all processes' samples; used by "sinkhorn".

    Returns:
        Potentials, the error of their plan (that of "sinkhorn" is a bound for it), and in `solver` what was chosen.

    Raises:
        ValueError: epsilon is not positive, shapes do not fit, log_a or log_b holds no logarithms of masses that sum to 1,
            the cost holds nan, the method is unknown, or it cannot solve a batch.
    """
    is_whole = sum_samples is None and logsumexp_samples is logsumexp_rows
    check_problem(cost, log_a, log_b, epsilon=epsilon, is_whole=is_whole)
    solver = Solver(
        cost,
        log_a,
        epsilon=epsilon,
        method=method,
        sample_index=sample_index,
        max_stored_entries=max_stored_entries,
        sum_samples=sum_samples,
        logsumexp_samples=logsumexp_samples,
    )
    result = solver.solve(log_b, max_iterations=max_iterations, tolerance=tolerance, initial_f=initial_f)
    if bool(result.marginal_error.isnan().any()):
        raise ValueError("cost must hold no nan, got some, or columns that nothing may reach")
    return result


class Solver:
    """`solve` for one b after the other at the same cost, a and epsilon, each from where the last one ended.

    Arguments as there. With "newton" and "newton_cg" the kernel and the Hessian carry over too (`NewtonSolver`).
    """

    def __init__(
        self,
        cost: Cost,
        log_a: Tensor,
        *,
        epsilon: float,
        method: Method = "auto",
        sample_index: Tensor | None = None,
        max_stored_entries: int | None = None,
        sum_samples: SumSamples | None = None,
        logsumexp_samples: LogSumExp = logsumexp_rows,
    ) -> None:
        if epsilon <= 0:
            raise ValueError(f"epsilon must be > 0, got {epsilon}")
        if method not in ("auto", "newton", "newton_cg", "sinkhorn"):
            raise ValueError(f"method must be 'auto', 'newton', 'newton_cg' or 'sinkhorn', got {method!r}")
        self.cost, self.log_a, self.epsilon = cost, log_a, epsilon
        self.logsumexp_samples = logsumexp_samples
        self.is_batch = isinstance(cost, Tensor) and cost.dim() == 3
        if self.is_batch and method == "newton_cg":
            raise ValueError("method must be 'auto', 'newton' or 'sinkhorn' for a batch (B, K, n), got 'newton_cg'")
        self.method: str = method
        if method == "auto":
            is_whole = isinstance(cost, Tensor) and sum_samples is None
            self.method = choose(len(log_a), cost.shape[-1] if is_whole and isinstance(cost, Tensor) else None)
        if self.is_batch and method != "sinkhorn":
            self.method = "newton_batched"
        self._newton: NewtonSolver | None = None
        if self.method in ("newton", "newton_cg"):
            self._newton = NewtonSolver(
                cost,
                log_a,
                epsilon=epsilon,
                matrix_free=self.method == "newton_cg",
                sample_index=sample_index,
                max_stored_entries=max_stored_entries,
                sum_samples=sum_samples or whole,
            )
        self._last: SinkhornResult | None = None

    def solve(
        self, log_b: Tensor, *, max_iterations: int = 1000, tolerance: float = 1e-4, initial_f: Tensor | None = None
    ) -> SinkhornResult:
        """For log_b (n,) or (B, n), from where the last one ended unless `initial_f` is given."""
        limits = {"max_iterations": max_iterations, "tolerance": tolerance}
        if self._newton is not None:
            return self._newton.solve(log_b, initial_f=initial_f, **limits)  # type: ignore[arg-type]
        if self.method == "newton_batched":
            result = self._solve_batch(log_b, initial_f, **limits)  # type: ignore[arg-type]
        else:
            initial_g = None if self._last is None else self._last.g
            if initial_f is not None:
                initial_g = self.epsilon * (log_b - logsumexp_over_atoms(self.cost, initial_f, self.epsilon))
            result = sinkhorn(
                self.cost,
                self.log_a,
                log_b,
                epsilon=self.epsilon,
                initial_g=initial_g,
                logsumexp_samples=self.logsumexp_samples,
                **limits,  # type: ignore[arg-type]
            )
        self._last = result
        return result

    def _solve_batch(self, log_b: Tensor, initial_f: Tensor | None, *, max_iterations: int, tolerance: float) -> SinkhornResult:
        assert isinstance(self.cost, Tensor)
        if initial_f is None and self._last is not None and self.cost.shape[-1] >= len(self.log_a):
            initial_f = self._last.f
        cost = self.cost
        if not self.is_batch:
            cost, log_b, initial_f = cost[None], log_b[None], None if initial_f is None else initial_f.expand(1, -1)
        result = newton_batched(
            cost,
            self.log_a,
            log_b,
            epsilon=self.epsilon,
            max_iterations=max_iterations,
            tolerance=tolerance,
            initial_f=initial_f,
        )
        if self.is_batch:
            return result
        return result._replace(f=result.f[0], g=result.g[0], marginal_error=result.marginal_error[0])
