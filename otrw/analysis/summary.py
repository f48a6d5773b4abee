"""The end of a run for people, on one screen of 80 columns: errors, what they can tell apart, what to do next. No torch."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from otrw.analysis.statistics import mean_std, paired_difference
from otrw.config.tree import uses_meta
from otrw.config.variants import TITLES

CONTROLS = ("class_balanced_meta", "cross_entropy_meta", "class_balanced", "cross_entropy", "stage1")
"""What other variants are held against: the first of these that was trained."""
GROUPS = {"all": "error", "balanced": "balanced_error", "many": "many_error", "medium": "medium_error", "few": "few_error"}
"""Column: key of a result's figures."""
UNEQUAL = 1.5
"""Largest over smallest class of a test set, from which the mean of the classes' errors is shown too."""
VARIANTS_A_TABLE = 6
"""As many columns of the class table as 80 characters hold."""
NORMAL_QUANTILE = 1.96
"""Of 97.5 %: ends of a two-sided 95 % interval."""

Results = Mapping[str, dict]
"""{variant: its result.json} of one run."""


def print_result(
    console: Console,
    runs: Sequence[tuple[Path, Results]],
    *,
    show_classes: bool = False,
    next_commands: Sequence[tuple[str, str]] = (),
) -> None:
    """Print the end of a run, or of one run a seed.

    Args:
        console: where to.
        runs: folder and results of each seed's run; all have the same variants.
        show_classes: add a table of the error by class.
        next_commands: (a word on what it shows, the command as typed).
    """
    console.print()
    first = next(iter(runs[0][1].values()))
    spread = f", mean (std) over {len(runs)} seeds" if len(runs) > 1 else ""
    data = f"{first['dataset']}, imbalance {first['imbalance_factor']:g}"
    console.print(f"Test error in %{spread}: {data}, last epoch", highlight=False)
    groups = _groups([results for _, results in runs])
    if "balanced" in groups:
        console.print("of all test samples; balanced: mean over the classes, which are unequal there", highlight=False)
    if "many" in groups or "few" in groups:
        of_all = "" if "balanced" in groups else "of all classes, and "
        console.print(f"{of_all}of classes with many, medium and few training samples", highlight=False)
    console.print(_error_table([results for _, results in runs]))
    console.print()
    for line in (*_empty_groups([results for _, results in runs]), *verdict([results for _, results in runs])):
        console.print(line, highlight=False)
    if show_classes:
        for table in _class_tables([results for _, results in runs]):
            console.print(table)
    console.print()
    console.print("On disk, a folder a variant: result.json, metrics.jsonl, weights.parquet, model", highlight=False)
    others = ", ".join(folder.name.rpartition("-")[2] for folder, _ in runs[1:])
    beside = f", and beside it {others}" if others else ""
    console.print(f"  {runs[0][0]}{beside}", highlight=False, soft_wrap=True)
    if next_commands:
        console.print("Next")
    for label, command in next_commands:
        console.print(f"  {label:<7} {command}", highlight=False, soft_wrap=True, markup=False)


def verdict(seeds: Sequence[Results]) -> list[str]:
    """What the errors can tell apart, in sentences with their numbers.

    One seed: by the standard error of an error rate over n test samples (`standard_error`). Two independent rates differ
    by less than 1.96 sqrt(2) of it in 95 of 100 repetitions; on the same samples by less still, but the
    spread over seeds is not in it. Several seeds: the paired difference to the control with its 95 % interval.

    Args:
        seeds: results of each seed's run.

    Returns:
        Lines of at most 80 columns.
    """
    competing = [variant for variant in seeds[0] if not is_oracle(variant)]
    if len(competing) < 2:
        return []
    return _one_seed(seeds[0], competing) if len(seeds) == 1 else _against_control(seeds, competing)


def is_oracle(variant: str) -> bool:
    """Whether a variant knows which labels are wrong, so that it cannot be the best."""
    return variant.startswith("oracle")


def standard_error(error: float, num_samples: int) -> float:
    """Standard error of an error rate; both in percent.

    sqrt(p (1 - p) / (n + z^2)) at p = (errors + z^2 / 2) / (n + z^2), that of the Agresti-Coull interval (The American
    Statistician 1998), which is not 0 where a small test set shows no error.
    """
    added = NORMAL_QUANTILE**2
    share = (error / 100 * num_samples + added / 2) / (num_samples + added)
    return 100 * math.sqrt(share * (1 - share) / (num_samples + added))


