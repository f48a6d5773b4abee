"""How fast training is, as ratios measured side by side in one run.

    python analysis/bench_training.py                     # minutes on a CPU; the same command on a GPU
    python analysis/bench_training.py --only stage1 stage2 --rounds 3

stage1     the training loop of this package against a plain PyTorch loop (DataLoader with workers, torchvision transforms),
           same ResNet-32, same batch size; also the loader's share of a step and the share of the device's GEMM peak
stage2     an epoch of the classifier on cached embeddings against a plain statement of the paper's released loop: batch 16,
           all meta images forwarded at every step
processes  two processes against one, and two runs side by side against one run with all threads
pieces     what policies of augmentation, sharpness-aware steps and averages of weights cost beside the plain step
profile    where the processor's time of a training step goes, and the share of the GEMM peak, on one thread

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
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from otrw import distributed
from otrw.commands.exit import exit_with_message
from otrw.config import Config
from otrw.config.command_line import parse_config
from otrw.config.variants import variant_config
from otrw.data.augment import Augmentation
from otrw.data.datasets import Datasets
from otrw.data.loader import Batch, Loader, SampleSet
from otrw.data.policies import Policy
from otrw.records import ledger
from otrw.training.optimization import at_the_worst_near, average_of, make_optimizer
from otrw.training.process_group import start_accelerator
from otrw.training.progress import Progress
from otrw.training.session import Session
from otrw.training.stages import fresh_net, stage1, stage2
from otrw.training.stop import StopRequest
from otrw.training.tracking import Journal

RESULTS = Path(__file__).resolve().parent / "results" / "benchmarks"
NUM_CLASSES = 10
EPOCH_SIZE = 12_380  # CIFAR-10-LT at factor 100
SMALL_EPOCH_SIZE = 1600  # enough on a CPU
NUM_META = 100
NUM_WARMUP_EPOCHS = 2
PARTS = ["stage1", "stage2", "processes", "pieces", "profile"]
PIXEL_MEAN, PIXEL_STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def main() -> None:
    """Parse, measure, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some of the parts")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is timed (default: 5)")
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder of the record (default: analysis/results/benchmarks)"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        speeds = stage1_speeds(*options.worker.split(","), rounds=options.rounds)
        if distributed.is_main():
            print(json.dumps(speeds))
        distributed.shut_down()
        return
    parts = options.only or PARTS
    console = Console()
    device = start_accelerator(parse_config([]).run).device
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    console.print(f"{name}, {torch.get_num_threads()} threads, {os.cpu_count()} cores")
    entries: list[dict] = []
    if "stage1" in parts:
        entries += bench_stage1(device, options.rounds)
    if "stage2" in parts:
        entries += bench_stage2(device, options.rounds)
    if "processes" in parts:
        entries += bench_processes(options.rounds)
    if "pieces" in parts:
        entries += bench_pieces(device, options.rounds)
    profile = profile_step(device) if "profile" in parts else None
    if entries:
        print_entries(console, entries)
    if profile is not None:
        print_profile(console, profile)
    options.output.mkdir(parents=True, exist_ok=True)
    suffix = "" if options.only is None else "-" + "-".join(sorted(parts))
    path = options.output / f"training{suffix}-{'gpu' if device.type == 'cuda' else 'cpu'}.json"
    facts = ledger.environment(device=name, threads=torch.get_num_threads(), cores=os.cpu_count(), rounds=options.rounds)
    ledger.write_json(path, {"benchmark": "training", "environment": facts, "entries": entries, "profile": profile})
    console.print(f"record  {path}", soft_wrap=True)


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


def stage1_config(precision: str, *, compiled: bool) -> Config:
    """Stage 1 of the `official` preset."""
    arguments = ["--config", "official", "--run.precision", precision, "--run.compile", str(compiled).lower()]
    return variant_config(parse_config(arguments), "stage1")


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
        _wait(device)
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
        _wait(self.device)
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
        _wait(self.device)
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


def bench_processes(rounds: int) -> list[dict]:
    """Two processes that share a batch against one; and two runs side by side against one with all threads."""
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


# --- pieces of a strong recipe ----------------------------------------------------------------------------------------


def bench_pieces(device: torch.device, rounds: int) -> list[dict]:
    """Steps with a piece against plain steps, turn by turn, in the processor's own time where there is no GPU."""
    options = ["--config", "official", "--run.precision", "no"]
    steps = {"plain": Stepper(device, options)}
    for title, added in PIECES.items():
        steps[title] = Stepper(device, [*options, *added])
    seconds: dict[str, list[float]] = {title: [] for title in steps}
    for round_number in range(rounds + 1):
        for title, stepper in steps.items():
            elapsed = stepper.seconds(8)
            if round_number:  # the first is warm-up
                seconds[title].append(elapsed)
    return [ratio_entry(title, "the plain step", seconds["plain"], seconds[title]) for title in PIECES]


