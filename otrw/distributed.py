"""Every exchange between processes, and the only importer of torch.distributed.

Each function is the identity at world size 1, so callers never ask how many processes there are. "local" is one
process's own value, "replicated" is the same on all.
"""

import os
import pickle
import sys
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0; before the group exists, what the launcher set."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the one process that writes and prints."""
    return rank() == 0


def all_reduce_sum(local: Tensor) -> Tensor:
    """Sum over processes. local -> replicated, a new tensor without gradient."""
    result = local.detach().clone()
    if world_size() > 1:
        dist.all_reduce(result)
    return result


def all_gather(local: Tensor) -> list[Tensor]:
    """One tensor a process, in rank order; all must have the same shape. local -> replicated."""
    if world_size() == 1:
        return [local.detach()]
    local = local.detach().contiguous()
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local)
    return parts


def all_gather_rows(local: Tensor) -> Tensor:
    """Concatenate rows over processes that may hold different numbers of them. local (n_r, ...) -> replicated (sum n_r, ...).

    Padded before the exchange: gloo aborts or returns garbage on uneven shapes.
    """
    if world_size() == 1:
        return local.detach()
    sizes = torch.cat(all_gather(torch.tensor([len(local)], device=local.device))).tolist()
    padded = local.new_zeros((max(sizes), *local.shape[1:]))
    padded[: len(local)] = local.detach()
    return torch.cat([part[:size] for part, size in zip(all_gather(padded), sizes, strict=True)])


def gather_by_index(index: Tensor, local: Tensor, num_samples: int) -> Tensor:
    """Table of all samples from rows keyed by sample index: index (n_r,), local (n_r, ...) -> replicated (num_samples, ...).

    An index that several processes hold (padding) must carry the same row everywhere.
    """
    table = local.new_zeros((num_samples, *local.shape[1:]))
    table[all_gather_rows(index)] = all_gather_rows(local)
    return table


def logsumexp_samples(x: Tensor) -> Tensor:
    """Log-sum-exp over a sample axis that is sharded over processes: local (K, n_r) -> replicated (K,).

    Each process reduces its own samples; the K partial values of the R processes are gathered and reduced once more,
    in rank order, so that all processes hold the same bits. One collective of R x K floats.
    """
    partial = torch.logsumexp(x, dim=1)
    if world_size() == 1:
        return partial
    return torch.logsumexp(torch.stack(all_gather(partial), dim=1), dim=1)


def average_buffers(module: torch.nn.Module) -> None:
    """Average floating-point buffers (BatchNorm statistics) over processes, in place; each saw its own samples."""
    if world_size() == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(all_reduce_sum(buffer) / world_size())


def broadcast_object(value: T) -> T:
    """The main process's picklable value, on every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def on_main(action: Callable[[], T]) -> T:
    """Run an action on the main process alone and give its result to all. If it raises, every process raises."""
    outcome: tuple[T | None, Exception | None] = (None, None)
    if is_main():
        try:
            outcome = (action(), None)
        except Exception as error:
            outcome = (None, _portable(error))
    result, failure = broadcast_object(outcome)
    if failure is not None:
        raise failure
    return result  # type: ignore[return-value]


def first_on_each_machine(action: Callable[[], T]) -> T:
    """Run an action on every process, but on each machine's first process before the others (to fill a cache once).

    If it raises anywhere, every process raises the first error.
    """
    is_first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    outcome: tuple[T | None, Exception | None] = (None, None)
    for turn in (True, False):
        if is_first == turn:
            try:
                outcome = (action(), None)
            except Exception as error:
                outcome = (None, _portable(error))
        failures = [failure for failure in all_gather_objects(outcome[1]) if failure is not None]
        if failures:
            raise failures[0]
    return outcome[0]  # type: ignore[return-value]


def on_every_process(action: Callable[[], T]) -> T:
    """Run an action on every process; each keeps its own result. If it raises anywhere, every process raises."""
    outcome: tuple[T | None, Exception | None] = (None, None)
    try:
        outcome = (action(), None)
    except Exception as error:
        outcome = (None, error)
    raise_anywhere(outcome[1])
    return outcome[0]  # type: ignore[return-value]


def raise_anywhere(failure: Exception | None) -> None:
    """Raise the first failure of any process on all of them, so that none waits for one that has left."""
    failures = [one for one in all_gather_objects(None if failure is None else _portable(failure)) if one is not None]
    if failures:
        raise failures[0]


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


LOST = ("onnection closed by peer", "onnection reset", "roken pipe", "onnect timeout", "Rendezvous", "NCCL", "ncclRemoteError")
"""Words of the backends' errors where another process is gone,"""
SILENT = ("imed out", "timed out", "imeout")
"""and where it does not answer."""


def lost_process(error: RuntimeError) -> str | None:
    """What to say where an exchange failed because of another process; None where the error is of another kind."""
    text = str(error)
    if world_size() == 1 or not (isinstance(error, dist.DistError) or "gloo" in text or "NCCL" in text or "[..." in text):
        return None
    if any(word in text for word in SILENT):
        return "another process did not answer in run.timeout_seconds: it hangs, was stopped, or the network is cut"
    if any(word in text for word in LOST):
        return "another process has ended, or the connection to it; what it said itself stands above or on its own machine"
    return f"an exchange between processes failed ({' '.join(text.split())[:120]})"


def exit_together() -> None:
    """End a program whose work is done, with code 0, on several processes at once; returns where there is only one.

    Taking a gloo group apart now and then aborts the process (SIGABRT) although everything is written. So the processes wait
    for each other and leave without it: the operating system closes the connections.
    """
    if world_size() > 1:
        dist.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def shut_down() -> None:
    """Leave the process group together, if there is one: a process that left early would abort the others' last exchange."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _portable(error: Exception) -> Exception:
    """The error, or its text where it cannot travel between processes: it may hold a socket, as errors of downloads do."""
    if world_size() == 1:
        return error
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def all_gather_objects(value: T) -> list[T]:
    """One picklable value a process, in rank order. local -> replicated."""
    if world_size() == 1:
        return [value]
    values: list[T] = [value] * world_size()
    dist.all_gather_object(values, value)
    return values
