"""From a command line to what a search will do: checked before anything starts. No ray."""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, NoReturn, get_args

from otrw.config import Config, Variant, flatten, to_dict
from otrw.config.command_line import PRESET_OF_OWN, parse_config
from otrw.config.earlier_names import with_present_names
from otrw.config.known_data import KNOWN_DATA, NUM_COARSE_CLASSES
from otrw.config.variants import variant_config
from otrw.errors import UserError, check
from otrw.records import ledger
from otrw.records.config_check import check_config
from otrw.records.read import read_yaml
from otrw.tuning.proposals import Algorithm
from otrw.tuning.space import check_values, grid_size, load_space, parse_space, to_plain, without_effect

HELD_OUT_OF_OWN = 20
"""Validation samples a class of one's own data, at most half of what is left of it; not used where they have a set for it."""
METRICS = tuple(f"validation/{name}" for name in ("balanced_error", "error", "loss", "many_error", "medium_error", "few_error"))
DEFAULT_SPACE = "default"
DEFAULT_TRIALS = 16
MOST_GRID_TRIALS = 10_000
RESUMED = ("trials", "concurrent", "address")


KINDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "row": str,
    "algorithm": str,
    "scheduler": str,
    "metric": str,
    "grace_epochs": int,
    "epochs": int,
    "trials": int,
    "seeds": list,
    "retries": int,
    "processes_per_trial": int,
    "cpus_per_trial": (int, float),
    "num_validation": int,
    "space": dict,
    "given": dict,
    "config": dict,
}
"""What a search.yaml holds at least."""


class Plan(NamedTuple):
    """A search to run or to go on with."""

    folder: Path
    search: dict
    """What search.yaml holds."""
    address: str | None
    is_new: bool = True
    """Whether its folder was made now."""


def make_plan(arguments: Sequence[str], description: str = "") -> Plan:
    """The plan of a command line, with the search's folder made and its files written. Raises UserError."""
    options, rest = _parser(description).parse_known_args(arguments)
    return _resumed(options, arguments) if options.resume else _new(options, rest)


