"""Entries -> the blocks of a comparison table: one block a setting, one line a method, one cell a factor. No torch."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from otrw.analysis.statistics import Difference, mean_std, paired_difference
from otrw.config import DataConfig, Variant
from otrw.config.known_data import KNOWN_DATA, NUM_COARSE_CLASSES
from otrw.config.variants import TITLES
from otrw.errors import UserError
from otrw.records.experiments import Experiment, Setting, label

PUBLISHED = Path(__file__).resolve().parent / "reference" / "published.csv"
METRICS = {
    "error": "test error",
    "balanced": "balanced test error",
    "many": "test error, many-shot classes",
    "medium": "test error, medium-shot classes",
    "few": "test error, few-shot classes",
    "ece": "expected calibration error",
}
_KEYS = {"error": "error", "ece": "ece"} | {name: f"{name}_error" for name in ("balanced", "many", "medium", "few")}
PAPER_FACTORS = (200.0, 100.0, 50.0, 20.0)
PAPER_SETTINGS = (Setting("cifar10", "none", 0.0), Setting("cifar100", "none", 0.0))
TARGETS = {"OT re-weighting (paper)": "paper", "OT re-weighting (earlier replication)": "earlier replication"}
PRESET_ORDER = ("official", "digits_lt", "cifar10_lt", "cifar100_lt")  # others, by name, come after
CONTROL: dict[str, Variant] = {
    "ot": "class_balanced",
    "ot_meta": "class_balanced_meta",
    "ot_labels_meta": "class_balanced_meta",
    "ot_noise_aware": "class_balanced",
    "ot_noise_aware_meta": "class_balanced_meta",
    "ot_noise_aware_labels_meta": "class_balanced_meta",
    "ot_learned_meta": "class_balanced_meta",
    "ot_learned_labels_meta": "class_balanced_meta",
    "ot_pooled_meta": "class_balanced_meta",
    "ot_pooled_labels_meta": "class_balanced_meta",
}
"""What each OT variant is held against: the same stage 1 and meta images, per-class weights."""


class Published(NamedTuple):
    """One published number."""

    method: str
    group: str
    backbone: str
    dataset: str
    imbalance_factor: float
    error: float
    std: float | None
    epochs: str
    source: str


class Cell(NamedTuple):
    """Mean and standard deviation over seeds, in percent."""

    mean: float
    std: float | None
    num_seeds: int
    """0 for a published number that does not say."""
    text: str
    """The mean as it is printed: ours with one decimal, published ones as published."""
    best: bool = False


class Line(NamedTuple):
    """One method."""

    group: str
    """What it is listed under: published, or the preset."""
    name: str
    net: str
    epochs: str
    cells: dict[float, Cell]
    """{imbalance factor: cell}; a missing one is missing"""
    variant: str | None = None
    differences: tuple[str, ...] = ()
    short: bool = False
    competes: bool = True
    """Whether it may be the best: not an oracle, not an epoch chosen on the test set."""
    source: str = ""


class Compared(NamedTuple):
    """An OT variant against its control."""

    group: str
    left: str
    right: str
    imbalance_factor: float
    difference: Difference


class Block(NamedTuple):
    """All methods on one setting."""

    setting: Setting
    title: str
    metric: str
    factors: tuple[float, ...]
    lines: tuple[Line, ...]
    compared: tuple[Compared, ...]
    notes: tuple[str, ...] = ()
    """Why there are no values, where that is known."""


def read_published(path: Path = PUBLISHED) -> list[Published]:
    """The published numbers. Raises UserError where the file is not what it should be."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                Published(
                    row["method"],
                    row["group"],
                    row["backbone"],
                    row["dataset"],
                    float(row["imbalance_factor"]),
                    float(row["top1_error"]),
                    float(row["std"]) if row["std"] else None,
                    row["epochs"],
                    row["source"],
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} must be a table of published numbers ({type(error).__name__}: {error})") from None


def make_blocks(
    experiments: Sequence[Experiment],
    published: Sequence[Published] = (),
    *,
    metric: str = "error",
    presets: Sequence[str] = (),
    datasets: Sequence[str] = (),
    all_published: bool = False,
) -> list[Block]:
    """The table of the experiments that the filters leave; the paper's settings are there with or without experiments."""
    for name, value, known in (
        ("--metric", [metric], list(METRICS)),
        ("--preset", presets, _known([*PRESET_ORDER, *(experiment.preset for experiment in experiments)])),
        ("--dataset", datasets, _known([*(s.dataset for s in PAPER_SETTINGS), *(e.setting.dataset for e in experiments)])),
    ):
        for one in value:
            if one not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}, got {one!r}")
    experiments = [experiment for experiment in experiments if not presets or experiment.preset in presets]
    settings = dict.fromkeys([*PAPER_SETTINGS, *sorted({experiment.setting for experiment in experiments}, key=_setting_order)])
    blocks = []
    for setting in sorted(settings, key=_setting_order):
        own = [experiment for experiment in experiments if experiment.setting == setting]
        if datasets and setting.dataset not in datasets:
            continue
        if not own and presets and "official" not in presets:
            continue
        blocks.append(
            _block(setting, own, published, metric, all_published, show_official=not presets or "official" in presets)
        )
    return blocks


