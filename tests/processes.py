"""Run a function in several gloo processes on this machine: to compare any number with one."""

import contextlib
import os
import resource
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing


def run_distributed(func, world_size, *args, timeout_seconds=120.0):
    """Results of ``func(*args)`` on each process, in rank order; world size 1 runs here, without a process group.

    func must be importable (top level of a module) and return tensors or plain values. What a process raises is raised
    here with its traceback and ends the others; so does the timeout.
    """
    if world_size == 1:
        return [func(*args)]
    with tempfile.TemporaryDirectory() as folder:
        # forked, not spawned: a new interpreter imports torch for seconds, and a test computes for milliseconds
        context = torch.multiprocessing.start_processes(
            _run_rank, (func, world_size, folder, timeout_seconds, args), world_size, join=False, start_method="fork"
        )
        deadline = time.monotonic() + timeout_seconds
        while not context.join(timeout=max(0.0, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                for process in context.processes:
                    process.kill()
                    process.join()
                raise TimeoutError(f"{func.__name__} took longer than {timeout_seconds} s on {world_size} processes")
        return [torch.load(_result_file(folder, rank), weights_only=True) for rank in range(world_size)]


def _run_rank(rank, func, world_size, folder, timeout_seconds, args):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29513"}  # accelerate asks for them, though the group is there
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_seconds),
    )
    try:
        torch.save(func(*args), _result_file(folder, rank))
        dist.barrier()  # nobody leaves while another still needs it
    finally:
        dist.destroy_process_group()


def _result_file(folder, rank):
    return Path(folder) / f"{rank}.pt"


@contextlib.contextmanager
def files_of_at_most(num_bytes):
    """As on a full disk: no file of this process can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
