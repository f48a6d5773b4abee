"""Sinkhorn against POT and linear programming, its gradient against finite differences, and how it stops."""

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog

from otrw.ot.cost import ChunkedCost
from otrw.ot.semi_relaxed import semi_relaxed
from otrw.ot.sinkhorn import (
    sample_mass,
    sinkhorn,
    sinkhorn_pot,
    transport_cost,
    transport_plan,
    transported_labels,
)
from otrw.ot.weights import envelope_gradient

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True, database=None)
EXACT = {"max_iterations": 100_000, "tolerance": 1e-13}


@st.composite
def problems(draw, max_atoms=5, max_samples=7):
    """Cost in [0, 1], masses a > 0 and b >= 0 that are not uniform, and an epsilon at which Sinkhorn ends soon."""
    num_atoms, num_samples = draw(st.integers(1, max_atoms)), draw(st.integers(1, max_samples))
    cost = draw(arrays(np.float64, (num_atoms, num_samples), elements=st.floats(0, 1)))
    a = draw(arrays(np.int64, num_atoms, elements=st.integers(1, 9)))
    b = draw(arrays(np.int64, num_samples, elements=st.integers(0, 9)).filter(lambda mass: mass.sum() > 0))
    epsilon = draw(st.sampled_from([0.2, 0.5, 2.0]))
    return torch.from_numpy(cost), torch.from_numpy(a / a.sum()), torch.from_numpy(b / b.sum()), epsilon


def random_problem(num_atoms=4, num_samples=7, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(num_atoms, num_samples, generator=generator, dtype=torch.float64).to(dtype)
    a = torch.rand(num_atoms, generator=generator, dtype=torch.float64).add(0.2).to(dtype)
    b = torch.rand(num_samples, generator=generator, dtype=torch.float64).add(0.2).to(dtype)
    return cost, a / a.sum(), b / b.sum()


def entropic_objective(cost, a, b, epsilon):
    """OT_eps(a, b) = min <P, C> + epsilon sum P (log P - 1), from POT's plan alone."""
    plan = pot.sinkhorn(
        a.numpy(),
        b.numpy(),
        cost.numpy(),
        epsilon,
        method="sinkhorn_log",
        numItermax=100_000,
        stopThr=1e-15,
        warn=False,
    )
    return (plan * cost.numpy()).sum() + epsilon * (plan * (np.log(plan) - 1)).sum()


@PROPERTY
@given(problem=problems())
def test_sinkhorn_is_pot_in_plan_and_potentials(problem):
    cost, a, b, epsilon = problem
    result = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, **EXACT)
    expected, log = pot.sinkhorn(
        a, b, cost, epsilon, method="sinkhorn_log", numItermax=100_000, stopThr=1e-14, log=True, warn=False
    )
    assert result.converged
    plan = transport_plan(cost, result, epsilon)
    torch.testing.assert_close(plan, expected, rtol=0, atol=1e-11)
    # potentials are unique up to one constant that moves from f to g
    shift = result.f[0] - epsilon * log["log_u"][0]
    torch.testing.assert_close(result.f - shift, epsilon * log["log_u"], rtol=0, atol=1e-9)
    has_mass = b > 0
    torch.testing.assert_close((result.g + shift)[has_mass], epsilon * log["log_v"][has_mass], rtol=0, atol=1e-9)


@PROPERTY
@given(problem=problems())
def test_the_plan_has_both_marginals_and_moves_nothing_to_samples_without_mass(problem):
    cost, a, b, epsilon = problem
    result = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, **EXACT)
    plan = transport_plan(cost, result, epsilon)
    torch.testing.assert_close(plan.sum(1), a, rtol=0, atol=1e-12)
    torch.testing.assert_close(plan.sum(0), b, rtol=0, atol=1e-12)
    torch.testing.assert_close(sample_mass(cost, result, epsilon), b, rtol=0, atol=1e-12)
    assert plan[:, b == 0].sum() == 0


@PROPERTY
@given(problem=problems(), num_iterations=st.integers(2, 6))
def test_the_reported_error_bounds_the_marginal_error_of_the_plan_at_any_time(problem, num_iterations):
    cost, a, b, epsilon = problem
    result = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, max_iterations=num_iterations, tolerance=1e-300)
    plan = transport_plan(cost, result, epsilon)
    torch.testing.assert_close(plan.sum(0), b, rtol=0, atol=1e-12)
    assert (plan.sum(1) - a).abs().sum() <= result.marginal_error + 1e-12


