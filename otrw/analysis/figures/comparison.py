"""Figures of groups of records: variants of the same setting, over seeds. From the committed files alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from otrw.analysis.figures.style import add_title, new_figure, plain_logarithmic
from otrw.analysis.statistics import mean_std
from otrw.analysis.table import dataset_title
from otrw.analysis.variant_styles import BLACK, GREY, STYLES
from otrw.config.variants import TITLES
from otrw.records.experiments import Experiment, label
from otrw.records.ledger import read_lines

MOST_CLASSES = 20  # more are shown as tenths of the classes, by size
MAIN_VARIANTS = ("ot_meta", "ot", "ot_labels_meta", "class_balanced_meta", "stage1")


class Comparison(NamedTuple):
    """The variants of runs that differ in nothing but the seed."""

    title: str
    name: str
    """For file names."""
    variants: dict[str, list[Experiment]]
    """{variant: experiments, by seed}"""

    @property
    def first(self) -> Experiment:
        """Any experiment; what all share can be read from it."""
        return next(iter(self.variants.values()))[0]


def comparisons(experiments: Iterable[Experiment]) -> list[Comparison]:
    """Entries grouped into comparisons: by setting, factor, preset, and method of the run's main variant."""
    runs: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        runs.setdefault(str(experiment.record.path.parent), []).append(experiment)
    groups: dict[tuple, list[Experiment]] = {}
    for members in runs.values():
        main = min(
            members,
            key=lambda experiment: (
                MAIN_VARIANTS.index(experiment.variant) if experiment.variant in MAIN_VARIANTS else len(MAIN_VARIANTS)
            ),
        )
        key = (main.setting, main.imbalance_factor, main.preset, main.variant, main.fingerprint)
        groups.setdefault(key, []).extend(members)
    result: list[Comparison] = []
    for members in groups.values():
        variants: dict[str, dict[int, Experiment]] = {}
        for variant in TITLES:
            for experiment in members:
                if experiment.variant == variant:
                    variants.setdefault(variant, {}).setdefault(experiment.seed, experiment)
        found = {variant: [of_seed[seed] for seed in sorted(of_seed)] for variant, of_seed in variants.items()}
        result.append(Comparison(_title(found), _name(members[0], [other.name for other in result]), found))
    return result


def error_figure(comparison: Comparison) -> Figure:
    """Test error of every variant: each seed a dot, the mean a mark, the standard deviation a bar."""
    variants = comparison.variants
    figure = new_figure(6.4, 1.3 + 0.36 * len(variants))
    axes = figure.subplots()
    generator = np.random.default_rng(0)
    for place, (variant, experiments) in enumerate(variants.items()):
        style = STYLES[variant]
        errors = [experiment.record.result["test"]["error"] for experiment in experiments]
        mean, std = mean_std(errors)
        if std is not None:
            heights = place + 0.22 * generator.uniform(-1, 1, len(errors))
            axes.plot(errors, heights, "o", color=style.color, markersize=3, alpha=0.5, markeredgewidth=0)
        axes.errorbar(
            mean,
            place,
            xerr=std,
            fmt=style.marker,
            color=style.color,
            markersize=12 if style.marker == "*" else 8,  # a star's arms are thin
            capsize=3,
            markeredgecolor="white",
        )
        text = f"{mean:.1f}" + (f" ({std:.1f})" if std is not None else "")
        axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.set_yticks(range(len(variants)), [_long_label(variant) for variant in variants])
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_xlim(0, 1.06 * axes.get_xlim()[1])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("test error, last epoch (%)")
    add_title(figure, comparison.title)
    return figure


