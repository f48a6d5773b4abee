"""What the benchmarks of training have in common: random images, the device's peak, ratios, the record."""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from otrw.config import Config
from otrw.config.command_line import parse_config
from otrw.config.variants import variant_config
from otrw.data.augment import Augmentation
from otrw.data.datasets import Datasets
from otrw.data.loader import SampleSet
from otrw.records import ledger
from otrw.training.process_group import start_accelerator
from otrw.training.stages import fresh_net

RESULTS = Path(__file__).resolve().parent / "results" / "benchmarks"
NUM_CLASSES = 10
SMALL_EPOCH_SIZE = 1600  # enough on a CPU
NUM_META = 100
PIXEL_MEAN, PIXEL_STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def parser_of(description: str, parts: list[str]) -> argparse.ArgumentParser:
    """Options of every such benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts, help="some of the parts")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is timed (default: 5)")
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder of the record (default: analysis/results/benchmarks)"
    )
    return parser


def device_of(console: Console) -> tuple[torch.device, str]:
    """The device and its name, which is printed with the threads and cores of this machine."""
    device = start_accelerator(parse_config([]).run).device
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    console.print(f"{name}, {torch.get_num_threads()} threads, {os.cpu_count()} cores")
    return device, name


def write_record(
    console: Console, options: argparse.Namespace, device: torch.device, name: str, parts: list[str], content: dict
) -> None:
    """training[-PARTS]-DEVICE.json: where and how it was measured, and what was."""
    options.output.mkdir(parents=True, exist_ok=True)
    suffix = "-".join(["training", *sorted(parts), "gpu" if device.type == "cuda" else "cpu"])
    path = options.output / f"{suffix}.json"
    facts = ledger.environment(device=name, threads=torch.get_num_threads(), cores=os.cpu_count(), rounds=options.rounds)
    ledger.write_json(path, {"benchmark": "training", "environment": facts, **content})
    console.print(f"record  {path}", soft_wrap=True)


def stage1_config(precision: str, *, compiled: bool) -> Config:
    """Stage 1 of the `official` preset."""
    arguments = ["--config", "official", "--run.precision", precision, "--run.compile", str(compiled).lower()]
    return variant_config(parse_config(arguments), "stage1")


def ratio_entry(name: str, baseline: str, slow_seconds: list[float], fast_seconds: list[float]) -> dict:
    """Ratio of paired times: median, lowest and highest."""
    ratios = [slow / fast for slow, fast in zip(slow_seconds, fast_seconds, strict=True)]
    digits = 1 if median(ratios) >= 10 else 2
    return {
        "name": name,
        "baseline": baseline,
        "ratio": round(median(ratios), digits),
        "low": round(min(ratios), digits),
        "high": round(max(ratios), digits),
        "unit": "images per second",
    }


def print_entries(console: Console, entries: list[dict]) -> None:
    """The ratios as a table, and what is known of each below it."""
    table = Table(title="Speed, as a ratio to the baseline", title_justify="left", title_style="bold")
    table.add_column()
    table.add_column("against")
    table.add_column("ratio", justify="right")
    table.add_column("lowest to highest", justify="right")
    for entry in entries:
        table.add_row(entry["name"], entry["baseline"], f"{entry['ratio']:g}", f"{entry['low']:g} to {entry['high']:g}")
    console.print(table)
    for entry in entries:
        if "share_of_gemm_peak" in entry:
            console.print(
                f"{entry['name']}: {entry['images_per_second']:.0f} images a second against "
                f"{entry['baseline_images_per_second']:.0f}; {100 * entry['share_of_gemm_peak']:.0f} % of the GEMM peak; "
                f"loader and augmentation {100 * entry['loader_share_of_step']:.1f} % of a step",
                highlight=False,
            )


def gemm_flops(device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> float:
    """Floating-point operations a second of a large matrix product."""
    size = 8192 if device.type == "cuda" else 1536
    a = torch.randn(size, size, device=device, dtype=dtype)
    times = []
    for _ in range(6):
        started = clock()
        a @ a
        wait(device)
        times.append(clock() - started)
    return 2 * size**3 / min(times)


def training_flops_per_image() -> float:
    """Operations of a forward and backward pass of one image."""
    config = stage1_config("no", compiled=False)
    net = fresh_net(config, random_datasets(20, torch.device("cpu")), torch.device("cpu"), "count")
    with FlopCounterMode(display=False) as counter:
        net(torch.randn(2, 3, 32, 32)).logits.sum().backward()
    return counter.get_total_flops() / 2


def random_datasets(size: int, device: torch.device) -> Datasets:
    """Balanced sets of random images in CIFAR's shape."""
    generator = np.random.default_rng(0)

    def samples(number: int) -> SampleSet:
        images = torch.from_numpy(generator.integers(0, 256, (number, 32, 32, 3), dtype=np.uint8))
        labels = torch.arange(number) % NUM_CLASSES
        return SampleSet(*(x.to(device) for x in (images, labels, labels, labels, torch.arange(number))))

    sizes = torch.full((NUM_CLASSES,), size // NUM_CLASSES, device=device)
    mean, std = (255 * torch.tensor(values, device=device) for values in (PIXEL_MEAN, PIXEL_STD))
    return Datasets(
        train=samples(size),
        meta=samples(NUM_META),
        validation=None,
        test=samples(200),
        class_names=tuple(str(number) for number in range(NUM_CLASSES)),
        given_sizes=sizes,
        true_sizes=sizes,
        mean=mean,
        std=std,
        split_hash="random",
        augmentation=Augmentation(crop_padding=4, padding_mode="reflect", horizontal_flip=True),
    )


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
