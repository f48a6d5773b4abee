"""The files of a search, and what they say: which settings are best. No ray, no torch.

A search's folder holds search.yaml (what was asked for), config.yaml (the searched config, reloadable), proposed.jsonl and
trials.jsonl (one line a trial: handed out, over), stage1/HASH/ and trials/TRIAL/ (runs as in `otrw.records.ledger`), locks/,
and at the end best.yaml.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from otrw.config import to_dict
from otrw.errors import UserError
from otrw.records import ledger
from otrw.tuning.proposals import Proposal
from otrw.tuning.space import settings_config

MOST_SHOWN = 10


class Ranked(NamedTuple):
    """A setting with its value: the mean over its seeds."""

    setting: int
    settings: dict
    mean: float
    values: list[float]


def read_proposed(folder: Path) -> list[Proposal]:
    """Trials that were handed out, in their order; a cut-off last line is dropped from the file. Raises UserError."""
    path = folder / "proposed.jsonl"
    lines = ledger.read_lines(path)
    kinds = {"trial": str, "setting": int, "settings": dict, "seed": int}
    for number, line in enumerate(lines, start=1):
        _check_line(path, number, line, kinds)
    ledger.keep_lines(path, len(lines))
    return [Proposal(**{key: line[key] for key in kinds}) for line in lines]


def read_outcomes(folder: Path) -> dict[str, dict]:
    """Lines of the trials that are over, by trial; a cut-off last line is dropped from the file. Raises UserError."""
    path = folder / "trials.jsonl"
    lines = ledger.read_lines(path)
    kinds = {"trial": str, "state": str, "settings": dict, "epochs": int, "folder": str, "seed": int}
    for number, line in enumerate(lines, start=1):
        _check_line(path, number, line, kinds)
        needs_value = line["state"] == "finished"
        if not isinstance(line.get("value"), int | float) and (needs_value or line.get("value") is not None):
            raise UserError(f"{path}: line {number}: value must be a number, got {str(line.get('value'))[:40]!r}")
    ledger.keep_lines(path, len(lines))
    return {line["trial"]: line for line in lines}


def _check_line(path: Path, number: int, line: dict, kinds: dict[str, type]) -> None:
    for key, kind in kinds.items():
        if not isinstance(line.get(key), kind):
            raise UserError(f"{path}: line {number}: {key} must be of type {kind.__name__}, got {str(line.get(key))[:40]!r}")
    if not line["trial"].partition("-")[0].isdigit():
        raise UserError(f"{path}: line {number}: trial must begin with the number of its setting, got {line['trial'][:40]!r}")


def own_epochs(search: dict, settings: dict) -> tuple[int, int]:
    """(epochs of a round, rounds) of a trial's stage 2: the search's, but for what the trial's settings change."""
    stage2 = search["config"]["stage2"]
    rounds = settings.get("stage2.rounds", stage2.get("rounds", 1)) if search["row"].startswith("ot") else 1
    return int(settings.get("stage2.epochs", stage2["epochs"])), int(rounds)


def ranking(outcomes: dict[str, dict], num_seeds: int) -> list[Ranked]:
    """Settings whose trials all finished, best first. Early stops end a setting with all its seeds (`SettingHalving`)."""
    groups: dict[str, list[dict]] = {}
    for line in outcomes.values():
        if line["state"] == "finished":
            groups.setdefault(line["trial"].partition("-")[0], []).append(line)
    ranked = [
        Ranked(int(number), lines[0]["settings"], statistics.fmean(values), values)
        for number, lines in groups.items()
        if len(lines) == num_seeds
        for values in [[line["value"] for line in lines]]
    ]
    return sorted(ranked, key=lambda setting: (setting.mean, setting.setting))


def write_best(folder: Path, search: dict, best: Ranked) -> None:
    """best.yaml: the config that the search was given, with the found settings, ready for launch/train.py."""
    base = ["--config", str(folder / "config.yaml")]
    config = to_dict(settings_config(base, search["given"] | best.settings))
    config["run"] |= {"name": None, "resume": None}
    variants = config["variants"]
    config["variants"] = variants if search["row"] in variants else [*variants, search["row"]]
    ledger.write_yaml(folder / "best.yaml", config)


def print_outcomes(console: Console, search: dict, outcomes: dict[str, dict], num_expected: int) -> list[Ranked]:
    """The end of a search: the best settings on the validation set, and what became of all trials."""
    num_seeds = len(search["seeds"])
    ranked = ranking(outcomes, num_seeds)
    paths = list(search["space"])
    names = short_names(paths)
    number = f"{search['num_validation']} held-out images" if search["num_validation"] else "held-out samples"
    title = f"Best settings by {search['metric']} ({number})"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("trial", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    for path in paths:
        table.add_column(names[path], justify="right")
    for setting in ranked[:MOST_SHOWN]:
        value = f"{setting.mean:.2f}" + (f" +- {statistics.stdev(setting.values):.2f}" if num_seeds > 1 else "")
        cells = [format_value(setting.settings[path]) for path in paths]
        table.add_row(f"{setting.setting:04d}", value, *cells, style="bold" if setting is ranked[0] else "")
    console.print()
    if ranked:
        console.print(table)
    count = count_states(outcomes)
    noun = f"trials ({num_seeds} seeds a setting)" if num_seeds > 1 else "trials"
    console.print(
        f"{len(outcomes)} of {num_expected} {noun}: {count('finished')} finished, {count('stopped')} stopped early, "
        f"{count('failed')} failed",
        highlight=False,
    )
    return ranked


def count_states(outcomes: dict[str, dict]) -> Callable[[str], int]:
    """Function: state -> number of trials that ended in it."""
    states = [line["state"] for line in outcomes.values()]
    return states.count


def short_names(paths: list[str]) -> dict[str, str]:
    """Last part of each dotted path, or the whole where two end alike."""
    last = [path.rpartition(".")[2] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def format_value(value: object) -> str:
    """A setting's value as text of few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