PIECES = {
    "randaugment": ["--data.augment.policy", "randaugment"],
    "autoaugment": ["--data.augment.policy", "autoaugment"],
    "trivialaugment": ["--data.augment.policy", "trivialaugment"],
    "randaugment and mixup": ["--data.augment.policy", "randaugment", "--stage1.mixup_alpha", "0.2"],
    "average of the weights": ["--stage1.optimizer.ema_decay", "0.999"],
    "sharpness-aware": ["--stage1.optimizer.sam_radius", "0.05"],
}


class Stepper:
    """Training steps of stage 1, one after the other, loader and augmentation included."""

    def __init__(self, device: torch.device, arguments: list[str]) -> None:
        config = variant_config(parse_config(arguments), "stage1")
        augment, settings = config.data.augment, config.stage1
        data = random_datasets(SMALL_EPOCH_SIZE, device)
        policy = Policy(augment.policy, augment.num_operations, augment.magnitude)
        data = data._replace(augmentation=data.augmentation._replace(policy=policy))
        self.loader = Loader(
            data.train, settings.batch_size, seed=0, transform=data.transform(train=True), mixup_alpha=settings.mixup_alpha
        )
        self.net = fresh_net(config, data, device, "pieces").train()
        self.optimizer, _ = make_optimizer(self.net, settings.optimizer, steps_per_epoch=len(self.loader), epochs=100)
        decay, self.radius = settings.optimizer.ema_decay, settings.optimizer.sam_radius
        self.average = average_of(self.net, decay) if decay else None
        self.batches = itertools.chain.from_iterable(self.loader.epoch(epoch) for epoch in itertools.count())
        self.device = device
        self.clock = time.perf_counter if device.type == "cuda" else time.process_time

    def seconds(self, number: int) -> float:
        """Of some steps: of this process's processor on a CPU, which others' work does not lengthen, else of the clock."""
        started = self.clock()
        for _ in range(number):
            self.step(next(self.batches))
        _wait(self.device)
        return self.clock() - started

    def step(self, batch: Batch) -> None:
        """One step."""
        self._backward(batch)
        if self.radius:
            with at_the_worst_near(self.net, self.radius):
                self._backward(batch)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.net)

    def _backward(self, batch: Batch) -> None:
        F.cross_entropy(self.net(batch.inputs).logits, batch.labels).backward()


# --- profile ----------------------------------------------------------------------------------------------------------

KINDS = {  # of operations, by what their names contain; the first that fits
    "convolution": ("convolution", "conv2d", "mkldnn", "cudnn"),
    "batch norm": ("batch_norm",),
    "ReLU": ("relu", "threshold"),
    "augmentation and loader": ("index", "nan_to_num", "_to_copy", "copy_", "gather"),
    "optimiser": ("optimizer", "foreach", "_fused"),
    "addition": ("add",),
}


def profile_step(device: torch.device) -> dict:
    """Shares of a float32 training step by kind of operation, and of the GEMM peak, both measured here and now.

    On a CPU one thread computes, and times are the processor's own: other work on the machine does not count.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stepper = Stepper(device, ["--config", "official", "--run.precision", "no"])
    stepper.seconds(3)
    rates, peaks = [], []
    for _ in range(3):
        peaks.append(gemm_flops(device, torch.float32, stepper.clock))
        rates.append(8 * stepper.loader.batch_size / stepper.seconds(8))
    activity = torch.profiler.ProfilerActivity.CUDA if device.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as trace:
        stepper.seconds(8)
    torch.set_num_threads(num_threads)
    times: dict[str, float] = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in trace.key_averages():
        own = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        name = event.key.lower()
        times[next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other")] += own
    total = sum(times.values())
    flops = training_flops_per_image()
    shares = sorted(rate * flops / peak for rate, peak in zip(rates, peaks, strict=True))
    return {
        "images_per_second": round(median(rates), 1),
        "gemm_gflops": round(median(peaks) / 1e9, 1),
        "gflop_per_image": round(flops / 1e9, 3),
        "share_of_gemm_peak": [round(share, 3) for share in (median(shares), shares[0], shares[-1])],
        "shares_of_time": {kind: round(value / total, 3) for kind, value in times.items()},
    }


def print_profile(console: Console, profile: dict) -> None:
    """The shares as a table."""
    table = Table(title="A float32 training step, one thread", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("% of the time", justify="right")
    for kind, share in sorted(profile["shares_of_time"].items(), key=lambda item: -item[1]):
        table.add_row(kind, f"{100 * share:.0f}")
    console.print(table)
    middle, low, high = (100 * share for share in profile["share_of_gemm_peak"])
    console.print(
        f"{profile['images_per_second']:.0f} images a second; {middle:.0f} % ({low:.0f} to {high:.0f}) of the GEMM peak of "
        f"{profile['gemm_gflops']:.0f} GFLOP/s",
        highlight=False,
    )


# --- shared -----------------------------------------------------------------------------------------------------------


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
    for column, justify in (("", "left"), ("against", "left"), ("ratio", "right"), ("lowest to highest", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
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
        _wait(device)
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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    exit_with_message(main)
