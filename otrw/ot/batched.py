"""Many small transport problems at once by semi-dual Newton: each of them alone would be the time of its calls.

The method of `otrw.ot.newton` in its plainest form: everything of one problem is small, so the plan is computed in the log
domain at every sweep, with the exact Hessian. Where there are fewer samples than atoms, the roles of both are exchanged at
first: the Hessian has the size of the smaller side, and the last elimination does not increase the error.
"""

import torch
from torch import Tensor

from otrw.ot.curvature import FIRST_DAMPING, LEAST_DAMPING, TINY_MASS
from otrw.ot.sinkhorn import SinkhornResult

EPSILON_FACTOR = 2.0
START_DEPTH = 5.0
REACHED = 1.0
LONG = 4.0
MOST_DAMPING = 10.0
LEAST_DECREASE = 0.1
LEAST_INCREASE = 1e-7
"""As in `otrw.ot.newton`."""
MAX_SCALING_STEPS = 8
"""At an epsilon of the scaling."""


def newton_batched(
    cost: Tensor,
    log_a: Tensor,
    log_b: Tensor,
    *,
    epsilon: float,
    max_iterations: int = 1000,
    tolerance: float = 1e-4,
    initial_f: Tensor | None = None,
) -> SinkhornResult:
    """B problems on one process, each with its own stopping: one that is done is taken out of the batch.

    A step is accepted where it lowers the marginal error by a tenth or raises F; where it does neither, the problem gets a
    larger Levenberg term and the Sinkhorn step instead, by which the error does not grow. Each step is one sweep.

    Args:
        cost: (B, K, n).
        log_a: (K,) or (B, K); -inf takes no part.
        log_b: (B, n); -inf takes no part, so that problems of different sizes can be padded.
        epsilon: strength of the entropy, > 0.
        max_iterations: sweeps at most, of each problem.
        tolerance: on the L1 distance of P 1 from a.
        initial_f: (B, K) potentials of problems near by; the scaling is left out.

    Returns:
        f (B, K), g (B, n) that meet b exactly, the error (B,) of their plans, the number of sweeps of the slowest problem, and
        whether all are solved.

    Raises:
        ValueError: epsilon is not positive.
    """
    if epsilon <= 0:
        raise ValueError(f"epsilon must be > 0, got {epsilon}")
    log_a = log_a.expand(*log_b.shape[:-1], -1)
    if log_b.shape[-1] < log_a.shape[-1] and initial_f is None:
        g, num_sweeps = _solve(cost.mT, log_b, log_a, epsilon, max_iterations - 1, tolerance, None)
        initial_f = epsilon * log_a - epsilon * _soft(cost.mT, log_b, g, epsilon)[1]
    else:
        num_sweeps = 0
    f, more_sweeps = _solve(cost, log_a, log_b, epsilon, max_iterations - num_sweeps, tolerance, initial_f)
    f = f.to(log_b.dtype).masked_fill(log_a == -torch.inf, -torch.inf)
    plan, log_sum = _soft(cost, log_a, f, epsilon)
    error = (_mass(plan, log_b) - log_a.double().exp()).abs().sum(-1).to(log_b.dtype)
    g = epsilon * (log_b - log_sum)
    is_converged = bool((error <= tolerance).all())
    return SinkhornResult(f, g, error, num_sweeps + more_sweeps, is_converged, "newton_batched")


