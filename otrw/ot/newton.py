"""Entropic transport by Newton's method on the semi-dual: some ten sweeps over the cost where Sinkhorn takes thousands.

The objective F(f) = <a, f> - sum_n b_n epsilon log sum_k exp((f_k - C_kn) / epsilon) is concave in the K numbers f, its
gradient is a - P 1 and its Hessian -(diag(P 1) - P diag(1/b) P^T) / epsilon (Cuturi and Peyre 2016; the smooth semi-dual of
arXiv 1710.06276, section 4, with negative entropy; Newton on the dual: Brauer et al., arXiv 1710.06635, and with a sparse
Hessian arXiv 2401.12253). `otrw.ot.semi_dual` sweeps, `otrw.ot.curvature` solves for the step; here is when to do what.

A Hessian costs far more than a sweep, hence it is kept as long as its steps pay, and taken from a sample of the columns
as long as that does: the gradient is always that of all columns, so that the solution is exact. `otrw.ot.sweep_cost` has
the prices.
"""

import math

import torch
from torch import Tensor

from otrw.ot import sweep_cost
from otrw.ot.cost import ChunkedCost, Cost
from otrw.ot.curvature import FIRST_DAMPING, LEAST_DAMPING, ConjugateGradientCurvature, Curvature, DirectCurvature
from otrw.ot.semi_dual import Marginal, SemiDual, SumSamples, uniform_hash, whole
from otrw.ot.sinkhorn import SinkhornResult

MAX_STORED_ENTRIES = 1 << 26
"""Kernel of a chunked cost that is kept between sweeps, and columns of a Hessian: 256 MiB in float32."""
LEAST_COLUMN_ENTRIES = 1 << 22
"""Columns of a Hessian may always take this, 16 MiB: with hardly any it says nothing."""
EPSILON_FACTOR = 2.0
"""From one epsilon to the next of the scaling."""
START_DEPTH = 8.0
"""Scaling starts where the range of the cost is this many epsilon, or less than four times as many."""
RANGE_COLUMNS = 64
"""That the range of the cost is taken from."""
REACHED = 1.0
"""An epsilon of the scaling is done after a Newton step of at most this range in units of it."""
COLUMNS_PER_ATOM = 8
"""That a Hessian is taken from at first."""
COLUMN_GROWTH = 4
"""Times as many where the steps of a Hessian taken just before do not pay, and from the `MANY_HESSIANS`th on."""
MANY_HESSIANS = 4
"""At one epsilon."""
SAMPLE_RATE = 0.6
"""A short step of a new Hessian that leaves more of the error than this fails for the sample's sake."""
SUFFICIENT_DECREASE = 0.1
"""Of the marginal error, times the length of the step."""
SUFFICIENT_INCREASE = 0.1
"""Of F against its slope (Armijo)."""
LEAST_INCREASE = 1e-7
"""Of F / epsilon: less is rounding."""
STEP_LENGTHS = (1.0, 0.25, 0.0625)
LONG = 4.0
"""Range in epsilon from which on a step is shortened before it is tried."""
STARVED = 0.05
"""An atom that gets less than this share of its mass: Newton's model does not reach that far, Sinkhorn's step does."""
MAX_REFUSED_STEPS = 6
MAX_NEWTON_STEPS = 60
"""At one epsilon. Then, or after `MAX_REFUSED_STEPS`, the rest is Sinkhorn's."""
FIRST_RATE = 0.9
"""Of the error that a Sinkhorn step leaves, before one was taken: near a solution slow directions are left over."""
CARRIED_RATE = 0.2
"""The same of a step with the Hessian of a problem near by, before one was taken."""
NEWTON_SWEEPS = 2.0
"""Foreseen after a new Hessian."""
TOO_FAR = 0.5
"""A warm start of a larger marginal error is no better than none."""
AHEAD = 0.1
"""Of a larger error the extrapolated start is given up for the plain one."""
TINY_MASS = math.exp(-80)


