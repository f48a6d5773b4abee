"""How fast training is, as ratios measured side by side in one run.

    python analysis/bench_training.py                     # minutes on a CPU; the same command on a GPU
    python analysis/bench_training.py --only stage1 stage2 --rounds 3

stage1     the training loop of this package against a plain PyTorch loop (DataLoader with workers, torchvision transforms),
           same ResNet-32, same batch size; also the loader's share of a step and the share of the device's GEMM peak
stage2     an epoch of the classifier on cached embeddings against a plain statement of the paper's released loop: batch 16,
           all meta images forwarded at every step
processes  two processes against one, and two runs side by side against one run with all threads

What a step's pieces cost and where its time goes is for bench_training_step.py.

Images are random: the time does not depend on what they show. Both sides of a ratio take turns, round by round; the ratio
is the median of the rounds, with the lowest and highest. The record goes to analysis/results/benchmarks/.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torchvision import transforms
from training_benchmark import (
    NUM_CLASSES,
    NUM_META,
    PIXEL_MEAN,
    PIXEL_STD,
    SMALL_EPOCH_SIZE,
    device_of,
    gemm_flops,
    parser_of,
    print_entries,
    random_datasets,
    ratio_entry,
    stage1_config,
    training_flops_per_image,
    wait,
    write_record,
)

from otrw import distributed
from otrw.commands.exit import exit_with_message
from otrw.config import Config
from otrw.config.command_line import parse_config
from otrw.config.variants import variant_config
from otrw.data.loader import Loader
from otrw.training.process_group import start_accelerator
from otrw.training.progress import Progress
from otrw.training.session import Session
from otrw.training.stages import fresh_net, stage1, stage2
from otrw.training.stop import StopRequest
from otrw.training.tracking import Journal

EPOCH_SIZE = 12_380  # CIFAR-10-LT at factor 100
NUM_WARMUP_EPOCHS = 2
PARTS = ["stage1", "stage2", "processes"]


def main() -> None:
    """Parse, measure, print, write the record."""
    parser = parser_of(__doc__ or "", PARTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        speeds = stage1_speeds(*options.worker.split(","), rounds=options.rounds)
        if distributed.is_main():
            print(json.dumps(speeds))
        distributed.shut_down()
        return
    console = Console()
    device, name = device_of(console)
    benches = {"stage1": bench_stage1, "stage2": bench_stage2, "processes": bench_processes}
    entries = [entry for part in options.only or PARTS for entry in benches[part](device, options.rounds)]
    print_entries(console, entries)
    write_record(console, options, device, name, options.only or [], {"entries": entries, "profile": None})


# --- stage 1 ----------------------------------------------------------------------------------------------------------


def bench_stage1(device: torch.device, rounds: int) -> list[dict]:
    """The package's loop against the plain one, in each precision."""
    plain = PlainLoop(device)
    entries = []
    variants = [("float32", "no", False), ("bfloat16", "bf16", False), ("bfloat16, compiled", "bf16", True)]
    for title, precision, is_compiled in variants:
        size = EPOCH_SIZE if device.type == "cuda" else SMALL_EPOCH_SIZE
        config = stage1_config(precision, compiled=is_compiled)
        ours, theirs = timed_epochs(config, size, rounds, partial(plain.epoch, size))
        entry = ratio_entry(f"stage 1, {title}", "plain loop, float32", theirs, ours)
        speed = size / median(ours)
        peak = gemm_flops(device, torch.bfloat16 if precision == "bf16" else torch.float32)
        entry["images_per_second"] = round(speed, 1)
        entry["baseline_images_per_second"] = round(size / median(theirs), 1)
        entry["share_of_gemm_peak"] = round(speed * training_flops_per_image() / peak, 3)
        entry["loader_share_of_step"] = round(loader_seconds(config, size, device) / median(ours), 3)
        entries.append(entry)
    return entries


