"""The figure of a study: a panel a data set and kind of condition, one line a method, a band over seeds."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from otrw.analysis.figures.style import add_title, new_figure
from otrw.analysis.study import StudyTable
from otrw.analysis.variant_styles import STYLES
from otrw.grid.studies import Cell
from otrw.records.experiments import label

LEFT_OUT = ("stage1",)  # so far above the others that they would be one line
MOST_ABOVE = 1.6  # a line may reach so many times the reference's largest value before it is cut off


def study_figure(tables: Sequence[StudyTable]) -> Figure:
    """Draw tables of one study and one metric, a panel for each of their data sets and panels."""
    panels = []
    for table in tables:
        drawn = [
            cell for cell in table.cells if any(cell.name in row for name, row in table.rows.items() if name not in LEFT_OUT)
        ]
        panels += [(table, name, cells) for name, cells in _panels(drawn).items()]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    num_methods = max(len(table.rows) for table in tables)
    figure = new_figure(max(4.6, 3.1 * columns + 0.6), 3.0 * rows + 0.55 + 0.22 * -(-num_methods // 3))
    axes = figure.subplots(rows, columns, squeeze=False)
    for place, (table, name, cells) in zip(axes.flat, panels, strict=False):
        if len(cells) > 1 and all(cell.place is not None for cell in cells):
            _lines(place, table, cells)
            place.set_xlabel(table.study.axis)
        else:
            _dots(place, table, cells[0])
        data = table.title.removeprefix(f"{table.study.title}: ").split(",")[0]
        place.set_title(f"{data}, {name}" if name else data, fontsize=9)
        place.set_ylabel(table.metric)
    for place in list(axes.flat)[len(panels) :]:
        place.set_visible(False)
    handles = {text: handle for one in axes.flat for handle, text in zip(*one.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    numbers = {value.num_seeds for table in tables for row in table.rows.values() for value in row.values()}
    seeds = (
        f"{min(numbers)} to {max(numbers)} seeds"
        if len(numbers) > 1
        else "1 seed"
        if numbers == {1}
        else f"{min(numbers)} seeds"
    )
    short = ", SHORT RUNS" if any(note.startswith("Short") for table in tables for note in table.notes) else ""
    add_title(figure, f"{tables[0].study.title} ({seeds}{short}; band: standard deviation)")
    return figure


def _panels(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """{panel: its cells by place}, without panels that have nothing but what several share."""
    names = dict.fromkeys(cell.panel for cell in cells if cell.panel or not cell.panels)
    found = {name: [cell for cell in cells if name == cell.panel or name in cell.panels] for name in names}
    if not found:  # all that there is, is shared
        found = {"": list(cells)}
    return {name: sorted(own, key=lambda cell: cell.place or 0.0) for name, own in found.items()}


def _lines(axes: Axes, table: StudyTable, cells: Sequence[Cell]) -> None:
    lowest, highest = float("inf"), 0.0
    for variant, row in table.rows.items():
        found = [(float(cell.place or 0), row[cell.name]) for cell in cells if cell.name in row]
        if variant in LEFT_OUT or not found:
            continue
        style = STYLES[variant]
        places = [place for place, _ in found]
        means = [value.mean for _, value in found]
        spread = [value.std or 0.0 for _, value in found]
        axes.plot(places, means, color=style.color, linestyle=style.line, marker=style.marker, label=label(variant))
        low, high = ([mean + sign * std for mean, std in zip(means, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(places, low, high, color=style.color, alpha=0.10, linewidth=0)
        lowest, highest = min(lowest, *low), max(highest, *means)
    reference = table.rows.get(str(table.reference), {})
    best = [reference[cell.name].mean for cell in cells if cell.name in reference]
    axes.set_ylim(bottom=0.9 * lowest, top=min(1.08 * highest, MOST_ABOVE * max(best)) if best else None)
    axes.set_xticks([float(cell.place or 0) for cell in cells])


def _dots(axes: Axes, table: StudyTable, cell: Cell) -> None:
    rows = {variant: row[cell.name] for variant, row in table.rows.items() if cell.name in row and variant not in LEFT_OUT}
    for place, (variant, value) in enumerate(rows.items()):
        style = STYLES[variant]
        axes.errorbar(
            place,
            value.mean,
            yerr=value.std,
            fmt=style.marker,
            color=style.color,
            markersize=7,
            capsize=3,
            label=label(variant),
        )
    axes.set_xticks([])
    axes.margins(x=0.08, y=0.15)
