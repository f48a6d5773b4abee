"""Semi-dual Newton against POT, plain Sinkhorn and closed forms; degenerate problems, warm starts, precision, chunks."""

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from otrw.ot import newton as newton_module
from otrw.ot.cost import ChunkedCost
from otrw.ot.newton import NewtonSolver, newton
from otrw.ot.semi_dual import SemiDual, uniform_hash
from otrw.ot.sinkhorn import sample_mass, sinkhorn, transport_plan
from otrw.ot.weights import envelope_gradient

MANY = settings(max_examples=150, deadline=None, derandomize=True, database=None)
SOME = settings(max_examples=40, deadline=None, derandomize=True, database=None)
EXACT = {"tolerance": 1e-10, "max_iterations": 3000}


@st.composite
def problems(draw, epsilons=(0.05, 0.2, 1.0, 100.0)):
    """Costs in [0, 1], many of them equal; masses that may be 0 or very unequal, one atom and one sample among the sizes."""
    num_atoms, num_samples = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    costs = draw(st.sampled_from([st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0])]))
    cost = draw(arrays(np.float64, (num_atoms, num_samples), elements=costs))
    masses = st.sampled_from([0.0, 1e-9, 1e-3, 1.0, 2.0, 7.0])
    a, b = (draw(arrays(np.float64, n, elements=masses).filter(lambda m: m.max() >= 1)) for n in (num_atoms, num_samples))
    return torch.from_numpy(cost), torch.from_numpy(a / a.sum()), torch.from_numpy(b / b.sum()), draw(st.sampled_from(epsilons))


def classes(num_atoms, num_samples, dtype=torch.float32, seed=0):
    """Unit embeddings at random, cost half cosine and half label: between the classes mass moves at a high price."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(num_atoms, 16, generator=generator), dim=1)
    samples = torch.nn.functional.normalize(torch.randn(num_samples, 16, generator=generator), dim=1)
    labels = torch.randint(5, (num_samples,), generator=generator)
    different = (torch.arange(num_atoms) % 5)[:, None] != labels
    cost = 0.5 * (1 - atoms @ samples.T) + 0.5 * 2**0.5 * different
    b = torch.rand(num_samples, generator=generator, dtype=torch.float64) + 0.1
    log_a = torch.full((num_atoms,), 1 / num_atoms, dtype=dtype).log()
    return cost.to(dtype), log_a, (b / b.sum()).log().to(dtype)


def true_error(cost, log_a, log_b, result, epsilon):
    """L1 distances of the plan's marginals from a and b, in float64."""
    plan = transport_plan(cost.double(), result._replace(f=result.f.double(), g=result.g.double()), epsilon)
    return float((plan.sum(1) - log_a.double().exp()).abs().sum()), float((plan.sum(0) - log_b.double().exp()).abs().sum())


@MANY
@given(problem=problems(), matrix_free=st.booleans())
def test_the_plan_is_that_of_plain_sinkhorn(problem, matrix_free):
    cost, a, b, epsilon = problem
    result = newton(cost, a.log(), b.log(), epsilon=epsilon, matrix_free=matrix_free, **EXACT)
    assert result.converged
    plan = transport_plan(cost, result, epsilon)
    torch.testing.assert_close(plan.sum(0), b, rtol=0, atol=1e-12)
    torch.testing.assert_close((plan.sum(1) - a).abs().sum(), result.marginal_error, rtol=1e-3, atol=1e-13)
    expected = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, max_iterations=20_000, tolerance=1e-12)
    if expected.converged:
        torch.testing.assert_close(plan, transport_plan(cost, expected, epsilon), rtol=0, atol=1e-6)


@MANY
@given(problem=problems(epsilons=(0.1, 0.5, 2.0)))
def test_the_plan_is_that_of_pot(problem):
    cost, a, b, epsilon = problem
    result = newton(cost, a.log(), b.log(), epsilon=epsilon, **EXACT)
    has_mass = a > 0
    expected = pot.sinkhorn(
        a[has_mass], b, cost[has_mass], epsilon, method="sinkhorn_log", numItermax=20_000, stopThr=1e-12, warn=False
    )
    error = (expected.sum(1) - a[has_mass]).abs().sum() + (expected.sum(0) - b).abs().sum()
    plan = transport_plan(cost, result, epsilon)
    assert plan[~has_mass].sum() == 0
    if error < 1e-8:
        torch.testing.assert_close(plan[has_mass], expected, rtol=0, atol=1e-6)


