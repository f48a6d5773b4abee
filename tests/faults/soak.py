"""launch/reproduce.py on digits under random kills for as long as asked, then the same records as without.

    python tests/faults/soak.py --minutes 60

Grid after grid (one seed each) is trained while this script kills the grid's process or one of its runs, by SIGKILL,
SIGTERM or SIGINT, and starts the same command again until it is done; then the same grid is trained undisturbed, and nets,
lines, results and weights are compared bit by bit. Exits with 1 at the first difference.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from whole_runs import assert_nothing_half_written, assert_same_run  # noqa: E402

SETTINGS = ["--stage1.epochs=8", "--stage2.epochs=8", "--variants=[ot_labels_meta]"]
SETTINGS += ["--run.checkpoint_every_steps=3", "--run.cpu=true", "--run.tensorboard=false"]

START_SECONDS, EARLY_SHARE = 60.0, 0.15
"""Longest wait for the first progress of an attempt, and the share of attempts that are killed while they start."""


def command(folder: Path, seed: int) -> list[str]:
    """The grid's command line."""
    grid = ["--presets", "digits_lt", "--datasets", "digits", "--factors", "20", "50", "--seeds", str(seed)]
    return [sys.executable, "launch/reproduce.py", *grid, "--directory", str(folder), "--concurrent", "2", *SETTINGS]


def start(folder: Path, seed: int) -> subprocess.Popen:
    """The grid as a process; what it prints goes into a file beside its folder."""
    with folder.with_suffix(".log").open("a") as log:
        return subprocess.Popen(command(folder, seed), cwd=ROOT, stdout=log, stderr=log)


def children(pid: int) -> list[int]:
    """Processes that a process has started and that still run (Linux)."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def progress(folder: Path) -> set[str]:
    """Names of checkpoints and of finished variants: another set as soon as something was gained."""
    return {str(path) for pattern in ("*/*/checkpoints/*/COMPLETE", "*/*/result.json") for path in folder.glob(pattern)}


def disturbed(folder: Path, seed: int, draw: random.Random, most_kills: int, most_seconds: float, kills: Counter) -> None:
    """Train a grid to its end under at most so many kills."""
    last = kills.total() + most_kills
    for attempt in range(1000):
        grid = start(folder, seed)
        if kills.total() >= last:
            if grid.wait() == 0:
                return
            sys.exit(folder.with_suffix(".log").read_text())
        before, end = progress(folder), time.monotonic() + START_SECONDS * (1.0 + attempt / 20)
        if draw.random() < EARLY_SHARE:
            end = time.monotonic() + draw.uniform(0, START_SECONDS / 4)
        while grid.poll() is None and time.monotonic() < end and progress(folder) == before:
            time.sleep(0.05)
        try:
            if grid.wait(draw.uniform(0, most_seconds)) == 0:
                return
            sys.exit(folder.with_suffix(".log").read_text())  # nobody had killed it
        except subprocess.TimeoutExpired:
            pass
        runs = children(grid.pid)
        victim = draw.choice([grid.pid, *runs])
        number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        try:
            os.kill(victim, number)
        except ProcessLookupError:
            continue
        kills["the grid" if victim == grid.pid else "one of its runs", number.name] += 1
        if victim != grid.pid:
            time.sleep(draw.uniform(0, 2))
            grid.send_signal(signal.SIGTERM)
        grid.wait(120)
        for run in runs:  # of a grid that was killed: Linux ends them with it
            for _ in range(400):
                if not Path(f"/proc/{run}").exists():
                    break
                time.sleep(0.05)
    raise TimeoutError(folder)


def main() -> None:
    """Soak, say what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="no grid is begun after this (default: 60)")
    parser.add_argument("--most-seconds", type=float, default=0.5, help="longest time from progress to a kill (default: 0.5)")
    parser.add_argument("--most-kills", type=int, default=40, help="in one grid, which is then left alone (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="of the kills, and of the first grid (default: 0)")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and what they start, ignore it
    draw, kills, num_grids, started = random.Random(options.seed), Counter(), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() - started < 60 * options.minutes:
            seed = options.seed + num_grids
            cut, whole = Path(folder) / f"cut-{seed}", Path(folder) / f"whole-{seed}"
            disturbed(cut, seed, draw, options.most_kills, options.most_seconds, kills)
            if start(whole, seed).wait() != 0:
                sys.exit((whole.with_suffix(".log")).read_text())
            runs = sorted(path.name for path in whole.iterdir() if (path / "config.yaml").exists())
            for run in runs:
                assert_same_run(cut / run, whole / run)
                assert_nothing_half_written(cut / run)
            num_grids += 1
            minutes = (time.monotonic() - started) / 60
            print(f"{minutes:.0f} min, {kills.total()} kills, {num_grids} grids ({len(runs)} runs each) equal", flush=True)
    for (victim, name), number in sorted(kills.items()):
        print(f"{name:<8} {victim:<16} {number}")


if __name__ == "__main__":
    main()
