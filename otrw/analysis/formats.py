"""Blocks of a comparison table as text for the terminal, Markdown, LaTeX, HTML and CSV. No torch."""

import csv
import html
import io
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from otrw.analysis.table import METRICS, Block, Cell, Compared, Line
from otrw.config import flatten
from otrw.records.experiments import Experiment

MISSING = "-"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 62rem; color: #1b1b1b; background: #fff }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100% }
h2 { margin: 2rem 0 .5rem; font-size: 1.2rem } th, td { padding: .3rem .7rem; text-align: left; vertical-align: top }
thead th { border-top: 2px solid; border-bottom: 1px solid } tbody tr:last-child td { border-bottom: 2px solid }
tr.group th { padding-top: .8rem; font-style: italic; font-weight: normal } .number { text-align: right; white-space: nowrap }
td:nth-last-child(-n+2) { white-space: nowrap } .note { font-size: .85rem; margin: .3rem 0 } .missing { opacity: .5 }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #16181b } }
"""


class Row(NamedTuple):
    """One line of a block, in words."""

    group: str
    name: str
    marks: str
    """Letters of its footnotes."""
    net: str
    epochs: str
    seeds: str
    cells: tuple[tuple[str, bool], ...]
    """(text, best) for each factor"""


class Sheet(NamedTuple):
    """A block in words: what every text format lays out."""

    title: str
    caption: str
    factors: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def sheet(block: Block) -> Sheet:
    """A block's words, footnotes lettered in order of appearance."""
    letters: dict[tuple[str, ...], str] = {}
    rows = []
    for line in block.lines:
        if line.differences:
            letters.setdefault(line.differences, _letters(len(letters)))
        rows.append(
            Row(
                one_line(line.group),
                one_line(line.name),
                letters.get(line.differences, ""),
                one_line(line.net) or MISSING,
                (one_line(line.epochs) or MISSING) + (" short" if line.short else ""),
                _seeds(block, line),
                tuple(_cell(line.cells.get(factor)) for factor in block.factors),
            )
        )
    short = {line.differences for line in block.lines if line.short}
    notes = [f"{letter}: {'short run; ' if lines in short else ''}{'; '.join(lines)}" for lines, letter in letters.items()]
    notes += [*(_compared(compared) for compared in block.compared), *block.notes]
    caption = f"{METRICS[block.metric].capitalize()} in %, by imbalance factor"
    factors = tuple(f"{factor:g}" for factor in block.factors)
    return Sheet(one_line(block.title), caption, factors, tuple(rows), tuple(map(one_line, notes)))


