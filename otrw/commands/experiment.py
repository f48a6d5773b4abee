"""Run a study: every condition, method and seed, by one command that goes on when repeated.

python analysis/experiments/noise_tail.py --dry-run                        # what would run, what is done, how long it takes
python analysis/experiments/noise_tail.py --datasets digits --seeds 0 1 2 3 4 5 6 7
python analysis/experiments/noise_tail.py --datasets cifar10 cifar100 --data.root data --stage1.epochs 16

Runs go below --directory, each with one stage 1 for all methods; a stage 1 of the same settings that lies there already is
shared. Further options are settings of all runs, as for launch/train.py. Variants with cleanlab need pip install cleanlab.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from otrw.commands.grid_options import commit_command, grid_parser, parse, show_or_train
from otrw.grid.studies import STUDIES
from otrw.grid.study_jobs import study_jobs


def main(name: str, arguments: Sequence[str]) -> None:
    """Parse, plan, show the plan or carry it out.

    Args:
        name: of the study.
        arguments: options, and settings of all runs.

    Raises:
        UserError: for bad input.
    """
    study = STUDIES[name]
    cells = [cell.name for cell in study.cells]
    command = f"{name}.py --{study.asks_for} FILE" if study.asks_for else f"{name}.py"
    images = [dataset for dataset in study.datasets if dataset != "digits"]
    examples = str(__doc__).replace("noise_tail.py", command).replace("--datasets digits", f"--datasets {study.datasets[0]}")
    examples = examples.replace("cifar10 cifar100", " ".join(images[:1] if study.asks_for else images))
    parser = grid_parser(f"{study.title}.\n\n{examples}")
    add = parser.add_argument
    add("--datasets", nargs="+", choices=study.datasets, default=[study.datasets[0]], help="default: the first")
    add("--cells", nargs="+", default=(), metavar="NAME", help=f"any of {', '.join(cells)} (default: all)")
    options, overrides = parse(parser, arguments, "is set by the study; use --datasets, --seeds or --directory")
    jobs = study_jobs(study, options.datasets, options.seeds, options.cells, overrides)
    directory = Path(options.directory).expanduser() / study.folder
    print(f"{study.title}: {len(set(options.cells) or cells)} of {len(cells)} conditions")
    next_commands = (
        ("table", shlex.join(["python", "analysis/make_table.py", "--study", name, str(directory)])),
        ("figure", shlex.join(["python", "analysis/make_figures.py", "--study", name, str(directory)])),
        ("commit", commit_command(directory, study.folder)),
    )
    show_or_train(jobs, directory, options, shlex.join(["python", sys.argv[0], *arguments]), next_commands)
