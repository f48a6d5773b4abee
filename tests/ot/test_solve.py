"""One call for every kind of problem: batches equal their problems one by one, methods agree."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_newton import MANY, SOME, classes, problems

from otrw.ot.batched import newton_batched
from otrw.ot.newton import newton
from otrw.ot.sinkhorn import sinkhorn, transport_plan
from otrw.ot.solve import choose, solve

EXACT = {"tolerance": 1e-10, "max_iterations": 2000}


@MANY
@given(problem=problems())
def test_a_batch_of_one_is_plain_sinkhorn(problem):
    cost, a, b, epsilon = problem
    result = newton_batched(cost[None], a.log(), b.log()[None], epsilon=epsilon, **EXACT)
    assert result.converged
    plan = transport_plan(cost, result._replace(f=result.f[0], g=result.g[0]), epsilon)
    torch.testing.assert_close(plan.sum(0), b, rtol=0, atol=1e-12)
    assert (plan.sum(1) - a).abs().sum() <= 1.1e-10
    expected = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, max_iterations=20_000, tolerance=1e-12)
    if expected.converged:
        torch.testing.assert_close(plan, transport_plan(cost, expected, epsilon), rtol=0, atol=1e-6)


@SOME
@given(problem=problems(epsilons=(1e-3, 1e-2, 0.05)), max_iterations=st.integers(1, 200))
def test_a_batch_ends_no_worse_than_plain_sinkhorn(problem, max_iterations):
    cost, a, b, epsilon = problem
    limits = {"epsilon": epsilon, "tolerance": 1e-8}
    ours = newton_batched(cost[None], a.log(), b.log()[None], max_iterations=max_iterations + 60, **limits)
    plain = sinkhorn(cost, a.log(), b.log(), max_iterations=max_iterations, **limits)
    error = (transport_plan(cost, plain, epsilon).sum(1) - a).abs().sum()
    assert ours.marginal_error[0] <= max(error, 1e-8) + 1e-12


@pytest.mark.parametrize("epsilon", [0.1, 0.01])
@pytest.mark.parametrize(("num_atoms", "num_samples"), [(5, 16), (30, 16), (12, 12)])
def test_batched_is_one_by_one(num_atoms, num_samples, epsilon):
    costs, log_as, log_bs = zip(*(classes(num_atoms, num_samples, torch.float64, seed) for seed in range(12)), strict=True)
    log_b = torch.stack(log_bs)
    log_b[3, 9:] = -torch.inf  # padding
    log_b[3] = log_b[3].log_softmax(0)
    result = newton_batched(torch.stack(costs), log_as[0], log_b, epsilon=epsilon, **EXACT)
    assert result.converged
    assert result.marginal_error.shape == (12,)
    for i in range(12):
        alone = newton(costs[i], log_as[i], log_b[i], epsilon=epsilon, **EXACT)
        expected = transport_plan(costs[i], alone, epsilon)
        plan = transport_plan(costs[i], result._replace(f=result.f[i], g=result.g[i]), epsilon)
        torch.testing.assert_close(plan, expected, rtol=0, atol=1e-8)
    assert (result.g[3, 9:] == -torch.inf).all()


def test_a_batch_in_float32_reaches_the_tolerance_and_starts_warm():
    costs, log_as, log_bs = zip(*(classes(20, 64, seed=seed) for seed in range(10)), strict=True)
    cost, log_b = torch.stack(costs), torch.stack(log_bs)
    cold = newton_batched(cost, log_as[0], log_b, epsilon=0.02)
    assert cold.converged
    plan = transport_plan(cost.double(), cold._replace(f=cold.f.double(), g=cold.g.double()), 0.02)
    assert ((plan.sum(2) - log_as[0].double().exp()).abs().sum(1) < 1.1e-4).all()
    warm = newton_batched(cost, log_as[0], log_b, epsilon=0.02, initial_f=cold.f)
    assert warm.num_iterations == 1


@SOME
@given(problem=problems(epsilons=(0.1, 1.0)))
def test_every_method_finds_the_same_plan(problem):
    cost, a, b, epsilon = problem
    plans = []
    for method in ("auto", "newton", "newton_cg", "sinkhorn"):
        result = solve(cost, a.log(), b.log(), epsilon=epsilon, method=method, tolerance=1e-9, max_iterations=20_000)
        if method != "sinkhorn" or result.converged:
            plans.append(transport_plan(cost, result, epsilon))
    for plan in plans[1:]:
        torch.testing.assert_close(plan, plans[0], rtol=0, atol=1e-6)


def test_every_method_starts_warm():
    cost, log_a, log_b = classes(10, 50, torch.float64)
    cold = solve(cost, log_a, log_b, epsilon=0.1, tolerance=1e-9)
    for method in ("auto", "newton", "newton_cg", "sinkhorn"):
        warm = solve(cost, log_a, log_b, epsilon=0.1, tolerance=1e-8, method=method, initial_f=cold.f)
        assert warm.num_iterations <= 2


def test_many_atoms_are_solved_without_a_matrix_of_their_size(monkeypatch):
    monkeypatch.setattr("otrw.ot.newton.DirectCurvature", None)
    monkeypatch.setattr("otrw.ot.sweep_cost.SECONDS_PER_MULTIPLICATION", 1e-8)  # a K x K matrix would not pay
    cost, log_a, log_b = classes(50, 400, torch.float64)
    result = solve(cost, log_a, log_b, epsilon=0.05, tolerance=1e-8)
    assert result.converged
    assert result.solver == "newton_cg"
    monkeypatch.undo()
    expected = solve(cost, log_a, log_b, epsilon=0.05, tolerance=1e-10)
    torch.testing.assert_close(transport_plan(cost, result, 0.05), transport_plan(cost, expected, 0.05), rtol=0, atol=1e-7)


def test_the_choice_follows_the_prices_and_is_named():
    assert [choose(k) for k in (1, 10, 100, 1000, 8142)] == ["newton", "newton", "newton", "newton_cg", "newton_cg"]
    most = max(k for k in range(1, 1000) if choose(k) == "newton")
    assert [choose(k) for k in range(1, most + 1)] == ["newton"] * most  # one crossing
    for num_atoms, num_samples, name in ((5, 8, "newton"), (8, 5, "newton_batched")):
        cost, log_a, log_b = classes(num_atoms, num_samples, torch.float64)
        assert solve(cost, log_a, log_b, epsilon=0.1).solver == name
        assert solve(cost, log_a, log_b, epsilon=0.1, sum_samples=lambda x: x).solver == "newton"  # shared by processes
        assert solve(cost, log_a, log_b, epsilon=0.1, method="sinkhorn").solver == "sinkhorn"


@pytest.mark.parametrize(("cost", "method"), [(torch.zeros(2, 3), "fast"), (torch.zeros(1, 2, 3), "newton_cg")])
def test_a_method_that_is_not_there_is_named(cost, method):
    log_b = torch.zeros(cost.shape[:-2] + cost.shape[-1:]).log_softmax(-1)
    with pytest.raises(ValueError, match=f"method must be .*got '{method}'"):
        solve(cost, torch.zeros(2).log_softmax(0), log_b, epsilon=0.1, method=method)
