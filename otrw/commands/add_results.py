"""Copy the small files of finished runs and searches into analysis/results/, to be committed.

    python analysis/add_results.py runs/NAME [searches/NAME ...]
    python analysis/add_results.py runs/NAME --checkpoint       # and the stage-1 net, to analysis/checkpoints/

A variant's config.yaml, environment.json, metrics.jsonl, result.json and audit.json (of analysis/audit.py) go to
analysis/results/NAME/ROW/; weights, predictions, models and TensorBoard logs stay behind. Variants that are not finished are
left out, and said so. Of a search its settings, its trials and its best config go to analysis/results/searches/NAME/.
"""

import argparse
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from otrw.commands.checkout import CHECKPOINTS, RESULTS
from otrw.errors import UserError, check
from otrw.grid.studies import STUDIES

SEARCH_FILES = ("search.yaml", "trials.jsonl", "best.yaml")
FILES = ("config.yaml", "environment.json", "metrics.jsonl", "result.json", "audit.json")


def main(arguments: Sequence[str]) -> None:
    """Parse and copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--to", type=Path, default=RESULTS, help="where to (default: analysis/results)")
    parser.add_argument("--checkpoint", action="store_true", help="copy the stage-1 net too")
    options = parser.parse_args(arguments)
    runs = [Path(os.path.abspath(run)) for run in options.runs]  # "." has no name
    options.runs = [run for run in runs if not (run.suffix == ".log" and run.is_file())]  # a grid's, beside its runs
    check(bool(options.runs), "runs", f"{len(runs)} logs", "be folders of finished runs")
    for name, number in Counter(run.name for run in options.runs).items():
        check(number == 1, "runs", f"{number} called {name}", "have names of their own, as they become one folder each")
    variants = {run: sorted(path.parent for path in run.glob("*/config.yaml")) for run in options.runs if not _is_search(run)}
    for run, folders in variants.items():  # before anything is copied
        if not folders:
            raise UserError(f"{run} must be a run's folder, but no variant with a config.yaml is in it")
        if options.checkpoint and not _stage1_net(run).exists():
            raise UserError(f"--checkpoint must go with a run whose stage 1 is finished, got {run}")
    for run in options.runs:
        if run not in variants:
            _copy(SEARCH_FILES, run, options.to / "searches" / run.name)
            continue
        for variant in variants[run]:
            if not (variant / "result.json").exists():
                print(f"{variant}: not finished, left out")
                continue
            _copy(FILES, variant, options.to / run.name / variant.name)
        if options.checkpoint:
            CHECKPOINTS.mkdir(exist_ok=True)
            shutil.copyfile(_stage1_net(run), CHECKPOINTS / f"{run.name}.safetensors")
            print(f"{_stage1_net(run)} -> {CHECKPOINTS / run.name}.safetensors")
    if options.to.name in STUDIES:
        print(f"then: python analysis/make_table.py --study {options.to.name}")
    else:
        print("then: python analysis/make_table.py --all --against published --write analysis/RESULTS.md")


def _is_search(folder: Path) -> bool:
    return (folder / "trials.jsonl").exists()


def _stage1_net(run: Path) -> Path:
    return run / "stage1" / "model.safetensors"


def _copy(names: tuple[str, ...], source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
        else:  # what an earlier run of the name left
            (target / name).unlink(missing_ok=True)
    print(f"{source} -> {target}")