def newton(
    cost: Cost,
    log_a: Tensor,
    log_b: Tensor,
    *,
    epsilon: float,
    max_iterations: int = 1000,
    tolerance: float = 1e-4,
    initial_f: Tensor | None = None,
    matrix_free: bool = False,
    sample_index: Tensor | None = None,
    max_stored_entries: int | None = None,
    sum_samples: SumSamples = whole,
) -> SinkhornResult:
    """The problem of `sinkhorn`, with its potentials: min_P <P, C> + epsilon sum P (log P - 1) with marginals a and b.

    1. Epsilon scaling: epsilon * 2^j from the range of the cost downwards, each until a Newton step is shorter than that
       epsilon, f carried over. (The marginal error does not tell: a small one can hide a potential that is far off.)
    2. At each epsilon: Sinkhorn steps as long as they are foreseen to cost less than a Hessian, then Newton steps. A Hessian is
       taken again when the sweeps foreseen at the present rate cost more than a new one.
    3. A step whose range is above `LONG` epsilon is shortened to it, then to a quarter of that, twice, unless it lowers the
       marginal error or raises F. If it never does, the Levenberg term grows and a Sinkhorn step is taken instead.
    4. Fallback: what is not solved after `MAX_NEWTON_STEPS`, or after `MAX_REFUSED_STEPS` were refused in a row, goes on with
       Sinkhorn steps alone from the best potential found, which never increase the error, until `max_iterations` sweeps are
       spent; the result's `solver` says so. The plan returned is the one of the least error seen at this epsilon.

    Args:
        cost: (K, n) of the local samples, dense or chunked.
        log_a: (K,), replicated, exp-sum 1; -inf takes no part.
        log_b: (n,), exp-sum 1 over all processes; -inf takes no part.
        epsilon: strength of the entropy, > 0.
        max_iterations: sweeps over the whole cost at most, and one more where the last one was not the best.
        tolerance: on the L1 distance of P 1 from a.
        initial_f: (K,) potential of a problem near by; the scaling is left out unless its error is above `TOO_FAR`.
        matrix_free: conjugate gradients instead of a K x K matrix.
        sample_index: (n,) index of each sample over all processes: with it they take the steps that one process would.
        max_stored_entries: a kernel (K, n) with more is computed again at every sweep, and the columns of a Hessian have at
            most as many entries (or `LEAST_COLUMN_ENTRIES`). By default the kernel of a dense cost is always kept, and the
            limit is `MAX_STORED_ENTRIES`.
        sum_samples: all-reduce over the processes that share the samples; called once a sweep, with K + 2 numbers, and once
            a Hessian, with K^2 (matrix_free: with K for each product).

    Returns:
        f and g in the precision of log_b; g meets b exactly; the error is that of the plan of f and g, measured in the last
        sweep; the number of iterations is that of sweeps over the whole cost. <a, f> is 0 but for rounding, except after a
        warm start that was good already.

    Raises:
        ValueError: epsilon is not positive.
    """
    solver = NewtonSolver(
        cost,
        log_a,
        epsilon=epsilon,
        matrix_free=matrix_free,
        sample_index=sample_index,
        max_stored_entries=max_stored_entries,
        sum_samples=sum_samples,
    )
    return solver.solve(log_b, max_iterations=max_iterations, tolerance=tolerance, initial_f=initial_f)


class NewtonSolver:
    """`newton` for one b after the other at the same cost, a and epsilon, as gradient steps on b need it.

    The kernel does not depend on b, and potential and Hessian change little where b does, so all three carry over: a solve
    after the first is a sweep at the old potential, and a step with the old Hessian and its sweep where b has moved. Arguments
    as there.
    """

    def __init__(
        self,
        cost: Cost,
        log_a: Tensor,
        *,
        epsilon: float,
        matrix_free: bool = False,
        sample_index: Tensor | None = None,
        max_stored_entries: int | None = None,
        sum_samples: SumSamples = whole,
    ) -> None:
        if epsilon <= 0:
            raise ValueError(f"epsilon must be > 0, got {epsilon}")
        self.cost, self.a, self.epsilon = cost, log_a.double().exp(), epsilon
        self.matrix_free, self.sum_samples = matrix_free, sum_samples
        self.sample_index = sample_index
        limit = MAX_STORED_ENTRIES if max_stored_entries is None else max_stored_entries
        self.max_column_entries = max(limit, LEAST_COLUMN_ENTRIES)
        if max_stored_entries is None and isinstance(cost, ChunkedCost):
            max_stored_entries = MAX_STORED_ENTRIES
        self.max_stored_entries = max_stored_entries
        self._problem: SemiDual | None = None
        self._ascent: _Ascent | None = None
        self._found: list[Tensor] = []
        """f of the last two solves."""

    def solve(
        self, log_b: Tensor, *, max_iterations: int = 1000, tolerance: float = 1e-4, initial_f: Tensor | None = None
    ) -> SinkhornResult:
        """As `newton`, from where the last solve ended unless `initial_f` is given."""
        b = log_b.exp()
        index = torch.arange(len(b), device=b.device) if self.sample_index is None else self.sample_index
        if self._problem is None or self._ascent is None:
            problem = SemiDual(
                self.cost, self.a, b, self.epsilon, sum_samples=self.sum_samples, max_stored_entries=self.max_stored_entries
            )
            ascent = _Ascent(self.a, b, index, self.sum_samples, self.matrix_free, problem.is_stored, self.max_column_entries)
        else:
            problem, ascent = self._problem.with_masses(b), self._ascent
        now, num_sweeps = None, 0
        for start in self._starts() if initial_f is None else [torch.where(initial_f.isfinite(), initial_f, 0)]:
            now, num_sweeps = problem.marginal(start), num_sweeps + 1
            if now.error <= AHEAD:
                break
        if now is None or not now.error <= TOO_FAR:
            ascent.curvature = None
            f = torch.zeros_like(self.a)
            move = f
            for larger in _scaling(self.epsilon, _cost_range(self.cost, index, self.sum_samples)):
                problem = problem.at(larger)
                if num_sweeps + 2 > max_iterations:
                    break
                at_larger, num_sweeps = problem.marginal(f + move), num_sweeps + 1
                at_larger, num_sweeps = ascent.ascend(
                    problem, at_larger, num_sweeps, tolerance, max_iterations - 1, is_last=False
                )
                move, f = ((at_larger.f - f) / EPSILON_FACTOR if bool(f.any()) else f), at_larger.f
            f = f + move
            problem = problem.at(self.epsilon)
            now, num_sweeps = problem.marginal(f), num_sweeps + 1
        now, num_sweeps = ascent.ascend(problem, now, num_sweeps, tolerance, max_iterations)
        self._problem, self._ascent, self._found = problem, ascent, [*self._found[-1:], now.f]
        f = torch.where(self.a > 0, now.f, -torch.inf).to(b.dtype)
        error = torch.tensor(now.error, dtype=b.dtype, device=b.device)
        name = ("newton_cg" if self.matrix_free else "newton") + (" > sinkhorn" if ascent.has_given_up else "")
        return SinkhornResult(f, problem.sample_potential(log_b), error, num_sweeps, now.error <= tolerance, name)

    def _starts(self) -> list[Tensor]:
        """Where b moves on as it did, f does too; else f of the last solve."""
        extrapolated = [2 * self._found[1] - self._found[0]] if len(self._found) == 2 else []
        return extrapolated + self._found[-1:]


