"""What is no transport problem is refused in a sentence, before it becomes a plan that is wrong."""

import math

import pytest
import torch

from otrw import semi_relaxed_weights, sinkhorn
from otrw.ot.cost import ChunkedCost
from otrw.ot.solve import solve

COST = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
A, B = torch.full((3,), 1 / 3), torch.full((5,), 1 / 5)


@pytest.mark.parametrize("solver", [sinkhorn, solve])
@pytest.mark.parametrize(
    ("cost", "log_a", "log_b", "message"),
    [
        (COST, A, B, r"log_a must be logarithms of masses that sum to 1, got a sum of 4\.187; .*\.log"),
        (COST, A.log(), B, "log_b must be logarithms"),
        (COST, (2 * A).log(), B.log(), "log_a must be logarithms of masses that sum to 1, got a sum of 2"),
        (COST.T, A.log(), B.log(), r"log_a must have 5 entries for a cost of \(5, 3\), got \(3,\)"),
        (COST, A.log(), B[1:].log(), r"log_b must have 5 entries for a cost of \(3, 5\), got \(4,\)"),
        (COST.numpy(), A.log(), B.log(), "cost must be a torch tensor, got ndarray"),
        (COST, A.log().numpy(), B.log(), "log_a must be a torch tensor, got ndarray"),
    ],
)
def test_a_call_with_something_else_says_what_belongs_there(solver, cost, log_a, log_b, message):
    with pytest.raises(ValueError, match=message):
        solver(cost, log_a, log_b, epsilon=0.1)


def test_weights_of_masses_instead_of_logarithms_are_refused():
    with pytest.raises(ValueError, match="log_a must be logarithms"):
        semi_relaxed_weights(COST, A, epsilon=0.1)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan])
@pytest.mark.parametrize("call", [sinkhorn, solve])
def test_epsilon_must_be_positive(call, epsilon):
    with pytest.raises(ValueError, match="epsilon must be > 0"):
        call(COST, A.log(), B.log(), epsilon=epsilon)


def test_a_cost_that_holds_nan_has_no_plan():
    cost = COST.clone()
    cost[1, 2] = math.nan
    with pytest.raises(ValueError, match="nan"):
        solve(cost, A.log(), B.log(), epsilon=0.1)
    with pytest.raises(ValueError, match="nan"):
        semi_relaxed_weights(cost, A.log(), epsilon=0.1)


def test_what_rounding_or_sharding_leaves_of_a_sum_of_one_is_taken():
    log_a = (A * 1.0001).log()
    assert solve(COST, log_a, B.log(), epsilon=0.1, tolerance=1e-3).converged
    chunked = ChunkedCost(lambda part: COST[:, part], 5, chunk_size=2)
    half = solve(chunked, A.log(), (B / 2).log(), epsilon=0.1, sum_samples=lambda x: 2 * x)  # as if another had the same rows
    assert half.converged


def test_weights_are_in_the_precision_of_the_cost():
    weights = semi_relaxed_weights(COST, A.double().log(), epsilon=0.1)
    assert weights.dtype == torch.float32
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
