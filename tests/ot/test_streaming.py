"""The streamed closed form is the closed form: dense, in chunks, kept or computed again, and over shares of the samples."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_newton import MANY, problems

from otrw.ot.cost import ChunkedCost
from otrw.ot.semi_relaxed import semi_relaxed, semi_relaxed_weights
from otrw.ot.streaming import semi_relaxed_mass


@MANY
@given(problem=problems(), chunk_size=st.integers(1, 9), limit=st.sampled_from([0, 1000]))
def test_chunks_kept_or_not_give_the_closed_form(problem, chunk_size, limit):
    cost, a, _, epsilon = problem
    chunked = ChunkedCost(lambda part: cost[:, part], cost.shape[1], chunk_size)
    result, mass = semi_relaxed_mass(chunked, a.log(), epsilon=epsilon, max_stored_entries=limit)
    torch.testing.assert_close(result.f, semi_relaxed(cost, a.log(), epsilon=epsilon).f, rtol=0, atol=1e-10)
    torch.testing.assert_close(mass, semi_relaxed_weights(cost, a.log(), epsilon=epsilon), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_costs_that_fall_from_chunk_to_chunk_do_not_overflow(limit):
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(5, 60, generator=generator) + torch.linspace(30, 0, 60)
    log_a = torch.zeros(5).log_softmax(0)
    chunked = ChunkedCost(lambda part: cost[:, part], 60, 7)
    _, mass = semi_relaxed_mass(chunked, log_a, epsilon=0.02, max_stored_entries=limit)
    expected = semi_relaxed_weights(cost.double(), log_a.double(), epsilon=0.02)
    torch.testing.assert_close(mass.double(), expected, rtol=1e-4, atol=1e-9)
    assert float(mass.sum()) == pytest.approx(1, abs=1e-5)


def test_a_share_of_the_samples_uses_the_injected_reduction_alone():
    cost = torch.rand(4, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_a = torch.zeros(4, dtype=torch.float64).log_softmax(0)
    whole, mass = semi_relaxed_mass(cost.repeat(1, 2), log_a, epsilon=0.1)
    half, half_mass = semi_relaxed_mass(
        cost, log_a, epsilon=0.1, logsumexp_samples=lambda x: torch.logsumexp(x, 1) + math.log(2)
    )
    torch.testing.assert_close(half.f, whole.f)
    torch.testing.assert_close(half_mass, mass[:10])


def test_epsilon_must_be_positive():
    with pytest.raises(ValueError, match=r"epsilon must be > 0, got 0"):
        semi_relaxed_mass(torch.zeros(2, 3), torch.zeros(2).log_softmax(0), epsilon=0)