class _Ascent:
    """The climb to the maximum of F at one epsilon after the other."""

    def __init__(
        self,
        a: Tensor,
        b: Tensor,
        index: Tensor,
        sum_samples: SumSamples,
        matrix_free: bool,
        is_stored: bool,
        max_entries: int,
    ) -> None:
        self.a, self.uniform = a, uniform_hash(index)
        self.sum_samples, self.matrix_free = sum_samples, matrix_free
        self.num_atoms = len(a)
        self.least_damping = self.damping = LEAST_DAMPING[b.dtype]
        self.max_entries = max_entries
        self.curvature: Curvature | None = None
        """Of the last step at the last epsilon: a solve near by goes on with it,"""
        self.rate = CARRIED_RATE
        """and foresees what Newton's last step left of the error."""
        self.has_given_up = False
        counts = sum_samples(a.new_tensor([float(len(b)), float(not is_stored)])).tolist()
        self.num_samples, self.is_stored = counts[0], counts[1] == 0
        num_columns = max(COLUMNS_PER_ATOM * self.num_atoms, sweep_cost.columns_of_a_call(self.num_atoms))
        self.num_columns = min(num_columns, max(1, max_entries // self.num_atoms))

    @property
    def is_sampled(self) -> bool:
        """Whether Hessians are taken from fewer columns than there are."""
        return 1.5 * self.num_columns <= self.num_samples

    def ascend(
        self,
        problem: SemiDual,
        now: Marginal,
        num_sweeps: int,
        tolerance: float,
        max_sweeps: int,
        *,
        is_last: bool = True,
    ) -> tuple[Marginal, int]:
        """Solve at one epsilon from a first sweep on; returns what the last sweep saw and the number of sweeps."""
        self.has_given_up = False
        best, extent = now, 0.0
        curvature, self.curvature = self.curvature, None
        is_carried = curvature is not None
        rate = self.rate if is_carried else FIRST_RATE
        num_steps, num_refused, num_hessians, is_new, was_starved = 0, 0, 0, False, False
        while now.error > tolerance and num_sweeps < max_sweeps:
            may_newton = num_steps < MAX_NEWTON_STEPS and num_refused < MAX_REFUSED_STEPS
            self.has_given_up = is_last and not may_newton
            starved = not was_starved and bool((now.mass < STARVED * self.a).any())
            was_starved = starved
            foreseen = math.log(now.error / tolerance) / -math.log(min(max(rate, 1e-3), 0.999))
            price = 0.0 if is_carried else self._price()  # a new Hessian will serve the next solves too
            if may_newton and not starved and (not is_last or foreseen > price + NEWTON_SWEEPS):
                num_hessians += 1
                if is_last and ((is_new and extent < 1 and rate > SAMPLE_RATE) or num_hessians >= MANY_HESSIANS):
                    self._grow()
                curvature, is_new = self._take(problem, now), True
            else:
                is_new = False
            new = None
            if curvature is not None and may_newton and not starved:
                num_steps += 1
                new, extent, tried = self._newton_step(problem, now, curvature, max_sweeps - num_sweeps)
                num_sweeps += tried
                if new is None:
                    self.damping = max(10 * self.damping, FIRST_DAMPING)
                    curvature.damp(self.damping)
                    num_refused += 1
                else:
                    self.damping = max(self.damping / 10, self.least_damping)
                    num_refused = 0
            if new is None and num_sweeps < max_sweeps:
                step, extent = log_ratio(self.a, now.mass), math.inf
                new = problem.marginal(now.f + problem.epsilon * (step - torch.dot(self.a, step)))
                num_sweeps += 1
            if new is None:
                break
            rate, now = new.error / now.error, new
            if math.isfinite(extent):
                self.rate = rate
            best = now if now.error <= best.error else best
            if not is_last and (extent < REACHED or not may_newton):
                break
            if not may_newton and best.error < now.error:  # where Sinkhorn takes over
                now = problem.marginal(best.f)
                num_sweeps += 1
        if best.error < now.error and is_last:
            now = problem.marginal(best.f)
            num_sweeps += 1
        if is_last:
            self.curvature = curvature
        return now, num_sweeps

    def _newton_step(
        self, problem: SemiDual, now: Marginal, curvature: Curvature, max_sweeps: int
    ) -> tuple[Marginal | None, float, int]:
        """What is seen after the step, None where it was refused; the range of the whole step; the sweeps it took."""
        step = curvature.step(now)
        step = torch.where(problem.has_mass, step - torch.dot(self.a, step), 0)  # 0 is within the range of the others
        extent = float(step.max() - step.min())
        if not math.isfinite(extent):
            return None, extent, 0
        if extent > LONG:
            step = step * (LONG / extent)
        slope = float(torch.dot(self.a - now.mass, step))
        for tried, length in enumerate(STEP_LENGTHS[:max_sweeps], 1):
            new = problem.marginal(now.f + problem.epsilon * length * step)
            gain = SUFFICIENT_INCREASE * length * slope
            if new.error <= (1 - SUFFICIENT_DECREASE * length) * now.error or new.value - now.value > max(gain, LEAST_INCREASE):
                return new, extent, tried
        return None, extent, min(len(STEP_LENGTHS), max_sweeps)

    def _take(self, problem: SemiDual, now: Marginal) -> Curvature:
        """The curvature at the potential of the problem's last sweep."""
        columns = problem.soft_columns(self.num_columns, self.uniform) if self.is_sampled else problem.all_columns()
        kind = ConjugateGradientCurvature if self.matrix_free else DirectCurvature
        return kind(self.a, now, columns, self.sum_samples, self.damping)

    def _price(self) -> float:
        """Of a new Hessian, in sweeps; the same on every process."""
        sweep = sweep_cost.sweep_seconds(self.num_atoms, self.num_samples, is_stored=self.is_stored)
        num_columns = min(self.num_columns, self.num_samples)
        if self.matrix_free:
            return sweep_cost.conjugate_gradient_seconds(self.num_atoms, num_columns) / sweep
        return sweep_cost.hessian_seconds(self.num_atoms, num_columns) / sweep + (not self.is_stored)

    def _grow(self) -> None:
        """Take Hessians from more columns."""
        most = max(self.num_columns, self.max_entries // self.num_atoms)
        self.num_columns = min(COLUMN_GROWTH * self.num_columns, most)


def _scaling(epsilon: float, cost_range: float) -> list[float]:
    """The larger epsilons to solve at first, in descending order."""
    larger = []
    value = epsilon * EPSILON_FACTOR
    while value * START_DEPTH <= cost_range:
        larger.append(value)
        value *= EPSILON_FACTOR
    return larger[::-1]


def _cost_range(cost: Cost, index: Tensor, sum_samples: SumSamples) -> float:
    """About the range of the cost: that of a uniform distribution with the variance of the first columns over all processes."""
    few = (index < RANGE_COLUMNS).nonzero()[:, 0]
    if isinstance(cost, Tensor):
        columns = cost.index_select(1, few)
    else:
        columns = torch.cat([cost.columns(slice(0, 0)), *(cost.columns(slice(i, i + 1)) for i in few.tolist())], 1)
    finite = columns[columns.isfinite()].double()
    moments = torch.stack([finite.new_tensor(float(len(finite))), finite.sum(), finite.square().sum()])
    count, first, second = sum_samples(moments).tolist()
    variance = second / count - (first / count) ** 2 if count else 0.0
    return math.sqrt(12 * max(variance, 0.0))


def log_ratio(a: Tensor, mass: Tensor) -> Tensor:
    """log(a / mass) (K,), 0 where a is 0: Sinkhorn's step in units of epsilon, of limited size, as mass may underflow."""
    return torch.where(a > 0, a.clamp_min(TINY_MASS).log() - mass.clamp_min(TINY_MASS).log(), 0.0)