def _soft(cost: Tensor, log_a: Tensor, f: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """softmax over atoms of (f - C) / epsilon (B, K, n), and the log-sum-exp (B, n); atoms without mass take no part."""
    exponent = (f.masked_fill(log_a == -torch.inf, -torch.inf)[..., None] - cost) / epsilon
    largest = exponent.amax(-2, keepdim=True).clamp_min_(torch.finfo(cost.dtype).min)
    weight = exponent.sub_(largest).exp_()
    total = weight.sum(-2, keepdim=True).clamp_min_(torch.finfo(cost.dtype).tiny)
    return weight.div_(total), (largest + total.log())[..., 0, :]


def _mass(plan: Tensor, log_b: Tensor) -> Tensor:
    """P 1 (B, K) in float64, of columns with sum 1."""
    return torch.matmul(plan, log_b.exp()[..., None])[..., 0].double()


def _solve(
    cost: Tensor,
    log_a: Tensor,
    log_b: Tensor,
    epsilon: float,
    max_sweeps: int,
    tolerance: float,
    initial_f: Tensor | None,
) -> tuple[Tensor, int]:
    """f (B, K) with the least error found, and sweeps of the slowest problem."""
    scaling = [epsilon]
    if initial_f is None:
        finite = cost[cost.isfinite()]
        extent = float(finite.max() - finite.min()) if len(finite) else 0.0
        while scaling[-1] * EPSILON_FACTOR * START_DEPTH <= extent:
            scaling.append(scaling[-1] * EPSILON_FACTOR)
    f = torch.zeros_like(log_a) if initial_f is None else torch.where(initial_f.isfinite(), initial_f, 0)
    move, num_sweeps = torch.zeros_like(f), 0
    for level, value in enumerate(reversed(scaling)):
        is_last = value == epsilon
        limit = max_sweeps - num_sweeps if is_last else min(MAX_SCALING_STEPS, max_sweeps - num_sweeps)
        before = f
        f, count = _ascend(cost, log_a, log_b, f + move, value, limit, tolerance, is_last)
        move = (f - before) / EPSILON_FACTOR if level > 0 else move
        num_sweeps += count
    return f, num_sweeps


def _ascend(
    cost: Tensor, log_a: Tensor, log_b: Tensor, f: Tensor, epsilon: float, limit: int, tolerance: float, is_last: bool
) -> tuple[Tensor, int]:
    """Newton at one epsilon, on the problems that are not done."""
    best_f, best_error = f.clone(), torch.full(f.shape[:1], torch.inf, dtype=torch.float64, device=f.device)
    active = torch.arange(len(f), device=f.device)
    a, b = log_a.double().exp(), log_b.double().exp()
    least = LEAST_DAMPING[cost.dtype]
    damping = torch.full_like(best_error, least)
    old_f, old_error, old_value = f, best_error.clone(), torch.full_like(best_error, -torch.inf)
    sinkhorn_f = f
    is_sinkhorn = torch.ones_like(active, dtype=torch.bool)
    extent = torch.full_like(best_error, torch.inf)
    for sweep in range(1, limit + 1):
        plan, log_sum = _soft(cost, log_a, f, epsilon)
        mass = _mass(plan, log_b)
        error = (mass - a).abs().sum(-1)
        value = (a * f).sum(-1) / epsilon - (b * log_sum.double()).sum(-1)
        accepted = is_sinkhorn | (error <= (1 - LEAST_DECREASE) * old_error) | (value > old_value + LEAST_INCREASE)
        improved = error < best_error[active]
        best_f[active[improved]], best_error[active[improved]] = f[improved], error[improved]
        damping = torch.where(accepted, damping / 10, (10 * damping).clamp_min(FIRST_DAMPING)).clamp(least, MOST_DAMPING)
        done = (error <= tolerance) | (accepted & (extent < REACHED) & (not is_last))
        if bool(done.all()):
            return best_f if is_last else best_f.index_copy_(0, active, f), sweep
        if bool(done.any()):
            if not is_last:
                best_f[active[done]] = f[done]
            keep = ~done
            active, cost, log_a, log_b, a, b, f = (x[keep] for x in (active, cost, log_a, log_b, a, b, f))
            plan, mass, error, value, accepted, damping = (x[keep] for x in (plan, mass, error, value, accepted, damping))
            old_f, old_error, old_value, sinkhorn_f = (x[keep] for x in (old_f, old_error, old_value, sinkhorn_f))
        step = _newton_step(plan, a, b, mass, damping)
        extent = step.amax(-1) - step.amin(-1)
        step = step * (LONG / extent.clamp_min(LONG))[:, None]
        ratio = torch.where(a > 0, log_a.double() - mass.clamp_min(TINY_MASS).log(), 0)
        ratio = ratio - (a * ratio).sum(-1, keepdim=True)
        refused = ~accepted
        starved = (torch.where(a > 0, ratio, 0).amax(-1) > 3) & ~(is_sinkhorn[keep] if bool(done.any()) else is_sinkhorn)
        old_f = torch.where(refused[:, None], old_f, f)
        old_error, old_value = torch.where(refused, old_error, error), torch.where(refused, old_value, value)
        next_sinkhorn = f + (epsilon * ratio).to(f.dtype)
        sinkhorn_f, is_sinkhorn, trial = (
            torch.where(refused[:, None], sinkhorn_f, next_sinkhorn),
            refused | starved | ~step.isfinite().all(-1),
            f + (epsilon * step).to(f.dtype),
        )
        f = torch.where(is_sinkhorn[:, None], sinkhorn_f, trial)
        extent = torch.where(is_sinkhorn, torch.inf, extent)
    return best_f, limit


def _newton_step(plan: Tensor, a: Tensor, b: Tensor, mass: Tensor, damping: Tensor) -> Tensor:
    """(B, K) in units of epsilon: the system of `otrw.ot.curvature`, a batch of them."""
    scaled = plan * b.sqrt().to(plan.dtype)[:, None, :]
    matrix = torch.bmm(scaled, scaled.mT).double().neg_()
    degree = torch.maximum(a, mass)
    scale = degree.clamp_min(TINY_MASS).sqrt()
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal.sub_(matrix.sum(2)).add_((a - mass).clamp_min(0))
    matrix.div_(scale[:, :, None]).div_(scale[:, None, :])
    constant = scale / scale.norm(dim=1, keepdim=True)
    matrix.add_(constant[:, :, None] * constant[:, None, :])
    matrix.diagonal(dim1=1, dim2=2).add_(damping[:, None] + (degree <= TINY_MASS))
    factor, failure = torch.linalg.cholesky_ex(matrix)
    step = torch.cholesky_solve(((a - mass) / scale)[:, :, None], factor)[:, :, 0] / scale
    step = torch.where(a > 0, step, 0)
    return torch.where((failure == 0)[:, None], step - (a * step).sum(-1, keepdim=True), torch.nan)
