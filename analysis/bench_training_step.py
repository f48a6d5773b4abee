"""What one training step costs, and where its time goes.

    python analysis/bench_training_step.py                # minutes on a CPU; the same command on a GPU
    python analysis/bench_training_step.py --only pieces --rounds 3

pieces     what policies of augmentation, sharpness-aware steps and averages of weights cost beside the plain step
profile    where the processor's time of a training step goes, and the share of the GEMM peak, on one thread

Images are random: the time does not depend on what they show. Steps take turns, round by round; the ratio is the median of the
rounds, with the lowest and highest. The record goes to analysis/results/benchmarks/.
"""

import itertools
import time
from statistics import median

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from training_benchmark import (
    SMALL_EPOCH_SIZE,
    device_of,
    gemm_flops,
    parser_of,
    print_entries,
    random_datasets,
    ratio_entry,
    training_flops_per_image,
    wait,
    write_record,
)

from otrw.commands.exit import exit_with_message
from otrw.config.command_line import parse_config
from otrw.config.variants import variant_config
from otrw.data.loader import Batch, Loader
from otrw.data.policies import Policy
from otrw.training.optimization import at_the_worst_near, average_of, make_optimizer
from otrw.training.stages import fresh_net

PARTS = ["pieces", "profile"]


def main() -> None:
    """Parse, measure, print, write the record."""
    options = parser_of(__doc__ or "", PARTS).parse_args()
    parts = options.only or PARTS
    console = Console()
    device, name = device_of(console)
    entries = bench_pieces(device, options.rounds) if "pieces" in parts else []
    profile = profile_step(device) if "profile" in parts else None
    if entries:
        print_entries(console, entries)
    if profile is not None:
        print_profile(console, profile)
    write_record(console, options, device, name, parts, {"entries": entries, "profile": profile})


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
        wait(self.device)
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


if __name__ == "__main__":
    exit_with_message(main)
