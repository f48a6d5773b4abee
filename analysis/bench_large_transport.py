"""Transport at the size of whole data sets: time beside the time of the bare matrix product, and peak memory.

    python analysis/bench_large_transport.py inaturalist imagenet           # about an hour on one core
    python analysis/bench_large_transport.py inaturalist --share 0.05       # a twentieth of the samples, for a quick look

inaturalist: 437,513 samples of 8,142 classes, 64-d embeddings; imagenet: 1,281,167 of 1,000, 512-d. Sizes of classes fall
exponentially (factor 500 and 2), embeddings are a random centre of their class and noise, a tenth of the labels is wrong, the
reference is one prototype a class, the cost half cosine and half label. Nothing of size atoms x samples is kept beyond
--memory-mebibytes. Seconds are those of the processor, summed over threads, so that what else runs on the machine counts
little; those of the clock stand beside them.

Timed once each, one after the other: the product of the embeddings alone, in the blocks that the cost is made of; the
closed-form weights; and one gradient of `sgd` by the envelope theorem, from class-balanced weights, at a marginal error of
1e-3. The record is written after every part. Peak memory is that of the whole process, with the embeddings in it.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from otrw.commands.exit import exit_with_message
from otrw.config import OTConfig
from otrw.errors import check
from otrw.ot.cost import ChunkedCost
from otrw.ot.weights import effective_number_weights
from otrw.records import ledger
from otrw.reweight.problem import MAX_CHUNK_ENTRIES, WHOLE, Problem, Reference, make_cost
from otrw.reweight.solvers import envelope, potentials, solve_semi_relaxed

RECORD = Path(__file__).resolve().parent / "results" / "benchmarks" / "transport-large-cpu.json"
ERROR = 1e-3


class Size(NamedTuple):
    """A data set's."""

    num_samples: int
    num_classes: int
    embedding_size: int
    imbalance_factor: float


SIZES = {"inaturalist": Size(437_513, 8_142, 64, 500.0), "imagenet": Size(1_281_167, 1_000, 512, 2.0)}


def make_samples(size: Size, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(class centres, embeddings, given labels)."""
    generator = torch.Generator().manual_seed(seed)
    exponents = -torch.arange(size.num_classes) / (size.num_classes - 1)
    labels = torch.multinomial(size.imbalance_factor**exponents, size.num_samples, replacement=True, generator=generator)
    centres = F.normalize(torch.randn(size.num_classes, size.embedding_size, generator=generator), dim=1)
    embeddings = torch.randn(size.num_samples, size.embedding_size, generator=generator).div_(size.embedding_size**0.5)
    for part in torch.arange(size.num_samples).split(1 << 14):
        embeddings[part] += centres[labels[part]]
    is_wrong = torch.rand(size.num_samples, generator=generator) < 0.1
    labels[is_wrong] = torch.randint(size.num_classes, (int(is_wrong.sum()),), generator=generator)
    return centres, embeddings, labels


class Stopwatch:
    """Times a part in both ways."""

    def __init__(self) -> None:
        self.clock, self.processor = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Since the start."""
        clock, processor = time.perf_counter() - self.clock, time.process_time() - self.processor
        return {"processor_seconds": round(processor, 2), "clock_seconds": round(clock, 2)}


def multiply(centres: Tensor, embeddings: Tensor) -> None:
    """The matrix product alone, block by block."""
    for block in embeddings.split(max(1, MAX_CHUNK_ENTRIES // len(centres))):
        torch.mm(centres, block.T)


def peak_gibibytes() -> float:
    """Of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20), 2)


def measure(name: str, share: float, epsilon: float, memory_mebibytes: float, parts: list[str]) -> dict:
    """Every part once; the record is written after each."""
    size = SIZES[name]._replace(num_samples=int(share * SIZES[name].num_samples))
    centres, embeddings, labels = make_samples(size)
    entry: dict = {"data": name, "share": share, **size._asdict(), "epsilon": epsilon, "memory_mebibytes": memory_mebibytes}
    entry["threads"] = torch.get_num_threads()
    config = OTConfig(weights="sgd", epsilon=epsilon, memory_mebibytes=memory_mebibytes, tolerance=ERROR)
    reference = Reference(centres, torch.arange(size.num_classes), size.num_classes)
    cost = make_cost(config, reference, embeddings, labels)
    entry["is_chunked"] = isinstance(cost, ChunkedCost)
    problem = Problem(config, cost, reference.log_mass, WHOLE, size.num_samples)
    watch = Stopwatch()
    multiply(centres, embeddings)
    entry["product"] = watch.read()

    def times(watch: Stopwatch) -> dict[str, float]:
        seconds = watch.read()
        return {**seconds, "products": round(seconds["processor_seconds"] / entry["product"]["processor_seconds"], 2)}

    if "closed_form" in parts:
        watch = Stopwatch()
        solution = solve_semi_relaxed(problem)
        entry["closed_form"] = {
            **times(watch),
            "passes": solution.result.num_iterations,
            "mass": float(solution.mass.double().sum()),
            "peak_gibibytes": peak_gibibytes(),
        }
        write(entry)
    if "gradient" in parts:
        theta = effective_number_weights(torch.bincount(labels, minlength=size.num_classes))[labels].log()
        watch = Stopwatch()
        gradient, result = envelope(problem, theta, potentials(problem))
        entry["gradient"] = {
            **times(watch),
            "passes": result.num_iterations,
            "solver": result.solver,
            "marginal_error": float(result.marginal_error),
            "converged": result.converged,
            "is_finite": bool(gradient.isfinite().all()),
            "peak_gibibytes": peak_gibibytes(),
        }
        write(entry)
    return entry


def write(entry: dict) -> None:
    """Into the record, in place of an earlier entry of the same size."""
    earlier = json.loads(RECORD.read_text())["entries"] if RECORD.exists() else []
    key = ("data", "share", "epsilon", "memory_mebibytes", "threads")
    others = [e for e in earlier if [e[k] for k in key] != [entry[k] for k in key]]
    before = [e for e in earlier if e not in others]
    facts = ledger.environment(cores=os.cpu_count(), load=round(os.getloadavg()[0], 1))
    entry = {**(before[0] if before else {}), **entry, "commit": facts["commit"]}
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    ledger.write_json(RECORD, {"benchmark": "large transport", "environment": facts, "entries": [*others, entry]})


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", choices=sorted(SIZES), help="whose size")
    parser.add_argument("--share", type=float, default=1.0, help="of the samples (default: 1)")
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--memory-mebibytes", type=float, default=1024.0, help="of a solve (default: 1024)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", nargs="+", choices=["closed_form", "gradient"], default=["closed_form", "gradient"])
    options = parser.parse_args()
    check(0 < options.share <= 1, "--share", options.share, "be above 0 and at most 1")
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    for name in options.data:
        print(json.dumps(measure(name, options.share, options.epsilon, options.memory_mebibytes, options.parts), indent=2))
    print(f"record  {RECORD}")


if __name__ == "__main__":
    exit_with_message(main)
