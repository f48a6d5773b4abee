"""Records as tables for people. No torch."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from otrw.config.variants import TITLES

MOST_CLASSES_SHOWN = 20


def print_result(console: Console, folder: Path, variants: dict[str, dict]) -> None:
    """The end of a run: error by variant, by group of classes and by class, and where everything is."""
    console.print()
    console.print(_error_table(variants))
    first = next(iter(variants.values()))
    if len(first["class_names"]) <= MOST_CLASSES_SHOWN:
        console.print(_class_table(variants))
    for line in (
        f"records      {folder}",
        f"curves       tensorboard --logdir {folder.parent}",
        "next         accelerate launch launch/train.py --help",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def _error_table(variants: dict[str, dict]) -> Table:
    any_row = next(iter(variants.values()))
    title = f"Test error, % (last epoch; {any_row['dataset']}, imbalance {any_row['imbalance_factor']:g})"
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("all", "many", "medium", "few"):
        table.add_column(name, justify="right")
    best = min(result["test"]["error"] for result in variants.values())
    for variant, result in variants.items():
        cells = [_percent(result["test"][key]) for key in ("error", "many_error", "medium_error", "few_error")]
        table.add_row(TITLES[variant], *cells, style="bold" if result["test"]["error"] == best else "")
    return table


def _class_table(variants: dict[str, dict]) -> Table:
    any_row = next(iter(variants.values()))
    table = Table(title="Test error by class, %", title_justify="left", title_style="bold")
    table.add_column("class", no_wrap=True, max_width=12)
    table.add_column("images", justify="right")
    for variant in variants:
        table.add_column(TITLES[variant] if variant == "stage1" else variant.replace("_", " "), justify="right", max_width=9)
    for label, name in enumerate(any_row["class_names"]):
        cells = [_percent(result["test"]["class_error"][label]) for result in variants.values()]
        table.add_row(name, str(any_row["true_sizes"][label]), *cells)
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
