"""Newton on samples that several processes share: the solution of one process, one exchange a sweep."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import run_distributed
from test_newton import SOME, problems

from otrw import distributed
from otrw.ot.cost import ChunkedCost
from otrw.ot.newton import newton
from otrw.ot.sinkhorn import transport_plan

NUM_ATOMS, NUM_SAMPLES, EPSILON, TOLERANCE = 12, 900, 0.03, 1e-11


def problem():
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(NUM_ATOMS, NUM_SAMPLES, generator=generator, dtype=torch.float64)
    cost += (torch.arange(NUM_ATOMS) % 3)[:, None] != torch.randint(3, (NUM_SAMPLES,), generator=generator)
    log_b = torch.randn(NUM_SAMPLES, generator=generator, dtype=torch.float64).log_softmax(0)
    log_a = torch.randn(NUM_ATOMS, generator=generator, dtype=torch.float64).log_softmax(0)
    return cost, log_a, log_b


def solve(mine, sum_samples, *, is_chunked=False, given=None, epsilon=EPSILON, tolerance=TOLERANCE, **settings):
    cost, log_a, log_b = given or problem()
    local = cost[:, mine]
    if is_chunked:
        local = ChunkedCost(lambda part: cost[:, mine[part]], len(mine), 50)
    return newton(
        local,
        log_a,
        log_b[mine],
        epsilon=epsilon,
        tolerance=tolerance,
        sample_index=mine,
        sum_samples=sum_samples,
        **settings,
    )


class Threads:
    """An all-reduce between threads of this process."""

    def __init__(self, num_threads):
        self.parts = [None] * num_threads
        self.barrier = threading.Barrier(num_threads, timeout=60)
        self.sizes = []

    def sum_of(self, rank):
        def sum_samples(x):
            self.parts[rank] = x
            self.barrier.wait()
            total = torch.stack(self.parts).sum(0)
            self.barrier.wait()
            if rank == 0:
                self.sizes.append(x.numel())
            return total

        return sum_samples


def solve_in_threads(shares, **settings):
    threads = Threads(len(shares))

    def work(rank):
        try:
            return solve(shares[rank], threads.sum_of(rank), **settings)
        except BaseException:
            threads.barrier.abort()
            raise

    with ThreadPoolExecutor(len(shares)) as pool:
        return list(pool.map(work, range(len(shares)))), threads.sizes


@pytest.mark.parametrize("settings", [{}, {"matrix_free": True}, {"is_chunked": True, "max_stored_entries": 1}])
@pytest.mark.parametrize("num_shares", [2, 3])
def test_shares_of_any_size_give_the_solution_of_the_whole(num_shares, settings):
    order = torch.randperm(NUM_SAMPLES, generator=torch.Generator().manual_seed(1))
    whole = solve(torch.arange(NUM_SAMPLES), lambda x: x, **settings)
    for shares in (list(order.tensor_split(num_shares)), [order, *[order[:0]] * (num_shares - 1)]):
        results, _ = solve_in_threads(shares, **settings)
        for mine, result in zip(shares, results, strict=True):
            assert result.converged
            assert result.num_iterations == whole.num_iterations
            assert torch.equal(result.f, results[0].f)
            torch.testing.assert_close(result.f, whole.f, rtol=0, atol=1e-9)
            torch.testing.assert_close(result.g, whole.g[mine], rtol=0, atol=1e-9)


@SOME
@given(problem=problems(), num_shares=st.sampled_from([2, 3]), is_chunked=st.booleans(), matrix_free=st.booleans())
def test_shares_of_generated_problems_give_the_plan_of_the_whole(problem, num_shares, is_chunked, matrix_free):
    cost, a, b, epsilon = problem
    settings = {"given": (cost, a.log(), b.log()), "epsilon": epsilon, "tolerance": 1e-10, "max_iterations": 3000}
    settings |= {"is_chunked": is_chunked, "matrix_free": matrix_free}
    everything = torch.arange(len(b))
    whole = solve(everything, lambda x: x, **settings)
    shares = [everything[rank::num_shares] for rank in range(num_shares)]  # some are empty where there are few samples
    results, _ = solve_in_threads(shares, **settings)
    expected = transport_plan(cost, whole, epsilon)
    for mine, result in zip(shares, results, strict=True):
        assert result.converged
        torch.testing.assert_close(transport_plan(cost[:, mine], result, epsilon), expected[:, mine], rtol=0, atol=1e-8)


def test_an_exchange_a_sweep_and_one_of_a_matrix_a_hessian():
    results, sizes = solve_in_threads(list(torch.arange(NUM_SAMPLES).tensor_split(2)))
    assert sizes.count(NUM_ATOMS + 2) == results[0].num_iterations
    num_hessians = sizes.count(NUM_ATOMS**2)
    assert 0 < num_hessians < results[0].num_iterations
    assert len(sizes) == results[0].num_iterations + num_hessians + 2  # range of the cost, number of samples


def solve_share():
    mine = torch.arange(distributed.rank(), NUM_SAMPLES, distributed.world_size())
    result = solve(mine, distributed.all_reduce_sum)
    return {"f": result.f, "g": result.g, "sweeps": result.num_iterations, "converged": result.converged}


def test_two_processes_take_the_steps_of_one():
    (whole,) = run_distributed(solve_share, 1)
    results = run_distributed(solve_share, 2)
    for rank, result in enumerate(results):
        assert result["converged"]
        assert result["sweeps"] == whole["sweeps"]
        assert torch.equal(result["f"], results[0]["f"])
        torch.testing.assert_close(result["f"], whole["f"], rtol=0, atol=1e-9)
        torch.testing.assert_close(result["g"], whole["g"][rank::2], rtol=0, atol=1e-9)
