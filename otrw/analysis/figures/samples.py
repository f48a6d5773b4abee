"""Figures of single samples: their weights, and how sure the predictions are. From the Parquet files of local runs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from otrw.analysis.figures.style import add_title, new_figure, plain_logarithmic
from otrw.analysis.statistics import reliability
from otrw.analysis.table import dataset_title
from otrw.analysis.variant_styles import BLACK, BLUE, GREY, STYLES, VERMILLION
from otrw.records.experiments import Experiment, label
from otrw.records.ledger import read_table

NUM_BINS = 15
SMALLEST_SHOWN = 1e-4  # of the mean weight; smaller weights lie on the lower edge
MOST_CLASSES_NAMED = 20
PLAN_COSTS = {"prototypes": "distance to prototypes", "probe": "learned cost", "pool": "pooled cost"}


def weights_figure(experiments: Sequence[Experiment]) -> Figure | None:
    """Figure 1 of arXiv 2208.02951: learned weights by class (left) and by sample (right), one line of panels a cost."""
    found = [
        (experiment, columns) for experiment in experiments if (columns := read_table(experiment.record, "weights.parquet"))
    ]
    if not found:
        return None
    found.sort(key=lambda pair: -_mixing(pair[0]))
    figure = new_figure(7.4, 0.9 + 1.9 * len(found))
    panels = figure.subplots(len(found), 2, squeeze=False, sharex="col", sharey=True, width_ratios=(1, 1.6))
    has_wrong = any(_is_wrong(columns).any() for _, columns in found)
    for (by_class, by_sample), (experiment, columns) in zip(panels, found, strict=True):
        weights = columns["weight"] / columns["weight"].mean()
        weights = np.maximum(weights, SMALLEST_SHOWN)
        labels, wrong = columns["given_label"], _is_wrong(columns)
        classes = np.unique(labels)
        low, middle, high = (np.array([np.quantile(weights[labels == c], q) for c in classes]) for q in (0.1, 0.5, 0.9))
        by_class.vlines(classes, low, high, color=BLUE, linewidth=5 if len(classes) <= MOST_CLASSES_NAMED else 1, alpha=0.35)
        by_class.plot(classes, middle, "o", color=BLUE, markersize=4)
        means = [weights[labels == c].mean() for c in classes]
        by_class.plot(classes, means, "D", color=BLACK, markersize=4, markerfacecolor="white")
        by_class.set_ylabel("weight (mean 1)")
        by_class.set_title(cost_name(experiment))
        order = np.lexsort((-weights, wrong, labels))
        places = np.arange(len(order))
        is_wrong = wrong[order]
        by_sample.plot(places[~is_wrong], weights[order][~is_wrong], ".", color=GREY, markersize=3)
        by_sample.plot(places[is_wrong], weights[order][is_wrong], "x", color=VERMILLION, markersize=3)
        starts = np.searchsorted(labels[order], classes)
        middles = (starts + np.append(starts[1:], len(order))) / 2
        by_sample.set_xticks([])
        for start in starts[1:]:
            by_sample.axvline(start - 0.5, color="#BBBBBB", linewidth=0.5)
        by_class.set_yscale("log")
        plain_logarithmic(by_class.yaxis)
        by_class.axhline(1, color=BLACK, linewidth=0.6, linestyle=":")
        by_sample.axhline(1, color=BLACK, linewidth=0.6, linestyle=":")
        by_sample.grid(visible=False)
    names = found[0][0].record.result.get("class_names") or []
    if len(names) <= MOST_CLASSES_NAMED:
        turned = max(map(len, names), default=0) > 3
        for axes, places in zip(panels[-1], (range(len(names)), middles), strict=True):
            if len(places) == len(names):
                axes.set_xticks(places, names, rotation=60 if turned else 0, fontsize=7)
    sizes = np.bincount(found[0][1]["given_label"].astype(int))
    is_sorted = bool((np.diff(sizes) <= 0).all())
    panels[-1, 0].set_xlabel("class (given label)" + (", largest first" if is_sorted else ""))
    panels[-1, 1].set_xlabel(
        "samples, by class; in a class right labels, then wrong ones" if has_wrong else "samples, by class"
    )
    _sample_legend(figure, has_wrong)
    experiment = found[0][0]
    seeds = ", ".join(str(seed) for seed in sorted({experiment.seed for experiment, _ in found}))
    add_title(
        figure,
        f"Learned weights: {dataset_title(experiment.setting)}, factor {experiment.imbalance_factor:g} (seed {seeds})",
    )
    return figure


def cost_name(experiment: Experiment) -> str:
    """The ground cost of a run's transport, in words."""
    settings, mixing = experiment.record.config.get("ot") or {}, _mixing(experiment)
    if settings.get("weights") == "noise_aware":
        return f"noise-aware plan, {PLAN_COSTS[settings.get('plan_cost', 'prototypes')]} ({label(experiment.variant)})"
    kind = "feature cost" if mixing == 1 else "label cost" if mixing == 0 else f"combined cost, mixing {mixing:g}"
    return f"{kind} ({label(experiment.variant)})"


