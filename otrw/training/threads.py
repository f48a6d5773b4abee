"""How a CPU is used: the threads of a process, chosen by net and data unless the user chose, and bf16 where it has it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

SMALL_NETS = ("small", "linear", "mlp")
"""Nets whose operations are so short that threads cost more in waiting for each other than they save."""


class Threads(NamedTuple):
    """A choice, and the reason that is printed with it."""

    number: int
    reason: str


def choose_threads(
    net: str, *, num_cores: int, local_processes: int, setting: int | None = None, user_variable: int | None = None
) -> Threads:
    """Threads of one process.

    Args:
        net: `model.name`.
        num_cores: cores that this job may use on this machine.
        local_processes: processes of this job on this machine.
        setting: `run.threads`, or None where it is not set.
        user_variable: OMP_NUM_THREADS where the user, not a launcher, set it.

    Returns:
        The setting, else the user's variable, else 1 for a small net, else an equal share of the cores.
    """
    if setting is not None:
        return Threads(setting, "run.threads")
    if user_variable is not None:
        return Threads(user_variable, "OMP_NUM_THREADS")
    if net in SMALL_NETS:
        return Threads(1, f"enough for net {net}")
    number = max(1, num_cores // max(1, local_processes))
    return Threads(number, f"{num_cores} cores for {local_processes} process{'es' if local_processes > 1 else ''}")


def users_variable(environment: Mapping[str, str], launchers_environment: Mapping[str, str] | None) -> int | None:
    """OMP_NUM_THREADS where the user set it; None where it is unset or only a launcher set it.

    accelerate and torchrun put OMP_NUM_THREADS=1 into the environment of the processes they start where it was unset. So
    below a launcher the value 1 counts as the user's only where the launcher itself was started with it.

    Args:
        environment: of this process.
        launchers_environment: with which the parent process was started; None where the system does not show it.
    """
    text = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list is one number a level of nesting
    if not text.isdigit() or int(text) < 1:
        return None
    is_launched = "TORCHELASTIC_RUN_ID" in environment or "ACCELERATE_MIXED_PRECISION" in environment
    if int(text) == 1 and is_launched and "OMP_NUM_THREADS" not in (launchers_environment or {}):
        return None
    return int(text)


def set_threads(net: str, setting: int | None = None) -> Threads:
    """Choose the threads of this process and tell torch.

    Args:
        net: `model.name`.
        setting: `run.threads`, or None where it is not set.

    Returns:
        What was chosen and why, for the first lines of a run.
    """
    threads = choose_threads(
        net,
        num_cores=available_cores(),
        local_processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        setting=setting,
        user_variable=users_variable(os.environ, _environment_of_parent()),
    )
    torch.set_num_threads(threads.number)
    return threads


def available_cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may run on: its affinity, and the quota of its container.

    Args:
        cpu_max: cgroup v2's file of "quota period" in microseconds, where quota may be "max".
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no container, no quota, or another system
    return cores


def _environment_of_parent() -> dict[str, str] | None:
    """The variables that the parent process was started with; None where the system does not show them."""
    try:
        entries = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    pairs = (entry.decode(errors="replace").partition("=") for entry in entries if entry)
    return {name: value for name, _, value in pairs}


def leaves_bf16_unused(net: str, precision: str, capabilities: Mapping[str, object] | None = None) -> bool:
    """Whether a net trains in float32 on a CPU that multiplies matrices in bf16 about twice as fast.

    Small nets do not gain by it.

    Args:
        net: `model.name`.
        precision: "no", "bf16" or "fp16", as it is trained.
        capabilities: {instruction set: whether this CPU has it}; None asks torch, of which early versions do not say.
    """
    if capabilities is None:
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    has_bf16 = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    return has_bf16 and precision == "no" and net not in SMALL_NETS
