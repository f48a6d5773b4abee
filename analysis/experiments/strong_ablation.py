"""The pieces of preset `strong` one at a time, on a validation split.

python analysis/experiments/strong_ablation.py --data.root data --dry-run             # what would run, how long it takes
python analysis/experiments/strong_ablation.py --data.root data                       # 30 epochs, seed 0, all pieces
python analysis/experiments/strong_ablation.py --data.root data --stage1.epochs 10 --pieces base sam --dataset cifar100
python analysis/experiments/strong_ablation.py --table                                # train nothing: the tables

Stage 1 alone: a plain base (cross-entropy, crop and flip, cosine schedule), the base with each piece added, and everything
that the preset has. The same seed, split, number of epochs and order of samples in each. Pieces are judged by the error on
the validation split (50 images a class, cut out before the tail is made); the test set is not looked at for the tables.

Stopped at any moment, the same command goes on where it was. Further options are settings of all runs, as for
launch/train.py. The tables show the committed records and those below --directory.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from otrw.analysis.statistics import mean_std, paired_difference
from otrw.commands.checkout import STUDY_RECORDS
from otrw.commands.exit import exit_with_message
from otrw.commands.grid_options import commit_command, grid_parser, parse, show_or_train
from otrw.config import Config, flatten, to_dict
from otrw.errors import UserError
from otrw.grid.jobs import Job, make_job
from otrw.records.experiments import load_experiments

FACTOR = 100.0
EPOCHS = 30
BASE = {
    "data.num_validation_per_class": "50",
    "data.augment.policy": "none",
    "data.augment.cutout_size": "0",
    "stage1.loss.name": "cross_entropy",
    "stage1.optimizer.warmup_epochs": "0",
    "stage1.optimizer.sam_radius": "0",
    "stage1.optimizer.sam_start": "0",
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
    "late_sam": {"stage1.optimizer.sam_radius": "0.05", "stage1.optimizer.sam_start": "0.85"},
    "cosine_head": {"model.head": "cosine"},
    "smoothing": {"stage1.loss.label_smoothing": "0.1", "stage1.loss.label_smoothing_tail": "0"},
    "light_decay": {"stage1.optimizer.weight_decay": "2e-4"},
    "heavy_decay": {"stage1.optimizer.weight_decay": "1e-3"},
}
WHOLE = "strong"
DECISIVE = {path for changes in (BASE, *PIECES.values()) for path in changes}
"""Settings by which pieces are told apart."""
FOR_ALL = {
    "data.num_validation_per_class": BASE["data.num_validation_per_class"],
    "run.threads": "1",
    "run.evaluate_every_epochs": "1000",
    "variants": "[stage1]",
}


def main(arguments: Sequence[str]) -> None:
    """Parse, train what is missing, print the tables."""
    parser = grid_parser(__doc__ or "")
    parser.set_defaults(seeds=[0], directory="runs/strong_ablation", concurrent=1)
    add = parser.add_argument
    add("--pieces", nargs="+", choices=[*PIECES, WHOLE], default=[*PIECES, WHOLE], metavar="NAME", help="default: all")
    add("--dataset", choices=["cifar10", "cifar100"], default="cifar10")
    add("--table", action="store_true", help="train nothing; print the tables of what is recorded")
    options, overrides = parse(parser, arguments, "is set by the ablation; use --dataset, --seeds or --directory")
    if not options.table:
        jobs = [job_of(piece, options.dataset, seed, overrides) for seed in options.seeds for piece in options.pieces]
        command = shlex.join(["python", sys.argv[0], *arguments])
        directory = Path(options.directory)
        show_or_train(jobs, directory, options, command, [("commit", commit_command(directory, "strong_ablation"))])
    if not options.dry_run:
        folders = [folder for folder in (STUDY_RECORDS / "strong_ablation", Path(options.directory)) if folder.is_dir()]
        print_tables(Console(), folders)


def job_of(piece: str, dataset: str, seed: int, overrides: Sequence[str] = ()) -> Job:
    """The run of one piece; settings of the overrides come last.

    Raises:
        UserError: for settings that cannot be.
    """
    settings = ({} if piece == WHOLE else BASE | PIECES[piece]) | FOR_ALL | {"stage1.epochs": str(EPOCHS)}
    line = [f"--{path}={value}" for path, value in settings.items()]
    job = make_job("strong", dataset, FACTOR, seed, [*line, *overrides])
    return job._replace(name=f"{dataset}-{job.config.stage1.epochs}epochs-{piece}-seed{seed}")


def piece_of(config: Mapping) -> str | None:
    """The piece whose settings a record (nested, as in its config.yaml) has; None where it has those of none.

    A setting that is younger than the record has its default, which is what the record was made with.
    """
    settings = flatten(to_dict(Config())) | flatten(config)
    for piece in (*PIECES, WHOLE):
        wanted = flatten(to_dict(job_of(piece, str(settings["data.source"]), 0).config))
        if all(settings[path] == wanted[path] for path in DECISIVE):
            return piece
    return None


def print_tables(console: Console, folders: Sequence[Path]) -> None:
    """A table for each data set, net and number of epochs that is recorded: error and its change from the base.

    Raises:
        UserError: where no record is of a piece.
    """
    loaded = load_experiments(folders)
    for line in (*loaded.problems, *loaded.summary()):
        print(line, file=sys.stderr)
    groups: dict[tuple, dict[str, dict[int, dict]]] = {}
    for experiment in loaded.experiments:
        record = experiment.record
        piece = piece_of(record.config)
        if piece is None or "validation" not in record.result:
            continue
        data, net = record.config["data"], record.result["model"]
        kind = data["source"], data["imbalance_factor"], net["name"], net["width_multiplier"], record.config["stage1"]["epochs"]
        groups.setdefault(kind, {}).setdefault(piece, {})[experiment.seed] = record.result["validation"]
    if not groups:
        where = ", ".join(map(str, folders)) or "any folder"
        raise UserError(f"--table must have records of a piece, got none in {where}; without --table they are trained")
    for (source, factor, net, width, epochs), pieces in sorted(groups.items()):
        table = Table(
            title=f"{source}, factor {factor:g}, {net} x {width:g}, {epochs} epochs: validation error in %",
            title_justify="left",
        )
        for column in ("base and", "error", "against base", "many", "medium", "few", "seeds"):
            table.add_column(column, justify="left" if column == "base and" else "right")
        for piece in [piece for piece in (*PIECES, WHOLE) if piece in pieces]:
            table.add_row(*_row(piece, pieces[piece], pieces.get("base", {})))
        console.print(table)


def _row(piece: str, results: dict[int, dict], base: dict[int, dict]) -> list[str]:
    errors = {seed: figures["error"] for seed, figures in results.items()}
    mean, std = mean_std(list(errors.values()))
    against = paired_difference(errors, {seed: figures["error"] for seed, figures in base.items()})
    interval = "" if against is None or against.low is None else f" ({against.low:+.1f} to {against.high:+.1f})"
    groups = [
        [value for figures in results.values() if (value := figures.get(f"{name}_error")) is not None]
        for name in ("many", "medium", "few")
    ]
    return [
        {"base": "nothing more", WHOLE: "all of preset strong"}.get(piece, piece),
        f"{mean:.1f}" + ("" if std is None else f" ({std:.1f})"),
        "" if against is None or piece == "base" else f"{against.mean:+.1f}{interval}",
        *(f"{mean_std(values)[0]:.1f}" if values else "-" for values in groups),
        str(len(errors)),
    ]


if __name__ == "__main__":
    exit_with_message(lambda: main(sys.argv[1:]))
