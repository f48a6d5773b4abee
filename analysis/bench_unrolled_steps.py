"""The released recipe's weight steps, backpropagation through Sinkhorn on batches of 16: an epoch at once, one by one, and POT.

    python analysis/bench_unrolled_steps.py
    python analysis/bench_unrolled_steps.py --classes 10 --batches 776 --rounds 3

One gradient of <P, C> with respect to theta, b = softmax(theta), for every batch of an epoch: prototypes of 10 or 100 classes
against 16 random unit embeddings with a label, epsilon 0.1, stopped by the released rule (f moves by less than 0.1, or 200
iterations). `official` with cached embeddings solves all batches of an epoch as one problem (B, K, n). POT's `sinkhorn_log` on
torch tensors with autograd gets for each batch the number of iterations that ours took there, without a check of its own; it
updates the potentials in the other order, so that gradients are compared after 200 iterations of both. Seconds are those of
the processor on one thread, the least of the rounds; the three take turns.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ot
import torch
import torch.nn.functional as F
from torch import Tensor

from otrw.commands.exit import exit_with_message
from otrw.ot.cost import combined_cost, cosine_cost, label_cost
from otrw.ot.weights import unrolled_step
from otrw.records import ledger

RECORD = Path(__file__).resolve().parent / "results" / "benchmarks" / "unrolled-steps-cpu.json"
EPSILON, BATCH_SIZE, EMBEDDING_SIZE = 0.1, 16, 64
TOLERANCE = 0.1
AGREEMENT_BATCHES, MAX_ITERATIONS = 20, 200
step = partial(
    unrolled_step,
    epsilon=EPSILON,
    max_iterations=MAX_ITERATIONS,
    stopping="potential",
    learning_rate=1.0,
    weight_decay=0.0,
)
"""Whose change of theta is the gradient."""


def make_batches(num_classes: int, num_batches: int) -> tuple[Tensor, Tensor]:
    """Costs (B, K, n) and theta (B, n)."""
    generator = torch.Generator().manual_seed(0)
    atoms = F.normalize(torch.randn(num_classes, EMBEDDING_SIZE, generator=generator), dim=1)
    number = num_batches * BATCH_SIZE
    labels = torch.randint(num_classes, (number,), generator=generator)
    samples = F.normalize(atoms[labels] + torch.randn(number, EMBEDDING_SIZE, generator=generator), dim=1)
    label_part = label_cost(torch.arange(num_classes), labels, num_classes, "mean_squared")
    cost = combined_cost(cosine_cost(atoms, samples), label_part, 0.5)
    theta = 0.1 * torch.randn(num_batches, BATCH_SIZE, generator=generator)
    return cost.view(num_classes, num_batches, BATCH_SIZE).transpose(0, 1).contiguous(), theta


def at_once(cost: Tensor, theta: Tensor) -> Tensor:
    """Gradients (B, n) of all batches by one call."""
    return theta - step(cost, theta, tolerance=TOLERANCE).theta


def one_by_one(cost: Tensor, theta: Tensor) -> Tensor:
    """The same by a call each."""
    return torch.stack([at_once(*batch) for batch in zip(cost, theta, strict=True)])


def by_pot(cost: Tensor, theta: Tensor, iterations: list[int]) -> Tensor:
    """The same by POT and autograd."""
    gradients = []
    for c, t, number in zip(cost, theta, iterations, strict=True):
        with torch.enable_grad():
            t = t.detach().requires_grad_(True)
            a = torch.full((len(c),), 1 / len(c), dtype=c.dtype)
            plan = ot.sinkhorn(a, t.softmax(0), c, EPSILON, method="sinkhorn_log", numItermax=number, stopThr=0.0, warn=False)
            gradients.append(torch.autograd.grad((plan * c).sum(), t)[0])
    return torch.stack(gradients)


def compare(num_classes: int, num_batches: int, rounds: int) -> dict:
    """All three, taking turns."""
    cost, theta = make_batches(num_classes, num_batches)
    results = [step(c, t, tolerance=TOLERANCE).result for c, t in zip(cost, theta, strict=True)]
    iterations = [result.num_iterations for result in results]
    ways: dict[str, Callable[[], Tensor]] = {
        "at_once": lambda: at_once(cost, theta),
        "one_by_one": lambda: one_by_one(cost, theta),
        "pot": lambda: by_pot(cost, theta, iterations),
    }
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.process_time()
            way()
            seconds[name] = min(seconds[name], time.process_time() - begin)
    few = slice(AGREEMENT_BATCHES)
    ours = cost[few], theta[few]
    gradient = theta[few] - step(*ours, tolerance=0.0).theta
    difference = (by_pot(*ours, [MAX_ITERATIONS] * AGREEMENT_BATCHES) - gradient).abs().max()
    return {
        "classes": num_classes,
        "batches": num_batches,
        "batch_size": BATCH_SIZE,
        "threads": torch.get_num_threads(),
        "iterations": {"median": sorted(iterations)[len(iterations) // 2], "most": max(iterations)},
        "milliseconds_a_batch": {name: float(f"{1e3 * value / num_batches:.3g}") for name, value in seconds.items()},
        "one_by_one_over_at_once": round(seconds["one_by_one"] / seconds["at_once"], 1),
        "pot_over_at_once": round(seconds["pot"] / seconds["at_once"], 1),
        "largest_gradient": float(f"{gradient.abs().max():.2e}"),
        "largest_difference_to_pot": float(f"{difference:.1e}"),
    }


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 100], metavar="K")
    parser.add_argument("--batches", type=int, default=700, metavar="B", help="of an epoch (default: 700)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed (default: 5)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    entries = []
    for num_classes in options.classes:
        entries.append(compare(num_classes, options.batches, options.rounds))
        print(json.dumps(entries[-1]), flush=True)
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    ledger.write_json(RECORD, {"benchmark": "unrolled steps", "environment": ledger.environment(), "entries": entries})
    print(f"record  {RECORD}")


if __name__ == "__main__":
    exit_with_message(main)
