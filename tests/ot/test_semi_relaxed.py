"""The closed form against its formula, POT's unbalanced solver, and the end of gradient descent."""

import numpy as np
import ot as pot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from otrw.ot.cost import ChunkedCost
from otrw.ot.semi_relaxed import semi_relaxed, semi_relaxed_weights
from otrw.ot.sinkhorn import (
    sample_mass,
    semi_relaxed_pot,
    sinkhorn,
    transport_cost,
    transport_plan,
    transported_labels,
)
from otrw.ot.weights import envelope_gradient

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@st.composite
def problems(draw):
    """Cost in [0, 2], a mass a > 0 that is not uniform, and epsilon."""
    num_atoms, num_samples = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    cost = draw(arrays(np.float64, (num_atoms, num_samples), elements=st.floats(0, 2)))
    a = draw(arrays(np.int64, num_atoms, elements=st.integers(1, 9)))
    epsilon = draw(st.sampled_from([0.05, 0.2, 1.0]))
    return torch.from_numpy(cost), torch.from_numpy(a / a.sum()), epsilon


def random_problem(num_atoms=4, num_samples=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(num_atoms, num_samples, generator=generator, dtype=torch.float64)
    a = torch.rand(num_atoms, generator=generator, dtype=torch.float64).add(0.2)
    return cost.to(dtype), (a / a.sum()).to(dtype)


@PROPERTY
@given(problem=problems())
def test_weights_are_the_formula_and_sum_to_one(problem):
    cost, a, epsilon = problem
    kernel = np.exp(-cost.numpy() / epsilon)
    expected = (a.numpy()[:, None] * kernel / kernel.sum(1, keepdims=True)).sum(0)
    weights = semi_relaxed_weights(cost, a.log(), epsilon=epsilon)
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-13)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)


@PROPERTY
@given(problem=problems())
def test_weights_are_those_of_pot_with_a_free_sample_marginal(problem):
    cost, a, epsilon = problem
    uniform = torch.full((cost.shape[1],), 1 / cost.shape[1], dtype=torch.float64)
    fixed_and_free = (float("inf"), 0.0)
    plan = pot.unbalanced.sinkhorn_unbalanced(a, uniform, cost, epsilon, fixed_and_free, reg_type="kl")
    result = semi_relaxed(cost, a.log(), epsilon=epsilon)
    torch.testing.assert_close(transport_plan(cost, result, epsilon), plan, rtol=0, atol=1e-12)
    torch.testing.assert_close(sample_mass(cost, result, epsilon), plan.sum(0), rtol=0, atol=1e-12)
    wrapped = semi_relaxed_pot(cost, a.log(), epsilon=epsilon)
    torch.testing.assert_close(wrapped.f, result.f, rtol=0, atol=1e-10)
    torch.testing.assert_close(wrapped.g, result.g)


@PROPERTY
@given(problem=problems())
def test_the_closed_form_is_a_fixed_point_of_sinkhorn_with_its_own_weights(problem):
    cost, a, epsilon = problem
    closed = semi_relaxed(cost, a.log(), epsilon=epsilon)
    b = sample_mass(cost, closed, epsilon)
    result = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, max_iterations=10, tolerance=1e-10)
    assert result.num_iterations <= 2
    expected = transport_plan(cost, closed, epsilon)
    torch.testing.assert_close(transport_plan(cost, result, epsilon), expected, rtol=0, atol=1e-10)
    # OT_eps is stationary there: the potential of the samples is constant
    torch.testing.assert_close(result.g, result.g.mean().expand_as(result.g), rtol=0, atol=1e-9)


def test_no_other_weights_have_a_smaller_entropic_cost():
    cost, a = random_problem()
    epsilon = 0.2

    def objective(b):
        result = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, max_iterations=20_000, tolerance=1e-13)
        plan = transport_plan(cost, result, epsilon)
        return float((plan * cost).sum() + epsilon * (plan * (plan.log() - 1)).sum())

    best = semi_relaxed_weights(cost, a.log(), epsilon=epsilon)
    least = objective(best)
    generator = torch.Generator().manual_seed(1)
    for scale in (0.01, 0.1, 1.0):
        noise = scale * torch.randn(6, generator=generator, dtype=torch.float64)
        assert objective((best.log() + noise).softmax(0)) > least


def test_descending_the_envelope_gradient_to_the_end_reaches_the_closed_form():
    cost, a = random_problem()
    epsilon, learning_rate = 0.2, 20.0
    theta, g = torch.zeros(6, dtype=torch.float64), None
    for _ in range(400):
        b = theta.softmax(0)
        result = sinkhorn(cost, a.log(), b.log(), epsilon=epsilon, max_iterations=10_000, tolerance=1e-10, initial_g=g)
        g = result.g
        theta = theta - learning_rate * envelope_gradient(b, g, (b * g).sum())
    expected = semi_relaxed_weights(cost, a.log(), epsilon=epsilon)
    assert (expected - 1 / 6).abs().max() > 0.05
    torch.testing.assert_close(theta.softmax(0), expected, rtol=0, atol=1e-8)


@PROPERTY
@given(problem=problems(), chunk_size=st.integers(1, 9))
def test_a_chunked_cost_gives_what_the_dense_one_gives(problem, chunk_size):
    cost, a, epsilon = problem
    chunked = ChunkedCost(lambda part: cost[:, part], cost.shape[1], chunk_size)
    torch.testing.assert_close(
        semi_relaxed_weights(chunked, a.log(), epsilon=epsilon), semi_relaxed_weights(cost, a.log(), epsilon=epsilon)
    )


def test_transported_labels_and_cost_are_those_of_the_plan():
    cost, a = random_problem(num_atoms=6, num_samples=9)
    labels = torch.eye(3, dtype=torch.float64)[torch.arange(6) % 3]
    result = semi_relaxed(cost, a.log(), epsilon=0.1)
    rows = (-cost / 0.1).softmax(1) * a[:, None]
    torch.testing.assert_close(transported_labels(cost, result, 0.1, labels), (rows.T @ labels) / rows.sum(0)[:, None])
    torch.testing.assert_close(transport_cost(cost, result, 0.1), (rows * cost).sum())


def test_small_epsilon_puts_each_atom_on_its_nearest_sample():
    cost, a = random_problem(num_atoms=5, num_samples=40)
    expected = torch.zeros(40, dtype=torch.float64).index_add(0, cost.argmin(1), a)
    torch.testing.assert_close(semi_relaxed_weights(cost, a.log(), epsilon=1e-5), expected, rtol=0, atol=1e-12)


def test_large_epsilon_gives_uniform_weights():
    cost, a = random_problem()
    weights = semi_relaxed_weights(cost, a.log(), epsilon=1e7)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 6), rtol=0, atol=1e-7)


def test_float32_stays_finite_at_small_epsilon_and_large_cost():
    cost, a = random_problem(num_atoms=5, num_samples=50, dtype=torch.float32)
    weights = semi_relaxed_weights(2 * cost, a.log(), epsilon=0.005)
    assert weights.isfinite().all()
    expected = semi_relaxed_weights(2 * cost.double(), a.double().log(), epsilon=0.005)
    torch.testing.assert_close(weights.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("epsilon", [0.0, -1.0])
def test_epsilon_must_be_positive(epsilon):
    cost, a = random_problem()
    with pytest.raises(ValueError, match=r"epsilon must be > 0"):
        semi_relaxed_weights(cost, a.log(), epsilon=epsilon)
