"""Figures of hyper-parameter searches and of benchmarks."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from otrw.analysis.figures.style import COLOR_MAP, add_title, new_figure
from otrw.analysis.statistics import best_so_far
from otrw.analysis.variant_styles import BLACK, BLUE, GREY, VERMILLION
from otrw.errors import UserError
from otrw.records.ledger import read_lines

AXES = ("ot.mixing", "ot.epsilon")
LOGARITHMIC = ("epsilon", "learning_rate", "weight_decay", "tolerance")  # settings that are searched by orders of magnitude
MOST_GRID_SHARE = 2  # a grid has at most this many times as many cells as trials


def read_trials(folder: Path) -> list[dict]:
    """Lines of a search's trials.jsonl. Raises UserError where there are none."""
    lines = [line for line in read_lines(folder / "trials.jsonl") if isinstance(line.get("settings"), dict)]
    # a trial that was stopped early has had fewer epochs: its value does not compare with the others
    last = {str(line.get("trial", number)): line for number, line in enumerate(lines)}  # a trial may have been tried again
    trials = [line if line.get("state") == "finished" else line | {"value": None} for line in last.values()]
    if not trials:
        raise UserError(f"--search must name a folder of tuning/search.py with a trials.jsonl, got {str(folder)!r}")
    return trials


def map_figure(trials: Sequence[dict]) -> Figure | None:
    """The metric over mixing and epsilon: a heat map where the trials fill a grid, dots where they do not."""
    points = [
        (float(trial["settings"][AXES[0]]), float(trial["settings"][AXES[1]]), trial.get("value"))
        for trial in trials
        if all(axis in trial["settings"] for axis in AXES)
    ]
    done = np.array([point for point in points if point[2] is not None], dtype=np.float64)
    if not len(done):
        return None
    figure = new_figure(5.6, 4.2)
    axes = figure.subplots()
    mixings, epsilons = np.unique(done[:, 0]), np.unique(done[:, 1])
    best = done[done[:, 2].argmin()]
    if len(mixings) > 1 and len(epsilons) > 1 and len(mixings) * len(epsilons) <= MOST_GRID_SHARE * len(done):
        grid = np.array([[_mean(done, m, e) for m in mixings] for e in epsilons])
        shown: ScalarMappable = axes.imshow(grid, origin="lower", aspect="auto", cmap=COLOR_MAP)
        middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
        for (line, column), value in np.ndenumerate(grid):
            text = "-" if math.isnan(value) else f"{value:.1f}"
            color = BLACK if math.isnan(value) or value > middle else "white"
            weight = "bold" if value == np.nanmin(grid) else "normal"
            axes.text(column, line, text, ha="center", va="center", color=color, fontsize=9, fontweight=weight)
        axes.set_xticks(range(len(mixings)), [f"{value:g}" for value in mixings])
        axes.set_yticks(range(len(epsilons)), [f"{value:g}" for value in epsilons])
        axes.grid(visible=False)
    else:
        shown = axes.scatter(done[:, 0], done[:, 1], c=done[:, 2], cmap=COLOR_MAP, s=60, edgecolors=BLACK, linewidths=0.5)
        lost = np.array([point[:2] for point in points if point[2] is None]).reshape(-1, 2)
        axes.plot(lost[:, 0], lost[:, 1], "x", color=GREY, label="stopped early or failed")
        axes.plot(*best[:2], "*", color=VERMILLION, markersize=16, markeredgecolor="white", label=f"best: {best[2]:.1f}")
        axes.set_yscale("log")
        axes.set_xlim(-0.05, 1.05)
        figure.legend(loc="outside lower center", ncols=2)
    axes.set_xlabel("ot.mixing (1: feature cost, 0: label cost)")
    axes.set_ylabel("ot.epsilon")
    figure.colorbar(shown, ax=axes, label=f"{_metric(trials)} (%)")
    add_title(figure, _title(trials))
    return figure


def parallel_figure(trials: Sequence[dict]) -> Figure | None:
    """Parallel coordinates: one line a finished trial, dark lines the best."""
    done = sorted((trial for trial in trials if trial.get("value") is not None), key=lambda trial: -trial["value"])
    names = [
        name
        for name in dict.fromkeys(key for trial in done for key in trial["settings"])
        if all(isinstance(trial["settings"].get(name), int | float) for trial in done)
        and len({trial["settings"][name] for trial in done}) > 1
    ]
    if not names:
        return None
    columns = {name: np.array([float(trial["settings"][name]) for trial in done]) for name in names}
    columns[_metric(trials)] = np.array([trial["value"] for trial in done], dtype=np.float64)
    figure = new_figure(max(5.0, 1.7 * len(columns)), 3.8)
    axes = figure.subplots()
    heights = np.array([_unit(values, name.endswith(LOGARITHMIC)) for name, values in columns.items()])
    colors = Normalize(0, max(1, len(done) - 1))
    shades = matplotlib.colormaps[COLOR_MAP]
    for number in range(len(done)):
        shade = shades(1 - colors(number))
        axes.plot(range(len(columns)), heights[:, number], color=shade, linewidth=1.0, alpha=0.8)
    axes.plot(range(len(columns)), heights[:, -1], color=VERMILLION, linewidth=2.4, marker="o", label="best")
    for place, values in enumerate(columns.values()):
        axes.axvline(place, color=BLACK, linewidth=0.8)
        axes.annotate(f"{values.max():.3g}", (place, 1.03), ha="center", va="bottom", fontsize=8)
        axes.annotate(f"{values.min():.3g}", (place, -0.03), ha="center", va="top", fontsize=8)
    axes.set_xticks(range(len(columns)), [name.rpartition("/")[2] for name in columns])
    axes.tick_params(axis="x", pad=12, length=0)
    axes.set_yticks([])
    axes.set_ylim(-0.05, 1.1)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside lower center")
    add_title(figure, _title(trials))
    return figure