def reliability_figure(experiments: Sequence[Experiment]) -> Figure | None:
    """Accuracy against confidence, one panel a variant; None without predictions."""
    found = [
        (experiment, columns) for experiment in experiments if (columns := read_table(experiment.record, "predictions.parquet"))
    ]
    if not found:
        return None
    num_columns = min(3, len(found))
    num_lines = -(-len(found) // num_columns)
    figure = new_figure(2.5 * num_columns + 0.3, 2.6 * num_lines + 0.5)
    panels = figure.subplots(num_lines, num_columns, squeeze=False, sharex=True, sharey=True)
    for axes, (experiment, columns) in zip(panels.flat, found, strict=False):
        style = STYLES[experiment.variant]
        correct = columns["prediction"] == columns["label"]
        counts, confidence, accuracy = reliability(columns["confidence"], correct, NUM_BINS)
        there = counts > 0
        middles = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
        axes.bar(middles[there], counts[there] / counts.sum(), 0.9 / NUM_BINS, color="#CCCCCC", label="share of test images")
        axes.plot([0, 1], [0, 1], color=BLACK, linewidth=0.8, linestyle=":")
        axes.plot(confidence[there], accuracy[there], marker=style.marker, color=style.color, linestyle="-", label="accuracy")
        error = 100 * np.nansum(counts * np.abs(accuracy - confidence)) / counts.sum()
        axes.set_title(label(experiment.variant))
        axes.annotate(f"ECE {error:.1f} %", (0.03, 0.93), xycoords="axes fraction", va="top", fontsize=8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
    for axes in panels.flat[len(found) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy")
    for axes in panels[-1]:
        axes.set_xlabel("confidence")
    experiment = found[0][0]
    add_title(
        figure,
        f"Reliability: {dataset_title(experiment.setting)}, factor {experiment.imbalance_factor:g} (seed {experiment.seed}; "
        "grey: share of test images)",
    )
    return figure


def _mixing(experiment: Experiment) -> float:
    return float((experiment.record.config.get("ot") or {}).get("mixing", 0.5))


def _sample_legend(figure: Figure, has_wrong: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=BLUE, marker="o", linewidth=5, alpha=0.5, label="class: median, 10 to 90 %"),
        Line2D([], [], color=BLACK, marker="D", linestyle="", markerfacecolor="white", label="class: mean"),
        Line2D([], [], color=GREY, marker=".", linestyle="", label="sample"),
    ]
    if has_wrong:
        handles.append(Line2D([], [], color=VERMILLION, marker="x", linestyle="", label="sample with a wrong label"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)


def _is_wrong(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) bool; False where right labels are not known."""
    return columns["given_label"] != columns.get("true_label", columns["given_label"])
