"""Run records read for comparison: the setting and method of each, and how it differs from its preset. No torch."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from otrw.config import Config, DataConfig, Variant, flatten, to_dict
from otrw.config.command_line import PRESET_OF_OWN, PRESETS, parse_config
from otrw.config.known_data import KNOWN_DATA, OTHER_DATA
from otrw.config.variants import TITLES, variant_config
from otrw.errors import UserError
from otrw.records.config_check import check_config
from otrw.records.fingerprint import decisive_settings, fingerprint, shared_settings
from otrw.records.ledger import Record, find_records, read_lines
from otrw.records.result_check import check_result

HOW_COMPUTED = ("precision", "stage2.embeddings")
"""Settings that change a method's numbers a little and not what it is."""
AXES = ("source", "labels", "imbalance_factor", "label_noise", "label_noise_rate")
"""Settings of the data that make the blocks and columns of a table; all others decide the method."""


class Setting(NamedTuple):
    """What is being learned from: methods are compared inside one setting only."""

    dataset: str
    """digits, cifar10, cifar100 or cifar100_coarse; "other data named ..." where the images are not those of that name;
    of one's own the folder's name and a hash of what is in it"""
    label_noise: str
    label_noise_rate: float


class Experiment(NamedTuple):
    """One record, with what a table needs to know of it."""

    record: Record
    setting: Setting
    imbalance_factor: float
    seed: int
    preset: str
    """The preset that the settings started from; "own settings" where it is not known."""
    variant: str
    fingerprint: str
    """Equal for two experiments if and only if they are the same method on the same data, up to the seed."""
    pair: str
    """Equal for a variant and its control in one experiment: all settings but their own weighting, seeds, stage 1."""
    line_hash: str
    """The same over all settings of the data."""
    recipe: str
    """Like line_hash, but for how the same numbers were computed: precision, and cached embeddings of the frozen net."""
    differences: tuple[str, ...]
    """How the settings differ from the preset's, in words; empty where they are the preset's."""
    short: bool
    """Fewer epochs than the preset's."""
    is_special: bool
    """Whether the recipe is another than the preset's."""
    epochs: str
    """stage 1 + stage 2, as 200+20; 40+2x40 with two rounds; ? for a stage 1 of unknown length"""


class Loaded(NamedTuple):
    """What folders of records hold."""

    experiments: list[Experiment]
    problems: list[str]
    """A line for each record that is left out because it is damaged."""
    repeated: list[str]
    """A line for each whole record that stands for the same method and seed as one that is counted."""

    def summary(self) -> list[str]:
        """The repeated records in one line; none where there are none."""
        number = len(self.repeated)
        verb = "record repeats" if number == 1 else "records repeat"
        return [f"{number} {verb} a method and seed and are counted once; --verbose lists them"] if number else []


class _Stage1(NamedTuple):
    """The stage 1 that a run trained itself."""

    epochs: int
    fingerprint: str
    """Of its settings and seeds, without precision."""
    precision: str


def load_experiments(roots: Iterable[Path], *, unique: bool = True) -> Loaded:
    """Every finished variant below the folders.

    A record counts once, wherever copies of it lie; with `unique` so does a method and seed that was trained again. The
    first folder wins, and in a folder the first by path. Without `unique`, as figures and pages want them, the lines of
    metrics.jsonl are checked too. Trials of a search below a folder are passed over: they are held against validation images.
    """
    records: list[Record] = []
    problems: list[str] = []
    for root in roots:
        for found in find_records([root] if root.is_dir() else []):
            if isinstance(found, str):
                problems.append(found)
            elif not _is_trial(found.path, root):
                records.append(found)
    stage1_runs = _stage1_runs(records)
    experiments: list[Experiment] = []
    repeated: list[str] = []
    by_method: dict[tuple[str, ...], Experiment] = {}
    for record in records:
        try:
            experiment = make_experiment(record, stage1_runs)
            if not unique:
                _check_curves(record)
        except UserError as error:
            problems.append(f"{record.path}: {error}; the record is left out")
            continue
        key: tuple[str, ...] = (experiment.fingerprint, experiment.preset, str(experiment.seed))
        if not unique:
            key = (*key, json.dumps(record.result, sort_keys=True, default=str))  # equal figures, seconds too: a copy
        if key in by_method:
            # a stage 1 is evaluated again by every run that starts from it, and a copy is nothing to speak of
            first = by_method[key].record
            if unique and experiment.variant != "stage1" and first.result != record.result:
                repeated.append(f"{record.path}: the same method and seed as {first.path}; counted once")
            continue
        by_method[key] = experiment
        experiments.append(experiment)
    return Loaded(experiments, problems, repeated)