@PROPERTY
@given(problem=problems())
def test_duality_gap_closes(problem):
    cost, a, b, epsilon = problem
    result = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, **EXACT)
    plan = transport_plan(cost, result, epsilon)
    primal = (plan * cost).sum() + epsilon * (torch.special.xlogy(plan, plan) - plan).sum()
    dual = (a * result.f).sum() + (b * torch.where(b > 0, result.g, 0)).sum() - epsilon * plan.sum()
    torch.testing.assert_close(primal, dual, rtol=0, atol=1e-10)
    torch.testing.assert_close(transport_cost(cost, result, epsilon), (plan * cost).sum())


def test_one_atom_takes_the_samples_as_they_are():
    cost, _, b = random_problem(num_atoms=1)
    result = sinkhorn(cost, torch.zeros(1, dtype=torch.float64), b.log(), epsilon=0.1, **EXACT)
    torch.testing.assert_close(transport_plan(cost, result, 0.1)[0], b)


def test_large_epsilon_gives_the_independent_plan():
    cost, a, b = random_problem()
    result = sinkhorn(cost, a.log(), b.log(), epsilon=1e6, **EXACT)
    torch.testing.assert_close(transport_plan(cost, result, 1e6), a[:, None] * b[None, :], rtol=0, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 0.03, 0.01])
def test_small_epsilon_approaches_the_linear_program(epsilon):
    cost, a, b = random_problem(num_atoms=4, num_samples=6, seed=3)
    rows = np.kron(np.eye(4), np.ones(6))
    columns = np.kron(np.ones(4), np.eye(6))
    program = linprog(cost.numpy().ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]))
    exact = program.fun
    assert exact == pytest.approx(float(pot.emd2(a, b, cost)), abs=1e-9)
    result = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, max_iterations=100_000, tolerance=1e-9)
    assert result.converged
    entropic = float(transport_cost(cost, result, epsilon))
    # The plan's entropy is at most H(a) + H(b), that of any plan with these marginals at least the larger of both.
    smaller_entropy = min(float(torch.special.entr(mass).sum()) for mass in (a, b))
    assert exact - 1e-8 <= entropic <= exact + epsilon * smaller_entropy


def test_envelope_gradient_is_the_derivative_of_the_entropic_objective():
    cost, a, _ = random_problem(num_atoms=3, num_samples=5, seed=1)
    theta = torch.randn(5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    epsilon, step = 0.3, 1e-4
    b = theta.softmax(0)
    result = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, **EXACT)
    gradient = envelope_gradient(b, result.g, (b * result.g).sum())
    expected = [
        (
            entropic_objective(cost, a, (theta + step * direction).softmax(0), epsilon)
            - entropic_objective(cost, a, (theta - step * direction).softmax(0), epsilon)
        )
        / (2 * step)
        for direction in torch.eye(5, dtype=torch.float64)
    ]
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=0, atol=2e-9)
    assert gradient.abs().max() > 1e-3
    assert abs(float(gradient.sum())) < 1e-14  # softmax does not see a constant


