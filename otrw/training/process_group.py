"""The process group that accelerate makes, with the launcher's silent traps turned into errors."""

import os
import warnings
from datetime import timedelta

import torch
from accelerate.accelerator import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from otrw.config import RunConfig
from otrw.errors import UserError


def start_accelerator(run: RunConfig) -> Accelerator:
    """The process group, with the launcher's silent traps turned into errors."""
    if "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise UserError(
            "the launcher must set WORLD_SIZE, got MASTER_ADDR without it: accelerate started one process where "
            "several were asked for; use --config_file launch/accelerate/cpu_2.yaml, or torchrun"
        )
    # torch 2.14 renames broadcast_buffers to forward_sync_buffers, which torch 2.11 does not have
    warnings.filterwarnings("ignore", message=".*broadcast_buffers. is deprecated", category=FutureWarning)
    on_cpu = run.cpu or not torch.cuda.is_available()
    precision: str = run.precision
    if precision == "auto":
        asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        on_gpu = "bf16" if not on_cpu and torch.cuda.is_bf16_supported() else "no"
        precision = asked if asked != "no" else on_gpu
    if on_cpu and precision == "fp16":
        raise UserError("run.precision must be 'no' or 'bf16' on a CPU, got 'fp16'; float16 has no CPU training kernels")
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=precision,
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),  # averaged once an epoch instead
            InitProcessGroupKwargs(timeout=timedelta(seconds=run.timeout_seconds)),
        ],
    )
    if accelerator.gradient_accumulation_steps != 1:
        raise UserError(
            f"gradient_accumulation_steps must be 1, got {accelerator.gradient_accumulation_steps} from the launcher or its "
            "environment: it would divide the gradients; set run.accumulation_steps to take a batch in parts"
        )
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != expected:
        raise UserError(f"the launcher must start one group of {expected} processes, got {accelerator.num_processes}")
    return accelerator
