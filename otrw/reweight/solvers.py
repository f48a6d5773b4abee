"""From a transport problem to mass on its samples: one function a kind of weights."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from otrw.errors import UserError
from otrw.ot.semi_relaxed import semi_relaxed
from otrw.ot.sinkhorn import SinkhornResult, sample_mass, semi_relaxed_pot, sinkhorn, sinkhorn_pot
from otrw.ot.solve import Solver
from otrw.ot.streaming import semi_relaxed_mass
from otrw.ot.weights import WeightNet, descend, envelope_gradient, unrolled_step
from otrw.reweight.problem import Problem, dense, max_entries

Potentials = Callable[[Tensor], SinkhornResult]
"""Of log_b (n,), for one b after the other; each solve starts from the last."""


class Solution(NamedTuple):
    """What a solver found for this process's samples."""

    mass: Tensor
    """(n,) mass b of each sample; sums to 1 over all processes"""
    result: SinkhornResult
    """Potentials of the last solve."""
    num_unconverged: int
    """Solves that stopped at max_iterations."""
    objective_gap: float
    """OT_eps(a, b) before the last gradient step, less its minimum over b, in units of the cost; 0 for the closed form."""


def solve_semi_relaxed(problem: Problem) -> Solution:
    """The minimiser over b in closed form, b_n = sum_k a_k softmax_n(-C_kn / eps)."""
    epsilon = problem.config.epsilon
    if problem.config.solver == "pot":
        result = semi_relaxed_pot(dense(problem.cost), problem.log_a, epsilon=epsilon)
        return Solution(sample_mass(problem.cost, result, epsilon), result, 0, 0.0)
    result, mass = semi_relaxed_mass(
        problem.cost,
        problem.log_a,
        epsilon=epsilon,
        max_stored_entries=max_entries(problem.config),
        logsumexp_samples=problem.axis.logsumexp,
    )
    return Solution(mass, result, 0, 0.0)


def potentials(problem: Problem) -> Potentials:
    """The solver that the settings ask for."""
    config = problem.config
    limits = {"max_iterations": config.max_iterations, "tolerance": config.tolerance}
    if config.solver == "pot":
        return lambda log_b: sinkhorn_pot(dense(problem.cost), problem.log_a, log_b, epsilon=config.epsilon, **limits)  # type: ignore[arg-type]
    if config.stopping == "potential":
        last_g: list[Tensor] = []

        def by_potential(log_b: Tensor) -> SinkhornResult:
            result = sinkhorn(
                problem.cost,
                problem.log_a,
                log_b,
                epsilon=config.epsilon,
                stopping="potential",
                initial_g=last_g.pop() if last_g else None,
                logsumexp_samples=problem.axis.logsumexp,
                **limits,  # type: ignore[arg-type]
            )
            last_g.append(result.g)
            return result

        return by_potential
    solver = Solver(
        problem.cost,
        problem.log_a,
        epsilon=config.epsilon,
        method=config.solver,
        sample_index=problem.sample_index,
        max_stored_entries=max_entries(config),
        sum_samples=problem.axis.sum if problem.axis.is_sharded else None,
        logsumexp_samples=problem.axis.logsumexp,
    )
    return partial(solver.solve, **limits)  # type: ignore[arg-type]


def solve_sgd(problem: Problem, theta: Tensor) -> tuple[Tensor, Solution]:
    """num_steps gradient steps on theta, b = softmax(theta) (arXiv 2208.02951, equation 6).

    Args:
        problem: the transport problem.
        theta: (n,) parameters of this process's samples.

    Returns:
        theta (n,) after the steps, and the mass that it stands for.
    """
    solve, num_unconverged = potentials(problem), 0
    for _ in range(problem.config.num_steps):
        before = theta
        theta, result = sgd_step(problem, theta, solve)
        num_unconverged += not result.converged
    gap = objective_gap(problem, _log_softmax(problem, before).exp(), result)
    return theta, Solution(_log_softmax(problem, theta).exp(), result, num_unconverged, gap)