def progress_figure(trials: Sequence[dict]) -> Figure | None:
    """Value of each trial in the order of their starts, and the best so far."""
    ordered = sorted(trials, key=lambda trial: trial.get("started") or 0.0)
    values = [trial.get("value") for trial in ordered]
    if all(value is None for value in values):
        return None
    figure = new_figure(5.6, 3.4)
    axes = figure.subplots()
    places = np.arange(1, len(values) + 1)
    shown = np.array([math.nan if value is None else value for value in values])
    axes.plot(places, shown, "o", color=GREY, label="trial")
    axes.step(places, best_so_far(values), where="post", color=BLUE, label="best so far")
    lost = places[np.isnan(shown)]
    axes.plot(
        lost, np.full(len(lost), 0.02), "x", color=VERMILLION, transform=axes.get_xaxis_transform(), label="stopped or failed"
    )
    axes.set_xlabel("trial, by start")
    axes.set_ylabel(f"{_metric(trials)} (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    add_title(figure, _title(trials))
    return figure


def read_benchmark(path: Path) -> dict:
    """One benchmark record. Raises UserError where it is broken."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        for entry in record["entries"]:
            if not (isinstance(entry["name"], str) and float(entry["ratio"]) > 0):
                raise ValueError("a ratio that is not > 0")
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} must be a benchmark's record ({type(error).__name__}: {error})") from None


def benchmark_figure(record: dict) -> Figure | None:
    """Ratios to a baseline measured in the same run, with their intervals, on a logarithmic axis."""
    entries = record["entries"]
    if not entries:
        return None
    figure = new_figure(6.8, 1.3 + 0.42 * len(entries))
    axes = figure.subplots()
    ratios = np.array([float(entry["ratio"]) for entry in entries])
    ends = np.array([[float(entry.get(end) or entry["ratio"]) for entry in entries] for end in ("low", "high")])
    places = np.arange(len(entries))
    spread = np.abs(ends - ratios)
    colors = [BLUE if ratio >= 1 else VERMILLION for ratio in ratios]
    axes.barh(places, ratios - 1, left=1, height=0.6, color=colors, xerr=spread, error_kw={"ecolor": "#444444", "capsize": 3})
    for place, entry in zip(places, entries, strict=True):
        axes.annotate(f"{entry['ratio']:.3g}x", (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.axvline(1, color=BLACK, linewidth=1)
    axes.set_xscale("log")
    reach = max(2.0, 1.15 * ends.max(), 1.15 / ends.min())
    axes.set_xlim(min(0.8, ends.min() / 1.15), reach)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if axes.get_xlim()[0] <= tick <= reach]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(places, [f"{entry['name']}\nagainst {entry.get('baseline', 'baseline')}" for entry in entries], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    units = sorted({str(entry.get("unit", "")) for entry in entries} - {""})
    axes.set_xlabel(f"ratio of {', '.join(units)}" if units else "ratio")
    device = (record.get("environment") or {}).get("device")
    add_title(
        figure,
        f"Benchmark: {record.get('benchmark', '')}" + (f" ({device})" if device else ""),
    )
    return figure


def _mean(done: np.ndarray, mixing: float, epsilon: float) -> float:
    values = done[(done[:, 0] == mixing) & (done[:, 1] == epsilon), 2]
    return float(values.mean()) if len(values) else math.nan


def _unit(values: np.ndarray, is_logarithmic: bool) -> np.ndarray:
    """Values onto [0, 1]."""
    if is_logarithmic and values.min() > 0:
        values = np.log(values)
    span = values.max() - values.min()
    return (values - values.min()) / span if span else np.full(len(values), 0.5)


def _metric(trials: Sequence[dict]) -> str:
    return str(trials[0].get("metric", "value")).replace("_", " ")


def _title(trials: Sequence[dict]) -> str:
    states = [str(trial.get("state", "?")) for trial in trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
    return f"Search of {len(trials)} trials ({counted})"
