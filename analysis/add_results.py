"""Copy the small files of finished runs into analysis/results/, to be committed.

    python analysis/add_results.py runs/NAME [runs/NAME ...]

A row's config.yaml, environment.json, metrics.jsonl and result.json go to analysis/results/NAME/ROW/; weights, predictions,
models and TensorBoard logs stay behind. Rows that are not finished are left out, and said so.
"""

import argparse
import shutil
from pathlib import Path

from otrw.cli import exit_with_message
from otrw.errors import UserError

RESULTS = Path(__file__).resolve().parent / "results"
FILES = ("config.yaml", "environment.json", "metrics.jsonl", "result.json")


def main() -> None:
    """Parse and copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--to", type=Path, default=RESULTS, help="where to (default: analysis/results)")
    arguments = parser.parse_args()
    for run in arguments.runs:
        rows = sorted(path.parent for path in run.glob("*/config.yaml"))
        if not rows:
            raise UserError(f"{run} must be a run's folder, but no row with a config.yaml is in it")
        for row in rows:
            if not (row / "result.json").exists():
                print(f"{row}: not finished, left out")
                continue
            target = arguments.to / run.name / row.name
            target.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if (row / name).exists():
                    shutil.copyfile(row / name, target / name)
            print(f"{row} -> {target}")
    print("then: python analysis/make_table.py --write README.md")


if __name__ == "__main__":
    exit_with_message(main)