def timed_epochs(
    config: Config, size: int, rounds: int, between: Callable[[], float] | None = None
) -> tuple[list[float], list[float]]:
    """Seconds of some epochs of the real loop, warm, and what `between` returned after each."""
    ours: list[float] = []
    theirs: list[float] = []
    ends: list[float] = [time.perf_counter()]

    def report(_: dict) -> None:  # the loop has read its sums back: the device is idle
        seconds = time.perf_counter() - ends[-1]
        if NUM_WARMUP_EPOCHS < len(ends) <= NUM_WARMUP_EPOCHS + rounds:
            ours.append(seconds)
            if between is not None:
                theirs.append(between())
        ends.append(time.perf_counter())

    epochs = NUM_WARMUP_EPOCHS + rounds + 1  # the last one evaluates, and does not count
    config = replace(
        config,
        stage1=replace(config.stage1, epochs=epochs),
        stage2=replace(config.stage2, epochs=epochs),
        run=replace(config.run, evaluate_every_epochs=1 << 30, checkpoint_every_epochs=1 << 30, tensorboard=False),
    )
    with tempfile.TemporaryDirectory() as folder:
        if distributed.world_size() == 1:
            AcceleratorState._reset_state(reset_partial_state=True)  # it holds one precision for good
        accelerator = start_accelerator(config.run)
        journal = Journal(Path(folder) / "row", is_main=distributed.is_main(), tensorboard=False, report=report)
        data = random_datasets(size, accelerator.device)
        session = Session(config, accelerator, data, journal, Progress(None), StopRequest())
        net = fresh_net(config, session.data, accelerator.device, "bench")
        (stage1 if config.variants[0] == "stage1" else stage2)(session, net, None)
    return ours, theirs


def stage1_speeds(precision: str, compiled: str, *, rounds: int) -> list[float]:
    """Images a second of each timed epoch, over all processes; what `--worker` prints."""
    config, size = stage1_config(precision, compiled=compiled == "true"), SMALL_EPOCH_SIZE // 2
    return [size / seconds for seconds in timed_epochs(config, size, rounds)[0]]


def loader_seconds(config: Config, size: int, device: torch.device) -> float:
    """Seconds of an epoch of the loader and augmentation alone."""
    data = random_datasets(size, device)
    loader = Loader(data.train, config.stage1.batch_size, seed=0, transform=data.transform(train=True))
    times = []
    for epoch in range(4):
        started = time.perf_counter()
        for _ in loader.epoch(epoch):
            pass
        wait(device)
        times.append(time.perf_counter() - started)
    return median(times[1:])


