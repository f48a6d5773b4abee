"""Newton on samples that several processes share: time, passes, exchanges and bytes from one to four gloo processes.

    python analysis/bench_transport_processes.py --sizes 1000x16384 1000x131072 --processes 1 2

One thread a process; the problem is that of `bench_sinkhorn.py`, each process with every R-th sample. A speed-up needs as many
free cores as there are processes: beside the clock stand the seconds of the processor of the busiest process, whose ratio says
how well the work divides wherever the machine has other work too. All processes must return the potentials of one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench_sinkhorn import RESULTS, make_problem, parse_size
from torch import Tensor

from otrw import distributed
from otrw.commands.exit import exit_with_message
from otrw.ot.solve import solve
from otrw.records import ledger

RECORD = RESULTS / "sinkhorn-processes-cpu.json"


def compare(size: str, epsilon: float, target: float, counts: list[int], rounds: int) -> list[dict]:
    """One problem on 1, 2, ... gloo processes of one thread each."""
    entries: list[dict] = []
    first_f: Tensor | None = None
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                str(Path(__file__).resolve()),
                "--worker",
                f"{size},{epsilon},{target},{rounds},{folder}",
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "WORLD_SIZE": str(count)}
            workers = [
                subprocess.Popen(command, env={**environment, "RANK": str(r)}, stdout=subprocess.PIPE, text=True)
                for r in range(count)
            ]
            answers = [json.loads(worker.communicate()[0].splitlines()[-1]) for worker in workers]
            f = torch.load(Path(folder) / "f.pt", weights_only=True)
        first_f = f if first_f is None else first_f
        clock, processor = max(a["seconds"] for a in answers), max(a["processor_seconds"] for a in answers)
        one = entries[0] if entries else {"milliseconds": 1e3 * clock, "processor_milliseconds": 1e3 * processor}
        entries.append(
            {
                "size": size,
                "epsilon": epsilon,
                "target_error": target,
                "processes": count,
                "milliseconds": round(1e3 * clock, 3),
                "processor_milliseconds": round(1e3 * processor, 3),
                "speedup": round(one["milliseconds"] / (1e3 * clock), 2),
                "processor_speedup": round(one["processor_milliseconds"] / (1e3 * processor), 2),
                "difference_of_f": float(f"{float((f - first_f).abs().max()):.1e}"),
                **{key: answers[0][key] for key in ("solver", "sweeps", "exchanges", "bytes_exchanged", "error")},
                "load": round(os.getloadavg()[0], 1),
            }
        )
    return entries


def work(size: str, epsilon: str, target: str, rounds: str, folder: str) -> None:
    """Every process makes the problem and takes its share of the samples."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if count > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    problem = make_problem(*parse_size(size), float(epsilon))
    mine = torch.arange(rank, len(problem.log_b), count)
    cost, log_b, log_a = problem.cost[:, mine].contiguous(), problem.log_b[mine], problem.log_a
    del problem
    sizes: list[int] = []

    def sum_samples(x: Tensor) -> Tensor:
        sizes.append(x.numel() * x.element_size())
        return distributed.all_reduce_sum(x)

    best = best_processor = float("inf")
    for _ in range(int(rounds)):
        distributed.barrier()
        sizes.clear()
        start, start_processor = time.perf_counter(), time.process_time()
        result = solve(
            cost, log_a, log_b, epsilon=float(epsilon), tolerance=float(target), sample_index=mine, sum_samples=sum_samples
        )
        best = min(best, time.perf_counter() - start)
        best_processor = min(best_processor, time.process_time() - start_processor)
    facts = {
        "seconds": best,
        "processor_seconds": best_processor,
        "solver": result.solver,
        "sweeps": result.num_iterations,
        "error": float(result.marginal_error),
        "exchanges": len(sizes) * (count > 1),
        "bytes_exchanged": sum(sizes) * (count > 1),
    }
    if rank == 0:
        torch.save(result.f, Path(folder) / "f.pt")
    print(json.dumps(facts), flush=True)
    distributed.barrier()
    distributed.shut_down()


def main() -> None:
    """Parse, measure, print, write the record after every problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["1000x16384", "1000x131072"], help="atoms x samples")
    parser.add_argument("--epsilons", nargs="+", type=float, default=[0.1, 0.02])
    parser.add_argument("--errors", nargs="+", type=float, default=[1e-3, 1e-5], help="marginal errors to reach")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2, 3, 4])
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed (default: 3)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*options.worker.split(","))
        return
    for size in options.sizes:
        parse_size(size)
        for epsilon in options.epsilons:
            for target in options.errors:
                new = compare(size, epsilon, target, options.processes, options.rounds)
                for entry in new:
                    print(" ".join(f"{key}={value}" for key, value in entry.items()), flush=True)
                entries = json.loads(RECORD.read_text())["entries"] if RECORD.exists() else []
                cell = (size, epsilon, target)
                entries = [e for e in entries if (e["size"], e["epsilon"], e["target_error"]) != cell] + new
                facts = ledger.environment(cores=os.cpu_count(), rounds=options.rounds)
                ledger.write_json(RECORD, {"benchmark": "sinkhorn, processes", "environment": facts, "entries": entries})
    print(f"record  {RECORD}")


if __name__ == "__main__":
    exit_with_message(main)