def _new(options: argparse.Namespace, rest: list[str]) -> Plan:
    for key in ("trials", "grace_epochs", "seeds", "processes_per_trial", "concurrent"):
        value = getattr(options, key)
        check(value is None or value >= 1, _flag(key), value, "be >= 1")
    check(options.retries >= 0, "--retries", options.retries, "be >= 0")
    check(options.metric in METRICS, "--metric", options.metric, f"be one of {', '.join(METRICS)}", "never the test set's")
    check(options.cpus_per_trial is None or options.cpus_per_trial > 0, "--cpus-per-trial", options.cpus_per_trial, "be > 0")
    gpus, processes = options.gpus_per_trial, options.processes_per_trial
    check(gpus is None or gpus >= 0, "--gpus-per-trial", gpus, "be >= 0")
    check(
        gpus is None or gpus in (0, processes) or processes == 1,
        "--gpus-per-trial",
        gpus,
        f"be 0 or {processes}, one for each process",
        "processes of one trial cannot share a GPU",
    )
    base, config = _searched_config(rest)
    variant = _variant(options.variant, config)
    config = replace(config, variants=config.variants if variant in config.variants else (*config.variants, variant))
    seeds = [config.run.seed + i for i in range(options.seeds)]
    given: dict[str, object] = {
        "data.num_validation_per_class": parse_config(rest).data.num_validation_per_class,
        "data.root": config.data.root,
        "data.cache": config.data.cache,
    }
    # trials run in folders of their own
    places = {key: getattr(config.data, key) for key in ("root", "cache", "trusted", "labels_file")}
    places = {key: _absolute(path) if path else path for key, path in places.items()}
    if config.data.corrections is not None:
        places["corrections"] = ",".join(map(_absolute, config.data.correction_files))
    config = replace(config, data=replace(config.data, **places))
    if config.stage1.checkpoint:
        path = Path(config.stage1.checkpoint).expanduser().absolute()
        check(path.is_file(), "stage1.checkpoint", str(path), "be a file", "a model.safetensors of an earlier run")
        given["data.seed"] = config.data.seed  # the one split that the checkpoint fits, for all seeds
        config = replace(
            config,
            stage1=replace(config.stage1, checkpoint=str(path)),
            data=replace(config.data, seed=config.data_seed),
        )
    space = load_space(options.space)
    changing = [path for path in space if path.startswith(("data.", "model.", "stage1."))]
    check(
        not (config.stage1.checkpoint and changing),
        "--space",
        ", ".join(changing),
        "leave stage 1 alone with stage1.checkpoint",
        "leave one of the two out",
    )
    check_values(space, [*base, f"--variants=[{variant}]"])
    idle = without_effect(space, base, variant)
    remedy = f"{variant} does not look at them; leave them out, or name another --variant"
    check(not idle or options.space == DEFAULT_SPACE, "--space", ", ".join(idle), "be settings that the variant uses", remedy)
    if idle:
        print(f"left out of the search: {', '.join(idle)}, which {variant} does not look at", file=sys.stderr)
        space = {path: found for path, found in space.items() if path not in idle}
    if options.algorithm == "optuna":
        _check_optuna()
    algorithm = options.algorithm
    trials = options.trials or DEFAULT_TRIALS
    if algorithm == "grid":
        size = grid_size(space)
        check(
            options.trials is not None or size <= MOST_GRID_TRIALS,
            "--algorithm",
            f"a grid of {size:,} settings",
            f"have at most {MOST_GRID_TRIALS:,}",
            "list fewer values, take --algorithm random, or say --trials N for the first N",
        )
        trials = min(options.trials or size, size)
    stage2 = variant_config(config, variant).stage2
    epochs = stage2.epochs * stage2.rounds
    grace = options.grace_epochs or max(1, stage2.epochs // 2)
    check(grace <= epochs, "--grace-epochs", grace, f"be at most the {epochs} epochs of stage 2")
    folder = _make_folder(options, config, variant)
    config = replace(config, run=replace(config.run, name=None, resume=None))
    search = {
        "name": folder.name,
        "row": variant,
        "algorithm": algorithm,
        "scheduler": options.scheduler or ("none" if algorithm == "grid" else "asha"),
        "grace_epochs": grace,
        "epochs": epochs,
        "metric": options.metric,
        "trials": trials,
        "seeds": seeds,
        "retries": options.retries,
        "concurrent": options.concurrent,
        "processes_per_trial": processes,
        "cpus_per_trial": options.cpus_per_trial or float(processes),
        "gpus_per_trial": gpus,
        "num_validation": 0 if config.data.is_own else config.data.num_validation_per_class * _num_classes(config),
        "space": to_plain(space),
        "given": given,
        "config": to_dict(config),
        "environment": ledger.environment(),
    }
    ledger.write_yaml(folder / "config.yaml", to_dict(config))
    ledger.write_yaml(folder / "search.yaml", search)
    return Plan(folder, search, options.address)


def _resumed(options: argparse.Namespace, arguments: Sequence[str]) -> Plan:
    folder = Path(options.resume).expanduser().absolute()
    if not (folder / "search.yaml").is_file():
        raise UserError(f"--resume must be a search's folder, got {options.resume!r}, which has no search.yaml")
    with ledger.locked(folder, "--resume", "searches there"):
        return _changed(folder, options, arguments)


def _changed(folder: Path, options: argparse.Namespace, arguments: Sequence[str]) -> Plan:
    """The plan of a search that was begun, with the changes that are allowed written down."""
    search = _read_search(folder / "search.yaml")
    search["config"] = with_present_names(search["config"])
    given = [piece.partition("=")[0] for piece in arguments if piece.startswith("--")]
    allowed = ["--resume", *map(_flag, RESUMED)]
    other = [flag for flag in given if flag not in allowed]
    check(not other, "--resume", ", ".join(other), f"come with none but {', '.join(allowed[1:])}", "all else is read from it")
    if options.trials is not None:
        size = grid_size(parse_space(search["space"])) if search["algorithm"] == "grid" else math.inf
        check(search["trials"] <= options.trials <= size, "--trials", options.trials, f"be {search['trials']} or more")
        search["trials"] = options.trials
    if options.concurrent is not None:
        search["concurrent"] = options.concurrent
    ledger.write_yaml(folder / "search.yaml", search)
    return Plan(folder, search, options.address, is_new=False)


def _read_search(path: Path) -> dict:
    """What search.yaml holds. Raises UserError where a part is missing or of another kind."""
    search = read_yaml(path)
    if not isinstance(search, dict):
        raise UserError(f"{path}: must hold a search, got {type(search).__name__}")
    for key, kinds in KINDS.items():
        value = search.get(key)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise UserError(f"{path}: {key} must be there as this package wrote it, got {str(value)[:40]!r}")
    choices = {"algorithm": get_args(Algorithm), "scheduler": ("asha", "none"), "metric": METRICS, "row": get_args(Variant)}
    for key, known in choices.items():
        if search[key] not in known:
            raise UserError(f"{path}: {key} must be one of {', '.join(known)}, got {str(search[key])[:40]!r}")
    if not search["seeds"] or not all(isinstance(seed, int) for seed in search["seeds"]):
        raise UserError(f"{path}: seeds must be whole numbers, got {str(search['seeds'])[:40]}")
    parse_space(search["space"])
    config = with_present_names(search["config"])
    try:
        check_config(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    needed = ("data.num_validation_per_class", "stage2.epochs", "run.seed", "run.cpu", "run.preset")
    missing = [key for key in needed if key not in flatten(config)]
    missing += [key for key in ("data.num_validation_per_class",) if key not in search["given"]]
    if missing:
        raise UserError(f"{path}: must hold {missing[0]}, as this package wrote it")
    return search


def describe(plan: Plan) -> list[str]:
    """What is about to be searched, in a few lines."""
    search, config = plan.search, plan.search["config"]
    per_class = config["data"]["num_validation_per_class"]
    own = f"the validation set of the data, or up to {per_class} held-out samples a class by their labels as given"
    grace, epochs = search["grace_epochs"], search["epochs"]
    early = f", stopped early by ASHA from epoch {grace} of {epochs} on"
    if {"stage2.epochs", "stage2.rounds"} & search["space"].keys():
        early = f", stopped early by ASHA from {100 * grace / epochs:.0f} % of each trial's own epochs on"
    seeds = f" on {len(search['seeds'])} seeds each" if len(search["seeds"]) > 1 else ""
    lines = [
        f"search in {plan.folder}",
        f"  {search['trials']} settings{seeds} of {search['row']} by {search['algorithm']} search"
        + (early if search["scheduler"] == "asha" else ""),
        f"  judged by {search['metric']} on "
        + (f"{search['num_validation']} held-out images ({per_class} a class)" if search["num_validation"] else own),
    ]
    if search["given"]["data.num_validation_per_class"] != per_class:
        lines.append("  held out by the search: the best config that it writes trains on them again")
    for path, experiment in search["space"].items():
        ((kind, values),) = experiment.items()
        lines.append(f"  {path:<32} {kind} {', '.join(str(value) for value in values)}")
    return lines


def _searched_config(rest: list[str]) -> tuple[list[str], Config]:
    """(arguments for parse_config, config) with a validation set, unless it is ruled out in so many words."""
    if any(piece.partition("=")[0] == "--run.resume" for piece in rest):
        raise UserError("--run.resume must go with launch/train.py; a search goes on by --resume and its folder")
    source = parse_config(rest).data.source
    num_held_out = KNOWN_DATA[source].num_held_out_per_class if source in KNOWN_DATA else HELD_OUT_OF_OWN
    # first, so that whatever else names it wins
    held_out = f"--data.num_validation_per_class={num_held_out}"
    named = any(piece.partition("=")[0] == "--config" for piece in rest)
    base = [held_out, *([] if named else ["--config", PRESET_OF_OWN.get(source, "digits_lt")]), *rest]
    config = parse_config(base)
    check(
        config.data.num_validation_per_class >= 1,
        "data.num_validation_per_class",
        config.data.num_validation_per_class,
        "be >= 1 for a search",
        f"settings are chosen on held-out images, never on test; try --data.num_validation_per_class {num_held_out}",
    )
    return base, config


def _variant(wanted: str | None, config: Config) -> Variant:
    """The variant that the trials train: named, or ot_meta, or the config's first with OT."""
    variants = get_args(Variant)
    if wanted is not None:
        check(wanted in variants and wanted != "stage1", "--variant", wanted, f"be one of {', '.join(variants[1:])}")
        return next(variant for variant in variants if variant == wanted)
    with_ot = [variant for variant in config.variants if variant.startswith("ot")]
    return "ot_meta" if "ot_meta" in config.variants or not with_ot else with_ot[0]


def _make_folder(options: argparse.Namespace, config: Config, variant: Variant) -> Path:
    name = options.name or f"{config.run.preset or config.data.source}-{variant}-{datetime.now():%Y%m%d-%H%M%S}"
    check(
        Path(name).name == name and name not in (".", ".."),
        "--name",
        name,
        "be a plain folder name",
        "--storage says where it goes",
    )
    check("://" not in options.storage, "--storage", options.storage, "be a folder", "on a cluster, one that every node sees")
    folder = Path(options.storage).expanduser().absolute() / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        raise UserError(f"--name must be new, got {str(folder)!r}; go on with it by --resume {folder}") from None
    except OSError as error:
        raise UserError(f"--storage must be writable, got {options.storage!r} ({error.strerror}); choose another") from None
    return folder


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("--algorithm must be random or grid without optuna, got 'optuna'; pip install -e '.[optuna]'") from None


def _num_classes(config: Config) -> int:
    return NUM_COARSE_CLASSES if config.data.labels == "coarse" else KNOWN_DATA[config.data.source].num_classes


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists every option")


def _parser(description: str) -> argparse.ArgumentParser:
    parser = _Parser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="python tuning/search.py [options] [--config PRESET] [--section.key value ...]",
        epilog="All else goes to the config as in training: --config PRESET_OR_FILE, --section.key value.",
    )
    add = parser.add_argument
    add("--space", default=DEFAULT_SPACE, metavar="FILE", help="what to search: a file, or a name from otrw/tuning/spaces")
    add("--trials", type=int, help=f"how many settings to try (default: {DEFAULT_TRIALS}, or the whole grid)")
    add("--algorithm", choices=get_args(Algorithm), default="random", help="optuna is its tree-structured Parzen estimator")
    add("--scheduler", choices=("asha", "none"), help="asha ends poor trials early (default: asha; for a grid none)")
    add("--grace-epochs", type=int, help="epochs of stage 2 that every trial gets (default: half a round)")
    add("--metric", default=METRICS[0], help=f"what to minimise: {', '.join(METRICS)}")
    add("--seeds", type=int, default=1, help="trials of each setting, judged by their mean (default: 1)")
    add("--variant", help="which variant the trials train (default: ot_meta, or the config's first with OT)")
    add("--address", help="Ray cluster to use: auto on one of its nodes, or host:port (default: Ray on this machine)")
    add("--storage", default="searches", metavar="DIR", help="folder of searches; on a cluster one that all nodes see")
    add("--name", help="name of this search's folder (default: from the data and the time)")
    add("--resume", metavar="FOLDER", help="go on with a search; with it --trials N for more settings, --address, --concurrent")
    add("--cpus-per-trial", type=float, help="over all its processes (default: 1 each)")
    add("--gpus-per-trial", type=float, help="a fraction lets trials share one (default: 0.25 where there is a GPU)")
    add("--processes-per-trial", type=int, default=1, help="data-parallel processes of a trial (default: 1)")
    add("--concurrent", type=int, help="most trials at a time (default: as many as fit)")
    add("--retries", type=int, default=3, help="how often a trial whose process or node fails is tried again (default: 3)")
    return parser


def _absolute(path: str) -> str:
    return path if path.startswith("~") else str(Path(path).absolute())