def one_line(text: str) -> str:
    """Text without line breaks and control characters, which would end a row or steer a terminal."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _letters(number: int) -> str:
    """a to z, then aa, ab and so on."""
    before = "" if number < 26 else _letters(number // 26 - 1)
    return before + chr(ord("a") + number % 26)


def legend(blocks: Sequence[Block]) -> list[str]:
    """What the marks of these blocks mean, a sentence each."""
    lines = [line for block in blocks for line in block.lines]
    sentences = ["Last epoch; mean (standard deviation) over seeds; best in bold; - : no record."]
    if any("+ meta" in line.name for line in lines):
        sentences.append("+ meta: the meta images are in the loss too.")
    if any(not line.competes for line in lines):
        sentences.append("Never bold: oracles, and the best test epoch (what the released code reports).")
    if any(line.short for line in lines):
        sentences.append("short: fewer epochs than the preset's.")
    if any("+" in line.epochs for line in lines):
        sentences.append("Epochs: stage 1 + stage 2 (2x: two rounds).")
    if any(line.group == "published" for line in lines):
        sentences.append("Published numbers as published.")
    return sentences


def terminal(blocks: Sequence[Block]) -> RenderableType:
    """For rich; the paper's four factors with standard deviations fit 80 columns."""
    parts: list[RenderableType] = []
    for block in blocks:
        words = sheet(block)
        table = Table(
            title=f"{words.title}\n{words.caption}",
            title_justify="left",
            title_style="bold",
            box=None,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column("")
        table.add_column("epochs")
        table.add_column("seeds", justify="right")
        for factor in words.factors:
            table.add_column(factor, justify="right", no_wrap=True)
        for group, rows in _by_group(words.rows):
            nets = list(dict.fromkeys(row.net for row in rows if row.net != MISSING))
            table.add_row(Text("\n  ".join([group, *nets]), style="italic"))
            for row in rows:
                name = f"  {row.name}{f' [{row.marks}]' if row.marks else ''}".replace(", best", ",\n    best")
                cells = [Text(text, style="bold" if best else "") for text, best in row.cells]
                table.add_row(Text(name), row.epochs, row.seeds, *cells)
        parts += [table, *(Text(note, style="dim") for note in words.notes), Text()]
    return Group(*parts, Text(" ".join(legend(blocks)), style="dim"))


def markdown(blocks: Sequence[Block]) -> str:
    """GitHub's pipe tables."""
    lines = []
    for block in blocks:
        words = sheet(block)
        lines += [f"**{_markdown(words.title)}.** {_markdown(words.caption)}.", ""]
        lines.append(_piped(["", "method", *words.factors, "seeds", "epochs", "net"]))
        lines.append(_piped(["---"] * 2 + ["---:"] * (1 + len(words.factors)) + ["---"] * 2))
        for _, rows in _by_group(words.rows):
            for place, row in enumerate(rows):
                name = _markdown(row.name) + (f" <sup>{row.marks}</sup>" if row.marks else "")
                cells = [f"**{text}**" if best else text for text, best in row.cells]
                group_cell = _markdown(row.group) if place == 0 else ""
                lines.append(_piped([group_cell, name, *cells, row.seeds, _markdown(row.epochs), _markdown(row.net)]))
        lines.append("")
        for note in words.notes:
            lines += [_markdown(note), ""]
    lines.append(_markdown(" ".join(legend(blocks))))
    return "\n".join(lines) + "\n"


def latex(blocks: Sequence[Block]) -> str:
    r"""One table a block; needs \usepackage{booktabs}."""
    lines = [r"% \usepackage{booktabs}"]
    for block in blocks:
        words = sheet(block)
        notes = "".join(rf" \\ \footnotesize {_latex(note)}" for note in words.notes)
        lines += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(words.title)}. {_latex(words.caption)}. {_latex(' '.join(legend([block])))}}}",
            rf"\begin{{tabular}}{{l{'r' * (1 + len(words.factors))}ll}}",
            r"\toprule",
            " & ".join(["Method", *words.factors, "Seeds", "Epochs", "Net"]) + r" \\",
        ]
        for group, rows in _by_group(words.rows):
            lines += [r"\midrule", rf"\multicolumn{{{4 + len(words.factors)}}}{{l}}{{\textit{{{_latex(group)}}}}} \\"]
            for row in rows:
                name = _latex(row.name) + (rf"\textsuperscript{{{row.marks}}}" if row.marks else "")
                cells = [rf"\textbf{{{text}}}" if best else _latex(text) for text, best in row.cells]
                lines.append(" & ".join([name, *cells, _latex(row.seeds), _latex(row.epochs), _latex(row.net)]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}" + notes, r"\end{table}", ""]
    return "\n".join(lines)


def html_page(blocks: Sequence[Block]) -> str:
    """A page that needs nothing else."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    body = html_tables(blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>Results</title><style>{STYLE}</style></head>\n<body>\n'
        f"<h1>Results</h1>\n{body}</body></html>\n"
    )


def html_tables(blocks: Sequence[Block]) -> str:
    """The blocks as HTML, to stand in a page."""
    lines = []
    for block in blocks:
        words = sheet(block)
        lines += [f"<h2>{html.escape(words.title)}</h2>", f'<p class="note">{html.escape(words.caption)}</p>']
        lines.append('<div class="scroll"><table>')
        heads = "".join(f'<th scope="col" class="number">{factor}</th>' for factor in (*words.factors, "seeds"))
        others = '<th scope="col">epochs</th><th scope="col">net</th>'
        lines += [f'<thead><tr><th scope="col">method</th>{heads}{others}</tr></thead>', "<tbody>"]
        for group, rows in _by_group(words.rows):
            lines.append(f'<tr class="group"><th colspan="{4 + len(words.factors)}">{html.escape(group)}</th></tr>')
            for row in rows:
                name = html.escape(row.name) + (f"<sup>{row.marks}</sup>" if row.marks else "")
                cells = "".join(_html_cell(text, best) for text, best in (*row.cells, (row.seeds, False)))
                others = "".join(f"<td>{html.escape(text)}</td>" for text in (row.epochs, row.net))
                lines.append(f"<tr><td>{name}</td>{cells}{others}</tr>")
        lines.append("</tbody></table></div>")
        lines += [f'<p class="note">{html.escape(note)}</p>' for note in words.notes]
    lines.append(f'<p class="note">{html.escape(" ".join(legend(blocks)))}</p>')
    return "\n".join(lines) + "\n"


def table_csv(blocks: Sequence[Block]) -> str:
    """One line a cell, missing ones too, unrounded."""
    rows: list[dict[str, object]] = []
    for block in blocks:
        for line in block.lines:
            for factor in block.factors:
                cell = line.cells.get(factor)
                rows.append(
                    {
                        "dataset": block.setting.dataset,
                        "label_noise": block.setting.label_noise,
                        "label_noise_rate": block.setting.label_noise_rate,
                        "imbalance_factor": f"{factor:g}",
                        "group": line.group,
                        "method": line.name,
                        "row": line.variant or "",
                        "metric": block.metric,
                        "mean": cell.mean if cell else "",
                        "std": cell.std if cell and cell.std is not None else "",
                        "seeds": cell.num_seeds or "" if cell else "",
                        "best": int(cell.best) if cell else "",
                        "net": line.net,
                        "epochs": line.epochs,
                        "short": int(line.short),
                        "differences": "; ".join(line.differences),
                        "source": line.source,
                    }
                )
    return _csv(rows)


def records_csv(experiments: Sequence[Experiment]) -> str:
    """One line a record with everything it holds but lists: settings, environment, result. Columns of any version are kept."""
    rows = []
    for experiment in experiments:
        record = experiment.record
        derived = {
            "run": record.path.parent.name,
            "preset": experiment.preset,
            "method": experiment.fingerprint,
            "short": int(experiment.short),
        }
        parts = {"config": record.config, "environment": record.environment, "result": record.result}
        flat = {path: value for path, value in flatten(parts).items() if not isinstance(value, list)}
        rows.append(derived | flat)
    return _csv(rows)


def plain(blocks: Sequence[Block], width: int = 80) -> str:
    """What the terminal shows, without type styles."""
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(terminal(blocks), highlight=False)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


def _cell(cell: Cell | None) -> tuple[str, bool]:
    if cell is None:
        return MISSING, False
    return cell.text + (f" ({cell.std:.1f})" if cell.std is not None else ""), cell.best


def _seeds(block: Block, line: Line) -> str:
    """How many seeds: once where all cells agree, else one figure a factor."""
    numbers = [line.cells[factor].num_seeds if factor in line.cells else 0 for factor in block.factors]
    there = {number for number in numbers if number}
    if len(there) <= 1:
        return str(*there) or MISSING
    return "/".join(str(number) if number else MISSING for number in numbers)


def _compared(compared: Compared) -> str:
    difference = compared.difference
    sure = f"p {difference.p:.3f} by exact sign flips" if difference.p is not None else "too few seeds for a test"
    return (
        f"{compared.left} against {compared.right}, factor {compared.imbalance_factor:g}: {difference.mean:+.1f}, "
        f"95 % interval {difference.low:.1f} to {difference.high:.1f}, {sure} ({difference.num_pairs} seeds, paired)."
    )


def _by_group(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group if row.group == "published" else f"ours, preset {row.group}", []).append(row)
    return list(groups.items())


def _html_cell(text: str, best: bool) -> str:
    kind = "number missing" if text == MISSING else "number"
    return f'<td class="{kind}">{f"<b>{html.escape(text)}</b>" if best else html.escape(text)}</td>'


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown(text: str) -> str:
    for character in "\\|*<`[]":
        text = text.replace(character, f"\\{character}")
    return text


def _latex(text: str) -> str:
    special = {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "<": "$<$", ">": "$>$"}
    # brackets and stars after a line break would be its options
    special |= {"|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}"}
    return "".join(special.get(character, character) for character in text)


def _csv(rows: Sequence[dict[str, object]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([csv_cell(column) for column in columns])
    writer.writerows([csv_cell(row.get(column, "")) for column in columns] for row in rows)
    return text.getvalue()


def csv_cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets an apostrophe before it; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    value = value.replace("\r", "\n")  # which the writer quotes
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\n")) else value
