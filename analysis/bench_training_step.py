"""What one training step costs, and where its time goes.

    python analysis/bench_training_step.py                # minutes on a CPU; the same command on a GPU
    python analysis/bench_training_step.py --only pieces --rounds 3

pieces     what policies of augmentation, sharpness-aware steps and averages of weights cost beside the plain step
profile    where the processor's time of a training step goes, and its share of the peak of a matrix product of the same
           type, on one thread: float32, bf16 autocast, and each compiled

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
    profiles = profile_steps(device, options.rounds) if "profile" in parts else {}
    if profiles:
        plain = profiles["float32"]["seconds"]
        entries += [
            ratio_entry(way, "float32", plain, of_way["seconds"]) for way, of_way in profiles.items() if way != "float32"
        ]
    if entries:
        print_entries(console, entries)
    if profiles:
        print_profiles(console, profiles)
    write_record(console, options, device, name, [*parts, *capability(device)], {"entries": entries, "profiles": profiles})


def capability(device: torch.device) -> list[str]:
    """What a CPU's vector instructions are called, by PyTorch: records of different ones lie side by side."""
    return [] if device.type == "cuda" else [torch.backends.cpu.get_cpu_capability().lower()]


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

    def __init__(self, device: torch.device, arguments: list[str], *, bf16: bool = False, compiled: bool = False) -> None:
        config = variant_config(parse_config(arguments), "stage1")
        augment, settings = config.data.augment, config.stage1
        data = random_datasets(SMALL_EPOCH_SIZE, device)
        policy = Policy(augment.policy, augment.num_operations, augment.magnitude)
        data = data._replace(augmentation=data.augmentation._replace(policy=policy))
        self.loader = Loader(
            data.train, settings.batch_size, seed=0, transform=data.transform(train=True), mixup_alpha=settings.mixup_alpha
        )
        self.net = fresh_net(config, data, device, "pieces").train()
        self.forward = torch.compile(self.net, dynamic=False) if compiled else self.net
        self.bf16 = bf16
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
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.forward(batch.inputs).logits
        F.cross_entropy(logits.float(), batch.labels).backward()


KINDS = {  # of operations, by what their names contain; the first that fits
    "convolution": ("convolution", "conv2d", "mkldnn", "cudnn"),
    "batch norm": ("batch_norm",),
    "ReLU": ("relu", "threshold", "clamp_min"),
    "fused by the compiler": ("compiledfxgraph", "compiledfunction", "triton", "cpp_fused"),
    "augmentation and loader": ("index", "nan_to_num", "gather"),
    "optimiser": ("optimizer", "foreach", "_fused"),
    "addition": ("add",),
    "conversion": ("_to_copy", "copy_"),
}
WAYS = {
    "float32": {},
    "float32, compiled": {"compiled": True},
    "bf16": {"bf16": True},
    "bf16, compiled": {"bf16": True, "compiled": True},
}
STEPS = 8  # timed at a time


def profile_steps(device: torch.device, rounds: int) -> dict[str, dict]:
    """{way: shares of a training step by kind of operation, and of the GEMM peak of its type}, all measured here and now.

    Ways take turns. On a CPU one thread computes, and times are the processor's own: other work on the machine does not count.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    options = ["--config", "official", "--run.precision", "no"]
    steppers = {way: Stepper(device, options, **how) for way, how in WAYS.items()}
    for stepper in steppers.values():
        stepper.seconds(3)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    peaks: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, stepper in steppers.items():
            dtype = torch.bfloat16 if stepper.bf16 else torch.float32
            peaks[way].append(gemm_flops(device, dtype, stepper.clock))
            seconds[way].append(stepper.seconds(STEPS))
    flops = training_flops_per_image()
    profiles = {}
    for way, stepper in steppers.items():
        rates = [STEPS * stepper.loader.batch_size / elapsed for elapsed in seconds[way]]
        shares = sorted(rate * flops / peak for rate, peak in zip(rates, peaks[way], strict=True))
        profiles[way] = {
            "seconds": [round(elapsed, 4) for elapsed in seconds[way]],
            "images_per_second": round(median(rates), 1),
            "gemm_gflops": round(median(peaks[way]) / 1e9, 1),
            "gflop_per_image": round(flops / 1e9, 3),
            "share_of_gemm_peak": [round(share, 3) for share in (median(shares), shares[0], shares[-1])],
            "shares_of_time": shares_of_time(stepper),
        }
    torch.set_num_threads(num_threads)
    return profiles


def shares_of_time(stepper: Stepper) -> dict[str, float]:
    """Share of each kind of operation in the time of a few steps."""
    is_gpu = stepper.device.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if is_gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as trace:
        stepper.seconds(STEPS)
    times: dict[str, float] = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in trace.key_averages():
        own = event.self_device_time_total if is_gpu else event.self_cpu_time_total
        name = event.key.lower()
        times[next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other")] += own
    total = sum(times.values())
    return {kind: round(value / total, 3) for kind, value in times.items()}


def print_profiles(console: Console, profiles: dict[str, dict]) -> None:
    """The shares as a table, a column a way."""
    table = Table(title="A training step, one thread: % of its time", title_justify="left", title_style="bold")
    table.add_column("")
    for way in profiles:
        table.add_column(way.replace(", ", ",\n"), justify="right")
    for kind in [*KINDS, "other"]:
        shares = [profile["shares_of_time"][kind] for profile in profiles.values()]
        table.add_row(kind, *(f"{100 * share:.1f}" for share in shares))
    table.add_section()
    table.add_row("images a second", *(f"{profile['images_per_second']:.0f}" for profile in profiles.values()))
    table.add_row("GEMM peak, GFLOP/s", *(f"{profile['gemm_gflops']:.0f}" for profile in profiles.values()))
    table.add_row("% of that peak", *(f"{100 * profile['share_of_gemm_peak'][0]:.0f}" for profile in profiles.values()))
    console.print(table)


if __name__ == "__main__":
    exit_with_message(main)
