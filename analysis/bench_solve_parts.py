"""What a transport solve spends its time on: exponentials, matrix products, other tensor work, and the calls themselves.

    python analysis/bench_solve_parts.py

The problems are those of `bench_sinkhorn.py`; one thread. Solves are traced by torch's profiler: the time inside operators by
kind, and the rest, which is Python and what every call of torch costs before it computes. Other tensor work, on vectors of K or
n numbers, is mostly such calls too. Tracing lengthens calls, so that both are upper bounds. Beside them stands a solve
untraced, as a multiple of one bare pass over the kernel (an exponential and two products with it), measured in the same run.
"""

import argparse
from pathlib import Path

import torch
from bench_sinkhorn import SHARE_OF_TOLERANCE, make_problem, parse_size, timed
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from otrw.commands.exit import exit_with_message
from otrw.ot.solve import solve
from otrw.records import ledger

RECORD = Path(__file__).resolve().parent / "results" / "benchmarks" / "solve-parts-cpu.json"
SIZES = ["10x128", "100x2048", "100x16384", "1000x16384"]
TRACED = 10
"""Solves."""
KINDS = {
    "exponentials": ("aten::exp", "aten::exp_"),
    "products": ("aten::mm", "aten::addmv_", "aten::dot", "aten::bmm"),
    "columns of the Hessian": ("aten::index_select",),
    "factoring": ("aten::linalg_cholesky_ex", "aten::_cholesky_solve_helper"),
}


def measure(size: str, epsilon: float, error: float, rounds: int) -> dict:
    """One problem: least time of the rounds, the bare pass, and the shares of one traced solve."""
    problem = make_problem(*parse_size(size), epsilon)
    cost, log_a, log_b, _ = problem

    def run() -> object:
        return solve(cost, log_a, log_b, epsilon=epsilon, tolerance=SHARE_OF_TOLERANCE * error)

    u, v = torch.ones(cost.shape[0]), torch.ones(cost.shape[1])

    def bare_pass() -> torch.Tensor:
        kernel = (cost / -epsilon).exp_()
        return kernel @ (v / (u @ kernel))

    def least(call: object) -> float:
        return min(timed(call)[0].processor for _ in range(rounds))

    sweeps = solve(cost, log_a, log_b, epsilon=epsilon, tolerance=SHARE_OF_TOLERANCE * error).num_iterations
    seconds, one = least(run), least(bare_pass)
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        traced = sum(timed(run)[0].clock for _ in range(TRACED))
    inside = dict.fromkeys((*KINDS, "other tensor work"), 0.0)
    calls = 0
    for event in trace.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key in names), "other tensor work")
        inside[kind] += event.self_cpu_time_total / 1e6
        calls += event.count // TRACED
    shares = {kind: round(value / traced, 3) for kind, value in inside.items()}
    return {
        "size": size,
        "epsilon": epsilon,
        "target_error": error,
        "sweeps": sweeps,
        "milliseconds": round(1e3 * seconds, 3),
        "bare_passes": round(seconds / one, 2),
        "operator_calls": calls,
        "share_of_traced": {**shares, "outside operators": round(max(0.0, 1 - sum(inside.values()) / traced), 3)},
    }


def main() -> None:
    """Parse, measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="KxN")
    parser.add_argument("--epsilons", nargs="+", type=float, default=[0.1, 0.02])
    parser.add_argument("--error", type=float, default=1e-3)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    entries = [measure(size, e, options.error, options.rounds) for size in options.sizes for e in options.epsilons]
    facts = ledger.environment(rounds=options.rounds)
    ledger.write_json(RECORD, {"benchmark": "parts of a transport solve", "environment": facts, "entries": entries})
    table = Table("K x N", "eps", "passes", "ms", "bare", "calls", "exp", "mm", "cols", "chol", "else", "py", padding=(0, 0))
    for entry in entries:
        shares = (f"{100 * share:.0f} %" for share in entry["share_of_traced"].values())
        numbers = (f"{entry[key]:.4g}" for key in ("epsilon", "sweeps", "milliseconds", "bare_passes", "operator_calls"))
        table.add_row(entry["size"], *numbers, *shares)
    Console().print(table)
    print("bare: the time in bare passes; shares by kind as in the record, the last outside operators")
    print(f"record  {RECORD}")


if __name__ == "__main__":
    exit_with_message(main)