class PlainLoop:
    """What a user writes: a DataLoader with workers over PIL images, torchvision transforms, float32."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        config = stage1_config("no", compiled=False)
        self.net = fresh_net(config, random_datasets(200, device), device, "plain").to(memory_format=torch.contiguous_format)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def epoch(self, size: int) -> float:
        """Seconds of one epoch over `size` images."""
        loader = torch.utils.data.DataLoader(
            _PILImages(size), batch_size=100, shuffle=True, num_workers=2, pin_memory=self.device.type == "cuda"
        )
        batches = iter(loader)
        first = next(batches)  # workers have started: their start is not counted
        self.net.train()
        started = time.perf_counter()
        for images, labels in itertools.chain([first], batches):
            logits = self.net(images.to(self.device, non_blocking=True)).logits
            loss = F.cross_entropy(logits, labels.to(self.device, non_blocking=True))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        wait(self.device)
        return time.perf_counter() - started


class _PILImages(torch.utils.data.Dataset):
    def __init__(self, size: int) -> None:
        generator = np.random.default_rng(0)
        self.images = generator.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
        self.labels = generator.integers(0, NUM_CLASSES, size)
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(PIXEL_MEAN, PIXEL_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


# --- stage 2 ----------------------------------------------------------------------------------------------------------


def bench_stage2(device: torch.device, rounds: int) -> list[dict]:
    """An epoch on cached embeddings against an epoch of the released loop."""
    released = ReleasedLoop(device)
    num_steps = -(-EPOCH_SIZE // 16)
    entries = []
    for title, arguments in (
        ("stage 2, official weights on cached embeddings", ["--config", "official", "--stage2.embeddings", "cached"]),
        ("stage 2, preset cifar10_lt", ["--config", "cifar10_lt"]),
    ):
        config = variant_config(parse_config(arguments), "ot_meta")
        # a few steps of the released loop stand for an epoch: all of them cost the same
        ours, theirs = timed_epochs(config, EPOCH_SIZE, rounds, lambda: released.seconds_per_step(4) * num_steps)
        entry = ratio_entry(title, "released loop, plain statement", theirs, ours)
        entry["unit"] = "epochs per second"
        entries.append(entry)
    return entries


class ReleasedLoop:
    """The paper's released stage 2, stated plainly: at every step 16 images and the whole meta set pass the frozen
    backbone, the 16 weights move by a gradient through Sinkhorn, and the linear layer by the weighted loss plus ten times
    the meta loss. Generous to it: images lie on the device already, and are not augmented.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        data = random_datasets(SMALL_EPOCH_SIZE, device)
        self.net = fresh_net(parse_config(["--config", "official"]), data, device, "released")
        self.net.backbone.requires_grad_(False)
        self.net.train()
        normalize = data.transform(train=False)
        self.images = normalize(data.train.in_memory, torch.arange(SMALL_EPOCH_SIZE, device=device), 0)
        self.meta = normalize(data.meta.in_memory, torch.arange(NUM_META, device=device), 0)
        self.labels, self.meta_labels = data.train.labels, data.meta.labels
        self.prototypes = torch.randn(NUM_CLASSES, 64, device=device)
        self.theta = torch.ones(SMALL_EPOCH_SIZE, device=device)
        self.optimizer = torch.optim.SGD(self.net.head.parameters(), lr=2e-5, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def seconds_per_step(self, num_steps: int) -> float:
        """Mean over some steps."""
        started = time.perf_counter()
        for step in range(num_steps):
            members = torch.arange(16, device=self.device) + 16 * (step % 100)
            output = self.net(self.images[members])
            weights = self._weight_step(members, output.embedding.detach())
            losses = F.cross_entropy(output.logits, self.labels[members], reduction="none")
            meta_loss = F.cross_entropy(self.net(self.meta).logits, self.meta_labels)
            self.optimizer.zero_grad()
            ((weights * losses).sum() + 10 * meta_loss).backward()
            self.optimizer.step()
        wait(self.device)
        return (time.perf_counter() - started) / num_steps

    def _weight_step(self, members: Tensor, embeddings: Tensor) -> Tensor:
        one_hot = torch.eye(NUM_CLASSES, device=self.device)
        cosine = F.normalize(self.prototypes, dim=1) @ F.normalize(embeddings, dim=1).T
        labels = ((one_hot[:, None] - one_hot[self.labels[members]][None]) ** 2).mean(-1)
        cost = 0.5 * (1 - cosine) + 0.5 * labels
        theta = nn.Parameter(self.theta[members])
        log_a = torch.full((NUM_CLASSES,), 1 / NUM_CLASSES, device=self.device).log()
        log_b, f, g = theta.log_softmax(0), torch.zeros_like(log_a), torch.zeros_like(theta)
        for _ in range(200):
            old = f
            f = 0.1 * (log_a - torch.logsumexp((g[None] - cost) / 0.1, 1))
            g = 0.1 * (log_b - torch.logsumexp((f[:, None] - cost) / 0.1, 0))
            if (f - old).abs().sum() < 0.1:
                break
        (((f[:, None] + g[None] - cost) / 0.1).exp() * cost).sum().backward()
        torch.optim.SGD([theta], lr=0.01, weight_decay=5e-4).step()
        self.theta[members] = theta.detach()
        return self.theta[members]


# --- processes --------------------------------------------------------------------------------------------------------


def bench_processes(device: torch.device, rounds: int) -> list[dict]:
    """Two processes that share a batch against one; and two runs side by side against one with all threads.

    Each process finds the device itself.
    """
    entries = []
    for title, mode in (("float32", "no,false"), ("bfloat16, compiled", "bf16,true")):
        one, two, wide, pair = [], [], [], []
        for _ in range(max(1, rounds // 3)):
            one += _workers(mode, 1, threads=1)[0]
            two += _workers(mode, 2, threads=1, group=True)[0]
            wide += _workers(mode, 1, threads=2)[0]
            pair += [sum(speeds) for speeds in zip(*_workers(mode, 2, threads=1), strict=True)]
        for name, baseline, slow, fast in (
            (f"2 processes, {title}", "1 process, 1 thread", one, two),
            (f"2 runs side by side, {title}", "1 run, 2 threads", wide, pair),
        ):
            entry = ratio_entry(name, baseline, [1 / x for x in slow], [1 / x for x in fast])
            entry["images_per_second"], entry["baseline_images_per_second"] = round(median(fast), 1), round(median(slow), 1)
            entries.append(entry)
    return entries


def _workers(mode: str, number: int, *, threads: int, group: bool = False) -> list[list[float]]:
    """Speeds that each of some processes prints, as one group or each for itself, at the same time."""
    script = [str(Path(__file__).resolve()), "--worker", mode, "--rounds", "3"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if group:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
        commands = [[*launcher, *script]]
    else:
        commands = [[sys.executable, *script]] * number
    started = [
        subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) for c in commands
    ]
    speeds = []
    for process in started:
        out, err = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"a worker failed: {err[-500:]}")
        speeds.append(json.loads(next(line for line in out.splitlines() if line.startswith("["))))
    return speeds


if __name__ == "__main__":
    exit_with_message(main)