def _one_seed(results: Results, competing: Sequence[str]) -> list[str]:
    best = min(competing, key=lambda variant: results[variant]["test"]["error"])
    error = results[best]["test"]["error"]
    num_samples = sum(map(sum, results[best]["confusion"]))
    own = standard_error(error, num_samples)
    noise = NORMAL_QUANTILE * math.sqrt(2) * own
    equal = [variant for variant in competing if variant != best and results[variant]["test"]["error"] - error <= noise]
    lines = [
        f"One seed, {num_samples} test samples: variants within {noise:.1f} points of each other are equal",
        f"(the best has {error:.1f} with a standard error of {own:.1f}).",
    ]
    if equal:
        lines[1] += f" So {TITLES[best]} is not told apart from:"
        lines = lines if len(lines[1]) <= 80 else [*lines[:1], *lines[1].replace(". So", ".\nSo").split("\n")]
        lines += [f"  {TITLES[variant]}" for variant in equal]
    return lines


def _against_control(seeds: Sequence[Results], competing: Sequence[str]) -> list[str]:
    control = next((variant for variant in CONTROLS if variant in competing), competing[0])
    lines = [f"Difference to {TITLES[control]} (paired, {len(seeds)} seeds, 95 % interval):"]
    errors = {variant: {i: results[variant]["test"]["error"] for i, results in enumerate(seeds)} for variant in competing}
    for variant in competing:
        difference = paired_difference(errors[variant], errors[control])
        if variant == control or (uses_meta(control) and not uses_meta(variant)):
            continue  # without the trusted images a variant has less to go on
        if difference is None or difference.low is None or difference.high is None:
            continue
        word = "better" if difference.high < 0 else "worse" if difference.low > 0 else "not told apart"
        interval = f"({difference.low:+.1f} to {difference.high:+.1f})"
        lines.append(f"  {TITLES[variant]:<30} {difference.mean:+6.1f} {interval:<17} {word}")
    return lines if len(lines) > 1 else []


def _error_table(seeds: Sequence[Results]) -> Table:
    table = _plain_table()
    table.add_column("", overflow="fold")
    groups = _groups(seeds)
    for name in groups:
        table.add_column(name, justify="right", overflow="fold")
    errors = {variant: mean_std([results[variant]["test"]["error"] for results in seeds])[0] for variant in seeds[0]}
    best = min((error for variant, error in errors.items() if not is_oracle(variant)), default=None)
    for variant, error in errors.items():
        cells = [_mean_cell([results[variant]["test"][key] for results in seeds]) for key in groups.values()]
        style = "bold" if error == best and not is_oracle(variant) else ""
        table.add_row(TITLES[variant], *cells, style=style)
    return table


def _groups(seeds: Sequence[Results]) -> dict[str, str]:
    tested = [sum(row) for row in next(iter(seeds[0].values()))["confusion"] if sum(row)]
    hidden = {"balanced"} if max(tested) < UNEQUAL * min(tested) else set()
    return {name: key for name, key in GROUPS.items() if name not in hidden and _has_values(seeds, key)}


def _has_values(seeds: Sequence[Results], key: str) -> bool:
    return any(result["test"].get(key) is not None for results in seeds for result in results.values())


def _empty_groups(seeds: Sequence[Results]) -> list[str]:
    """A sentence where these data have no class in a group, which has no column then."""
    names = [name for name in ("many", "medium", "few") if not _has_values(seeds, GROUPS[name])]
    sizes = next(iter(seeds[0].values()))["true_sizes"]
    return [f"No {' or '.join(names)}-shot classes here: they have {min(sizes)} to {max(sizes)} samples."] if names else []


def _class_tables(seeds: Sequence[Results]) -> list[Table]:
    """Error by class, a few variants a table, so that no header is cut."""
    variants, tables = list(seeds[0]), []
    first = seeds[0][variants[0]]
    for start in range(0, len(variants), VARIANTS_A_TABLE):
        table = _plain_table("Test error by class in %" + (", mean over seeds" if len(seeds) > 1 else ""))
        table.add_column("class", overflow="fold", max_width=14)
        table.add_column("samples", justify="right", overflow="fold")
        shown = variants[start : start + VARIANTS_A_TABLE]
        for variant in shown:
            table.add_column(variant.replace("_", " "), justify="right", overflow="fold", max_width=8)
        for label, name in enumerate(first["class_names"]):
            means = [_mean([results[variant]["test"]["class_error"][label] for results in seeds]) for variant in shown]
            cells = ["-" if mean is None else f"{mean:.1f}" for mean in means]
            table.add_row(name, str(first["true_sizes"][label]), *cells)
        tables.append(table)
    return tables


def _plain_table(title: str | None = None) -> Table:
    return Table(
        title=title, title_justify="left", title_style="", header_style="", box=None, padding=(0, 2, 0, 0), pad_edge=False
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean_std(known)[0] if known else None


def _mean_cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean, std = mean_std(known)
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ({std:.1f})"
