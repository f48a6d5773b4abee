"""The figure of a study: a panel a condition, a line a method, its difference to a reference; data sets side by side."""

import textwrap
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from otrw.analysis.figures.style import add_title, new_figure
from otrw.analysis.study import QUALITY, StudyTable
from otrw.analysis.variant_styles import BLUE, GREY, VERMILLION
from otrw.grid.studies import Cell
from otrw.records.experiments import label

LEFT_OUT = ("stage1",)  # so far from the others that these would be one point
LETTERS = 11
"""That an inch holds in the title, at least."""
FEWEST_LINES, FEWEST_ABREAST = 6, 10
"""Lines of a panel at least, and from how many on the name of the data set beside it stands on one line."""
SHOWN = 1.3
"""Ends of the axes in units of the largest gain: what loses more is drawn at the edge, with its number."""


def study_figure(tables: Sequence[StudyTable]) -> Figure:
    """Draw tables of one study and one metric, each against its reference."""
    drawn = [(table, _variants(table), _cells(table)) for table in tables]
    rows = _packed([len(cells) for _, _, cells in drawn])
    heights = [max(0.75 + 0.17 * max(FEWEST_LINES, len(drawn[index][1])) for index in row) for row in rows]
    figure = new_figure(max(_width(len(drawn[index][2]) for index in row) for row in rows), sum(heights) + 0.7)
    lines = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for line, row in zip(lines, rows, strict=True):
        widths = [_width([len(drawn[index][2])]) for index in row]
        empty = max(0.0, float(figure.get_figwidth()) - sum(widths))
        parts = line.subfigures(1, len(row) + (empty > 0), squeeze=False, width_ratios=widths + [empty] * (empty > 0))[0]
        for part, index in zip(parts, row, strict=False):
            table, variants, cells = drawn[index]
            most = _most(table, variants, cells)
            panels = part.subplots(1, len(cells), squeeze=False)[0]
            for number, (axes, cell) in enumerate(zip(panels, cells, strict=True)):
                _panel(axes, table, variants, cell, most)
                axes.set_yticks(range(len(variants)), [label(name) for name in variants] if number == 0 else [])
            data_set = table.title.removeprefix(f"{table.study.title}: ").split(".")[0]
            data_set = data_set if len(variants) >= FEWEST_ABREAST else data_set.replace(", ", ",\n")
            panels[0].set_ylabel(data_set, fontsize=9, fontweight="bold")
    first = tables[0]
    told = (
        f"{first.metric}: difference to {label(str(first.reference))} over the same seeds, with its 95 % interval; "
        f"{'left' if _sign(first) > 0 else 'right'} is better"
    )
    most_letters = int(LETTERS * figure.get_figwidth())
    figure.supxlabel(textwrap.fill(told, most_letters), fontsize=9)
    add_title(figure, textwrap.fill(f"{first.study.title} ({_seeds(tables)})", most_letters))
    return figure


def _packed(sizes: Sequence[int]) -> list[list[int]]:
    """Places of tables with so many panels, in rows no wider than the widest of them, in order."""
    rows: list[list[int]] = []
    widest = _width([max(sizes)])
    for index, size in enumerate(sizes):
        if rows and _width([size, *(sizes[other] for other in rows[-1])]) <= widest:
            rows[-1].append(index)
        else:
            rows.append([index])
    return rows


def _width(sizes: Iterable[int]) -> float:
    """Inches that tables with so many panels take beside each other, each with the names of its methods."""
    return sum(2.6 + 1.45 * size for size in sizes)


def _variants(table: StudyTable) -> list[str]:
    return [name for name in table.rows if name not in (*LEFT_OUT, table.reference)]


def _cells(table: StudyTable) -> list[Cell]:
    """Those where a method is held against the reference; where the reference has no record at all, those with a method."""
    values = [(cell, [table.rows[name].get(cell.name) for name in _variants(table)]) for cell in table.cells]
    compared = [cell for cell, of_cell in values if any(value is not None and value.against is not None for value in of_cell)]
    return compared or [cell for cell, of_cell in values if any(value is not None for value in of_cell)]


def _sign(table: StudyTable) -> int:
    """1 where a positive difference is a loss, -1 where it is a gain."""
    return -1 if table.study.metrics[table.metric].startswith(QUALITY) else 1


def _most(table: StudyTable, variants: Sequence[str], cells: Sequence[Cell]) -> float:
    """Where the axes of a data set end."""
    values = [table.rows[name].get(cell.name) for name in variants for cell in cells]
    gains = [-_sign(table) * value.against.mean for value in values if value is not None and value.against is not None]
    return SHOWN * max([1.0, *gains])


def _panel(axes: Axes, table: StudyTable, variants: Sequence[str], cell: Cell, most: float) -> None:
    edge = _sign(table) * 0.93 * most
    axes.set_xlim(-most, most)
    axes.axvline(0, color="black", linewidth=0.9)
    for place, name in enumerate(variants):
        value = table.rows[name].get(cell.name)
        if value is None or value.against is None:
            continue
        one, color = value.against, _color(name)
        if _sign(table) * one.mean > abs(edge):
            axes.plot(edge, place, ">" if edge > 0 else "<", color=color)
            axes.annotate(f"{one.mean:+.1f}  ", (edge, place), ha="right" if edge > 0 else "left", va="center", fontsize=7)
            continue
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [place, place], "-", color=color, linewidth=1.2)
        axes.plot(one.mean, place, "o", color=color, markerfacecolor="white" if one.low is None else color)
    axes.set_ylim(len(variants) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.tick_params(axis="x", labelsize=8)
    reference = table.rows.get(str(table.reference), {}).get(cell.name)
    title = cell.title.replace(", ", "\n")  # side by side, long ones would run into each other
    axes.set_title(f"{title}\nreference {reference.mean:.1f}" if reference else title, fontsize=8)


def _color(variant: str) -> str:
    return GREY if variant.startswith("oracle") else VERMILLION if variant.startswith("ot") else BLUE


def _seeds(tables: Sequence[StudyTable]) -> str:
    numbers = {value.num_seeds for table in tables for name in _variants(table) for value in table.rows[name].values()}
    low, high = min(numbers), max(numbers)
    text = f"{low} to {high} seeds" if low < high else f"{low} seed{'s' * (low > 1)}"
    is_short = any(note.startswith("Short") for table in tables for note in table.notes)
    hollow = "; hollow: one seed" if low == 1 else ""
    return f"{text}{', SHORT RUNS' if is_short else ''}; red: transport{hollow}"
