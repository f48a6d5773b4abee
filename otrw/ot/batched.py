"""Many small transport problems at once by semi-dual Newton: each of them alone would be the time of its calls.

The method of `otrw.ot.newton` in its plainest form: everything of one problem is small, so the plan is computed in the log
domain at every sweep, with the exact Hessian. Where there are fewer samples than atoms, the roles of both are exchanged at
first: the Hessian has the size of the smaller side, and the last elimination does not increase the error.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from otrw.ot.curvature import LEAST_DAMPING, TINY_MASS
from otrw.ot.sinkhorn import SinkhornResult

EPSILON_FACTOR = 2.0
START_DEPTH = 5.0
REACHED = 1.0
LONG = 4.0
MAX_NEWTON_SWEEPS = 60
MAX_REFUSED_STEPS = 6
SUFFICIENT_DECREASE = 0.1
"""As in `otrw.ot.newton`."""
MAX_SCALING_SWEEPS = 8
"""At an epsilon of the scaling."""
OVERSHOT = 0.5
"""Share of a step's first slope by which its last one may be negative."""
SHORTENED = (0.1, 0.7)
"""Least and most of its length that a refused step keeps."""
STARVED = 3.0
"""log(a / P 1) from which on Sinkhorn's step is taken, as Newton's model does not reach that far."""


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
    """B problems on one process; those that are done are taken out once they are half of the batch.

    A Newton step is accepted where it lowers the marginal error by a tenth or ends before F's slope along it has turned far:
    F is concave, so that its slope falls along a step. Else it is shortened to where the slope would be 0 if it fell evenly
    (regula falsi). Sinkhorn's step is taken where an atom starves, after `MAX_REFUSED_STEPS` in a row, and from
    `MAX_NEWTON_SWEEPS` on, from the best potential so far. Each step is one sweep; the potential of least error is returned.

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
        initial_f = epsilon * (log_a - _log_sum(cost.mT, log_b, g, epsilon))
    else:
        num_sweeps = 0
    f, more_sweeps = _solve(cost, log_a, log_b, epsilon, max_iterations - num_sweeps, tolerance, initial_f)
    f = f.to(log_b.dtype).masked_fill(log_a == -torch.inf, -torch.inf)
    plan = _columns(cost, f, epsilon) * log_b.exp()[:, None]
    error = (plan.sum(2).double() - log_a.double().exp()).abs().sum(1).to(log_b.dtype)
    g = epsilon * (log_b - _log_sum(cost, log_a, f, epsilon))
    is_converged = bool((error <= tolerance).all())
    return SinkhornResult(f, g, error, num_sweeps + more_sweeps, is_converged, "newton_batched")


def _columns(cost: Tensor, f: Tensor, epsilon: float) -> Tensor:
    """softmax over atoms of (f - C) / epsilon (B, K, n); a column that nothing may reach is uniform."""
    return torch.softmax((f[..., None] - cost).div_(epsilon).clamp_min_(torch.finfo(cost.dtype).min), 1)


def _log_sum(cost: Tensor, log_a: Tensor, f: Tensor, epsilon: float) -> Tensor:
    """log sum_k exp((f_k - C_kn) / epsilon) (B, n) over the atoms that have mass."""
    return torch.logsumexp((f.masked_fill(log_a == -torch.inf, -torch.inf)[..., None] - cost) / epsilon, 1)


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
        extent = _extent(cost)
        while scaling[-1] * EPSILON_FACTOR * START_DEPTH <= extent:
            scaling.append(scaling[-1] * EPSILON_FACTOR)
    f = torch.zeros_like(log_a) if initial_f is None else torch.where(initial_f.isfinite(), initial_f, 0)
    move, num_sweeps = torch.zeros_like(f), 0
    for level, value in enumerate(reversed(scaling)):
        is_last = value == epsilon
        limit = max_sweeps - num_sweeps if is_last else min(MAX_SCALING_SWEEPS, max_sweeps - num_sweeps)
        before = f
        f, count = _ascend(cost, log_a, log_b, f + move, value, limit, tolerance if is_last else None)
        move = (f - before) / EPSILON_FACTOR if level > 0 else move
        num_sweeps += count
    return f, num_sweeps


def _extent(cost: Tensor) -> float:
    """Of the finite costs; these are picked out, which is slow, only where there are others."""
    if cost.numel() == 0:
        return 0.0
    low, high = cost.aminmax()
    extent = float(high - low)
    if math.isfinite(extent):
        return extent
    finite = cost[cost.isfinite()]
    return float(finite.max() - finite.min()) if len(finite) else 0.0


class _Problems(NamedTuple):
    """Those that are not done, and where their ascents are; first index that of the problem."""

    place: Tensor
    """In the batch."""
    cost: Tensor
    log_a: Tensor
    a: Tensor
    b: Tensor
    f: Tensor
    start: Tensor
    """Where the last accepted step ended,"""
    error: Tensor
    """the error there,"""
    step: Tensor
    """the step from there to f, in units of epsilon,"""
    slope: Tensor
    """and F's slope there along it; infinite where any step is accepted."""
    best: Tensor
    best_error: Tensor
    num_refused: Tensor
    was_starved: Tensor


