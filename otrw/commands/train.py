"""Train on long-tailed data: stage 1 once, then every row of stage 2 on top of it.

accelerate launch launch/train.py                                     # the digits example, under a minute
accelerate launch launch/train.py --config cifar10_lt --data.root data --ot.epsilon 0.05
accelerate launch --config_file launch/accelerate/cpu_2.yaml launch/train.py --config cifar10_lt
python launch/train.py --print_config                                 # every setting, as YAML
accelerate launch launch/train.py --run.resume runs/NAME              # go on after an interruption
"""

import sys

from rich.console import Console

from otrw import collectives
from otrw.cli import exit_with_message, parse_config
from otrw.summary import print_result
from otrw.train import run


def main() -> None:
    """Parse, train, print the table."""
    config = parse_config(sys.argv[1:], description=__doc__ or "")
    console = Console() if collectives.is_main() else None
    result = run(config, console=console)
    if console is not None:
        print_result(console, result.folder, result.rows)
    collectives.shut_down()


if __name__ == "__main__":
    exit_with_message(main)