def test_autograd_through_converged_iterations_agrees_with_the_envelope_theorem():
    cost, a, _ = random_problem(num_atoms=3, num_samples=5, seed=1)
    theta = torch.randn(5, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    epsilon, log_b = 0.3, theta.log_softmax(0)
    result = sinkhorn(cost, a.log(), log_b, epsilon=epsilon, **EXACT)
    plan = transport_plan(cost, result, epsilon)
    objective = (plan * cost).sum() + epsilon * (plan * (plan.log() - 1)).sum()
    (through_iterations,) = torch.autograd.grad(objective, theta)
    b, g = log_b.exp().detach(), result.g.detach()
    torch.testing.assert_close(through_iterations, envelope_gradient(b, g, (b * g).sum()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("epsilon", [0.005, 0.05])
def test_float32_stays_finite_and_right_at_small_epsilon_and_large_cost(epsilon):
    cost, a, b = random_problem(num_atoms=5, num_samples=12, dtype=torch.float32)
    cost = 2 * cost
    b = torch.where(torch.arange(12) == 3, 0, b)
    b = b / b.sum()
    result = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, max_iterations=20_000, tolerance=1e-3)
    assert result.converged
    assert result.f.isfinite().all()
    assert result.g[b > 0].isfinite().all()
    plan = transport_plan(cost, result, epsilon)
    assert plan.isfinite().all()
    torch.testing.assert_close(plan.sum(1), a, rtol=0, atol=1.1e-3)
    torch.testing.assert_close(plan.sum(0), b, rtol=0, atol=1e-4)


@PROPERTY
@given(problem=problems(), chunk_size=st.integers(1, 8))
def test_a_chunked_cost_gives_what_the_dense_one_gives(problem, chunk_size):
    cost, a, b, epsilon = problem
    chunked = ChunkedCost(lambda part: cost[:, part], cost.shape[1], chunk_size)
    labels = torch.eye(3, dtype=torch.float64)[torch.arange(len(a)) % 3]
    for solve in (
        lambda c: sinkhorn(c, a.log(), b.log(), epsilon=epsilon, max_iterations=500, tolerance=1e-13),
        lambda c: semi_relaxed(c, a.log(), epsilon=epsilon),
    ):
        dense_result, chunked_result = solve(cost), solve(chunked)
        torch.testing.assert_close(chunked_result.f, dense_result.f, rtol=0, atol=1e-10)
        torch.testing.assert_close(chunked_result.g, dense_result.g, rtol=0, atol=1e-10)
        torch.testing.assert_close(
            sample_mass(chunked, chunked_result, epsilon), sample_mass(cost, dense_result, epsilon), rtol=0, atol=1e-10
        )
        torch.testing.assert_close(
            transport_cost(chunked, chunked_result, epsilon),
            transport_cost(cost, dense_result, epsilon),
            rtol=0,
            atol=1e-10,
        )
        torch.testing.assert_close(
            transported_labels(chunked, chunked_result, epsilon, labels),
            transported_labels(cost, dense_result, epsilon, labels),
            rtol=0,
            atol=1e-10,
        )


def test_transported_labels_are_the_barycentric_projection_of_the_plan():
    cost, a, b = random_problem(num_atoms=6, num_samples=9)
    labels = torch.eye(3, dtype=torch.float64)[torch.arange(6) % 3]
    result = sinkhorn(cost, a.log(), b.log(), epsilon=0.1, **EXACT)
    transport = pot.da.SinkhornTransport(reg_e=0.1)
    transport.coupling_ = pot.sinkhorn(a, b, cost, 0.1, method="sinkhorn_log", stopThr=1e-14, numItermax=100_000)
    projected = transported_labels(cost, result, 0.1, labels)
    plan = transport.coupling_
    torch.testing.assert_close(projected, (plan.T @ labels) / plan.sum(0)[:, None], rtol=0, atol=1e-10)
    torch.testing.assert_close(projected.sum(1), torch.ones(9, dtype=torch.float64))


def test_transported_labels_of_a_clear_match_are_the_labels_of_the_match():
    cost = 1 - torch.eye(4, dtype=torch.float64)
    uniform = torch.full((4,), 0.25, dtype=torch.float64).log()
    labels = torch.eye(2, dtype=torch.float64)[torch.tensor([0, 1, 1, 0])]
    result = sinkhorn(cost, uniform, uniform, epsilon=0.02, **EXACT)
    torch.testing.assert_close(transported_labels(cost, result, 0.02, labels), labels)


def test_a_warm_start_reaches_the_same_answer_in_fewer_iterations():
    cost, a, b = random_problem(num_atoms=6, num_samples=20)
    settings_ = {"epsilon": 0.03, "max_iterations": 10_000, "tolerance": 1e-10}
    neighbour = sinkhorn(cost + 1e-3 * random_problem(6, 20, seed=5)[0], a.log(), b.log(), **settings_)
    cold = sinkhorn(cost, a.log(), b.log(), **settings_)
    warm = sinkhorn(cost, a.log(), b.log(), initial_g=neighbour.g, **settings_)
    assert cold.converged
    assert warm.converged
    assert warm.num_iterations < cold.num_iterations
    torch.testing.assert_close(transport_plan(cost, warm, 0.03), transport_plan(cost, cold, 0.03), rtol=0, atol=1e-9)
    again = sinkhorn(cost, a.log(), b.log(), initial_g=cold.g, **settings_)
    assert again.num_iterations <= 2


@pytest.mark.parametrize("stopping", ["marginal", "potential"])
def test_too_few_iterations_are_reported(stopping):
    cost, a, b = random_problem()
    few = sinkhorn(cost, a.log(), b.log(), epsilon=0.01, max_iterations=3, tolerance=1e-9, stopping=stopping)
    assert not few.converged
    assert few.num_iterations == 3
    assert few.marginal_error > 1e-9
    many = sinkhorn(cost, a.log(), b.log(), epsilon=0.01, max_iterations=100_000, tolerance=1e-9, stopping=stopping)
    assert many.converged
    assert 3 < many.num_iterations < 100_000


def test_the_potential_rule_stops_at_the_first_small_change():
    cost, a, b = random_problem()
    tolerance = 1e-3

    def solve(**rule):
        return sinkhorn(cost, a.log(), b.log(), epsilon=0.05, **rule)

    def potential_after(num_iterations):
        return solve(max_iterations=num_iterations, tolerance=1e-300).f

    result = solve(max_iterations=1000, tolerance=tolerance, stopping="potential")
    last = result.num_iterations
    assert last > 3
    assert torch.equal(result.f, potential_after(last))
    assert (potential_after(last) - potential_after(last - 1)).abs().sum() < tolerance
    assert (potential_after(last - 1) - potential_after(last - 2)).abs().sum() >= tolerance


@pytest.mark.parametrize("stopping", ["marginal", "potential"])
def test_an_atom_without_mass_changes_nothing(stopping):
    cost, a, b = random_problem()
    more_cost = torch.cat([cost, random_problem(1, 7, seed=8)[0]])
    more_a = torch.cat([a, a.new_zeros(1)])
    plain = sinkhorn(cost, a.log(), b.log(), epsilon=0.1, stopping=stopping, **EXACT)
    more = sinkhorn(more_cost, more_a.log(), b.log(), epsilon=0.1, stopping=stopping, **EXACT)
    assert more.converged
    assert more.num_iterations == plain.num_iterations
    expected = torch.cat([transport_plan(cost, plain, 0.1), torch.zeros(1, 7, dtype=torch.float64)])
    torch.testing.assert_close(transport_plan(more_cost, more, 0.1), expected)


def test_a_start_that_meets_the_reference_marginal_alone_is_not_taken_for_the_solution():
    _, a, b = random_problem()
    plan_with_marginal_a = a[:, None] * (4 * random_problem(seed=6)[0]).softmax(1)
    epsilon = 0.1
    cost = -epsilon * plan_with_marginal_a.log()  # potentials of zero meet a at once, and not b
    result = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, max_iterations=10_000, tolerance=1e-9)
    assert result.converged
    torch.testing.assert_close(transport_plan(cost, result, epsilon).sum(1), a, rtol=0, atol=1e-8)
    assert not sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, max_iterations=1, tolerance=1e-9).converged