def _is_trial(path: Path, root: Path) -> bool:
    """Whether a search's folder lies between the record and the folder asked for."""
    between = path.relative_to(root).parents
    return any((root / folder / "search.yaml").exists() for folder in between if folder != Path("."))


def make_experiment(record: Record, stage1_runs: Mapping[str, _Stage1] | None = None) -> Experiment:
    """Raises UserError where the record lacks what every version wrote, or holds what this version cannot read."""
    check_result(record.result)
    check_config(record.config)
    _check_agreement(record)
    try:
        return _read_config(record, stage1_runs or {})
    except UserError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        text = " ".join(str(error).split())[:120]
        raise UserError(f"config.yaml must hold settings that can be read ({type(error).__name__}: {text})") from None


def _check_agreement(record: Record) -> None:
    """Refuse a record whose files are of different runs."""
    config, result = record.config, record.result
    pairs = (
        ("row", [result["row"]], config.get("variants")),
        ("seed", result["seed"], (config.get("run") or {}).get("seed", result["seed"])),
        ("imbalance_factor", result["imbalance_factor"], (config.get("data") or {}).get("imbalance_factor")),
    )
    for key, found, wanted in pairs:
        if wanted is not None and found != (list(wanted) if isinstance(wanted, tuple) else wanted):
            raise UserError(f"result.json: {key} must be that of config.yaml, {wanted}, got {found}")
    data = config.get("data")
    if isinstance(data, dict) and data.get("source") in KNOWN_DATA and data.get("imbalance_factor", 0) is None:
        raise UserError(f"config.yaml: data.imbalance_factor must be {result['imbalance_factor']}, as in result.json, got null")
    precision = record.environment.get("precision")
    if precision not in (None, "no", "bf16", "fp16"):
        raise UserError(f"environment.json: precision must be no, bf16 or fp16, got {str(precision)[:40]!r}")


def _read_config(record: Record, stage1_runs: Mapping[str, _Stage1]) -> Experiment:
    result = record.result
    config, known_epochs = _with_true_epochs(record.config, stage1_runs)
    data = config.get("data")
    if not isinstance(data, dict) or data.get("source") not in (*KNOWN_DATA, *PRESET_OF_OWN):
        raise UserError(f"config.yaml: data.source must be one of {', '.join((*KNOWN_DATA, *PRESET_OF_OWN))}")
    if data.get("labels", "fine") not in ("fine", "coarse"):
        raise UserError(f"config.yaml: data.labels must be fine or coarse, got {data['labels']!r}")
    noise = data.get("label_noise", "none"), float(data.get("label_noise_rate", 0.0))
    dataset = _dataset(data, result)
    precision = record.environment.get("precision")
    settings = decisive_settings(config, precision=precision)
    axes = tuple(f"data.{axis}" for axis in AXES)
    own = {path: value for path, value in settings.items() if path not in axes}
    name, preset = _preset(config, result["row"], {path: value for path, value in own.items() if path != "precision"})
    wanted = _preset_variant(preset, result["row"], data, config) if preset else own
    differences, short = _differences(own, wanted, known_epochs)
    recipe, preset_recipe = (
        sorted(item for item in settings.items() if item[0] not in HOW_COMPUTED) for settings in (own, wanted)
    )
    unknown = suffix = "" if known_epochs else "?"
    if data["source"] in PRESET_OF_OWN and data.get("imbalance_factor") is not None:
        differences += ("made long-tailed",)  # with a factor that data left as they are may have too
        suffix += " made long-tailed"
    return Experiment(
        record=record,
        setting=Setting(dataset, *noise),
        imbalance_factor=float(result["imbalance_factor"]),
        seed=int(result["seed"]),
        preset=name,
        variant=result["row"],
        fingerprint=fingerprint(config, precision=precision) + unknown,
        pair=_pair(record, config, known_epochs, stage1_runs),
        line_hash=str(sorted(own.items())) + suffix,
        recipe=str(recipe) + suffix,
        differences=differences,
        short=short,
        is_special=recipe != preset_recipe or not known_epochs,
        epochs=_epochs(config, result["row"], known_epochs),
    )


