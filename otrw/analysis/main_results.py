"""The records that a reader wants first: whole runs of the presets, one line a method; and one's own runs. No torch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from otrw.records.experiments import Experiment


class Selected(NamedTuple):
    """What is shown, and how much is not."""

    experiments: list[Experiment]
    num_special: int
    """Records left out because they are short, or differ from their preset in more than how they were computed."""
    num_repeated: int
    """Records left out because the same cell is shown as computed in another way (precision, cached embeddings)."""


def main_results(experiments: Sequence[Experiment], is_own: Callable[[Experiment], bool]) -> Selected:
    """One line a method, where precision and cached embeddings do not make another method.

    A line's cell holds one way of computing it: one's own before a committed one, then the way that is nearest to the
    preset, then the one with more seeds.

    Args:
        experiments: all records, in the order in which they were found.
        is_own: whether a record is the reader's own; those are shown even if they are short or special.
    """
    kept = [experiment for experiment in experiments if is_own(experiment) or not (experiment.short or experiment.is_special)]
    cells: dict[tuple, dict[str, list[Experiment]]] = {}
    for experiment in kept:
        cell = (experiment.setting, experiment.imbalance_factor, experiment.preset, experiment.variant, experiment.recipe)
        cells.setdefault(cell, {}).setdefault(experiment.fingerprint, []).append(experiment)
    chosen: list[Experiment] = []
    for ways in cells.values():
        members = min(ways.values(), key=lambda way: (not any(map(is_own, way)), len(way[0].differences), -len(way)))
        chosen += [experiment._replace(line_hash=experiment.recipe) for experiment in members]
    return Selected(chosen, len(experiments) - len(kept), len(kept) - len(chosen))
