"""Exchanges between 1, 2 and 3 processes: uneven shards, the reduction over samples, errors that reach everyone."""

import os
import threading
import time
from pathlib import Path

import pytest
import torch
from processes import run_distributed

from otrw import distributed

NUM_ROWS = 7


class TwoPartError(Exception):
    """Can be pickled, but not made again from what was pickled."""

    def __init__(self, what, where):
        super().__init__(f"{what} in {where}")


def table():
    return torch.randn(NUM_ROWS, 3, generator=torch.Generator().manual_seed(0))


def matrix():
    """(4, 7), with one column and one row that hold no mass."""
    x = 10 * torch.randn(4, NUM_ROWS, generator=torch.Generator().manual_seed(1))
    x[:, 2] = -torch.inf
    x[3] = -torch.inf
    return x


def shards():
    """This process's rows: once dealt in turn in a shuffled order, once all but none of them on the last process."""
    rank, size = distributed.rank(), distributed.world_size()
    order = torch.randperm(NUM_ROWS, generator=torch.Generator().manual_seed(2))
    uneven = order if size == 1 else order[rank :: size - 1] if rank < size - 1 else order[:0]
    return {"dealt": order[rank::size], "empty_last": uneven}


def message_of(action):
    """Type and text of what the action raises."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing raised"


def raise_error(error):
    raise error


def raise_error_with_a_lock():
    error = OSError("disk full")
    error.lock = threading.Lock()  # as errors do that hold an open connection
    raise error


def exchange(folder):
    """One of everything; what each process got."""
    rank, size = distributed.rank(), distributed.world_size()
    machine = rank // 2
    if size > 1:
        os.environ["LOCAL_RANK"] = str(rank % 2)  # as if two processes shared a machine
    result = {"rank": rank, "is_main": distributed.is_main()}
    for name, mine in shards().items():
        local = table()[mine]
        result[f"{name}/index"] = distributed.all_gather_rows(mine)
        result[f"{name}/rows"] = distributed.all_gather_rows(local)
        result[f"{name}/positive"] = distributed.all_gather_rows(local > 0)
        result[f"{name}/blocks"] = distributed.all_gather_rows(local[:, :, None] * torch.ones(2))
        result[f"{name}/columns"] = distributed.all_gather_rows(matrix().T[mine])
        result[f"{name}/table"] = distributed.gather_by_index(mine, local, NUM_ROWS)
        padded = torch.cat([mine, torch.zeros(2, dtype=torch.long)])
        result[f"{name}/padded"] = distributed.gather_by_index(padded, table()[padded], NUM_ROWS)
        result[f"{name}/labels"] = distributed.gather_by_index(mine, mine % 3, NUM_ROWS)
        result[f"{name}/logsumexp"] = distributed.logsumexp_samples(matrix()[:, mine])
        result[f"{name}/sum"] = distributed.all_reduce_sum(local.sum(0))

    number = torch.tensor([float(rank + 1)], requires_grad=True)
    result["reduced"] = distributed.all_reduce_sum(number)
    result["number"] = number.detach()
    result["transposed"] = torch.stack(distributed.all_gather((table() + rank).T))
    norm = torch.nn.BatchNorm1d(2)
    norm.running_mean.fill_(rank)
    norm.num_batches_tracked.fill_(rank)
    distributed.average_buffers(norm)
    result["running_mean"], result["num_batches"] = norm.running_mean, norm.num_batches_tracked
    result["broadcast"] = distributed.broadcast_object({"from": rank})

    calls = []
    result["on_main"] = distributed.on_main(lambda: (calls.append(rank), f"made by {rank}")[1])
    result["num_calls"] = len(calls)
    result["on_main_fails"] = message_of(lambda: distributed.on_main(lambda: raise_error(ValueError(f"from {rank}"))))
    result["on_main_fails_with_lock"] = message_of(lambda: distributed.on_main(raise_error_with_a_lock))
    result["on_main_fails_in_two_parts"] = message_of(
        lambda: distributed.on_main(lambda: raise_error(TwoPartError("hole", "bucket")))
    )

    is_first = rank % 2 == 0
    cache = Path(folder) / f"cache of {machine}"

    def fill_cache():
        if is_first:
            time.sleep(0.3)  # long enough for an impatient second process to come too early
            cache.touch()
        return cache.exists()

    result["found_cache"] = distributed.first_on_each_machine(fill_cache)
    result["first_fails"] = message_of(
        lambda: distributed.first_on_each_machine(lambda: raise_error(OSError("no first")) if is_first else None)
    )
    result["second_fails"] = message_of(
        lambda: distributed.first_on_each_machine(lambda: None if is_first else raise_error(OSError("no second")))
    )
    result["first_fails_with_lock"] = message_of(
        lambda: distributed.first_on_each_machine(lambda: raise_error_with_a_lock() if is_first else None)
    )
    distributed.barrier()
    result["after_all"] = distributed.all_reduce_sum(torch.ones(1))  # no exchange was left half done
    return result


@pytest.fixture(scope="module", params=[1, 2, 3])
def results(request, tmp_path_factory):
    return run_distributed(exchange, request.param, str(tmp_path_factory.mktemp("cache")))


DEALS = pytest.mark.parametrize("deal", ["dealt", "empty_last"])


def test_ranks_are_numbered_and_one_is_main(results):
    assert [result["rank"] for result in results] == list(range(len(results)))
    assert [result["is_main"] for result in results] == [True] + [False] * (len(results) - 1)


@DEALS
def test_uneven_rows_of_any_type_and_shape_are_concatenated_in_rank_order(results, deal):
    for result in results:
        index = result[f"{deal}/index"]
        assert index.dtype == torch.long
        assert sorted(index.tolist()) == list(range(NUM_ROWS))
        assert torch.equal(index, results[0][f"{deal}/index"])
        assert torch.equal(result[f"{deal}/rows"], table()[index])
        assert torch.equal(result[f"{deal}/positive"], table()[index] > 0)
        assert torch.equal(result[f"{deal}/blocks"], table()[index][:, :, None] * torch.ones(2))
        assert torch.equal(result[f"{deal}/columns"], matrix().T[index])


@DEALS
def test_rows_keyed_by_index_come_back_in_order_and_padding_does_no_harm(results, deal):
    for result in results:
        assert torch.equal(result[f"{deal}/table"], table())
        assert torch.equal(result[f"{deal}/padded"], table())
        assert torch.equal(result[f"{deal}/labels"], torch.arange(NUM_ROWS) % 3)


@DEALS
def test_log_sum_exp_over_sharded_samples_is_that_of_the_whole_and_the_same_bits_everywhere(results, deal):
    for result in results:
        torch.testing.assert_close(result[f"{deal}/logsumexp"], torch.logsumexp(matrix(), dim=1))
        assert torch.equal(result[f"{deal}/logsumexp"], results[0][f"{deal}/logsumexp"])
        assert result[f"{deal}/logsumexp"][3] == -torch.inf


@DEALS
def test_sums_over_processes(results, deal):
    total = sum(range(1, len(results) + 1))
    for result in results:
        torch.testing.assert_close(result[f"{deal}/sum"], table().sum(0))
        assert result["reduced"].tolist() == [total]
        assert not result["reduced"].requires_grad
        assert result["number"].tolist() == [result["rank"] + 1]


def test_a_transposed_tensor_is_gathered_as_it_is(results):
    for result in results:
        assert torch.equal(result["transposed"], torch.stack([(table() + rank).T for rank in range(len(results))]))


def test_buffers_are_averaged_and_counts_left_alone(results):
    for result in results:
        assert result["running_mean"].tolist() == [(len(results) - 1) / 2] * 2
        assert result["num_batches"] == result["rank"]


def test_the_main_process_acts_alone_and_tells_all(results):
    for result in results:
        assert result["broadcast"] == {"from": 0}
        assert result["on_main"] == "made by 0"
        assert result["num_calls"] == (1 if result["is_main"] else 0)


def test_an_error_on_the_main_process_is_raised_on_all(results):
    for result in results:
        assert result["on_main_fails"] == "ValueError: from 0"
        assert "OSError: disk full" in result["on_main_fails_with_lock"]
        assert "TwoPartError: hole in bucket" in result["on_main_fails_in_two_parts"]


def test_each_machines_first_process_acts_before_the_others(results):
    assert all(result["found_cache"] for result in results)


def test_an_error_on_any_process_is_raised_on_all(results):
    for result in results:
        assert result["first_fails"] == "OSError: no first"
        assert result["second_fails"] == ("OSError: no second" if len(results) > 1 else "nothing raised")
        assert "OSError: disk full" in result["first_fails_with_lock"]
        assert result["after_all"].tolist() == [len(results)]


def test_without_a_group_the_launcher_names_the_rank(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert distributed.is_main()
    monkeypatch.setenv("RANK", "2")
    assert distributed.rank() == 2
    assert not distributed.is_main()
    assert distributed.world_size() == 1
    distributed.barrier()
    distributed.shut_down()
