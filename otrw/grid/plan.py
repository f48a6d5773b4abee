"""The grid as a table of what is done and what is left, and an estimate of the time that it takes here."""

import os

from rich.console import Console
from rich.table import Table

from otrw.config import Variant
from otrw.grid.jobs import Job, VariantState, is_done


def visible_gpus(job: Job) -> list[str]:
    """Names of the GPUs to use, as CUDA_VISIBLE_DEVICES takes them."""
    if job.config.run.cpu:
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def print_plan(console: Console, jobs: list[Job], states: dict[str, dict[Variant, VariantState]]) -> None:
    """One line a cell, one column a seed: done, to do, or the share that is done."""
    seeds = sorted({job.config.run.seed for job in jobs})
    num_done = sum(state.is_done for variants in states.values() for state in variants.values())
    num_variants = sum(len(variants) for variants in states.values())
    runs = "1 run" if len(jobs) == 1 else f"{len(jobs)} runs"
    table = Table(title=f"{runs}, {num_done} of {num_variants} variants done", title_justify="left", title_style="bold")
    for name, justify in (("preset", "left"), ("data set", "left"), ("factor", "right"), ("variants", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for seed in seeds:
        table.add_column(f"seed {seed}", justify="right")
    cells: dict[tuple[str, str, str, str], dict[int, str]] = {}
    for job in jobs:
        variants, data = states[job.name], job.config.data
        key = (job.preset, str(data.source), f"{data.imbalance_factor:g}", str(len(variants)))
        share = 1 - sum(state.work_left for state in variants.values()) / sum(state.work for state in variants.values())
        is_begun = any(state.is_done or state.done_epochs for state in variants.values())
        text = "done" if is_done(variants) else f"{100 * share:.0f} %" if is_begun else "to do"
        cells.setdefault(key, {})[job.config.run.seed] = text
    for key, by_seed in cells.items():
        table.add_row(*key, *(by_seed[seed] for seed in seeds))
    console.print(table)


def print_estimate(
    console: Console, jobs: list[Job], states: dict[str, dict[Variant, VariantState]], num_slots: int, gpus: list[str]
) -> None:
    """Time from the work that is left and the speed of a few steps measured now."""
    import torch

    from otrw.grid.speed import images_per_second
    from otrw.training.process_group import start_accelerator

    variants = [(job, variant, state) for job in jobs for variant, state in states[job.name].items() if not state.is_done]
    seen: set[str] = set()
    left = 0.0
    for job, variant, state in variants:
        if job.hashes[variant] not in seen:  # shared by several presets: trained once
            seen.add(job.hashes[variant])
            left += state.work_left
    if not left:
        console.print("all done; nothing to train")
        return
    num_processes = min(num_slots, len(jobs))
    cores = os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // num_processes))
    accelerator = start_accelerator(jobs[0].config.run)
    speed = images_per_second(jobs[0].config, accelerator.device, precision=accelerator.mixed_precision)
    at_once = len(gpus) if gpus else min(num_processes, cores)
    hours = left / 3 / speed / at_once / 3600
    where = f"{len(gpus)} GPU" if gpus else f"{at_once} CPU process{'es' if at_once > 1 else ''}"
    text = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
    console.print(
        f"about {text} on {where}, at {speed:.0f} training images a second of {jobs[0].config.model.name} "
        "in one, measured now; steps on cached embeddings not counted",
        highlight=False,
    )