def dataset_title(setting: Setting) -> str:
    """A setting in words."""
    names = {name: known.title for name, known in KNOWN_DATA.items()}
    names["cifar100_coarse"] = f"{names['cifar100']}, {NUM_COARSE_CLASSES} superclasses"
    noise = f", {100 * setting.label_noise_rate:g} % wrong labels ({setting.label_noise})" if setting.label_noise_rate else ""
    return names.get(setting.dataset, setting.dataset) + noise


def metric_value(result: Mapping, metric: str) -> float | None:
    """A metric of a record's result; None where the record has none."""
    value = result["test"].get(_KEYS[metric])
    return float(value) if isinstance(value, int | float) else None


def net_name(model: Mapping) -> str:
    """Net, channels of its first stage, millions of parameters."""
    name, width = model.get("name", "?"), float(model.get("width_multiplier", 1.0))
    channels = f" w{round(16 * width)}" if str(name).startswith("resnet") else "" if width == 1 else f" x{width:g}"
    count = model.get("num_parameters")
    return f"{name}{channels}" + (f", {count / 1e6:.2f} M" if isinstance(count, int) else "")


def _block(
    setting: Setting,
    experiments: Sequence[Experiment],
    published: Sequence[Published],
    metric: str,
    all_published: bool,
    show_official: bool,
) -> Block:
    is_papers = setting in PAPER_SETTINGS
    lines = _published_lines(setting, published, all_published) if is_papers and metric in ("error", "balanced") else []
    ours = _our_lines(experiments, metric)
    if is_papers and show_official and not any(line.group == "official" for line in ours):
        ours.insert(0, Line("official", label("ot_meta"), "", "", {}, "ot_meta"))
    lines += ours
    factors = {factor for line in lines for factor in line.cells} | (set(PAPER_FACTORS) if is_papers else set())
    columns = tuple(sorted(factors, reverse=True))
    return Block(
        setting,
        dataset_title(setting),
        metric,
        columns,
        tuple(_mark_best(lines, columns)),
        tuple(_compare(experiments, metric)),
        tuple(_why_missing(experiments, metric)),
    )


def _why_missing(experiments: Sequence[Experiment], metric: str) -> list[str]:
    """A sentence where no class of these data is in the group that the metric is of."""
    if metric not in ("many", "medium", "few") or not experiments:
        return []
    values = [metric_value(experiment.record.result, metric) for experiment in experiments]
    groups = {_group(experiment, metric) for experiment in experiments}
    sizes = [size for experiment in experiments for size in experiment.record.result.get("true_sizes") or ()]
    if any(value is not None for value in values) or len(groups) > 1 or not sizes:
        return []
    return [f"No values: no class has {groups.pop()} training images; classes have {min(sizes):g} to {max(sizes):g}."]


def _group(experiment: Experiment, metric: str) -> str:
    defaults, data = DataConfig(), experiment.record.config["data"]
    many, few = (data.get(key, getattr(defaults, key)) for key in ("many_above", "few_below"))
    return {"many": f"more than {many}", "medium": f"{few} to {many}", "few": f"fewer than {few}"}[metric]


def _published_lines(setting: Setting, published: Sequence[Published], everything: bool) -> list[Line]:
    lines: dict[str, Line] = {}
    for number in published:
        if number.dataset != setting.dataset or (number.method not in TARGETS and not everything):
            continue
        name = TARGETS.get(number.method, number.method)
        net = number.backbone.replace("-", " ")
        line = lines.setdefault(name, Line("published", name, net, number.epochs, {}, source=number.source))
        line.cells[number.imbalance_factor] = Cell(number.error, number.std, 0, f"{number.error:.2f}")
        if number.epochs != line.epochs:
            lines[name] = line._replace(epochs=f"{line.epochs}/{number.epochs}")
    return sorted(lines.values(), key=lambda line: line.name not in TARGETS.values())


