"""The records of a study, for the commands that show them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from otrw.analysis.study import StudyTable, study_tables
from otrw.commands.checkout import STUDY_RECORDS
from otrw.errors import UserError
from otrw.grid.studies import STUDIES
from otrw.records.experiments import load_experiments


def read_study(name: str, folders: Sequence[Path], reference: str | None = None) -> list[StudyTable]:
    """The tables of a study; damaged records are said to be on stderr.

    Args:
        name: of the study.
        folders: of records; none takes the committed ones and those in runs/.
        reference: variant that the others are held against; None takes the usual one.

    Raises:
        UserError: where there is no such study, or no record of it.
    """
    if name not in STUDIES:
        raise UserError(f"--study must be one of {', '.join(STUDIES)}, got {name!r}")
    study = STUDIES[name]
    usual = [root for root in (Path("runs", study.folder), STUDY_RECORDS / study.folder) if root.is_dir()]
    loaded = load_experiments(list(folders) or usual)
    for line in (*loaded.problems, *loaded.summary()):
        print(line, file=sys.stderr)
    return study_tables(study, loaded.experiments, reference)
