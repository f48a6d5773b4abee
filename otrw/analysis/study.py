"""Records -> the tables of a study: one a data set and metric, a line a method, a column a condition. No torch."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from otrw.analysis.statistics import Difference, mean_std, paired_difference
from otrw.config.known_data import KNOWN_DATA
from otrw.config.variants import TITLES
from otrw.errors import UserError, check
from otrw.grid.studies import FACTORS, Cell, Study, cell_of
from otrw.records.experiments import Experiment, label

REFERENCES = ("ot_labels_meta", "ot_meta", "ot")
"""What the others are held against: the first of these that there is, however it did."""
QUALITY = "weights."  # places in result.json whose values are shares, the larger the better


class Value(NamedTuple):
    """One method under one condition."""

    mean: float
    std: float | None
    num_seeds: int
    against: Difference | None
    """This method minus the reference, over the seeds that both have on the same samples; None for the reference."""
    is_best: bool = False
    has_all_seeds: bool = True
    """Whether no other method has more seeds under the condition: means over fewer are of other nets."""


class StudyTable(NamedTuple):
    """All methods on one data set, by one metric."""

    study: Study
    dataset: str
    metric: str
    cells: tuple[Cell, ...]
    reference: str | None
    rows: dict[str, dict[str, Value]]
    """{variant: {name of a cell: value}}"""
    notes: tuple[str, ...]
    """How the runs differ from the presets'; several kinds of runs in one cell."""

    @property
    def title(self) -> str:
        """What is shown."""
        name = f"{KNOWN_DATA[self.dataset].title}, factor {FACTORS[self.dataset]:g}"
        return f"{self.study.title}: {name}"


def study_tables(study: Study, experiments: Iterable[Experiment], reference: str | None = None) -> list[StudyTable]:
    """The tables that the records hold values for, data set by data set.

    Args:
        study: the question.
        experiments: records; those of no cell of the study are passed over.
        reference: variant that the others are held against; None takes the first of `REFERENCES` that there is.

    Raises:
        UserError: where no record is of the study, or none of the reference asked for.
    """
    groups: dict[tuple[str, str, str], dict[str, dict[int, Experiment]]] = {}
    for experiment in experiments:
        cell = cell_of(study, experiment.record.config)
        dataset = str(experiment.record.config["data"]["source"])
        is_asked = experiment.variant in study.variants or not study.records
        if cell is not None and is_asked and dataset in study.datasets and experiment.imbalance_factor == FACTORS[dataset]:
            kinds = groups.setdefault((dataset, cell.name, experiment.variant), {})
            kinds.setdefault(experiment.fingerprint, {})[experiment.seed] = experiment
    if not groups:
        raise UserError(f"--study {study.name} must have records, got none; python analysis/experiments/{study.name}.py")
    if reference is not None and not any(variant == reference for _, _, variant in groups):
        raise UserError(f"--reference must be a variant with records, got {reference!r}")
    tables = []
    for dataset in [name for name in study.datasets if any(key[0] == name for key in groups)]:
        own = {key[1:]: max(kinds.values(), key=len) for key, kinds in groups.items() if key[0] == dataset}
        several = sorted(
            {f"{cell}, {variant}" for (data, cell, variant), kinds in groups.items() if data == dataset and len(kinds) > 1}
        )
        notes = [*_notes(own.values()), *(f"{name}: runs of several settings, those with most seeds shown" for name in several)]
        for metric in study.metrics:
            tables += _table(study, dataset, metric, own, reference, notes)
    return tables


def metric_of(experiment: Experiment, place: str) -> float | None:
    """The figure at a dotted place in result.json; `max` at its end takes the largest of a list; shares in percent."""
    value: object = experiment.record.result
    for key in place.split("."):
        if key == "max" and isinstance(value, list):
            value = max((one for one in value if one is not None), default=None)
        else:
            value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return 100 * value if place.startswith(QUALITY) else float(value)


def _table(
    study: Study,
    dataset: str,
    metric: str,
    own: dict[tuple[str, str], dict[int, Experiment]],
    reference: str | None,
    notes: Sequence[str],
) -> list[StudyTable]:
    """The table, or none where no record has the metric."""
    place = study.metrics[metric]
    variants = {variant for _, variant in own}
    if reference is None and study.reference in variants:
        reference = study.reference
    if reference is None:
        reference = next((variant for variant in REFERENCES if variant in variants), None)
    rows: dict[str, dict[str, Value]] = {}
    for variant in [name for name in TITLES if name in variants]:
        for cell in study.cells:
            found = _values(own.get((cell.name, variant), {}), place)
            if found:
                other = own.get((cell.name, str(reference)), {})
                against = None if variant == reference else _against(own[cell.name, variant], other, place)
                rows.setdefault(variant, {})[cell.name] = Value(*mean_std(list(found.values())), len(found), against)
    if not rows:
        return []
    cells = tuple(cell for cell in study.cells if any(cell.name in row for row in rows.values()))
    best = max if place.startswith(QUALITY) else min
    for cell in cells:
        most = max(row[cell.name].num_seeds for row in rows.values() if cell.name in row)
        for row in rows.values():
            if cell.name in row:
                row[cell.name] = row[cell.name]._replace(has_all_seeds=row[cell.name].num_seeds == most)
        competing = {
            name: row[cell.name].mean
            for name, row in rows.items()
            if cell.name in row and row[cell.name].has_all_seeds and not name.startswith("oracle")
        }
        for name, mean in competing.items():
            if mean == best(competing.values()):
                rows[name][cell.name] = rows[name][cell.name]._replace(is_best=True)
    return [StudyTable(study, dataset, metric, cells, reference, rows, tuple(notes))]