def sgd_step(problem: Problem, theta: Tensor, solve: Potentials | None = None) -> tuple[Tensor, SinkhornResult]:
    """One gradient step on theta.

    Args:
        problem: the transport problem.
        theta: (n,) parameters; (B, n) for B problems at once.
        solve: the `potentials` that earlier steps used, to start warm; unused by unrolled steps.

    Returns:
        theta after the step, and the potentials before it.

    Raises:
        UserError: for gradient "unrolled" where samples are sharded or the cost is too large.
    """
    config, scale = problem.config, problem.objective_scale
    if config.gradient == "envelope":
        gradient, result = envelope(problem, theta, solve or potentials(problem))
        return descend(theta, gradient, learning_rate=config.learning_rate, weight_decay=config.weight_decay), result
    if problem.axis.is_sharded:
        raise UserError("ot.strategy must be 'gathered' with ot.gradient=unrolled, got 'sharded' or 'auto' on a large set")
    step = unrolled_step(
        dense(problem.cost),
        theta,
        epsilon=config.epsilon,
        max_iterations=config.max_iterations,
        tolerance=config.tolerance,
        stopping=config.stopping,
        learning_rate=config.learning_rate * scale,
        weight_decay=config.weight_decay / scale,
    )
    return step.theta, step.result


def solve_network(problem: Problem, embeddings: Tensor, net: WeightNet) -> Solution:
    """num_steps gradient steps on the weight net, b = softmax(net(x)) (arXiv 2208.02951, equation 8); net is trained in place.

    Args:
        problem: the transport problem.
        embeddings: (n, D) of this process's samples.
        net: the weight net, replicated.
    """
    optimizer = torch.optim.SGD(net.parameters(), lr=problem.config.learning_rate / problem.num_samples)
    solve, num_unconverged = potentials(problem), 0
    for _ in range(problem.config.num_steps):
        with torch.enable_grad():
            theta = net(embeddings)
        gradient, result = envelope(problem, theta.detach(), solve)
        num_unconverged += not result.converged
        optimizer.zero_grad()
        theta.backward(gradient)
        for parameter in net.parameters():
            assert parameter.grad is not None
            parameter.grad = problem.axis.sum(parameter.grad)
        optimizer.step()
    gap = objective_gap(problem, _log_softmax(problem, theta.detach()).exp(), result)
    return Solution(_log_softmax(problem, net(embeddings)).exp(), result, num_unconverged, gap)


def envelope(problem: Problem, theta: Tensor, solve: Potentials) -> tuple[Tensor, SinkhornResult]:
    """Gradient (n,) of `objective_scale` x OT_eps(a, softmax(theta)) in theta by the envelope theorem, and the potentials."""
    log_b = _log_softmax(problem, theta)
    result = solve(log_b)
    b = log_b.exp()
    mean_g = problem.axis.sum(torch.where(b > 0, b * result.g, 0).sum())
    return problem.objective_scale * envelope_gradient(b, result.g, mean_g), result


def objective_gap(problem: Problem, mass: Tensor, result: SinkhornResult) -> float:
    """OT_eps(a, b) - min over b of OT_eps(a, b), both by their dual value <a, f> + <b, g>; the constant - eps cancels.

    The minimum is the semi-relaxed problem's, whose g is 0. How far the descent over b is from its end, whatever the
    solves of each step say of themselves.
    """
    if problem.log_a.dim() > 1 or mass.dim() > 1:
        return 0.0
    least = semi_relaxed(problem.cost, problem.log_a, epsilon=problem.config.epsilon, logsumexp_samples=problem.axis.logsumexp)
    transported = problem.axis.sum(torch.where(mass > 0, mass * result.g, 0).sum())
    return float((problem.log_a.exp() * (result.f - least.f)).sum() + transported)


def _log_softmax(problem: Problem, theta: Tensor) -> Tensor:
    return theta - problem.axis.logsumexp(theta[None, :])
