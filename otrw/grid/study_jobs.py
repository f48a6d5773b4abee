"""A study's conditions as jobs of the grid. No torch."""

from collections.abc import Sequence

from otrw.config.known_data import KNOWN_DATA
from otrw.errors import UserError, check
from otrw.grid.jobs import Job, make_job
from otrw.grid.studies import FACTORS, Cell, Study

MOST_NAME = 150  # characters of a folder's name


def study_jobs(
    study: Study, datasets: Sequence[str], seeds: Sequence[int], cells: Sequence[str] = (), overrides: Sequence[str] = ()
) -> list[Job]:
    """The jobs of a study, seed by seed.

    Args:
        study: the question.
        datasets: some of its data sets.
        seeds: of the runs.
        cells: names of conditions; none takes all.
        overrides: settings of all runs, as on a command line; own variants make runs of their own on the same stage 1.

    Raises:
        UserError: for settings that cannot be, or one that the study asks for and does not get.
    """
    given = {piece.split("=")[0].removeprefix("--") for piece in overrides if piece.startswith("--")}
    asked, overrides = _asked_for(study, overrides)
    for path in sorted((given - {study.asks_for}) & {path for cell in study.cells for path in cell.settings}):
        raise UserError(f"--{path} must not be given for {study.name}, whose conditions differ by it; choose some with --cells")
    known = [cell.name for cell in study.cells]
    for name in cells:
        check(name in known, "--cells", name, f"be one of {', '.join(known)}")
    if not any(cells_of(study, dataset, cells) for dataset in datasets):
        raise UserError(f"--cells must be conditions of {', '.join(datasets)}, got {', '.join(cells)}; see --datasets")
    jobs = []
    for seed in seeds:
        for dataset in datasets:
            for cell in cells_of(study, dataset, cells):
                name = f"{dataset}_lt-if{FACTORS[dataset]:g}-{cell.name}-seed{seed}"
                has_own = "variants" in given
                arguments = [*cell_arguments(study, cell, asked), *([] if has_own else _variants(study, cell)), *overrides]
                job = make_job(KNOWN_DATA[dataset].preset, dataset, FACTORS[dataset], seed, arguments, name)
                jobs.append(job._replace(name=f"{name}-{'-'.join(job.config.variants)}"[:MOST_NAME]) if has_own else job)
    return jobs


def cells_of(study: Study, dataset: str, names: Sequence[str] = ()) -> list[Cell]:
    """The conditions that a data set has; of those named, where any are."""
    own = [cell for cell in study.cells if not cell.datasets or dataset in cell.datasets]
    return [cell for cell in own if not names or cell.name in names]


def cell_arguments(study: Study, cell: Cell, asked: str = "") -> list[str]:
    """The settings of a cell as a command line, behind what the study asked for."""
    settings = (*study.settings.items(), *cell.settings.items())
    return [
        f"--{path}={asked if path == study.asks_for else ''}{'null' if value is None else value}" for path, value in settings
    ]


def _asked_for(study: Study, overrides: Sequence[str]) -> tuple[str, list[str]]:
    """The value that the study asks for, and the other overrides."""
    if not study.asks_for:
        return "", list(overrides)
    option, asked, others = f"--{study.asks_for}", "", []
    pieces = iter(overrides)
    for piece in pieces:
        if piece == option:
            asked = next(pieces, "")
        elif piece.startswith(f"{option}="):
            asked = piece.removeprefix(f"{option}=")
        else:
            others.append(piece)
    if not asked:
        raise UserError(
            f"{option} must be given for {study.name}, got none; CIFAR-N's is CIFAR-10_human.pt or CIFAR-100_human.pt"
        )
    ends = tuple(str(cell.settings[study.asks_for]) for cell in study.cells)
    check(not asked.endswith(ends), option, asked, "stand without what the conditions put behind it; choose with --cells")
    return asked, others


def _variants(study: Study, cell: Cell) -> list[str]:
    """The study's variants; without wrong labels there is no oracle."""
    is_clean = cell.settings.get("data.label_noise", study.settings.get("data.label_noise")) == "none"
    names = [name for name in study.variants if not (is_clean or study.name == "subgroups") or not name.startswith("oracle")]
    return [f"--variants={','.join(names)}"]