def _dataset(data: Mapping, result: Mapping) -> str:
    """The data set's name; other images that lay under that name are called so, and never stand in a table beside it."""
    found = result.get("dataset")
    if isinstance(found, str) and (found.startswith(OTHER_DATA) or data["source"] in PRESET_OF_OWN):
        return found
    return data["source"] + ("_coarse" if data.get("labels") == "coarse" else "")


def _pair(record: Record, config: Mapping, known_epochs: bool, stage1_runs: Mapping[str, _Stage1]) -> str:
    """What two variants must share to be compared seed by seed: all but their own weighting, and the net of stage 1.

    Equal settings and seeds make the same stage 1 in any folder. One from a file is known by the run that trained it, where
    that is among the records; otherwise it pairs only with what started from the same run's file.
    """
    precision = record.environment.get("precision")
    stage1 = str(precision or "no")
    if checkpoint := (config.get("stage1") or {}).get("checkpoint"):
        folder = Path(str(checkpoint)).parent.parent.name
        found = stage1_runs.get(folder)
        is_known = known_epochs and found is not None and found.fingerprint == _stage1_fingerprint(config)
        stage1 = found.precision if found is not None and is_known else f"from {folder}"
    settings = shared_settings(config, precision=precision)
    return json.dumps([sorted(settings.items()), record.result.get("split_hash"), stage1], default=str)


def _stage1_fingerprint(config: Mapping) -> str:
    return fingerprint({**config, "variants": ["stage1"]}, with_seed=True)


def label(variant: str) -> str:
    """A variant's title, as short as a column of a table wants it."""
    title = TITLES[variant].split(":")[0]
    for long, short in ((" weights", ""), (" images", "")):
        title = title.replace(long, short)
    return title


@cache
def _preset_config(name: str) -> Config | None:
    try:
        return parse_config(["--config", name])
    except UserError:
        return None


def _preset(config: Mapping, variant: Variant, own: Mapping) -> tuple[str, Config | None]:
    """Name and settings of the preset; in records that name none, one with the same method, else that of the data."""
    data = config["data"]
    named = (config.get("run") or {}).get("preset")
    source = data["source"]
    name = named or (PRESET_OF_OWN[source] if source in PRESET_OF_OWN else KNOWN_DATA[source].preset)
    for other in [] if named else sorted(path.stem for path in PRESETS.glob("*.yaml")):
        candidate = _preset_config(other)
        with suppress(UserError):  # a preset that has no such variant
            if candidate and _preset_variant(candidate, variant, data, config) == own:
                name = other
    preset = _preset_config(name)
    return (name, preset) if preset else (named or "own settings", None)


