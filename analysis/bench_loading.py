"""How fast large images are loaded and trained on, as ratios measured side by side in one run.

    python analysis/bench_loading.py                      # minutes on a CPU; the same command on a GPU
    python analysis/bench_loading.py --rounds 3 --images 400

loading    batches of images in files, decoded, cropped at random, flipped and normalised, without a net
training   an epoch of stage 1 of this package

each against what a user writes: torchvision's ImageFolder, RandomResizedCrop, flip and Normalize in a DataLoader with as many
workers, and for training a plain loop over the same net of torchvision with the same batch size. JPEGs are made for it: smooth
shapes with grain, of the size of ImageNet's (500 x 375) and of a phone's (2000 x 1500). Both sides take turns, round by round;
the ratio is the median of the rounds, with the lowest and highest. The record goes to analysis/results/benchmarks/.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision import datasets, models, transforms

from otrw.commands.exit import exit_with_message
from otrw.config import Config
from otrw.config.command_line import parse_config
from otrw.data.datasets import make_datasets
from otrw.data.loader import Loader
from otrw.models.library_nets import net_input
from otrw.records import ledger
from otrw.training.process_group import start_accelerator
from otrw.training.run import run

RESULTS = Path(__file__).resolve().parent / "results" / "benchmarks"
NUM_CLASSES = 4
SIZES = {"500 x 375": (500, 375), "2000 x 1500": (2000, 1500)}
WORKERS = 2
IMAGE_SIZE = 224


def main() -> None:
    """Parse, measure, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is timed (default: 5)")
    parser.add_argument("--images", type=int, help="training images (default: 128 on a CPU, 4096 on a GPU)")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"processes that decode (default: {WORKERS})")
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder of the record (default: analysis/results/benchmarks)"
    )
    options = parser.parse_args()
    console = Console()
    device = start_accelerator(parse_config([]).run).device
    on_gpu = device.type == "cuda"
    number = options.images or (4096 if on_gpu else 128)
    net, batch_size = ("resnet50", 128) if on_gpu else ("resnet18", 32)
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    console.print(f"{name}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, {options.workers} workers")
    entries = []
    for title, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_images(root / "data", number, size)
            config = settings(root, net, batch_size, options.workers)
            plain = PlainLoop(root / "data" / "train", net, batch_size, options.workers, device)
            entries.append(bench_loading(config, plain, device, options.rounds, f"loading, {title}"))
            if size == SIZES["500 x 375"]:
                entries.append(bench_training(config, plain, options.rounds, f"training {net}, {title}"))
    print_entries(console, entries)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"loading-{'gpu' if on_gpu else 'cpu'}.json"
    facts = ledger.environment(
        device=name, threads=torch.get_num_threads(), cores=os.cpu_count(), rounds=options.rounds, workers=options.workers
    )
    ledger.write_json(path, {"benchmark": "loading", "environment": facts, "entries": entries})
    console.print(f"record  {path}", soft_wrap=True)