@SOME
@given(problem=problems(epsilons=(1e-3, 1e-2, 0.05)), max_iterations=st.integers(1, 200))
def test_small_epsilon_ends_no_worse_than_plain_sinkhorn_with_as_many_sweeps(problem, max_iterations):
    cost, a, b, epsilon = problem
    settings_ = {"epsilon": epsilon, "tolerance": 1e-8}
    ours = newton(cost, a.log(), b.log(), max_iterations=max_iterations + 60, **settings_)
    plain = sinkhorn(cost, a.log(), b.log(), max_iterations=max_iterations, **settings_)
    assert ours.f[a > 0].isfinite().all()
    assert ours.g[b > 0].isfinite().all()
    error = (transport_plan(cost, plain, epsilon).sum(1) - a).abs().sum()
    assert ours.marginal_error <= max(error, 1e-8) + 1e-12


@SOME
@given(problem=problems(), shift=st.floats(-3, 3))
def test_a_constant_in_the_cost_moves_to_g_and_leaves_the_plan(problem, shift):
    cost, a, b, epsilon = problem
    plain = newton(cost, a.log(), b.log(), epsilon=epsilon, **EXACT)
    shifted = newton(cost + shift, a.log(), b.log(), epsilon=epsilon, **EXACT)
    torch.testing.assert_close(
        transport_plan(cost + shift, shifted, epsilon), transport_plan(cost, plain, epsilon), rtol=0, atol=1e-8
    )
    assert abs(float((a * torch.where(a > 0, plain.f, 0)).sum())) < 1e-9


def test_duplicated_atoms_share_the_mass_of_one():
    cost, log_a, log_b = classes(10, 60, torch.float64)
    one = newton(cost, log_a, log_b, epsilon=0.05, **EXACT)
    twice = newton(cost.repeat(2, 1), (log_a - np.log(2)).repeat(2), log_b, epsilon=0.05, **EXACT)
    assert twice.converged
    plan = transport_plan(cost.repeat(2, 1), twice, 0.05)
    torch.testing.assert_close(plan[:10], plan[10:], rtol=0, atol=1e-9)
    torch.testing.assert_close(plan[:10] + plan[10:], transport_plan(cost, one, 0.05), rtol=0, atol=1e-9)


def test_a_pair_that_is_forbidden_gets_nothing_and_a_problem_without_a_plan_says_so():
    cost, log_a, log_b = classes(4, 30, torch.float64)
    cost[0, :10] = torch.inf
    result = newton(cost, log_a, log_b, epsilon=0.1, **EXACT)
    assert result.converged
    assert transport_plan(cost, result, 0.1)[0, :10].sum() == 0
    cost[0] = torch.inf
    result = newton(cost, log_a, log_b, epsilon=0.1, max_iterations=100)
    assert not result.converged
    assert result.marginal_error > 0.1


@pytest.mark.parametrize("epsilon", [0.1, 0.02, 0.005])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_float32_reaches_the_tolerance_in_the_potentials_that_it_returns(epsilon, tolerance):
    cost, log_a, log_b = classes(50, 2000)
    result = newton(cost, log_a, log_b, epsilon=epsilon, tolerance=tolerance)
    assert result.converged
    atoms, samples = true_error(cost, log_a, log_b, result, epsilon)
    assert atoms < tolerance + 5e-6
    assert samples < 1e-5
    assert result.f.dtype == result.g.dtype == torch.float32
    exact = newton(cost.double(), log_a.double(), log_b.double(), epsilon=epsilon, tolerance=1e-12)
    distance = (transport_plan(cost, result, epsilon) - transport_plan(cost.double(), exact, epsilon)).abs().sum()
    assert distance < 30 * tolerance


