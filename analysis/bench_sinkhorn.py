"""How fast entropic transport is solved, against the libraries that solve it too, as ratios measured in one run.

    python analysis/bench_sinkhorn.py                                        # every size and epsilon; hours
    python analysis/bench_sinkhorn.py --sizes 100x2048 --epsilons 0.1 0.02 --limit-seconds 5
    python analysis/bench_sinkhorn.py --table                                # of the record, in Markdown
    python analysis/bench_sinkhorn.py --plot ratios.png                      # of the record

A cell is a size, an epsilon and a number of threads; it is measured in a process of its own and added to the record at once.
Cells that the record has are passed over, unless --again is given, so that an interrupted run goes on.

The problem: unit embeddings at random (64-d), cost half cosine and half label (euclidean, 10 classes), b not uniform, float32.
Peers: POT's `sinkhorn_log`, `sinkhorn` (numpy in float64 and torch in float32) and `smooth_ot_semi_dual` with negative entropy;
geomloss and ott-jax (log domain and kernel) where they can be imported (pip install geomloss ott-jax).

The error is the L1 distance of both marginals of the plan from a and b, in float64 from what the solver returns, the same way
for all. A peer first gets as many iterations as fill --limit-seconds; if its plan is good enough then, it gets 10, 15, 23, ...,
without a check of its own where it lets one, and its time is that of the first number that suffices. What does not get there is
shown with the error that it reached, and with the longest time it was given; one that stays away from the error whatever the
number, as where a kernel underflows, never gets there. jax is timed after compilation. Solvers take turns; times are the least
of the rounds. On one thread ratios are those of processor time, which other processes disturb little, on several those of the
clock. Memory is by how much the peak of the process rises in one call (Linux).
"""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from otrw.commands.exit import exit_with_message
from otrw.errors import check
from otrw.ot.batched import newton_batched
from otrw.ot.cost import combined_cost, cosine_cost, label_cost
from otrw.ot.solve import Method, solve
from otrw.records import ledger

RESULTS = Path(__file__).resolve().parent / "results" / "benchmarks"
SIZES = ["10x16", "10x128", "100x2048", "100x16384", "1000x16384", "1000x131072"]
EPSILONS = [0.1, 0.05, 0.02, 0.005]
ERRORS = [1e-3, 1e-5]
OURS = ["otrw", "otrw newton", "otrw newton_cg"]
PEERS = ["pot log torch", "pot log numpy", "pot torch", "pot numpy", "pot semi-dual", "geomloss", "ott log", "ott kernel"]
FIRST_ITERATIONS, MORE_ITERATIONS, MOST_ITERATIONS = 10, 1.5, 1e6
SHARE_OF_TOLERANCE = 0.7
"""Ours is asked for a little more than the error, which also counts the rounding of g."""
BATCHES = (64, 512)
"""Small problems solved at once; the released recipe has some 800 in an epoch of CIFAR-10-LT."""
NUM_CLASSES, EMBEDDING_SIZE = 10, 64


class Problem(NamedTuple):
    """The same for every solver."""

    cost: Tensor
    log_a: Tensor
    log_b: Tensor
    epsilon: float


Answer = tuple[Tensor, Tensor] | Tensor
"""Potentials f and g, or a plan."""


def make_problem(num_atoms: int, num_samples: int, epsilon: float, seed: int = 0) -> Problem:
    """Unit embeddings at random, cost half cosine and half label, b not uniform."""
    generator = torch.Generator().manual_seed(seed)
    samples = F.normalize(torch.randn(num_samples, EMBEDDING_SIZE, generator=generator), dim=1)
    atoms = F.normalize(torch.randn(num_atoms, EMBEDDING_SIZE, generator=generator), dim=1)
    labels = torch.randint(NUM_CLASSES, (num_samples,), generator=generator)
    label_part = label_cost(torch.arange(num_atoms) % NUM_CLASSES, labels, NUM_CLASSES, "euclidean")
    cost = combined_cost(cosine_cost(atoms, samples), label_part, 0.5)
    b = torch.rand(num_samples, generator=generator) + 0.1
    log_a = torch.full((num_atoms,), 1 / num_atoms).log()
    return Problem(cost, log_a, (b.double() / b.double().sum()).log().float(), epsilon)