def write_images(root: Path, number: int, size: tuple[int, int]) -> None:
    """A folder of JPEGs with `number` training images and a few others, the same at every call."""
    generator = np.random.default_rng(0)
    parts = [("train", number // NUM_CLASSES), ("trusted", 2), ("test", 2)]
    for part, per_class in parts:
        for label in range(NUM_CLASSES):
            folder = root / part / f"class {label}"
            folder.mkdir(parents=True)
            for index in range(per_class):
                shapes = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                smooth = np.asarray(Image.fromarray(shapes).resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
                grain = generator.normal(0, 8, (size[1], size[0], 1)).astype(np.int16)
                pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg", quality=90)


def settings(root: Path, net: str, batch_size: int, workers: int) -> Config:
    """Stage 1 of the net on the folder, with images that stay in their files."""
    return parse_config(
        [
            *("--data.source", "folder", "--data.root", str(root / "data"), "--data.memory_limit_gib", "0"),
            *("--data.workers", str(workers), "--data.augment.crop_padding", "0", "--data.cache", ""),
            *("--model.name", f"torchvision/{net}", "--stage1.batch_size", str(batch_size), "--run.precision", "no"),
            *("--run.directory", str(root / "runs"), "--run.tensorboard", "false", "--variants", "stage1"),
            *("--run.evaluate_every_epochs", "1000", "--run.checkpoint_every_epochs", "1000"),
            *("--run.threads", str(torch.get_num_threads())),
        ]
    )


class PlainLoop:
    """What a user writes: ImageFolder, transforms and a DataLoader with workers, float32."""

    def __init__(self, root: Path, net: str, batch_size: int, workers: int, device: torch.device) -> None:
        self.device = device
        own = net_input(f"torchvision/{net}")
        steps = [
            transforms.RandomResizedCrop(IMAGE_SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(own.mean, own.std),
        ]
        self.loader = torch.utils.data.DataLoader(
            datasets.ImageFolder(root, transforms.Compose(steps)),
            batch_size=batch_size,
            shuffle=True,
            num_workers=workers,
            pin_memory=device.type == "cuda",
        )
        self.net = models.get_model(net, num_classes=NUM_CLASSES).to(device)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def load(self) -> Iterable[tuple[Tensor, Tensor]]:
        """The batches of an epoch on the device."""
        for images, labels in self.loader:
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def epoch(self) -> None:
        """One epoch of training."""
        self.net.train()
        for images, labels in self.load():
            loss = F.cross_entropy(self.net(images), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def bench_loading(config: Config, plain: PlainLoop, device: torch.device, rounds: int, title: str) -> dict:
    """Epochs of both loaders alone."""
    data = make_datasets(config.data, 0, device, net_input(config.model.name))
    loader = Loader(data.train, config.stage1.batch_size, seed=0, transform=data.transform(train=True))
    ours, theirs = [], []
    for number in range(rounds):
        ours.append(seconds(lambda epoch=number: consume(loader.epoch(epoch)), device))  # type: ignore[misc]
        theirs.append(seconds(lambda: consume(plain.load()), device))
    return ratio_entry(title, "ImageFolder and DataLoader", len(data.train), theirs, ours)


def bench_training(config: Config, plain: PlainLoop, rounds: int, title: str) -> dict:
    """Epochs of stage 1, each followed by one of the plain loop; the first pair and the last, which evaluates, do not count."""
    ours: list[float] = []
    theirs: list[float] = []
    ends: list[float] = []

    def report(line: dict) -> None:
        ours.append(time.perf_counter() - ends[-1])
        theirs.append(seconds(plain.epoch, plain.device))
        ends.append(time.perf_counter())

    config = replace(config, stage1=replace(config.stage1, epochs=rounds + 2))
    ends.append(time.perf_counter())
    run(config, report)
    return ratio_entry(title, "plain loop", len(plain.loader.dataset), theirs[1:-1], ours[1:-1])  # type: ignore[arg-type]


def seconds(action: Callable[[], object], device: torch.device) -> float:
    """How long an action takes, the device's work included."""
    started = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def consume(batches: Iterable) -> None:
    """Take all batches."""
    for _ in batches:
        pass


def ratio_entry(name: str, baseline: str, number: int, slow: list[float], fast: list[float]) -> dict:
    """Ratio of paired times of `number` images: median, lowest and highest."""
    ratios = [theirs / ours for theirs, ours in zip(slow, fast, strict=True)]
    return {
        "name": name,
        "baseline": baseline,
        "ratio": round(median(ratios), 2),
        "low": round(min(ratios), 2),
        "high": round(max(ratios), 2),
        "unit": "images per second",
        "images_per_second": round(number / median(fast), 1),
        "baseline_images_per_second": round(number / median(slow), 1),
    }


def print_entries(console: Console, entries: list[dict]) -> None:
    """The ratios as a table."""
    table = Table(title="Images a second, as a ratio to the baseline", title_justify="left", title_style="bold")
    for column in ("", "against", "ratio", "lowest to highest", "images/s"):
        table.add_column(column, justify="right" if column in ("ratio", "lowest to highest", "images/s") else "left")
    for entry in entries:
        spread, speed = f"{entry['low']:g} to {entry['high']:g}", f"{entry['images_per_second']:g}"
        table.add_row(entry["name"], entry["baseline"], f"{entry['ratio']:g}", spread, speed)
    console.print(table)


if __name__ == "__main__":
    exit_with_message(main)