def test_sweeps_do_not_grow_as_epsilon_falls():
    cost, log_a, log_b = classes(50, 1000, torch.float64)
    plain = sinkhorn(cost, log_a, log_b, epsilon=0.005, tolerance=1e-4, max_iterations=2000)
    assert not plain.converged
    for epsilon in (0.1, 0.02, 0.005, 0.001):
        result = newton(cost, log_a, log_b, epsilon=epsilon, tolerance=1e-6)
        assert result.converged
        assert result.num_iterations < 100


def test_a_warm_start_takes_few_sweeps_and_no_scaling():
    cost, log_a, log_b = classes(50, 2000)
    cold = newton(cost, log_a, log_b, epsilon=0.02)
    again = newton(cost, log_a, log_b, epsilon=0.02, initial_f=cold.f)
    assert again.num_iterations == 1
    generator = torch.Generator().manual_seed(1)
    near = (log_b + 1e-3 * torch.randn(2000, generator=generator)).log_softmax(0)
    warm = newton(cost, log_a, near, epsilon=0.02, initial_f=cold.f)
    assert warm.converged
    assert warm.num_iterations <= 3
    atoms, _ = true_error(cost, log_a, near, warm, 0.02)
    assert atoms < 1e-4 + 5e-6


@pytest.mark.parametrize("start", [torch.full((50,), torch.nan), 1e3 * torch.arange(50.0), torch.full((50,), -torch.inf)])
def test_a_bad_warm_start_is_dropped(start):
    cost, log_a, log_b = classes(50, 500)
    result = newton(cost, log_a, log_b, epsilon=0.05, initial_f=start)
    assert result.converged
    assert true_error(cost, log_a, log_b, result, 0.05)[0] < 1e-4 + 5e-6


@pytest.mark.parametrize("settings", [{}, {"matrix_free": True}, {"max_stored_entries": 10}])
def test_a_solver_that_goes_from_b_to_b_finds_the_plan_of_each_in_few_sweeps(settings):
    cost, log_a, log_b = classes(20, 600, torch.float64)
    generator = torch.Generator().manual_seed(1)
    towards = torch.randn(600, generator=generator, dtype=torch.float64)
    if "max_stored_entries" in settings:
        dense = cost
        cost = ChunkedCost(lambda part: dense[:, part], 600, 64)
    solver = NewtonSolver(cost, log_a, epsilon=0.05, **settings)
    for step in [0, 1, 2, 3, 4, 4, 300]:  # the last one is nowhere near
        b = (log_b + 0.02 * step * towards).log_softmax(0)
        result = solver.solve(b, tolerance=1e-9)
        alone = newton(cost, log_a, b, epsilon=0.05, tolerance=1e-10)
        assert result.converged
        assert step in (0, 300) or result.num_iterations <= 8
        torch.testing.assert_close(result.f - result.f[0], alone.f - alone.f[0], rtol=0, atol=1e-7)
        torch.testing.assert_close(sample_mass(cost, result, 0.05), b.exp(), rtol=1e-9, atol=0)


def test_sinkhorn_takes_over_where_newton_fails(monkeypatch):
    cost, log_a, log_b = classes(20, 300, torch.float64)
    monkeypatch.setattr(newton_module.DirectCurvature, "step", lambda self, now: now.mass - self.a)  # downhill
    result = newton(cost, log_a, log_b, epsilon=0.2, tolerance=1e-8)
    assert result.converged
    assert result.solver == "newton > sinkhorn"
    expected = sinkhorn(cost, log_a, log_b, epsilon=0.2, tolerance=1e-9)
    torch.testing.assert_close(transport_plan(cost, result, 0.2), transport_plan(cost, expected, 0.2), rtol=0, atol=1e-8)


