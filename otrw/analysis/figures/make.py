"""Make the figures asked for, as far as the records allow; what cannot be made is said in a line."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from otrw.analysis.figures import comparison, samples, search, style
from otrw.config.variants import BY_TRANSPORT
from otrw.errors import UserError
from otrw.records.experiments import Experiment

OF_RECORDS: dict[str, Callable[[comparison.Comparison], Figure | None]] = {
    "error": comparison.error_figure,
    "class_error": comparison.class_error_figure,
    "class_weight": comparison.class_weight_figure,
    "curves": comparison.curves_figure,
}
OF_SAMPLES = ("weights", "reliability")
NEEDED = {
    "class_error": "class_error in result.json",
    "class_weight": "class_mass in result.json",
    "curves": "metrics.jsonl",
    "weights": "weights of transport in a weights.parquet, which stays in the local run's folder",
    "reliability": "predictions.parquet, which stays in the local run's folder",
}


def make_figures(
    experiments: Sequence[Experiment],
    figures: Sequence[str],
    *,
    searches: Sequence[Path] = (),
    benchmarks: Sequence[Path] = (),
    folder: Path,
    formats: tuple[str, ...],
) -> Iterator[Path | str]:
    """Path of every file written, and a line for every figure that the records do not hold the data of."""
    with matplotlib.rc_context(style.styled()):
        drawn = _drawn(experiments, figures, searches, benchmarks)
        for name, figure in drawn:
            if isinstance(figure, str):
                yield f"figure {name}: {figure}"
            else:
                yield from style.save(figure, folder, name, formats)


def _drawn(
    experiments: Sequence[Experiment], figures: Sequence[str], searches: Sequence[Path], benchmarks: Sequence[Path]
) -> Iterator[tuple[str, Figure | str]]:
    groups = comparison.comparisons(experiments)
    for kind in figures:
        found = 0
        drawn = (
            _of_samples(kind, experiments)
            if kind in OF_SAMPLES
            else ((group.name, OF_RECORDS[kind](group)) for group in groups)
        )
        for name, figure in drawn:
            if figure is not None:
                found += 1
                yield f"{kind}-{name}", figure
        if not found:
            yield kind, f"not made: none of {len(experiments)} records has {NEEDED.get(kind, 'an error')}"
    for path in searches:
        trials = search.read_trials(path)
        for kind, draw in (
            ("map", search.map_figure),
            ("parallel", search.parallel_figure),
            ("progress", search.progress_figure),
        ):
            figure = draw(trials)
            yield f"search_{kind}-{path.resolve().name}", figure or "not made: no trial has the settings and a value"
    for path in benchmarks:
        record = search.read_benchmark(path)
        yield f"benchmark-{path.stem}", search.benchmark_figure(record) or "not made: no entries"


def _of_samples(kind: str, experiments: Sequence[Experiment]) -> Iterator[tuple[str, Figure | str | None]]:
    """weights: all costs of one setting, seed and variant together. reliability: all variants of one run."""
    figures: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        if kind == "reliability":
            name = experiment.record.path.parent.name
        elif experiment.variant in BY_TRANSPORT:
            name = f"{experiment.setting.dataset}-if{experiment.imbalance_factor:g}-seed{experiment.seed}-{experiment.variant}"
        else:
            continue
        figures.setdefault(name, []).append(experiment)
    draw = samples.weights_figure if kind == "weights" else samples.reliability_figure
    for name, found in figures.items():
        try:
            yield name, draw(found)
        except UserError as error:  # a broken file costs its own figure only
            yield name, str(error)
