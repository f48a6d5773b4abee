"""Search hyper-parameters with Ray Tune on a held-out set, on this machine or a Ray cluster; end with a config to train.

python tuning/search.py                                                 # the digits example, about two minutes
python tuning/search.py --config cifar10_lt --data.root data --space mixing_epsilon --algorithm grid
python tuning/search.py --algorithm optuna --trials 40 --seeds 3
python tuning/search.py --address auto --storage /shared/searches       # on a node of a running Ray cluster
python tuning/search.py --resume searches/NAME                          # go on after an interruption
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from otrw.commands.invocation import command_line
from otrw.errors import RunEndedError, UserError, UserInterrupt
from otrw.tuning.plan import describe, make_plan


def main(arguments: Sequence[str]) -> None:
    """Parse, search, print the best."""
    plan = make_plan(arguments, description=__doc__ or "")
    console = Console(width=80) if not sys.stdout.isatty() else Console()
    for line in describe(plan):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    go_on = command_line("search", ["--resume", str(plan.folder)])
    from otrw.tuning.ray_search import run_search  # ray: 2 s

    try:
        found = run_search(plan.folder, plan.search, console, plan.address)
    except UserError:
        if plan.is_new and not (plan.folder / "stage1").exists():  # bad input leaves nothing behind
            shutil.rmtree(plan.folder)
        raise
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "signal", None)
        raise UserInterrupt(command=go_on, signal_number=number) from None
    except RunEndedError as ended:
        ended.command = go_on
        raise
    if found:
        best = plan.folder / "best.yaml"
        shown = best.relative_to(Path.cwd()) if best.is_relative_to(Path.cwd()) else best
        command = command_line("train", ["--config", str(shown), "--variants", f"stage1,{plan.search['row']}"])
        console.print(f"train it     {command}", highlight=False, markup=False, soft_wrap=True)
    sys.exit(0 if found else 1)
