"""python -m otrw COMMAND: every command of the checkout's scripts, also where only the package is installed.

accelerate launch -m otrw train --config cifar10_lt --data.root data
python -m otrw table
"""

import sys
from importlib import import_module

from otrw.commands.exit import exit_with_message
from otrw.errors import UserError

COMMANDS = {
    "train": "train on long-tailed data: stage 1, then every variant of stage 2 on top of it",
    "reproduce": "train the whole results table, as a grid of runs that goes on when repeated",
    "search": "search hyper-parameters with Ray Tune, here or on a Ray cluster",
    "table": "the results table: paper | earlier replication | ours",
    "figures": "figures of runs, searches and benchmarks, as PDF and PNG",
    "report": "one HTML page of a run, or of several to compare",
    "choose-trusted": "choose samples whose labels somebody should check, as a page to check them on",
    "audit": "the labels of a run's training set that are probably wrong, as a table and a page",
    "predict": "classes and probabilities of images, by the net of a run; --export writes it as a program",
}


def main() -> None:
    """Run the command that the first argument names."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m otrw COMMAND [options]\n")
        for command, purpose in COMMANDS.items():
            print(f"  {command:<14} {purpose}")
        print("\npython -m otrw COMMAND --help explains a command.")
        return
    if name not in COMMANDS:
        raise UserError(f"the command must be one of {', '.join(COMMANDS)}, got {name!r}; see python -m otrw --help")
    import_module(f"otrw.commands.{name.replace('-', '_')}").main(arguments)


if __name__ == "__main__":
    exit_with_message(main)