def _values(experiments: dict[int, Experiment], place: str) -> dict[int, float]:
    found = {seed: metric_of(experiment, place) for seed, experiment in sorted(experiments.items())}
    return {seed: value for seed, value in found.items() if value is not None}


def _against(left: dict[int, Experiment], right: dict[int, Experiment], place: str) -> Difference | None:
    """Over the seeds that both have, where they learned from the same samples."""
    seeds = [
        seed
        for seed in left.keys() & right.keys()
        if left[seed].record.result.get("split_hash") == right[seed].record.result.get("split_hash")
    ]
    values = [{seed: v for seed, v in _values(side, place).items() if seed in seeds} for side in (left, right)]
    return paired_difference(values[0], values[1])


def _notes(groups: Iterable[dict[int, Experiment]]) -> list[str]:
    """What a reader must know of the runs: their length, and that it is short where it is."""
    experiments = [experiment for of_seed in groups for experiment in of_seed.values()]
    trained = sorted({experiment.epochs for experiment in experiments if experiment.variant != "stage1"})
    rounds = " (2x: two rounds)" if any("x" in epochs for epochs in trained) else ""
    notes = [f"Epochs, stage 1 + stage 2: {', '.join(trained)}{rounds}."] if trained else []
    short = sorted({line for one in experiments if one.short for line in one.differences if ".epochs" in line})
    return [*notes, f"Short runs: {'; '.join(short)}."] if short else notes


def study_text(tables: Sequence[StudyTable]) -> str:
    """The tables as Markdown that can be read as it is."""
    return "\n".join(_text(table) for table in tables)


def brief_text(tables: Sequence[StudyTable], cells: Sequence[str] = (), variants: Sequence[str] = ()) -> str:
    """Means alone, as Markdown: one table a metric, a line a data set and condition, a column a method.

    Args:
        tables: of one study.
        cells: names of conditions; none takes all.
        variants: methods, in this order; none takes all that have a record under the conditions.

    Raises:
        UserError: where a condition or method has no records.
    """
    known = {cell.name for table in tables for cell in table.cells}, {name for table in tables for name in table.rows}
    for option, names, there in zip(("--cells", "--variants"), (cells, variants), known, strict=True):
        for name in names:
            check(name in there, option, name, f"be among those with records: {', '.join(sorted(there))}")
    shown = {
        name
        for table in tables
        for name, row in table.rows.items()
        if any(cell.name in row for cell in table.cells if not cells or cell.name in cells)
    }
    columns = list(variants) or [name for name in TITLES if name in shown]
    parts = []
    for metric in dict.fromkeys(table.metric for table in tables):
        lines = [[metric, *(label(name).removesuffix(" + meta") for name in columns), "seeds"]]
        for table in [table for table in tables if table.metric == metric]:
            for cell in [cell for cell in table.cells if not cells or cell.name in cells]:
                row = {name: table.rows[name][cell.name] for name in columns if cell.name in table.rows.get(name, {})}
                best = min if not table.study.metrics[metric].startswith(QUALITY) else max
                own = [round(value.mean, 1) for name, value in row.items() if not name.startswith("oracle")]
                if own:
                    means = [_mean(row.get(name), None if name.startswith("oracle") else best(own)) for name in columns]
                    seeds = str(min(value.num_seeds for value in row.values()))
                    lines.append([f"{KNOWN_DATA[table.dataset].title}, {cell.title}", *means, seeds])
        parts.append(_grid(lines) + "\n")
    return "\n".join(parts)


def _mean(value: Value | None, best: float | None) -> str:
    if value is None:
        return "-"
    return f"**{value.mean:.1f}**" if round(value.mean, 1) == best else f"{value.mean:.1f}"


def _text(table: StudyTable) -> str:
    names = {variant: label(variant) for variant in table.rows}
    head = ["", *(cell.name for cell in table.cells)]
    lines = [[names[variant], *(_cell(row.get(cell.name)) for cell in table.cells)] for variant, row in table.rows.items()]
    numbers = {value.num_seeds for row in table.rows.values() for value in row.values()}
    seeds = f"{min(numbers)} to {max(numbers)}" if len(numbers) > 1 else str(*numbers)
    word = "seed" if seeds == "1" else "seeds"
    parts = [
        f"**{table.title}.** {table.metric[0].upper()}{table.metric[1:]}, {seeds} {word}, last epoch.",
        "",
        _grid([head, *lines]),
    ]
    compared = [
        [names[variant], *(_difference(row.get(cell.name)) for cell in table.cells)]
        for variant, row in table.rows.items()
        if any(value.against is not None and value.against.low is not None for value in row.values())
    ]
    if compared:
        sentence = f"Difference to {label(str(table.reference))}, paired over seeds, with its 95 % interval:"
        parts += ["", sentence, "", _grid([head, *compared])]
    parts += ["", "Mean (standard deviation) over seeds; best in bold, oracles never. " + " ".join(table.notes), ""]
    return "\n".join(parts)


def _cell(value: Value | None) -> str:
    if value is None:
        return "-"
    text = f"{value.mean:.1f}" + ("" if value.std is None else f" ({value.std:.1f})")
    if not value.has_all_seeds:
        text += f", {value.num_seeds} seed{'s' if value.num_seeds > 1 else ''}"  # a mean over others than its neighbours'
    return f"**{text}**" if value.is_best else text


def _difference(value: Value | None) -> str:
    if value is None or value.against is None or value.against.low is None:
        return "-"
    return f"{value.against.mean:+.1f} ({value.against.low:+.1f} to {value.against.high:+.1f})"


def _grid(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))