def _ascend(
    cost: Tensor, log_a: Tensor, log_b: Tensor, f: Tensor, epsilon: float, limit: int, tolerance: float | None
) -> tuple[Tensor, int]:
    """Newton at one epsilon; without a tolerance until steps are short, and then with the last step."""
    a = log_a.double().exp()
    infinite, place = a.new_full(a.shape[:1], torch.inf), torch.arange(len(f), device=f.device)
    none = torch.zeros_like(infinite)
    now = _Problems(
        place, cost, log_a, a, log_b.exp(), f, f, infinite, torch.zeros_like(a), infinite, f, infinite, none, none.bool()
    )
    all_have_mass = bool((a > 0).all())
    found = f.clone()
    for sweep in range(1, limit + 1):
        f = now.f if all_have_mass else now.f.masked_fill(now.a == 0, -torch.inf)
        columns = _columns(now.cost, f, epsilon)
        plan = columns * now.b[:, None]
        mass = plan.sum(2).double()
        residual = now.a - mass
        error = residual.abs().sum(1)
        if tolerance is not None:
            is_better = error < now.best_error
            best_error = torch.where(is_better, error, now.best_error)
            now = now._replace(best=torch.where(is_better[:, None], now.f, now.best), best_error=best_error)
            is_done = best_error <= tolerance
            num_done = int(is_done.sum())
            if 2 * num_done >= len(is_done):
                found.index_copy_(0, now.place, now.best)
                if num_done == len(is_done):
                    return found, sweep
                kept = (~is_done).nonzero()[:, 0]
                now = _Problems(*(x[kept] for x in now))
                columns, plan, mass, residual, error = (x[kept] for x in (columns, plan, mass, residual, error))
            if sweep == MAX_NEWTON_SWEEPS:
                now = now._replace(f=now.best, step=torch.zeros_like(now.step), slope=torch.full_like(now.slope, torch.inf))
                continue
        newton = _newton_step(columns, plan, now.a, mass)
        extent = newton.amax(1) - newton.amin(1)
        newton = newton * (LONG / extent.clamp_min(LONG))[:, None]
        plain = (now.log_a.double() - mass.clamp_min(TINY_MASS).log()).masked_fill_(now.a == 0, 0)
        starved = (plain.amax(1) > STARVED) & ~now.was_starved
        plain = plain - (now.a * plain).sum(1, keepdim=True)

        end_slope = (residual * now.step).sum(1)
        accepted = (error <= (1 - SUFFICIENT_DECREASE) * now.error) | (end_slope >= -OVERSHOT * now.slope)
        num_refused = torch.where(accepted, 0, now.num_refused + 1)
        is_plain = starved | ~extent.isfinite() | (num_refused > MAX_REFUSED_STEPS) | (sweep > MAX_NEWTON_SWEEPS)
        is_new = accepted | is_plain
        shorter = (now.slope / (now.slope - end_slope)).clamp_(*SHORTENED)
        start = torch.where(is_new[:, None], now.f, now.start)
        step = torch.where(accepted[:, None], newton, now.step * shorter[:, None])
        step = torch.where(is_plain[:, None], plain, step)
        slope = torch.where(accepted, (residual * newton).sum(1), now.slope * shorter)
        now = now._replace(
            f=start + (epsilon * step).to(start.dtype),
            start=start,
            error=torch.where(is_new, error, now.error),
            step=step,
            slope=torch.where(is_plain, torch.inf, slope),
            num_refused=torch.where(is_plain, 0, num_refused),
            was_starved=starved,
        )
        if tolerance is None and bool((is_new & ~is_plain & (extent < REACHED)).all()):
            return now.f, sweep
    return (now.f if tolerance is None else found.index_copy_(0, now.place, now.best)), limit


def _newton_step(columns: Tensor, plan: Tensor, a: Tensor, mass: Tensor) -> Tensor:
    """(B, K) in units of epsilon, of mean 0 under a: the system of `otrw.ot.curvature`, a batch of them."""
    matrix = torch.bmm(columns, plan.mT).double().neg_()
    degree = torch.maximum(a, mass).clamp_min_(TINY_MASS)
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    diagonal.sub_(matrix.sum(2)).add_((a - mass).clamp_min_(0)).add_(degree, alpha=LEAST_DAMPING[plan.dtype])
    matrix.add_(degree[:, :, None] * degree[:, None, :])
    step = torch.linalg.solve_ex(matrix, (a - mass)[:, :, None])[0][:, :, 0].masked_fill_(a == 0, 0)
    return step - (a * step).sum(1, keepdim=True)
