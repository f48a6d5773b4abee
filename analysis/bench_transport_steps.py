"""Weights by gradient steps, `sgd` and `network`: plain Sinkhorn against the Newton solver, on digits and CIFAR-10.

    python analysis/bench_transport_steps.py digits
    python analysis/bench_transport_steps.py cifar10 --root data

One fit of `OTReweighter` each, 50 steps with the default settings, twice: with ot.solver=sinkhorn and with ot.solver=auto; then
both again at a smaller tolerance, to tell a difference of solvers from one of tolerances. The record is written after each.
Digits are the long-tailed, partly mislabelled ones of the default preset with pixels as embeddings; CIFAR-10-LT 100 is seen by
the committed stage-1 net of `official`, with 40 % wrong labels. Seconds are those of the processor; passes over the cost are
counted for all 50 steps.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import otrw.reweight.solvers
from otrw.commands.exit import exit_with_message
from otrw.config.command_line import parse_config
from otrw.data.datasets import make_datasets
from otrw.ot.sinkhorn import SinkhornResult
from otrw.ot.solve import Solver
from otrw.ot.weights import effective_number_weights
from otrw.records import ledger
from otrw.reweight import OTReweighter
from otrw.training.checkpoints import load_model
from otrw.training.stages import fresh_net

HERE = Path(__file__).resolve().parent
RECORD = HERE / "results" / "benchmarks" / "transport-steps-cpu.json"
NET = HERE / "checkpoints" / "cifar10_lt-if100-official-seed0.safetensors"


class CountedSolver(Solver):
    """Notes the passes of every solve."""

    passes: list[int] = []  # noqa: RUF012  of the one fit that is measured

    def solve(self, log_b: Tensor, **settings: Any) -> SinkhornResult:
        """As `Solver`."""
        result = super().solve(log_b, **settings)
        self.passes.append(result.num_iterations)
        return result


def embeddings_of(data: str, root: str) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """(embeddings, given labels, reference embeddings, reference labels, number of classes)."""
    if data == "digits":
        config = parse_config(["--config", "digits_lt"])
    else:
        noise = ["--data.label_noise", "symmetric", "--data.label_noise_rate", "0.4"]
        config = parse_config(["--config", "official", "--data.root", root, *noise])
    sets = make_datasets(config.data, 0, torch.device("cpu"))
    if data == "digits":
        views = [samples.in_memory.flatten(1).float() / 255 for samples in (sets.train, sets.meta)]
    else:
        net = fresh_net(config, sets, torch.device("cpu"), "stage1")
        load_model(NET, net, {})
        net.eval()
        view = sets.transform(train=False)
        views = []
        for samples in (sets.train, sets.meta):
            parts = torch.arange(len(samples.labels)).split(512)
            views.append(torch.cat([net(view(samples.in_memory, part, 0)).embedding for part in parts]))
    return views[0], sets.train.labels, views[1], sets.meta.labels, sets.num_classes


def fit(data: tuple, weights: str, solver: str, tolerance: float) -> dict:
    """One fit, timed."""
    embeddings, labels, reference, reference_labels, num_classes = data
    start = effective_number_weights(torch.bincount(labels, minlength=num_classes))[labels]
    settings = {"weights": weights, "solver": solver, "tolerance": tolerance, "max_iterations": 20_000}
    reweighter = OTReweighter(len(labels), num_classes, initial_weights=start, **settings)  # type: ignore[arg-type]
    reweighter.set_reference(reference, reference_labels)
    CountedSolver.passes.clear()
    begin = time.process_time()
    found = reweighter.fit(embeddings, labels)
    seconds = time.process_time() - begin
    assert reweighter.diagnostics is not None
    return {
        "weights": found,
        "seconds": seconds,
        "passes": list(CountedSolver.passes),
        "solver": reweighter.diagnostics.solver,
        "converged": reweighter.diagnostics.converged,
    }


def compare(name: str, data: tuple, weights: str, tolerance: float) -> dict:
    """Both solvers."""
    plain, ours = (fit(data, weights, solver, tolerance) for solver in ("sinkhorn", "auto"))
    later = sorted(ours["passes"][1:])
    return {
        "data": name,
        "weights": weights,
        "tolerance": tolerance,
        "atoms": len(data[2]),
        "samples": len(data[0]),
        "threads": torch.get_num_threads(),
        "sinkhorn_seconds": round(plain["seconds"], 3),
        "auto_seconds": round(ours["seconds"], 3),
        "ratio": round(plain["seconds"] / ours["seconds"], 1),
        "solver": ours["solver"],
        "sinkhorn_passes": sum(plain["passes"]),
        "auto_passes": sum(ours["passes"]),
        "passes_of_the_first_step": ours["passes"][0],
        "passes_of_a_later_step": {"median": later[len(later) // 2], "most": later[-1]},
        "largest_difference_of_a_weight": float(f"{(plain['weights'] - ours['weights']).abs().max():.2e}"),
        "largest_weight": round(float(ours["weights"].max()), 2),
        "converged": plain["converged"] and ours["converged"],
    }


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", choices=["digits", "cifar10"])
    parser.add_argument("--root", default="data", help="folder of CIFAR (default: data)")
    parser.add_argument("--tolerances", nargs="+", type=float, default=[1e-4, 1e-6])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    otrw.reweight.solvers.Solver = CountedSolver  # type: ignore[misc]
    for name in options.data:
        data = embeddings_of(name, options.root)
        for tolerance in options.tolerances:
            for weights in ("sgd", "network"):
                entry = compare(name, data, weights, tolerance)
                print(json.dumps(entry), flush=True)
                entries = json.loads(RECORD.read_text())["entries"] if RECORD.exists() else []
                cell = (name, weights, tolerance)
                entries = [e for e in entries if (e["data"], e["weights"], e["tolerance"]) != cell] + [entry]
                RECORD.parent.mkdir(parents=True, exist_ok=True)
                facts = ledger.environment()
                ledger.write_json(RECORD, {"benchmark": "transport steps", "environment": facts, "entries": entries})
    print(f"record  {RECORD}")


if __name__ == "__main__":
    exit_with_message(main)
