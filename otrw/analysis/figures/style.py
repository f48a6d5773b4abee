"""One look for all figures: colours that the colour-blind tell apart, and marks and hatches that survive a grey print."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from otrw.errors import UserError

COLOR_MAP = "cividis"  # the same to every kind of colour vision, and in grey
SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
}
FORMATS = ("pdf", "png")
DOTS_PER_INCH = 160
MOST_DOTS = 1700
"""Across a figure."""
NO_DATES: Mapping[str, Mapping] = {"pdf": {"CreationDate": None}, "png": {"Software": None}}


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, laid out without overlaps."""
    return Figure(figsize=(width, height), layout="constrained")


def add_title(figure: Figure, title: str) -> None:
    """What is shown, on the left; a note in parentheses at the end goes on a second line."""
    name, opening, note = title.partition(" (preset ")
    text = f"{name}\n{opening.lstrip()}{note}" if note else title
    figure.suptitle(text, x=0.01, ha="left", fontsize=9.5, fontweight="bold", linespacing=1.4)


def plain_logarithmic(axis: Axis) -> None:
    """A logarithmic axis with 0.5 rather than 5 x 10^-1 at its ticks."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, folder: Path, name: str, formats: tuple[str, ...]) -> list[Path]:
    """Write NAME.pdf, NAME.png, blanks in it as hyphens; the same figure gives the same bytes."""
    paths, name = [], "-".join(name.split())
    for kind in formats:
        path = folder / f"{name}.{kind}"
        temporary = path.with_name(f".{name}.part.{kind}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            smaller: dict[str, Any] = {"pil_kwargs": {"optimize": True}} if kind == "png" else {}
            dots = min(DOTS_PER_INCH, MOST_DOTS / figure.get_figwidth())
            figure.savefig(temporary, format=kind, dpi=dots, metadata=dict(NO_DATES[kind]), **smaller)
            temporary.replace(path)
        except OSError as error:
            raise UserError(f"--output must be writable, got {str(folder)!r} ({error.strerror})") from None
        paths.append(path)
    return paths


def styled() -> matplotlib.RcParams:
    """The settings, to be applied in `matplotlib.rc_context`."""
    return matplotlib.RcParams(SETTINGS)