def error_of(problem: Problem, answer: Answer) -> float:
    """L1 distance of both marginals from a and b, in float64, block by block."""
    cost, log_a, log_b, epsilon = problem
    rows, columns = torch.zeros(len(log_a), dtype=torch.float64), 0.0
    for part in torch.arange(len(log_b)).split(max(1, (1 << 22) // len(log_a))):
        if isinstance(answer, Tensor):
            plan = answer[:, part].double()
        else:
            f, g = answer[0].double(), answer[1].double()
            plan = ((f[:, None] + g[part] - cost[:, part].double()) / epsilon).exp()
        rows += plan.sum(1)
        columns += float((plan.sum(0) - log_b[part].double().exp()).abs().sum())
    error = float((rows - log_a.double().exp()).abs().sum()) + columns
    return error if error == error else float("inf")


# --- solvers: a function of a problem gives a function of the tolerance (ours) or the number of iterations (peers) ----------


def prepare(name: str, problem: Problem) -> Callable[[float], Callable[[], Answer]]:
    """What is done once for a problem, outside the clock: conversion and compilation. Raises ImportError."""
    cost, log_a, log_b, epsilon = problem
    if name in OURS:
        method = cast(Method, name.removeprefix("otrw").strip() or "auto")

        def with_tolerance(tolerance: float) -> Callable[[], Answer]:
            tolerance *= SHARE_OF_TOLERANCE
            return lambda: solve(cost, log_a, log_b, epsilon=epsilon, method=method, tolerance=tolerance)[:2]

        return with_tolerance
    if name.startswith("pot"):
        return partial(_pot, name, problem)
    if name == "geomloss":
        geomloss = importlib.import_module("geomloss.ot")
        a, b = log_a.exp(), log_b.exp()
        return lambda number: lambda: geomloss.solve(cost, reg=epsilon, a=a, b=b, max_iter=int(number)).plan
    return _ott(name, problem)


def _pot(name: str, problem: Problem, number: float) -> Callable[[], Answer]:
    import ot

    a, b, cost = problem.log_a.double().exp(), problem.log_b.double().exp(), problem.cost
    a, b = a / a.sum(), b / b.sum()
    iterations = {"numItermax": int(number), "stopThr": 0.0}
    if name == "pot semi-dual":
        arrays = a.numpy(), b.numpy(), cost.double().numpy()
        settings = {"reg": problem.epsilon, "reg_type": "negentropy", **iterations}
        # the second marginal is met exactly: samples
        return lambda: torch.as_tensor(ot.smooth.smooth_ot_semi_dual(*arrays, **settings))
    inputs: tuple[Any, ...]
    if name.endswith("numpy"):
        inputs = a.numpy(), b.numpy(), cost.double().numpy()
    else:
        inputs = a.float(), b.float(), cost
    method = "sinkhorn_log" if "log" in name else "sinkhorn"
    return lambda: torch.as_tensor(ot.sinkhorn(*inputs, problem.epsilon, method=method, warn=False, **iterations))


def _ott(name: str, problem: Problem) -> Callable[[float], Callable[[], Answer]]:
    jax = importlib.import_module("jax")
    ott = importlib.import_module("ott.geometry.geometry")
    linear = importlib.import_module("ott.problems.linear.linear_problem")
    solver = importlib.import_module("ott.solvers.linear.sinkhorn")
    cost, a, b = (jax.numpy.asarray(x.numpy()) for x in (problem.cost, problem.log_a.exp(), problem.log_b.exp()))

    def with_iterations(number: float) -> Callable[[], Answer]:
        method = solver.Sinkhorn(
            lse_mode=name == "ott log", threshold=0.0, max_iterations=int(number), inner_iterations=max(1, int(number))
        )

        @jax.jit
        def run(cost: object, a: object, b: object) -> object:
            geometry = ott.Geometry(cost_matrix=cost, epsilon=problem.epsilon)
            result = method(linear.LinearProblem(geometry, a=a, b=b))
            return result.f, result.g

        jax.block_until_ready(run(cost, a, b))

        def call() -> Answer:
            f, g = jax.block_until_ready(run(cost, a, b))
            return torch.from_numpy(np.array(f)), torch.from_numpy(np.array(g))

        return call

    return with_iterations


# --- time -------------------------------------------------------------------------------------------------------------


class Seconds(NamedTuple):
    """Of one call."""

    clock: float
    processor: float

    @property
    def compared(self) -> float:
        """What ratios are made of."""
        return self.processor if torch.get_num_threads() == 1 else self.clock


NEVER = Seconds(float("inf"), float("inf"))


class Found(NamedTuple):
    """A call that reaches an error, or the best one within the limit."""

    call: Callable[[], Answer]
    error: float
    iterations: int | None
    reached: bool
    seconds: Seconds
    given_seconds: float | None = None
    """The longest call that did not reach the error; None where no more iterations would."""


def timed(call: Callable[[], Answer]) -> tuple[Seconds, Answer]:
    """Seconds, and what came back."""
    clock, processor = time.perf_counter(), time.process_time()
    answer = call()
    return Seconds(time.perf_counter() - clock, time.process_time() - processor), answer


def peak_mebibytes(call: Callable[[], Answer]) -> float | None:
    """By how much one call raises the memory of this process; None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_kibibytes("VmRSS")
        call()
        return round((_status_kibibytes("VmHWM") - before) / 1024, 1)
    except OSError:
        return None


def _status_kibibytes(key: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


def find(name: str, problem: Problem, targets: list[float], limit_seconds: float) -> dict[float, Found]:
    """For each target error a call that reaches it."""
    make = prepare(name, problem)
    if name in OURS:
        calls = {target: make(target) for target in targets}
        errors = {target: error_of(problem, call()) for target, call in calls.items()}
        return {t: Found(calls[t], errors[t], None, errors[t] <= t, NEVER) for t in targets}
    found: dict[float, Found] = {}
    tried: list[Found] = []

    def attempt(number: float) -> float:
        call = make(number)
        seconds, answer = timed(call)
        tried.append(Found(call, error_of(problem, answer), int(number), False, seconds))
        return seconds.compared

    number = float(FIRST_ITERATIONS)
    seconds = attempt(number)
    while seconds < limit_seconds / MORE_ITERATIONS and number < MOST_ITERATIONS:
        number = min(number * limit_seconds / seconds, MOST_ITERATIONS)
        seconds = attempt(number)
    if min(now.error for now in tried) <= max(targets):
        tried, number = [], float(FIRST_ITERATIONS)
        while True:
            seconds = attempt(number)
            now = tried[-1]
            found |= {t: now._replace(reached=True) for t in targets if now.error <= t and t not in found}
            if len(found) == len(targets) or MORE_ITERATIONS * seconds > limit_seconds or number > MOST_ITERATIONS:
                break
            number *= MORE_ITERATIONS
    best = min(tried, key=lambda now: now.error)
    given = None if number >= MOST_ITERATIONS else max(now.seconds.compared for now in tried)
    return {t: found.get(t, best._replace(given_seconds=given)) for t in targets}


def compare(size: str, epsilon: float, names: list[str], targets: list[float], options: argparse.Namespace) -> list[dict]:
    """One problem, every solver, every target error; solvers take turns."""
    problem = make_problem(*parse_size(size), epsilon)
    calls: dict[tuple[str, float], Found] = {}
    for name in names:
        try:
            calls |= {(name, t): f for t, f in find(name, problem, targets, options.limit_seconds).items()}
        except ImportError:
            print(f"{name} left out: not installed", file=sys.stderr)
        except Exception as error:  # a peer's failure is a result, not ours to raise
            print(f"{name} left out: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    seconds = {key: found.seconds for key, found in calls.items()}
    for _ in range(options.rounds):
        for key, found in calls.items():
            if key[0] in OURS or (found.reached and seconds[key].compared < options.limit_seconds / options.rounds):
                now = timed(found.call)[0]
                seconds[key] = min(seconds[key], now, key=lambda s: s.compared)
    peaks = {found.call: peak_mebibytes(found.call) for found in calls.values()}
    entries = []
    for (name, target), found in calls.items():
        own = seconds["otrw", target]
        entries.append(
            {
                **_cell(size, epsilon, target),
                "solver": name,
                "reached": found.reached,
                "error": float(f"{found.error:.2e}"),
                "iterations": found.iterations,
                "milliseconds": round(1e3 * seconds[name, target].clock, 3),
                "processor_milliseconds": round(1e3 * seconds[name, target].processor, 3),
                "times_otrw": round(seconds[name, target].compared / own.compared, 2),
                "given_milliseconds": found.given_seconds and round(1e3 * found.given_seconds, 1),
                "peak_mebibytes": peaks[found.call],
            }
        )
    return entries


def _cell(size: str, epsilon: float, target: float) -> dict[str, Any]:
    return {"size": size, "epsilon": epsilon, "target_error": target, "threads": torch.get_num_threads()}


def compare_batches(size: str, epsilon: float, targets: list[float], rounds: int, num_problems: int) -> list[dict]:
    """What one small problem of a batch costs, against each alone."""
    problems = [make_problem(*parse_size(size), epsilon, seed) for seed in range(num_problems)]
    cost, log_b = torch.stack([p.cost for p in problems]), torch.stack([p.log_b for p in problems])
    entries = []
    for target in targets:
        tolerance = SHARE_OF_TOLERANCE * target
        run = partial(newton_batched, cost, problems[0].log_a, log_b, epsilon=epsilon, tolerance=tolerance)
        result = run()
        errors = [error_of(p, (result.f[i], result.g[i])) for i, p in enumerate(problems)]
        rounds_seconds = [timed(lambda run=run: run()[:2])[0] for _ in range(rounds)]  # type: ignore[misc]
        seconds = min(rounds_seconds, key=lambda s: s.compared)
        entries.append(
            {
                **_cell(size, epsilon, target),
                "solver": f"otrw batch of {num_problems}",
                "reached": max(errors) <= target,
                "error": float(f"{max(errors):.2e}"),
                "iterations": None,
                "milliseconds": round(1e3 * seconds.clock / num_problems, 4),
                "processor_milliseconds": round(1e3 * seconds.processor / num_problems, 4),
            }
        )
    return entries


# --- command ----------------------------------------------------------------------------------------------------------


def parse_size(size: str) -> tuple[int, int]:
    """ "100x2048" -> (100, 2048)."""
    parts = size.split("x")
    is_size = len(parts) == 2 and all(part.isdigit() and int(part) > 0 for part in parts)
    check(is_size, "--sizes", size, "be atoms x samples", "such as 100x2048")
    return int(parts[0]), int(parts[1])


def _run_worker(arguments: list[str], threads: int) -> dict | None:
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    environment = {**os.environ, **limits, "JAX_PLATFORMS": "cpu"}
    worker = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = worker.communicate()
    print(errors[-2000:], file=sys.stderr, end="")
    if worker.returncode != 0:
        return None
    return json.loads(output.splitlines()[-1])


def work(size: str, epsilon: float, options: argparse.Namespace) -> None:
    """What the process of a cell does."""
    threads = options.threads[0]
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):  # jax has no number of threads to set
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-threads:])
    torch.set_grad_enabled(False)
    warnings.simplefilter("ignore")  # of peers, on overflow and slow convergence: the error tells
    names = [n for n in OURS if n == "otrw" or parse_size(size)[0] >= 100] + options.solvers
    entries = compare(size, epsilon, names, options.errors, options)
    if parse_size(size)[1] <= 128:
        for num_problems in BATCHES:
            entries += compare_batches(size, epsilon, options.errors, options.rounds, num_problems)
    print(json.dumps({"entries": entries}))


def print_entries(console: Console, entries: list[dict]) -> None:
    """The fastest of ours and of those that reach the error, and how far the others came."""
    table = Table("problem", "error", "thr.", "solver", "ms", "x otrw", "reached", box=None, padding=(0, 1, 0, 0))
    for entry in entries:
        table.add_row(
            f"{entry['size']} {entry['epsilon']:g}",
            f"{entry['target_error']:.0e}",
            str(entry["threads"]),
            entry["solver"],
            f"{_compared(entry):.3g}",
            f"{entry['times_otrw']:.2f}" if "times_otrw" in entry else "",
            "yes" if entry["reached"] else f"{entry['error']:.0e}",
        )
    console.print(table)


def plot(record: Path, output: Path) -> None:
    """Time of the fastest peer that reaches the error over ours, for each size and epsilon; hollow where none did: a bound."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    entries = [e for e in json.loads(record.read_text())["entries"] if e["threads"] == 1]
    targets = sorted({e["target_error"] for e in entries}, reverse=True)
    figure, axes = plt.subplots(1, len(targets), figsize=(5 * len(targets), 3.8), sharey=True, squeeze=False)
    sizes = [s for s in SIZES if any(e["size"] == s for e in entries)]
    for axis, target in zip(axes[0], targets, strict=True):
        for epsilon in sorted({e["epsilon"] for e in entries}, reverse=True):
            here = [e for e in entries if (e["target_error"], e["epsilon"]) == (target, epsilon)]
            found = [_ratio([e for e in here if e["size"] == size]) for size in sizes]
            shown = [i for i, (ratio, _) in enumerate(found) if 0 < ratio < math.inf]
            (line,) = axis.plot(shown, [found[i][0] for i in shown], linewidth=1, label=f"epsilon {epsilon:g}")
            for i in shown:
                ratio, is_bound = found[i]
                face = "white" if is_bound else line.get_color()
                axis.plot(i, ratio, "^" if is_bound else "o", color=line.get_color(), markerfacecolor=face)
        axis.axhline(1, color="grey", linewidth=0.8)
        axis.set(title=f"marginal error {target:g}", yscale="log", xticks=range(len(sizes)), xlabel="atoms x samples")
        axis.set_xticklabels(sizes, rotation=30, ha="right")
    axes[0][0].set_ylabel("time of the fastest peer / ours")
    axes[0][0].plot([], [], "^", color="grey", markerfacecolor="white", label="no peer got there:\nmore than this")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(output, dpi=150)


def _ratio(here: list[dict]) -> tuple[float, bool]:
    """Of one cell and error: the time of the fastest peer over ours, nan without a record; and whether it is a bound."""
    own = next((e for e in here if e["solver"] == "otrw"), None)
    peers = [e for e in here if e["solver"] in PEERS]
    if own is None or not peers:
        return math.nan, False
    there = [_compared(e) for e in peers if e["reached"]]
    return (min(there) if there else _unreached(peers)) / _compared(own), not there


def _compared(entry: dict) -> float:
    """Milliseconds that the ratios are made of; earlier records have those of the clock alone."""
    return entry.get("processor_milliseconds" if entry["threads"] == 1 else "milliseconds", entry["milliseconds"])


def _unreached(peers: list[dict]) -> float:
    """Milliseconds in which no peer reached the error; of earlier records, what the nearest one's best plan took."""
    if any("given_milliseconds" not in e for e in peers):
        return _compared(min(peers, key=lambda e: e["error"]))
    return min((e["given_milliseconds"] for e in peers if e["given_milliseconds"] is not None), default=math.inf)


def markdown(entries: list[dict]) -> str:
    """A line a cell and error: ours, the fastest peer that reaches the error, and whoever came closest otherwise."""
    lines = ["| K x N, epsilon | error | threads | ours (ms) | fastest peer that reaches it | its time / ours |"]
    lines.append("| --- | --- | ---: | ---: | --- | ---: |")
    cells = {(e["size"], e["epsilon"], e["target_error"], e["threads"]) for e in entries}
    order = {size: i for i, size in enumerate(SIZES)}
    for cell in sorted(cells, key=lambda c: (order.get(c[0], 99), c[3], -c[1], -c[2])):
        here = [e for e in entries if (e["size"], e["epsilon"], e["target_error"], e["threads"]) == cell]
        peers = [e for e in here if e["solver"] in PEERS]
        there = min((e for e in peers if e["reached"]), key=_compared, default=None)
        nearest = min(peers, key=lambda e: e["error"], default=None)
        own_ones = [e for e in here if e["solver"] == "otrw" or "batch" in e["solver"]]  # of a batch, the time of one problem
        for own in own_ones:
            if there is not None:
                peer = f"{there['solver']} ({there['iterations']} iterations) | {_compared(there) / _compared(own):.2g}"
            elif nearest is not None:
                peer = f"none; {nearest['solver']} is at {nearest['error']:.0e} | > {_unreached(peers) / _compared(own):.2g}"
            else:
                peer = "no peer | "
            reached = "" if own["reached"] else f" (at {own['error']:.1e})"
            name = f"{cell[0]}, {cell[1]:g}{own['solver'].removeprefix('otrw').replace(' batch', ', batch')}"
            lines.append(f"| {name} | {cell[2]:.0e} | {cell[3]} | {_compared(own):.3g}{reached} | {peer} |")
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print, write the record after every cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="atoms x samples")
    parser.add_argument("--epsilons", nargs="+", type=float, default=EPSILONS)
    parser.add_argument("--errors", nargs="+", type=float, default=ERRORS, help="marginal errors to reach")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--solvers", nargs="+", choices=PEERS, default=PEERS, help="peers to compare with")
    parser.add_argument("--limit-seconds", type=float, default=60.0, help="of one call of a peer (default: 60)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed (default: 5)")
    parser.add_argument("--again", action="store_true", help="measure cells anew that the record has")
    parser.add_argument("--plot", type=Path, help="draw the record as this PNG, and measure nothing")
    parser.add_argument("--table", action="store_true", help="print the record as a table, and measure nothing")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the record")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        size, epsilon = options.worker.split(",")
        work(size, float(epsilon), options)
        return
    path = options.output / "sinkhorn-cpu.json"
    entries: list[dict] = json.loads(path.read_text())["entries"] if path.exists() else []
    if options.plot:
        plot(path, options.plot)
        return
    if options.table:
        print(markdown(entries))
        return
    console = Console()
    for size in options.sizes:
        parse_size(size)
    for size in options.sizes:
        for epsilon in options.epsilons:
            for threads in options.threads:
                cell = (size, epsilon, threads)
                if not options.again and any((e["size"], e["epsilon"], e["threads"]) == cell for e in entries):
                    continue
                rest = ["--errors", *map(str, options.errors), "--limit-seconds", str(options.limit_seconds)]
                rest += ["--rounds", str(options.rounds), "--threads", str(threads), "--solvers", *options.solvers]
                answer = _run_worker(["--worker", f"{size},{epsilon}", *rest], threads)
                if answer is None:
                    console.print(f"{size} {epsilon:g}, {threads} threads: failed, see above", soft_wrap=True)
                    continue
                facts = ledger.environment(cores=os.cpu_count(), rounds=options.rounds, limit_seconds=options.limit_seconds)
                new = [{**e, "limit_seconds": options.limit_seconds, "commit": facts["commit"]} for e in answer["entries"]]
                print_entries(console, new)
                # read again: another process may have added cells of its own
                entries = json.loads(path.read_text())["entries"] if path.exists() else []
                entries = [e for e in entries if (e["size"], e["epsilon"], e["threads"]) != cell] + new
                path.parent.mkdir(parents=True, exist_ok=True)
                ledger.write_json(path, {"benchmark": "sinkhorn", "environment": facts, "entries": entries})
    console.print(f"record  {path}", soft_wrap=True)


if __name__ == "__main__":
    exit_with_message(main)
