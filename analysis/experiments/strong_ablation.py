"""The pieces of preset `strong` one at a time, on a validation split.

    python analysis/experiments/strong_ablation.py --data.root data                       # 30 epochs, seed 0, all pieces
    python analysis/experiments/strong_ablation.py --data.root data --epochs 10 --pieces base sam --data.source cifar100

Stage 1 alone: a plain base (cross-entropy, crop and flip, cosine schedule), the base with each piece added, and everything
that the preset has. The same seed, split, number of epochs and order of samples in each. Pieces are judged by the error on
the validation split (50 images a class, cut out before the tail is made); the test set is not looked at for the table.

One process and one thread, one run after the other. Stopped at any moment, the same command goes on where it was. Other
settings are handed on to the training (--data.imbalance_factor 200). Records are copied beside this file.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from otrw.commands.exit import exit_with_message
from otrw.config import to_dict
from otrw.config.command_line import parse_config
from otrw.records import ledger
from otrw.records.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parents[2]
RECORDS = Path(__file__).resolve().with_suffix("")
COPIED = ("config.yaml", "environment.json", "metrics.jsonl", "result.json")
BASE = {
    "data.num_validation_per_class": "50",
    "data.augment.policy": "none",
    "data.augment.cutout_size": "0",
    "stage1.loss.name": "cross_entropy",
    "stage1.optimizer.warmup_epochs": "0",
    "stage1.optimizer.sam_radius": "0",
    "stage1.optimizer.ema_decay": "0",
    "model.head": "linear",
}
PIECES: dict[str, dict[str, str]] = {
    "base": {},
    "balanced_softmax": {"stage1.loss.name": "balanced_softmax"},
    "autoaugment": {"data.augment.policy": "autoaugment"},
    "randaugment": {"data.augment.policy": "randaugment"},
    "trivialaugment": {"data.augment.policy": "trivialaugment"},
    "cutout": {"data.augment.cutout_size": "16"},
    "mixup": {"stage1.mixup_alpha": "0.2"},
    "cutmix": {"stage1.cutmix_alpha": "1"},
    "warm_up": {"stage1.optimizer.warmup_epochs": "1"},
    "ema": {"stage1.optimizer.ema_decay": "0.999"},
    "sam": {"stage1.optimizer.sam_radius": "0.05"},
    "cosine_head": {"model.head": "cosine"},
    "smoothing": {"stage1.loss.label_smoothing": "0.1", "stage1.loss.label_smoothing_tail": "0"},
    "light_decay": {"stage1.optimizer.weight_decay": "2e-4"},
    "heavy_decay": {"stage1.optimizer.weight_decay": "1e-3"},
}
WHOLE = "strong"


def main() -> None:
    """Parse, train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="epochs of stage 1 (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="run.seed of every run (default: 0)")
    parser.add_argument("--pieces", nargs="+", choices=[*PIECES, WHOLE], default=[*PIECES, WHOLE], help="some of them")
    parser.add_argument("--directory", type=Path, default=Path("runs/strong_ablation"), help="folder of the runs")
    parser.add_argument("--table", action="store_true", help="train nothing; print the table of what is recorded")
    options, rest = parser.parse_known_args()
    words = [word for argument in rest for word in argument.split("=", 1)]
    others = {path.removeprefix("--"): value for path, value in zip(words[::2], words[1::2], strict=False)}
    if not options.table:
        for piece in options.pieces:
            train(piece, options.directory, options.epochs, options.seed, others)
    print_tables(Console())


def settings_of(piece: str, epochs: int, seed: int) -> dict[str, str]:
    """What a run of a piece changes in preset `strong`."""
    return ({} if piece == WHOLE else BASE | PIECES[piece]) | {
        "data.num_validation_per_class": BASE["data.num_validation_per_class"],
        "stage1.epochs": str(epochs),
        "run.seed": str(seed),
        "run.threads": "1",
        "run.evaluate_every_epochs": str(epochs),
        "variants": "[stage1]",
    }


def arguments_of(settings: dict[str, str]) -> list[str]:
    """As they are typed."""
    return ["--config", "strong", *(f"--{path}={value}" for path, value in settings.items())]


def train(piece: str, directory: Path, epochs: int, seed: int, others: dict[str, str]) -> None:
    """One run to its end, from where it stopped, and its record copied."""
    settings = settings_of(piece, epochs, seed) | {"run.directory": str(directory), **others}
    key = fingerprint(to_dict(parse_config(arguments_of(settings))), with_seed=True)
    name = f"{settings.get('data.source', 'cifar10')}-{epochs}epochs-{piece}-seed{seed}-{key[:6]}"
    folder = directory / name
    if not (folder / "stage1" / "result.json").exists():
        if folder.exists():
            arguments = ["--run.resume", str(folder)]
        else:
            arguments = arguments_of(settings | {"run.name": name})
        command = [sys.executable, "launch/train.py", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0:
            raise SystemExit(f"{name} failed; the same command goes on from its last epoch")
    target = RECORDS / name / "stage1"
    target.mkdir(parents=True, exist_ok=True)
    for file in COPIED:
        shutil.copyfile(folder / "stage1" / file, target / file)


def print_tables(console: Console) -> None:
    """A table for each data set, number of epochs and seed that is recorded: error and its change from the base."""
    groups: dict[tuple, dict[str, dict]] = {}
    for record in ledger.find_records([RECORDS]):
        if isinstance(record, str):
            console.print(record)
            continue
        piece = record.path.parent.name.split("-")[2]
        data, net = record.config["data"], record.result["model"]
        net_text = f"{net['name']} x {net['width_multiplier']:g}"
        key = data["source"], data["imbalance_factor"], net_text, record.config["stage1"]["epochs"], record.result["seed"]
        groups.setdefault(key, {})[piece] = record.result
    for (source, factor, net_text, epochs, seed), results in sorted(groups.items()):
        table = Table(
            title=f"{source}, factor {factor:g}, {net_text}, {epochs} epochs, seed {seed}: validation error in %",
            title_justify="left",
        )
        for column in ("base and", "error", "against base", "many", "medium", "few", "seconds"):
            table.add_column(column, justify="left" if column == "base and" else "right")
        base = results.get("base", {}).get("validation", {}).get("error")
        for piece in [*PIECES, WHOLE]:
            if piece not in results:
                continue
            figures = results[piece]["validation"]
            groups_of_classes = [figures.get(f"{name}_error") for name in ("many", "medium", "few")]
            table.add_row(
                {"base": "nothing more", WHOLE: "all of preset strong"}.get(piece, piece),
                f"{figures['error']:.1f}",
                "" if base is None or piece == "base" else f"{figures['error'] - base:+.1f}",
                *("-" if value is None else f"{value:.1f}" for value in groups_of_classes),
                f"{results[piece]['seconds']:.0f}",
            )
        console.print(table)


if __name__ == "__main__":
    exit_with_message(main)