def class_error_figure(comparison: Comparison) -> Figure | None:
    """Test error of each class before (stage 1) and after (each variant); None where no record has classes."""
    errors: dict[str, np.ndarray] = {}
    for variant, experiments in comparison.variants.items():
        values = class_errors(experiments)
        if values is not None:
            errors[variant] = values
    if not errors:
        return None
    result = comparison.first.record.result
    names, sizes = list(result.get("class_names", ())), np.asarray(result.get("true_sizes", ()))
    num_classes = next(iter(errors.values())).shape[1]
    places = np.arange(num_classes)
    if num_classes <= MOST_CLASSES:
        ticks = [f"{name}\n{size}" for name, size in zip(names, sizes, strict=True)]
        what = "class, and its training images"
    else:
        order = np.argsort(-sizes, kind="stable")
        tenths = np.array_split(order, 10)
        errors = {variant: np.stack([values[:, part].mean(1) for part in tenths], 1) for variant, values in errors.items()}
        ticks = [f"{sizes[part].max()}\nto {sizes[part].min()}" for part in tenths]
        places, what = np.arange(10), "tenths of the classes, by training images"
    figure = new_figure(max(6.8, 0.62 * len(places) * 1.15), 3.6)
    axes = figure.subplots()
    width = 0.84 / len(errors)
    for number, (variant, values) in enumerate(errors.items()):
        style = STYLES[variant]
        x = places - 0.42 + (number + 0.5) * width
        spread = values.std(0, ddof=1) if len(values) > 1 else None
        means = values.mean(0)
        below = None if spread is None else np.stack([np.minimum(spread, means), np.minimum(spread, 100 - means)])
        axes.bar(
            x,
            means,
            width,
            yerr=below,
            color=style.color,
            hatch=style.hatch,
            edgecolor="white",
            linewidth=0.4,
            error_kw={"elinewidth": 0.7, "ecolor": "#444444"},
            label=label(variant),
        )
        zero = means == 0
        axes.plot(x[zero], np.full(zero.sum(), 0.8), "|", color=style.color, markersize=4)  # a bar of no height is still there
    axes.set_xticks(places, ticks, fontsize=8)
    axes.set_xlabel(what)
    axes.set_ylabel("test error (%)")
    axes.set_ylim(0, 100)
    axes.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=min(len(errors), 4 if len(places) > 10 else 3))
    add_title(figure, comparison.title)
    return figure


def class_errors(experiments: Sequence[Experiment]) -> np.ndarray | None:
    """(seeds, classes) error in percent; None where a record has none."""
    values = [experiment.record.result["test"].get("class_error") for experiment in experiments]
    if not all(isinstance(value, list) and value for value in values):
        return None
    if len({len(value) for value in values}) != 1:
        return None
    return np.array([[np.nan if error is None else error for error in value] for value in values], dtype=np.float64)


def class_weight_figure(comparison: Comparison) -> Figure | None:
    """Mean weight of a class's samples against its size, both logarithmic; None where no record has weights."""
    drawn: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for variant, experiments in comparison.variants.items():
        pairs = [class_weights(experiment.record.result) for experiment in experiments]
        if pairs and all(pair is not None for pair in pairs):
            drawn[variant] = tuple(np.mean([pair[side] for pair in pairs if pair], axis=0) for side in (0, 1))
    if not drawn:
        return None
    figure = new_figure(5.6, 4.2)
    axes = figure.subplots()
    for variant, (sizes, weights) in drawn.items():
        twin = variant.removesuffix("_meta")
        if twin != variant and twin in drawn and np.allclose(drawn[twin][1], weights, rtol=0.01):
            continue  # the meta images change the loss, not the weights
        style = STYLES[variant]
        order = np.argsort(sizes)
        axes.plot(
            sizes[order],
            weights[order],
            marker=style.marker,
            color=style.color,
            linestyle=style.line,
            label=label(variant),
            alpha=0.9,
        )
    sizes = next(iter(drawn.values()))[0]
    line = np.array([sizes.min(), sizes.max()])
    axes.plot(line, sizes.mean() / line, color=BLACK, linewidth=0.8, linestyle=":", label="every class the same mass")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        plain_logarithmic(axis)
    axes.set_xlabel("training images with the class's (given) label")
    axes.set_ylabel("mean weight of an image (mean 1 over all)")
    axes.legend()
    add_title(figure, comparison.title)
    return figure


def class_weights(result: Mapping) -> tuple[np.ndarray, np.ndarray] | None:
    """(sizes, mean weights) of the classes that have samples, scaled to mean 1 over all samples."""
    mass, sizes = (result.get("weights") or {}).get("class_mass"), result.get("given_sizes")
    if not mass or not sizes or len(mass) != len(sizes):
        return None
    counts, share = np.asarray(sizes, dtype=np.float64), np.asarray(mass, dtype=np.float64)
    kept = counts > 0
    return counts[kept], share[kept] * counts.sum() / counts[kept]


