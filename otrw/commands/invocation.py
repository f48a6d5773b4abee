"""Commands to type next, written as this one was called: from the checkout, or as ``python -m otrw``."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = {
    "train": "launch/train.py",
    "reproduce": "launch/reproduce.py",
    "search": "tuning/search.py",
    "table": "analysis/make_table.py",
    "figures": "analysis/make_figures.py",
    "report": "analysis/report.py",
    "choose-trusted": "launch/choose_trusted.py",
    "audit": "analysis/audit.py",
    "predict": "launch/predict.py",
}
"""Script of the checkout for each command of ``python -m otrw``."""


def command_line(name: str, arguments: Sequence[str] = (), *, num_processes: int = 1) -> str:
    """A command as it is typed here, quoted for a shell.

    Args:
        name: a key of `SCRIPTS`.
        arguments: what follows.
        num_processes: more than one are started by torchrun, which needs no file of settings.

    Returns:
        Such as ``python launch/train.py --run.seed 1`` or ``python -m otrw train --run.seed 1``.
    """
    root = _checkout(sys.argv[0])
    program = ["-m", "otrw", name] if root is None else [str(root / SCRIPTS[name])]
    launcher = ["python"] if num_processes == 1 else ["torchrun", "--standalone", f"--nproc_per_node={num_processes}"]
    return shlex.join([*launcher, *program, *arguments])


def train_command(arguments: Sequence[str]) -> str:
    """A training command on as many processes as this one has; on several machines the launcher is left to the user."""
    world_size, local = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if local < world_size:
        return command_line("train", arguments).replace("python ", "YOUR_LAUNCHER ", 1)
    return command_line("train", arguments, num_processes=world_size)


def resume_command(folder: Path) -> str:
    """The whole command that goes on with a run."""
    return train_command(["--run.resume", str(folder)])


def _checkout(called: str) -> Path | None:
    """Folder of the checkout whose script was called, written as it was typed; None for ``python -m otrw``."""
    path = Path(called)
    if not path.resolve().as_posix().endswith(tuple(f"/{script}" for script in SCRIPTS.values())):
        return None
    return path.parents[1] if len(path.parts) > 1 and ".." not in path.parts else path.resolve().parents[1]