def _preset_variant(preset: Config, variant: Variant, data: Mapping, config: Mapping) -> dict[str, object]:
    """The preset's method for this variant, on the record's data."""
    known = set(DataConfig.__dataclass_fields__)
    axes = {key: value for key, value in data.items() if key in AXES and key in known}
    with suppress(UserError):  # a preset that is not for these data stays as it is, and the differences say so
        preset = replace(preset, data=replace(preset.data, **axes))
    if "_labels" in variant and not preset.ot.label_transport:
        share = (config.get("ot") or {}).get("label_transport", 0.5)
        preset = replace(preset, ot=replace(preset.ot, label_transport=share))
    try:
        settings = decisive_settings(to_dict(variant_config(preset, variant)))
    except UserError:  # the preset has no such variant
        settings = decisive_settings(to_dict(preset))
    return {path: value for path, value in settings.items() if path.removeprefix("data.") not in AXES}


def _differences(own: Mapping, preset: Mapping, known_epochs: bool) -> tuple[tuple[str, ...], bool]:
    defaults = flatten(to_dict(Config()))
    lines, short = [], False
    same_kind = own.get("stage2.trainable") == preset.get("stage2.trainable")
    for path in sorted(own.keys() | preset.keys()):
        value, wanted = (settings.get(path, defaults.get(path)) for settings in (own, preset))
        if path == "stage1.epochs" and not known_epochs:
            continue
        if value == wanted or path == "precision":
            continue
        if path == "stage1.epochs" or (path == "stage2.epochs" and same_kind):
            short = short or (isinstance(value, int) and isinstance(wanted, int) and value < wanted)
            lines.append(f"{path} {value} of {wanted}")
        else:
            lines.append(f"{path} {_plain(value)} (preset: {_plain(wanted)})")
    if "precision" in own:
        lines.append(f"trained in {own['precision']} (others: float32)")
    if not known_epochs:
        lines.append("stage 1 from a file, its epochs not recorded")
    return tuple(lines), short


def _plain(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _check_curves(record: Record) -> None:
    for number, line in enumerate(read_lines(record.path / "metrics.jsonl"), start=1):
        for part in ("train", "test", "validation"):
            if not isinstance(line.get(part, {}), dict):
                raise UserError(f"metrics.jsonl: line {number}: {part} must be figures, got {str(line[part])[:40]!r}")


def _stage1_runs(records: Iterable[Record]) -> dict[str, _Stage1]:
    """{run's folder name: the stage 1 that it trained itself}, without names that stand for different ones."""
    found: dict[str, set[_Stage1]] = {}
    for record in records:
        settings = record.config.get("stage1")
        if not isinstance(settings, dict) or settings.get("checkpoint") or not isinstance(settings.get("epochs"), int):
            continue
        with suppress(UserError, TypeError, ValueError, AttributeError):  # its own line comes when it is read as a record
            check_config(record.config)
            precision = str(record.environment.get("precision") or "no")
            stage1 = _Stage1(settings["epochs"], _stage1_fingerprint(record.config), precision)
            found.setdefault(record.path.parent.name, set()).add(stage1)
    return {name: next(iter(stages)) for name, stages in found.items() if len(stages) == 1}


def _with_true_epochs(config: dict, stage1_runs: Mapping[str, _Stage1]) -> tuple[dict, bool]:
    """The config with the epochs that a stage 1 from a file has had, and whether they are known.

    Records that name their preset hold them already; in older ones they are those of the run that the file belongs to.
    """
    settings = config.get("stage1")
    if not isinstance(settings, dict) or not settings.get("checkpoint") or "preset" in (config.get("run") or {}):
        return config, True
    run = Path(str(settings["checkpoint"])).parent.parent.name
    if run not in stage1_runs:
        return config, False
    return {**config, "stage1": {**settings, "epochs": stage1_runs[run].epochs}}, True


def _epochs(config: Mapping, variant: str, known: bool) -> str:
    stage1, stage2 = (config.get(section) or {} for section in ("stage1", "stage2"))
    first = str(stage1.get("epochs", "?")) if known else "?"
    if variant == "stage1":
        return first
    rounds = stage2.get("rounds", 1)
    return f"{first}+{f'{rounds}x' if rounds > 1 else ''}{stage2.get('epochs', '?')}"