def _our_lines(experiments: Sequence[Experiment], metric: str) -> list[Line]:
    """One line a method, and one more for the best test epoch of the official variant."""
    groups: dict[tuple, list[Experiment]] = {}
    for experiment in sorted(experiments, key=_experiment_order):
        groups.setdefault((experiment.preset, experiment.variant, experiment.line_hash), []).append(experiment)
    lines = []
    for members in groups.values():
        first = members[0]
        line = Line(
            first.preset,
            label(first.variant),
            net_name(first.record.result.get("model") or {}),
            first.epochs,
            _cells(members, lambda result: metric_value(result, metric)),
            first.variant,
            _differences(members),
            any(member.short for member in members),
            competes=not first.variant.startswith("oracle"),
        )
        lines.append(line)
        if first.preset == "official" and first.variant.startswith("ot") and metric == "error":
            cells = _cells(members, lambda result: result.get("best_epoch_test_error"))
            lines.append(line._replace(name=f"{line.name}, best test epoch", cells=cells, competes=False))
    return lines


def _differences(members: Sequence[Experiment]) -> tuple[str, ...]:
    """How a line's settings differ from the preset's, with the factors where only some of its cells do."""
    every = sorted({member.imbalance_factor for member in members}, reverse=True)
    factors: dict[str, list[float]] = {}
    for factor in every:
        for difference in next(member.differences for member in members if member.imbalance_factor == factor):
            factors.setdefault(difference, []).append(factor)
    return tuple(
        difference if where == every else f"{difference}, at {', '.join(f'{factor:g}' for factor in where)}"
        for difference, where in factors.items()
    )


def _cells(experiments: Sequence[Experiment], value: Callable[[dict], float | None]) -> dict[float, Cell]:
    values: dict[float, list[float]] = {}
    hashes: dict[float, set[str]] = {}
    for experiment in experiments:
        number = value(experiment.record.result)
        if number is not None:
            values.setdefault(experiment.imbalance_factor, []).append(number)
            hashes.setdefault(experiment.imbalance_factor, set()).add(experiment.fingerprint)
    assert all(len(found) == 1 for found in hashes.values()), "a mean over different methods"
    cells = {}
    for factor, numbers in values.items():
        mean, std = mean_std(numbers)
        cells[factor] = Cell(mean, std, len(numbers), f"{mean:.1f}")
    return cells


def _mark_best(lines: Iterable[Line], factors: Iterable[float]) -> list[Line]:
    lines = list(lines)
    for factor in factors:
        means = [line.cells[factor].mean for line in lines if factor in line.cells and line.competes]
        for line in lines:
            if factor in line.cells and line.competes and line.cells[factor].mean == min(means):
                line.cells[factor] = line.cells[factor]._replace(best=True)
    return lines


def _compare(experiments: Sequence[Experiment], metric: str) -> list[Compared]:
    """Each OT variant against its control, over the seeds for which both stand on the same stage 1 and settings."""
    controls: dict[tuple[str, str, str], list[Experiment]] = {}
    for experiment in experiments:
        controls.setdefault((experiment.preset, experiment.pair, experiment.variant), []).append(experiment)
    pairs: dict[tuple, dict[int, tuple[float, float]]] = {}
    for experiment in sorted(experiments, key=_experiment_order):
        found = controls.get((experiment.preset, experiment.pair, CONTROL.get(experiment.variant, "")), [])
        if len(found) != 1:
            continue  # none, or several that differ in their own weighting: which one is meant is not known
        (control,) = found
        values = metric_value(experiment.record.result, metric), metric_value(control.record.result, metric)
        if values[0] is None or values[1] is None:
            continue
        key = (
            experiment.preset,
            experiment.variant,
            control.variant,
            experiment.imbalance_factor,
            experiment.fingerprint,
            control.fingerprint,
        )
        pairs.setdefault(key, {})[experiment.seed] = values[0], values[1]
    compared = []
    for (preset, variant, control_variant, factor, *_), of_seed in pairs.items():
        left, right = ({seed: pair[side] for seed, pair in of_seed.items()} for side in (0, 1))
        difference = paired_difference(left, right)
        if difference is not None and difference.num_pairs > 1:
            compared.append(Compared(preset, label(variant), label(control_variant), factor, difference))
    return compared


def _experiment_order(experiment: Experiment) -> tuple:
    return (
        *_preset_order(experiment.preset),
        experiment.short,
        experiment.differences if experiment.is_special else (),
        list(TITLES).index(experiment.variant),
        -experiment.imbalance_factor,
        experiment.seed,
    )


def _preset_order(preset: str) -> tuple[int, str]:
    return (PRESET_ORDER.index(preset) if preset in PRESET_ORDER else len(PRESET_ORDER), preset)


def _setting_order(setting: Setting) -> tuple:
    order = ("cifar10", "cifar100")
    place = order.index(setting.dataset) if setting.dataset in order else len(order)
    return (place, setting.dataset, setting.label_noise_rate, setting.label_noise)


def _known(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