@pytest.mark.parametrize("max_stored_entries", [None, 10])
@pytest.mark.parametrize("chunk_size", [7, 64, 5000])
def test_a_chunked_cost_gives_what_the_dense_one_gives(chunk_size, max_stored_entries):
    cost, log_a, log_b = classes(20, 1000, torch.float64)
    chunked = ChunkedCost(lambda part: cost[:, part], 1000, chunk_size)
    settings_ = {"epsilon": 0.05, "tolerance": 1e-11}
    dense = newton(cost, log_a, log_b, **settings_)
    result = newton(chunked, log_a, log_b, max_stored_entries=max_stored_entries, **settings_)
    assert result.converged
    torch.testing.assert_close(result.f, dense.f, rtol=0, atol=1e-8)
    torch.testing.assert_close(result.g, dense.g, rtol=0, atol=1e-8)
    torch.testing.assert_close(sample_mass(chunked, result, 0.05), log_b.exp(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("matrix_free", [False, True])
def test_hessians_from_a_share_of_the_columns_give_the_same_solution(monkeypatch, matrix_free):
    cost, log_a, log_b = classes(20, 4000, torch.float64)
    settings_ = {"epsilon": 0.02, "tolerance": 1e-9, "matrix_free": matrix_free}
    taken = []
    original = SemiDual.soft_columns

    def soft_columns(self, *args):
        columns = original(self, *args)
        taken.append(columns.shape[1])
        return columns

    monkeypatch.setattr(SemiDual, "soft_columns", soft_columns)
    monkeypatch.setattr("otrw.ot.sweep_cost.columns_of_a_call", lambda num_atoms: 0)
    sampled = newton(cost, log_a, log_b, **settings_)
    assert taken
    assert max(taken) < 4000
    monkeypatch.setattr(newton_module, "COLUMNS_PER_ATOM", 4000)
    num_taken = len(taken)
    whole = newton(cost, log_a, log_b, **settings_)
    assert len(taken) == num_taken
    assert sampled.converged
    assert whole.converged
    torch.testing.assert_close(transport_plan(cost, sampled, 0.02), transport_plan(cost, whole, 0.02), rtol=0, atol=1e-8)


def test_sampled_columns_have_the_whole_overlap_as_their_mean():
    cost, log_a, log_b = classes(6, 3000, torch.float64)
    problem = SemiDual(cost, log_a.exp(), log_b.exp(), 0.1)
    problem.marginal(torch.zeros(6, dtype=torch.float64))
    exact = problem.all_columns() @ problem.all_columns().T
    plan = transport_plan(cost, newton(cost, log_a, log_b, epsilon=0.1, initial_f=torch.zeros(6), max_iterations=1), 0.1)
    torch.testing.assert_close(exact, (plan / plan.sum(0)) @ plan.T)
    samples = [problem.soft_columns(300, uniform_hash(torch.arange(3000) + 3000 * draw)) for draw in range(300)]
    mean = torch.stack([s @ s.T for s in samples]).mean(0)
    off_diagonal = ~torch.eye(6, dtype=torch.bool)  # what an atom has alone is left out, and counts on the diagonal only
    torch.testing.assert_close(mean[off_diagonal], exact[off_diagonal], rtol=0.05, atol=1e-4)
    assert all(200 < s.shape[1] < 400 for s in samples)


def test_the_envelope_gradient_is_the_derivative_of_the_objective():
    cost, log_a, _ = classes(6, 9, torch.float64)
    theta = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    epsilon, width = 0.1, 1e-4

    def solve(theta):
        return newton(cost, log_a, theta.log_softmax(0), epsilon=epsilon, tolerance=1e-12)

    def objective(theta):
        plan = transport_plan(cost, solve(theta), epsilon)
        return float((plan * cost).sum() + epsilon * (torch.special.xlogy(plan, plan) - plan).sum())

    b, g = theta.softmax(0), solve(theta).g
    directions = width * torch.eye(9, dtype=torch.float64)
    differences = [(objective(theta + d) - objective(theta - d)) / (2 * width) for d in directions]
    gradient = envelope_gradient(b, g, (b * g).sum())
    np.testing.assert_allclose(gradient.numpy(), differences, rtol=0, atol=1e-7)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("epsilon", [0.0, -0.1])
def test_epsilon_must_be_positive(epsilon):
    cost, log_a, log_b = classes(3, 5)
    with pytest.raises(ValueError, match=r"epsilon must be > 0"):
        newton(cost, log_a, log_b, epsilon=epsilon)