def test_pot_wrapper_solves_the_same_problem_and_reports_when_it_does_not():
    cost, a, b = random_problem()
    ours = sinkhorn(cost, a.log(), b.log(), epsilon=0.05, **EXACT)
    theirs = sinkhorn_pot(cost, a.log(), b.log(), epsilon=0.05, max_iterations=100_000, tolerance=1e-13)
    assert theirs.converged
    torch.testing.assert_close(transport_plan(cost, theirs, 0.05), transport_plan(cost, ours, 0.05))
    few = sinkhorn_pot(cost, a.log(), b.log(), epsilon=0.01, max_iterations=3, tolerance=1e-9)
    assert not few.converged
    plan = transport_plan(cost, few, 0.01)
    true_error = (plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum()
    torch.testing.assert_close(few.marginal_error, true_error)


@pytest.mark.parametrize("epsilon", [0.0, -0.1])
def test_epsilon_must_be_positive(epsilon):
    cost, a, b = random_problem()
    with pytest.raises(ValueError, match=r"epsilon must be > 0"):
        sinkhorn(cost, a.log(), b.log(), epsilon=epsilon)


def test_an_injected_reduction_over_samples_is_the_only_one_used():
    cost, a, b = random_problem(num_samples=6)
    doubled = torch.cat([cost, cost], dim=1)
    half = torch.cat([b, b]) / 2

    def twice(x):  # this process holds one of two equal halves of the samples
        return torch.logsumexp(x, dim=1) + np.log(2)

    whole = sinkhorn(doubled, a.log(), half.log(), epsilon=0.1, **EXACT)
    local = sinkhorn(cost, a.log(), half[:6].log(), epsilon=0.1, logsumexp_samples=twice, **EXACT)
    torch.testing.assert_close(local.f, whole.f)
    torch.testing.assert_close(local.g, whole.g[:6])