def curves_figure(comparison: Comparison) -> Figure | None:
    """Training loss and test error of both stages, epoch by epoch; mean over seeds, their range shaded."""
    lines = {
        variant: [read_lines(experiment.record.path / "metrics.jsonl") for experiment in found]
        for variant, found in comparison.variants.items()
    }
    lines = {variant: [one for one in found if one] for variant, found in lines.items()}
    lines = {variant: found for variant, found in lines.items() if found}
    if not lines:
        return None
    figure = new_figure(7.2, 4.6)
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for variant, found in lines.items():
        column = 0 if variant == "stage1" else 1
        _curve(panels[0, column], variant, [curve(one, "train", "loss") for one in found])
        _curve(panels[1, column], variant, [curve(one, "test", "error") for one in found])
    for column, there in enumerate(("stage1" in lines, bool(lines.keys() - {"stage1"}))):
        if not there:
            panels[0, column].annotate("no curve recorded", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
            panels[1, column].set_xticks([])
    panels[0, 0].set_title("stage 1")
    panels[0, 1].set_title("stage 2")
    panels[0, 0].set_ylabel("training loss")
    panels[1, 0].set_ylabel("test error (%)")
    panels[1, 0].set_xlabel("epoch")
    settings = [experiment.record.config.get("stage2") or {} for found in comparison.variants.values() for experiment in found]
    has_rounds = any(one.get("rounds", 1) > 1 for one in settings)
    panels[1, 1].set_xlabel("epoch, rounds one after the other" if has_rounds else "epoch")
    handles, labels = panels[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    add_title(figure, comparison.title)
    return figure


def curve(lines: Sequence[Mapping], part: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(epochs, values) of the lines that have the figure; rounds of stage 2 follow each other."""
    epochs, values = [], []
    for number, line in enumerate(lines, start=1):
        value = (line.get(part) or {}).get(key)
        if value is not None:
            epochs.append(number)
            values.append(float(value))
    return np.array(epochs), np.array(values)


def _curve(axes: Axes, variant: str, curves: list[tuple[np.ndarray, np.ndarray]]) -> None:
    longest = max((epochs for epochs, _ in curves), key=len)
    values = np.array([values for epochs, values in curves if len(epochs) == len(longest)])
    if not len(longest):
        return
    style = STYLES[variant]
    every = max(1, len(longest) // 8)
    axes.plot(
        longest,
        values.mean(0),
        color=style.color,
        linestyle=style.line,
        marker=style.marker,
        markevery=every,
        label=label(variant),
    )
    if len(values) > 1:
        axes.fill_between(longest, values.min(0), values.max(0), color=style.color, alpha=0.12, linewidth=0)


def _long_label(variant: str) -> str:
    return TITLES[variant]


def _title(variants: Mapping[str, Sequence[Experiment]]) -> str:
    experiments = [experiment for found in variants.values() for experiment in found]
    first = experiments[0]
    numbers = {len(found) for found in variants.values()}
    seeds = f"{min(numbers)} to {max(numbers)} seeds" if len(numbers) > 1 else f"{numbers.pop()} seeds"
    seeds = "1 seed" if seeds == "1 seeds" else seeds
    short = ", SHORT RUN" if any(experiment.short for experiment in experiments) else ""
    return f"{dataset_title(first.setting)}, factor {first.imbalance_factor:g} (preset {first.preset}{short}; {seeds})"


def _name(experiment: Experiment, taken: Sequence[str]) -> str:
    noise = f"-noise{100 * experiment.setting.label_noise_rate:g}" if experiment.setting.label_noise_rate else ""
    data = f"{experiment.setting.dataset}-if{experiment.imbalance_factor:g}{noise}"
    base = f"{data}-{experiment.preset}{'-short' if experiment.short else ''}"
    number = 1
    while (name := base if number == 1 else f"{base}-{number}") in taken:
        number += 1
    return name
